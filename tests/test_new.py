"""The first look at a folder: it describes what is there, and convert accepts the config it writes."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import as_voc, as_yolo, checkout, make_environment, read_coco, write_coco
from PIL import Image

from pipeline import convert, new
from pipeline.boxes import YoloDataset
from pipeline.config.data import Convert, Ratios
from pipeline.config.loading import load
from pipeline.config.tiles import Tiles
from pipeline.errors import ConfigError, DataError
from pipeline.new import choices, contents
from pipeline.run import Run


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def look(source: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What `new` prints, by topic; its last line is under `new`."""
    said = new.main(source)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    return {
        "source": lines[0],
        **{line.partition(" ")[0]: line.partition(" ")[2].strip() for line in lines[1:]},
        "new": said,
    }


def converted(name: str) -> str:
    """Convert with the written config."""
    config = Path(f"configs/{name}.yaml")
    loaded = load(config)
    return convert.main(loaded.convert, Run(Path("runs").absolute() / name), loaded.seed, 1)


def draw(path: Path, seed: int, size: tuple[int, int] = (64, 64)) -> None:
    """Draw a unique image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(path)


def yolo(folder: Path, labels: dict[str, list[str]], names: list[str], size: tuple[int, int] = (64, 64)) -> Path:
    """A YOLO dataset without splits, with the given label lines for each image."""
    for number, (name, lines) in enumerate(labels.items()):
        draw(folder / name, number, size)
        (folder / name).with_suffix(".txt").write_text("\n".join(lines))
    (folder / "classes.txt").write_text("\n".join(names) + "\n")
    return folder


CENTRE = "0.5 0.5 0.5 0.5"


# --- Its description ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo"])
def test_it_describes_what_is_there(
    kind: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    if kind == "coco":
        shutil.copytree(source, folder)
    else:
        (as_voc if kind == "voc" else as_yolo)(source, folder)
    count: Counter[str] = Counter()
    for split in ("train", "val", "test"):
        data = read_coco(source, split)
        names = {category["id"]: category["name"] for category in data["categories"]}
        count.update(names[box["category_id"]] for box in data["annotations"])
    said = look(folder, capsys)
    assert said["source"] == "mine" and said["format"] == kind
    assert re.match(r"14, all 320x320\b", said["images"])
    assert said["splits"] == "train 8, val 3, test 3, as the dataset gives them"
    assert dict(pair.rsplit(" ", 1) for pair in said["classes"].split(", ")) == {
        name: str(number) for name, number in count.items()
    }
    assert said["objects"].startswith(f"{count.total()}; ")
    assert said["new"] == "wrote configs/mine.yaml; next: make all CONFIG=configs/mine.yaml"
    assert f"14 images (train 8, val 3, test 3), {count.total()} boxes" in converted("mine")
    loaded = load(Path("configs/mine.yaml")).convert
    assert (str(loaded.source), loaded.format, loaded.split) == ("mine", kind, "given")
    assert set(loaded.classes) == set(count)


def test_sizes_refer_to_the_network_input(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boxes = [box["bbox"] for split in ("train", "val", "test") for box in read_coco(source, split)["annotations"]]
    said = look(source, capsys)
    imgsz = load(Path("configs/source.yaml")).train.imgsz
    sides = sorted((w * h) ** 0.5 * imgsz / 320 for _, _, w, h in boxes)
    figures = [float(number) for number in re.findall(r"([\d.]+) px", said["objects"].partition("half")[2])]
    assert len(figures) >= 3
    for figure, share in zip(figures[:3], (0.5, 0.1, 0.9), strict=True):
        assert figure == pytest.approx(
            np.quantile(sides, share, method="nearest"), abs=2
        )  # adjacent values in a short list


def test_oddities_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {f"{letter}.jpg": [f"0 {CENTRE}", "1 0.5 0.5 1 1", "2 0.9 0.5 0.5 0.5"] for letter in "abcdefgh"}
    labels["h.jpg"] = []
    said = look(yolo(tmp_path / "odd", labels, ["helmet", "Helmets", "3", "nobody"]), capsys)
    assert "'helmet' and 'Helmets' may be one class" in said["to"]
    assert "'3': numbers instead of names" in said["names"]
    assert "left out, because no object has it: 'nobody'" in said["names"]
    assert "7 images with a box as large as the image, such as a.jpg" in said["labels"]
    assert "7 clipped, such as a.txt: line 3 (3): " in said["labels"]
    assert said["images"].endswith("1 without an object")
    assert "helmet 7" in said["missing"]
    assert converted("odd").startswith("8 images")


def test_the_suggested_classes_merge_two_names_for_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {f"{letter}.jpg": [f"0 {CENTRE}", "2 0.2 0.2 0.1 0.1"] for letter in "abcdefgh"}
    labels["h.jpg"] = ["1 0.2 0.2 0.1 0.1"]
    folder = yolo(tmp_path / "typo", labels, ["RBC", "RBCs", "a: b"])
    said = look(folder, capsys)
    [suggested] = re.findall(
        r"'RBC' and 'RBCs' may be one class; if so, replace `classes` under `convert` by (.*)", said["to"]
    )
    classes = yaml.safe_load(suggested)
    assert classes == {"RBC": "RBC", "RBCs": "RBC", "a: b": "a: b"}
    ratios = Ratios(train=0.6, val=0.2, test=0.2)
    run = Run(tmp_path / "runs" / "typo")
    convert.main(Convert(source=folder, classes=classes, split=ratios), run, 0, 1)
    assert YoloDataset.read(run.dataset / "data.yaml").names == ("RBC", "a: b")


def test_a_drawn_split_without_groups_says_how_to_keep_groups_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {f"{letter}.jpg": [f"0 {CENTRE}"] for letter in "abcdefghij"}
    said = look(yolo(tmp_path / "plain", labels, ["x"]), capsys)
    assert said["groups"].startswith("none by the names; if several images show one video, board or patient, set")
    assert "# group_by: ..." in Path("configs/plain.yaml").read_text()
    assert converted("plain").startswith("10 images")


def test_names_cannot_inject_into_the_terminal_or_the_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["no", "1.5", "a: b", "# x", "it's", 'say "x"', "\x1b[31mred", "- y", "{z}", "null", "täst", "~"]
    folder = tmp_path / "names"
    for number in range(4):
        draw(folder / f"{number}.jpg", number)
    boxes = [[4.0 * x, 8.0, 4.0 * x + 3, 40.0] for x in range(len(names))]
    shapes: list[dict[str, Any]] = [
        {"label": name, "points": [box[:2], box[2:]], "shape_type": "rectangle", "flags": {}, "group_id": None}
        for name, box in zip(names, boxes, strict=True)
    ]
    for number in range(4):
        described: dict[str, Any] = {
            "version": "5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"{number}.jpg",
            "imageData": None,
            "imageHeight": 64,
            "imageWidth": 64,
        }
        (folder / f"{number}.json").write_text(json.dumps(described))
    new.main(folder)
    assert "\x1b" not in capsys.readouterr().out
    assert set(load(Path("configs/names.yaml")).convert.classes) == set(names)
    converted("names")


# --- Its choices ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "image", "imgsz"),
    [(0.5, 640, 320), (0.04, 640, 640), (0.025, 2000, 960), (0.004, 2000, 1280), (0.01, 300, 320), (0.01, 600, 640)],
)
def test_imgsz_is_large_enough_for_the_objects(tmp_path: Path, side: float, image: int, imgsz: int) -> None:
    labels = {f"{letter}.jpg": [f"0 0.5 0.5 {side} {side}"] for letter in "abcd"}
    seen = contents.look(yolo(tmp_path / "size", labels, ["x"], (image, image // 2)), "auto")
    # Half as high as wide: the square root of the area is 0.7 of the width.
    assert choices.choose(seen).imgsz == imgsz
    assert seen.relative_sides == pytest.approx([side * 0.5**0.5] * 4, rel=0.01)


def test_tiles_are_chosen_if_no_size_shows_the_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labels = {f"{letter}.jpg": ["0 0.5 0.5 0.01 0.01"] for letter in "abcd"}  # 20 x 10 px, 14.1 each way
    new.main(yolo(tmp_path / "small", labels, ["x"], (2000, 1000)))
    config = load(Path("configs/small.yaml"))
    assert config.tiles == Tiles(size="auto", overlap="auto")
    assert config.train.imgsz == 640
    # 14.1 px become 16 of 640 in tiles of 564, and 544 is the largest multiple of 32 up to that.
    assert "now 544: one object in ten is under 14 px" in Path("configs/small.yaml").read_text()
    larger = {name: [line.replace("0.01", "0.03") for line in lines] for name, lines in labels.items()}
    new.main(yolo(tmp_path / "large", larger, ["x"], (2000, 1000)))
    assert load(Path("configs/large.yaml")).tiles is None


ROBOFLOW = [f"photo{number}_jpg.rf.{number * 7 + copy:032x}.jpg" for number in range(6) for copy in range(3)]
FRAMES = [f"street{chr(97 + number)}_frame_{index:05d}.jpg" for number in range(6) for index in range(4)]
NUMBERED = [f"board-{chr(97 + number)}_{index}.jpg" for number in range(8) for index in range(3)]


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (ROBOFLOW, 6),
        (FRAMES, 6),
        (NUMBERED, 8),
        ([f"in/{name}" for name in FRAMES], 6),
        ([f"image_{number:04d}.jpg" for number in range(20)], 0),  # the same name for all
        ([f"{number:08d}.jpg" for number in range(20)], 0),
        ([f"photo{number}_jpg.rf.{number:032x}.jpg" for number in range(20)], 0),  # no copies
        ([f"{chr(97 + number)}.jpg" for number in range(20)], 0),
    ],
    ids=["roboflow", "frames", "numbered", "in a folder", "one name", "numbers", "no copies", "letters"],
)
def test_groups_are_recognised_by_name(names: list[str], groups: int, tmp_path: Path) -> None:
    labels = {name: [f"0 {CENTRE}"] for name in names}
    chosen = choices.choose(contents.look(yolo(tmp_path / "groups", labels, ["x"]), "auto"))
    assert (chosen.groups, chosen.group_by is not None) == (groups, groups > 0)


def test_long_names_are_grouped_in_no_noticeable_time() -> None:
    """In processor time, which other processes do not add to: `re` does not count its steps."""
    for name in ("a" * 1500, "a/" + "b-" * 750, "1" * 1500):
        start = time.process_time()
        assert not any(re.search(pattern, name) for pattern in choices.PATTERNS)
        assert time.process_time() - start < 2  # seconds: 0.1, or 10 and more where the match may begin anywhere


def test_groups_stay_in_one_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look(yolo(tmp_path / "films", {name: [f"0 {CENTRE}"] for name in FRAMES}, ["x"]), capsys)
    converted("films")
    [drawn] = Path("data/splits").glob("*.json")
    splits: dict[str, set[str]] = {}
    for name, split in json.loads(drawn.read_text())["images"].items():
        splits.setdefault(name.partition("_")[0], set()).add(split)
    assert len(splits) == 6 and all(len(found) == 1 for found in splits.values())


def test_names_after_classes_are_not_groups(tmp_path: Path) -> None:
    """`cat_001.jpg`: keeping each group in one split would leave the others without that class."""
    animals = ["cat", "dog", "cow", "hen", "pig", "fox"]
    labels = {
        f"{name}_{number:03d}.jpg": [f"{index} {CENTRE}"] for index, name in enumerate(animals) for number in range(12)
    }
    chosen = choices.choose(contents.look(yolo(tmp_path / "animals", labels, animals), "auto"))
    assert chosen.group_by is None


@pytest.mark.parametrize("number", [2, 3, 10])
def test_few_images_get_splits_that_can_be_drawn(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {f"{chr(97 + index)}.jpg": [f"0 {CENTRE}"] for index in range(number)}
    said = look(yolo(tmp_path / "few", labels, ["x"]), capsys)
    assert "because the dataset gives none" in said["splits"] and "more images: with fewer than 100" in said["missing"]
    assert converted("few").startswith(f"{number} images (train ")


def test_splits_that_do_not_suffice_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {f"{split}/{number}.jpg": [f"0 {CENTRE}"] for split in ("train", "test") for number in range(3)}
    said = look(yolo(tmp_path / "two", labels, ["x"]), capsys)
    assert said["splits"].endswith(", because the dataset gives train 3, test 3, but no val")


@pytest.mark.parametrize("missing", ["val", "train"])
def test_unusable_splits_are_replaced_by_drawn_ones(
    missing: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = read_coco(source, missing)
    gone = {image["file_name"] for image in data["images"]}
    (source / "annotations" / f"{missing}.json").unlink()
    for name in gone:
        (source / "images" / name).unlink()
    said = look(source, capsys)
    assert said["splits"].startswith("drawn (train 70%, val 15%, test 15%), because the dataset gives ")
    converted("source")


def test_images_in_two_splits_are_reported(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(source / "images" / "train_0001.jpg", source / "images" / "val_0001.jpg")
    said = look(source, capsys)
    assert "1 group of identical images in more than one split" in said["splits"]
    assert "leaks: report" in Path("configs/source.yaml").read_text()


def test_a_missing_test_split_is_reported(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "annotations" / "test.json").unlink()
    for path in (source / "images").glob("test_*"):
        path.unlink()
    assert "a test split" in look(source, capsys)["missing"]


# --- What the user has to decide ------------------------------------------------------------------


def test_what_convert_would_refuse_is_listed_as_to_do(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = read_coco(source, "train")
    data["annotations"][0]["bbox"] = [900, 900, 5, 5]
    write_coco(source, "train", data)
    (source / "images" / "train_0003.jpg").write_bytes(b"no image")
    draw(source / "images" / "extra.jpg", 99)
    said = new.main(source)
    [to_do] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  to do")]
    assert (
        "1 image without a label, images/extra.jpg: label it, leave it out with a fix (docs/fiftyone.md), or write `unlabelled: background` if"
        in to_do
    )
    assert "2 labels or images cannot be used, such as " in to_do
    assert (
        said
        == "wrote configs/source.yaml; do what is listed under `to do`, then run make all CONFIG=configs/source.yaml"
    )
    with pytest.raises(DataError, match="no annotation"):
        converted("source")
    # Follow the advice.
    config = Path("configs/source.yaml")
    config.write_text(config.read_text().replace("unlabelled: error", "unlabelled: background"))
    with pytest.raises(DataError):
        converted("source")
    config.write_text(config.read_text().replace("on_problem: fix", "on_problem: drop"))
    assert "1 image dropped" in converted("source")


def test_no_config_is_overwritten(source: Path) -> None:
    Path("configs").mkdir()
    Path("configs/source.yaml").write_text("mine\n")
    with pytest.raises(ConfigError, match=r"configs/source\.yaml: already exists and was not changed"):
        new.main(source)
    assert Path("configs/source.yaml").read_text() == "mine\n"
    new.main(source, Path("configs/other.yaml"))
    assert converted("other")


def test_shapes_without_a_box_are_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "points"
    for number in range(5):
        draw(folder / f"{number}.jpg", number)
        points, kind = ([[8, 8]], "point") if number < 2 else ([[8, 8], [30, 40]], "rectangle")
        shape = {"label": "cat", "points": points, "shape_type": kind, "group_id": None}
        described = {"shapes": [shape], "imagePath": f"{number}.jpg", "imageWidth": 64, "imageHeight": 64}
        (folder / f"{number}.json").write_text(json.dumps(described))
    said = look(folder, capsys)
    assert said["images"] == "3, all 64x64"
    assert ("2 images without a box but with other shapes, such as 0.jpg (it has no box, but shape 1") in said["to"]
    assert "2 images set aside" in converted("points")


@pytest.mark.parametrize(
    ("number", "words"), [(3, "left out, because no object has it"), (13, "without a usable box, but not left out")]
)
def test_classes_without_an_object_are_reported_truthfully(
    number: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {f"{letter}.jpg": [f"{index} {CENTRE}" for index in range(number)] for letter in "abcd"}
    names = [f"kind {chr(97 + index)}" for index in range(number + 1)]
    assert f"{words}: {names[-1]!r}" in look(yolo(tmp_path / "many", labels, names), capsys)["names"]
    converted("many")
    receipt = json.loads(Path("runs/many/dataset/receipt.json").read_text())
    assert len(receipt["classes"]) == number + (number > 12)


@pytest.mark.parametrize("form", ["coco", "csv"])
def test_a_class_whose_boxes_are_all_unusable_stays_in_the_config(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "flat"
    rows = [f"{number}.jpg,cat,10,10,40,50" for number in range(6)] + ["5.jpg,dot,5,5,5,5"]
    for number in range(6):
        draw(folder / f"{number}.jpg", number)
    if form == "csv":
        (folder / "a.csv").write_text("\n".join(["filename,class,xmin,ymin,xmax,ymax", *rows, ""]))
    else:
        boxes = [{"image_id": number, "category_id": 1, "bbox": [10, 10, 30, 40]} for number in range(6)]
        boxes.append({"image_id": 5, "category_id": 9, "bbox": [5, 5, 0, 0]})
        data = {
            "images": [{"id": number, "file_name": f"{number}.jpg"} for number in range(6)],
            "categories": [{"id": 1, "name": "cat"}, {"id": 9, "name": "dot"}],
            "annotations": [{"id": number, **box} for number, box in enumerate(boxes)],
        }
        (folder / "a.json").write_text(json.dumps(data))
    said = look(folder, capsys)
    assert said["names"] == "without a usable box, but not left out: 'dot'" and said["classes"] == "cat 6"
    assert load(Path("configs/flat.yaml")).convert.classes == ("cat", "dot")
    assert "6 boxes" in converted("flat") and "1 dropped" in converted("flat")


@pytest.mark.parametrize("number", [1, 15])
def test_notes_of_the_reader_are_shown(number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    for index in range(3 * number):
        draw(folder / f"{index}.jpg", index)
        table = folder / f"{index % number:02}.csv"
        head = "" if table.exists() else "filename,xmin,ymin,xmax,ymax\n"
        with table.open("a") as file:
            file.write(f"{head}{index}.jpg,10,10,40,50\n")
    notes = look(folder, capsys)["notes"]
    assert notes.startswith("00.csv: no column for a class, so every box gets the class 'object'")
    assert notes.count("no column") == min(number, 12) and notes.endswith(" (and 3 more such)") == (number == 15)


# --- Folders that cannot be read ------------------------------------------------------------------


def refusal(source: Path) -> str:
    with pytest.raises(DataError) as error:
        new.main(source)
    said = str(error.value)
    assert said.startswith(f"{source}: ") and "\n" not in said
    assert not Path("configs").exists()
    return said.removeprefix(f"{source}: ")


def test_a_missing_folder_is_reported() -> None:
    Path("data/raw/mine").mkdir(parents=True)
    assert refusal(Path("data/raw/mien")) == "no such folder; did you mean 'data/raw/mine'?"
    assert refusal(Path("nowhere/at/all")) == "no such folder; create it and put the images and their labels there"


@pytest.mark.parametrize("hidden", [(), (".DS_Store",), ("sub/.keep",)])
def test_an_empty_folder_is_reported(hidden: tuple[str, ...]) -> None:
    folder = Path("mine")
    folder.mkdir()
    for name in hidden:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert refusal(folder) == "holds no file; put images and their labels there"


def test_images_without_labels_are_reported() -> None:
    for number in range(3):
        draw(Path("mine") / f"{number}.png", number)
    assert refusal(Path("mine")).startswith("3 images but no labels; draw boxes in a tool such as CVAT")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train/Apple/Label/1.txt", "Apple 10.0 10.0 40.0 50.0\n"),
        ("train.txt", "train/Apple/0.jpg 10,10,40,50,0\ntrain/Apple/1.jpg 10,10,40,50,0\n"),
    ],
    ids=["OIDv4", "keras-yolo3"],
)
def test_labels_in_another_layout_are_reported(name: str, text: str) -> None:
    for number in range(3):
        draw(Path("mine") / f"train/Apple/{number}.jpg", number)
    (Path("mine") / name).parent.mkdir(exist_ok=True)
    (Path("mine") / name).write_text(text)
    (Path("mine") / "README.txt").write_text("Apples.\n")
    assert (
        refusal(Path("mine")) == f"labels such as {name} are in no supported layout; export the dataset as COCO or YOLO"
    )
    (Path("mine") / name).unlink()
    assert refusal(Path("mine")).startswith("3 images but no labels")


@pytest.mark.parametrize(("suffix", "module"), [(".gz", gzip), (".xz", lzma), (".bz2", bz2)])
def test_a_compressed_file_is_reported_with_the_command(suffix: str, module: Any, source: Path) -> None:
    for path in sorted((source / "annotations").iterdir()):
        Path(f"{path}{suffix}").write_bytes(module.compress(path.read_bytes()))
        path.unlink()
    said = refusal(source)
    [command] = re.findall(r"unpack them: (.+), then make new SOURCE=", said)
    subprocess.run(command, shell=True, check=True)
    assert new.main(source).startswith("wrote configs/source.yaml")


def test_labels_without_class_names_are_reported(tiles: Path) -> None:
    folder = as_yolo(tiles, Path("mine"))
    (folder / "data.yaml").unlink()
    assert refusal(folder).startswith("14 label files in YOLO's format but no class names; write classes.txt")
    (folder / "classes.txt").write_text("\n".join("abcdef"))
    assert "wrote" in new.main(folder)


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar"])
@pytest.mark.parametrize("inside", [False, True])
def test_an_archive_is_reported_with_the_unpack_command(suffix: str, inside: bool, source: Path) -> None:
    archive = Path("raw") / ("my set" if inside else "set") / f"mine{suffix}"
    archive.parent.mkdir(parents=True)
    files = [path for path in source.rglob("*") if path.is_file()]
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path in files:
                packed.write(path, path.relative_to(source))
    else:
        with tarfile.open(archive, "w:gz" if suffix.endswith("gz") else "w") as tar:
            for path in files:
                tar.add(path, path.relative_to(source))
    said = refusal(archive.parent if inside else archive)
    [command] = re.findall(r"is an archive; unpack it: (.+), then make new SOURCE=data/raw/mine$", said)
    subprocess.run(command, shell=True, check=True)
    assert new.main(Path("data/raw/mine")).startswith("wrote configs/mine.yaml")


def pack(archive: Path, folder: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, path.relative_to(folder.parent))


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("name", ["mine", "it's mine"])
def test_archives_of_parts_are_unpacked_where_they_are(name: str, beside: bool, source: Path) -> None:
    """Either all parts are packed, or only the images."""
    folder = Path("raw") / name
    pack(folder / "images.zip", source / "images")
    if beside:
        shutil.copytree(source / "annotations", folder / "annotations")
    else:
        pack(folder / "annotations.zip", source / "annotations")
    with pytest.raises(DataError) as error:
        new.main(folder)
    them = "it" if beside else "them"
    [command] = re.findall(rf"unpack {them}: (.+), then make new SOURCE=.*mine'?$", str(error.value))
    subprocess.run(command, shell=True, check=True)
    assert new.main(folder).startswith("wrote configs/")


def test_a_file_instead_of_a_folder_is_reported() -> None:
    Path("mine").mkdir()
    Path("mine/a.json").write_text("{}")
    assert refusal(Path("mine/a.json")) == "is a file; name the folder that holds it: make new SOURCE=mine"


def test_a_folder_of_several_data_sets_is_reported(source: Path) -> None:
    above = Path("down loads")
    as_yolo(source, above / "board set")
    as_yolo(source, above / "other set")  # one alone would be read from here
    said = refusal(above)
    assert (
        said == "not a dataset itself, but its folder board set/ is one (yolo): make new SOURCE='down loads/board set'"
        "; so is other set/ (yolo)"
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("film.mp4", "film.mp4 is a video; take images from it"),
        ("train.tfrecord", "holds TFRecord files, which are not read; export the dataset as COCO or YOLO"),
        ("0000.parquet", "holds Parquet files"),
    ],
)
def test_unsupported_files_are_reported(name: str, said: str) -> None:
    Path("mine").mkdir()
    (Path("mine") / name).write_bytes(b"x")
    assert refusal(Path("mine")).startswith(said)


def test_labels_without_images_are_reported(source: Path) -> None:
    shutil.rmtree(source / "images")
    with pytest.raises(DataError, match=r"14 images in coco format, no usable box: (\d+) of \1 were dropped, such as "):
        new.main(source)


def test_two_formats_at_once_are_reported(source: Path) -> None:
    folder = as_yolo(source, Path("both"))
    as_voc(source, folder)
    shutil.rmtree(folder / "JPEGImages")
    said = refusal(folder)
    assert re.fullmatch(r"looks like (voc and yolo|yolo and voc); choose: make new SOURCE=both FORMAT=\w+", said)
    assert "wrote" in new.main(folder, None, "voc")


def test_images_that_are_not_used_are_reported(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train_0000", "train_0001"):
        draw(source / "masks" / f"{name}.png", 7)
    said = look(source, capsys)
    assert said["images"].startswith("14, all 320x320")
    assert said["images"].endswith(
        "; 2 more are not used, such as masks/train_0000.png: a mask of train_0000.jpg, by its name and folder"
    )
    assert "to" not in said and "2 images set aside" in converted("source")


def test_a_file_that_cannot_be_opened_is_reported(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, no file is unreadable, so opening it fails artificially."""

    def head(_: object, path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pipeline.formats.tree.Tree.head", head)
    with pytest.raises(
        DataError, match=r"annotations/\w+\.json: cannot be read \(Permission denied\); make it readable$"
    ):
        new.main(source)


def test_an_unknown_format_is_reported(source: Path) -> None:
    with pytest.raises(DataError, match=r"^format 'yolov8': not one of voc, coco, yolo, .*; did you mean 'yolo'\?$"):
        new.main(source, None, "yolov8")


def test_boxes_in_another_convention_are_reported(source: Path) -> None:
    data = read_coco(source, "train")
    for record in data["annotations"]:
        x, y, width, height = record["bbox"]
        record["bbox"] = [x, y, x + width, y + height]
    write_coco(source, "train", data)
    with pytest.raises(DataError, match=r"train\.json: .*they fit as x1, y1, x2, y2 instead of x, y, width, height"):
        new.main(source)


def test_annotations_that_cannot_be_read_are_reported(source: Path) -> None:
    (source / "annotations" / "more.json").write_text('{"some": "labels"}')
    draw(source / "images" / "extra.jpg", 99)
    with pytest.raises(
        DataError, match=r"more\.json: was not read, but may hold annotations of extra\.jpg; correct it"
    ):
        new.main(source)


def test_the_commonest_reason_is_named_if_no_box_is_usable(tmp_path: Path) -> None:
    labels = {f"{letter}.jpg": ["0 0.5 0.5 0.001 0.1", "0 0.2 0.5 0.001 0.2", "7 0.5 0.5 0.1 0.1"] for letter in "abcd"}
    said = refusal(yolo(tmp_path / "thin", labels, ["x"]))
    assert said.startswith(
        "4 images in yolo format, no usable box: 8 of 12 were dropped, such as line 1 of a.jpg (0.064x"
    )


def test_train_and_val_in_one_folder_get_ratios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Like coco128."""
    folder = yolo(tmp_path / "one", {f"images/{letter}.jpg": [f"0 {CENTRE}"] for letter in "abcdefgh"}, ["x"])
    (folder / "classes.txt").unlink()
    (folder / "data.yaml").write_text("train: images\nval: images\nnames: [x]\n")
    said = look(folder, capsys)
    assert said["splits"].startswith("drawn (train 70%, val 15%, test 15%)")
    assert re.match(
        r"its splits were not used: .*data\.yaml: a\.jpg is in train and in val; keep it in one", said["notes"]
    )
    assert load(Path("configs/one.yaml")).convert.split == Ratios(train=0.7, val=0.15, test=0.15)
    assert converted("one").startswith("8 images")


def test_annotations_of_images_that_are_not_listed_are_to_do(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = read_coco(source, "train")
    data["annotations"][0]["image_id"] = 999
    write_coco(source, "train", data)
    said = look(source, capsys)
    assert "1 label or image cannot be used: annotations/train.json: " in said["to"]
    assert "belongs to image 999, which is not in `images`; correct it, or write `on_problem: drop`" in said["to"]
    config = Path("configs/source.yaml")
    config.write_text(config.read_text().replace("on_problem: fix", "on_problem: drop"))
    assert converted("source")


def test_a_line_of_a_list_that_fits_no_image_is_refused(source: Path, tmp_path: Path) -> None:
    folder = as_voc(source, tmp_path / "voc")
    with (folder / "ImageSets" / "Main" / "val.txt").open("a") as file:
        file.write("ghost\n")
    with pytest.raises(DataError, match=r"val\.txt: lists 'ghost', which has neither image nor XML; remove the line"):
        new.main(folder)


def test_a_broken_file_is_named(source: Path) -> None:
    (source / "annotations" / "val.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"val\.json: "):
        new.main(source)


# --- Through make ---------------------------------------------------------------------------------


def make(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = ["make", f"PIPELINE={sys.executable} -m pipeline", *arguments]
    return subprocess.run(command, cwd=cwd, env=make_environment(), capture_output=True, text=True, check=False)


def test_make_new_accepts_a_folder_with_spaces_and_quotes(source: Path, tmp_path: Path) -> None:
    project = tmp_path / "my project"
    project.mkdir()
    checkout(project)
    folder = project / "data" / "raw" / "kids' images (v2)"
    shutil.copytree(source, folder)
    done = make("new", "SOURCE=data/raw/kids' images (v2)", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "data/raw/kids' images (v2)"
    assert done.stdout.endswith(
        "wrote configs/kids-images-v2.yaml; next: make all CONFIG=configs/kids-images-v2.yaml\n"
    )
    done = make("convert", "CONFIG=configs/kids-images-v2.yaml", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    done = make("new", "SOURCE=data/raw/kids' images (v2)", "CONFIG=configs/second.yaml", cwd=project)
    assert done.returncode == 0 and (project / "configs" / "second.yaml").is_file()
    (project / "images").mkdir()  # make would take this word for a file that is up to date
    done = make("new", "SOURCE=data/raw/kids", "images", "(v2)", cwd=project)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == (
        "error: 'images' is not a target; if it belongs to a folder's name, write quotes: "
        "make new SOURCE='data/raw/kids images (v2)'"
    )
    done = make("new", cwd=project)
    assert done.returncode == 2
    assert (
        done.stderr.splitlines()[0]
        == "error: name the folder with your images and labels: make new SOURCE=data/raw/mine"
    )

"""`data/labels/`: what the user labelled is trained on, and none of it is lost silently."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import read_coco, settings
from test_convert import do
from test_convert import labels as written

from pipeline import convert, files, fixes, inputs
from pipeline.config.experiment import Config
from pipeline.errors import ConfigError, PipelineError
from pipeline.files import read_json
from pipeline.label import pool
from pipeline.labels import file as labels
from pipeline.labels.content import Image, Label, Labels, boxes_of
from pipeline.run import Run

CLASSES = ("open", "short", "mousebite", "spur", "pin hole", "spurious copper")
SHARES = {"train": 0.5, "val": 0.25, "test": 0.25}
POOL = "data/raw/more"


def noise_image(path: Path, seed: int, side: int = 64) -> str:
    """Draw a unique noise image; return its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(pixels, (side, side)))
    return files.sha256(path)


def labelled(run: Run, name: str = "a.png", seed: int = 1, **changes: Any) -> Image:
    """A pool image with one box of every origin and one deleted box."""
    sha256 = noise_image(run.project / POOL / name, seed)
    boxes = (
        Label((1, 2, 10, 12), "open", "kept", 0.91, "cafe00"),
        Label((20.126, 2, 10, 12), "short", "moved", 0.5, "cafe00"),
        Label((1, 30, 10.5, 12), "spur", "relabelled", 0.4, "cafe00"),
        Label((30, 30, 10, 12), "open", "added"),
    )
    gone = (Label((40, 40, 5, 5), "open", score=0.3, model="cafe00"),)
    return replace(Image(f"{POOL}/{name}", (64, 64), sha256, boxes, gone), **changes)


def convert_main(source: Path, run: Run, **changes: Any) -> str:
    return convert.main(Config.model_validate(settings(source, convert=changes)).convert, run, 0)


def assert_refused(source: Path, run: Run, words: str, **changes: Any) -> None:
    with pytest.raises(PipelineError) as error:
        convert_main(source, run, **changes)
    assert words in str(error.value) and "\n" not in str(error.value)


def save(run: Run, *images: Image, path: Path | None = None) -> Path:
    path = path or labels.file_of(run)
    labels.save(path, Labels(CLASSES, images, {"cafe00": "runs/tiny/model.pt"}))
    return path


def test_a_file_reads_back_as_written(run: Run) -> None:
    one, other = labelled(run, "b/ü.png", 2), labelled(run, labels=())
    path = save(run, one, other)
    text = path.read_text()
    back = labels.load(path)
    assert [image.file for image in back.images] == [f"{POOL}/a.png", f"{POOL}/b/ü.png"]
    assert boxes_of(back.images[1]) == boxes_of(one)
    assert back.images[1].deleted == one.deleted and back.images[0].labels == ()
    labels.save(path, replace(back, images=back.images[::-1]))
    assert path.read_text() == text
    # Required by COCO's own readers.
    data = json.loads(text)
    assert {box["category_id"] for box in data["annotations"]} <= {one["id"] for one in data["categories"]}
    assert len({box["id"] for box in data["annotations"]}) == 4


def test_a_diff_shows_only_what_changed(run: Run) -> None:
    one, other = labelled(run), labelled(run, "b.png", 2)
    before = save(run, other).read_text().splitlines()
    after = save(run, one, other).read_text().splitlines()
    assert {line.rstrip(",") for line in before} <= {line.rstrip(",") for line in after}
    # An image, its four boxes and one deleted box; the last item of a list has no comma.
    assert len(after) == len(before) + 6


def test_convert_uses_labels_and_the_receipt_lists_the_edits(source: Path, run: Run) -> None:
    do(source, run)
    plain, before = read_json(run.receipt), written(run)
    save(run, labelled(run))
    said = convert_main(source, run)
    receipt = read_json(run.receipt)
    [line] = receipt["labels"]
    counts = dict.fromkeys(("kept", "moved", "relabelled", "added", "deleted"), 1)
    assert counts.items() <= line.items()
    assert (line["image"], line["used"], line["split"]) == (f"{POOL}/a.png", True, "train")
    assert (line["models"], line["file"]) == (["cafe00"], str(labels.file_of(run)))
    assert "1 image labelled with `make label`" in said
    assert written(run) == before | {"a": written(run)["a"]}
    boxes = [(label, round(x, 2), y, round(right - x, 2)) for label, x, y, right, _ in written(run)["a"]]
    assert sorted(boxes) == [("open", 1, 2, 10), ("open", 30, 30, 10), ("short", 20.13, 2, 10), ("spur", 1, 30, 10.5)]
    assert receipt["boxes"]["read"] == plain["boxes"]["read"] + 4
    assert receipt["splits"]["val"] == plain["splits"]["val"] and receipt["splits"]["test"] == plain["splits"]["test"]
    assert (run.dataset / "images/train/a.png").is_file()


def test_labels_follow_classes_that_were_renamed_merged_or_left_out_since(source: Path, run: Run) -> None:
    do(source, run)
    plain = read_json(run.receipt)["boxes"]
    renamed = {name: name for name in CLASSES} | {"open": "gap", "short": "spur", "spur": "bump", "mousebite": None}
    do(source, run, classes=renamed)
    before = read_json(run.receipt)["boxes"]
    image = labelled(run)
    gone = (Label((50, 50, 8, 8), "mousebite"), Label((50, 20, 8, 8), "gap"))
    save(run, replace(image, labels=image.labels + gone[:1]))
    new = replace(labelled(run, "b.png", 2), labels=gone[1:])  # labelled after the class was renamed
    path = labels.file_of(run).with_suffix("") / "new.json"
    labels.save(path, Labels(("gap", *CLASSES), (new,), {"cafe00": "runs/tiny/model.pt"}))
    do(source, run, classes=renamed)
    # A name that is a class now stays as it is: `spur` is no longer the source's `spur`.
    assert sorted(label for label, *_ in written(run)["a"]) == ["gap", "gap", "spur", "spur"]
    assert [label for label, *_ in written(run)["b"]] == ["gap"]
    receipt = read_json(run.receipt)
    assert receipt["boxes"]["ignored"] == before["ignored"] + 1 > plain["ignored"]
    [line] = [line for line in receipt["problems"] if line["image"] == f"{POOL}/a.png"]
    assert (line["class"], line["reason"]) == ("mousebite", "convert.classes leaves this class out")


def test_an_image_labelled_empty_is_background(source: Path, run: Run) -> None:
    save(run, labelled(run, labels=()))
    do(source, run)
    assert written(run)["a"] == []


@pytest.mark.parametrize("where", ["train", "drawn"])
def test_labels_go_into_val_and_test_only_on_request(source: Path, run: Run, where: str) -> None:
    do(source, run, split=SHARES)
    before = read_json(run.splits)["images"]
    names = [f"{number}.png" for number in range(12)]
    save(run, *(labelled(run, name, number) for number, name in enumerate(names)))
    do(source, run, split=SHARES, new_images=where)
    receipt = read_json(run.receipt)
    assert {line["split"] for line in receipt["labels"]} == (
        {"train"} if where == "train" else {"train", "val", "test"}
    )
    now = read_json(run.splits)["images"]
    assert before.items() <= now.items() and (len(now) == len(before)) == (where == "train")


@pytest.mark.parametrize("split", ["given", "drawn"])
def test_a_copy_of_a_val_or_test_image_is_left_out(source: Path, run: Run, split: str) -> None:
    ratios: dict[str, Any] = {} if split == "given" else {"split": SHARES}
    do(source, run, **ratios)
    receipt = read_json(run.receipt)
    judge = next(name for name in receipt["sources"] if name.startswith("val/"))
    pool = run.project / POOL
    pool.mkdir(parents=True)
    image = cv2.imread(str(run.dataset / "images" / judge))
    assert image is not None
    cv2.imwrite(str(pool / "copy.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 60])
    save(run, Image(f"{POOL}/copy.jpg", (320, 320), "", ()), labelled(run))
    do(source, run, **ratios)
    now = read_json(run.receipt)
    [line, used] = sorted(now["labels"], key=lambda line: line["used"])
    assert (line["image"], line["used"]) == (f"{POOL}/copy.jpg", False) and "would leak" in line["reason"]
    assert used["used"] and now["splits"]["val"] == receipt["splits"]["val"]


def test_missing_or_changed_images_are_reported_and_their_labels_kept(source: Path, run: Run) -> None:
    images = [labelled(run, name, number) for number, name in enumerate(("a.png", "b.png", "c.png"), start=1)]
    path = save(run, *images)
    text = path.read_text()
    (run.project / POOL / "a.png").unlink()
    noise_image(run.project / POOL / "b.png", seed=99)
    assert_refused(source, run, f"{path}: labels {POOL}/a.png, which no longer exists; restore it")
    said = convert_main(source, run, on_problem="drop")
    reasons = {line["image"][-5:]: (line["used"], line["reason"]) for line in read_json(run.receipt)["labels"]}
    assert not reasons["a.png"][0] and "no longer exists" in reasons["a.png"][1]
    assert not reasons["b.png"][0] and "another image" in reasons["b.png"][1]
    assert reasons["c.png"] == (True, "")
    assert f"2 labelled images not used, such as {POOL}/a.png: " in said and path.read_text() == text
    # The images are back: make notices, and the labels count again.
    config = Config.model_validate(settings(source, convert={"on_problem": "drop"})).convert
    used = read_json(run.receipt)["inputs"]
    assert inputs.digests(config, run) == used
    noise_image(run.project / POOL / "a.png", seed=1)
    assert inputs.digests(config, run) != used
    do(source, run)
    assert sum(line["used"] for line in read_json(run.receipt)["labels"]) == 2


def test_conflicting_labels_of_two_people_are_refused(source: Path, run: Run) -> None:
    mine = labelled(run)
    theirs = labels.file_of(run).with_suffix("") / "anna.json"
    save(run, mine)
    save(run, mine, labelled(run, "b.png", 2), path=theirs)
    do(source, run)
    assert len(read_json(run.receipt)["labels"]) == 2  # they agree on one image
    save(run, replace(mine, labels=mine.labels[1:]), path=theirs)
    assert_refused(source, run, f"{theirs} label {POOL}/a.png differently (4 and 3 boxes); remove the image from one")


@pytest.mark.parametrize("name", ["a b.png", "narrow\u202fspace.png", "wide\u3000space\u00a0.png", "back\\slash.png"])
def test_names_that_convert_reads_can_be_saved(source: Path, run: Run, name: str) -> None:
    save(run, labelled(run, name))
    assert [image.file for image in labels.load(labels.file_of(run)).images] == [f"{POOL}/{name}"]
    do(source, run)
    assert read_json(run.receipt)["labels"][0]["used"]


def test_fixes_reach_an_image_with_a_backslash_in_its_name(source: Path, run: Run) -> None:
    save(run, labelled(run, "back\\slash.png"))
    path = fixes.file_of(run)
    path.parent.mkdir(parents=True)
    path.write_text(f"images:\n  {POOL}/back\\slash.png: drop\n  photos\\a.jpg: drop\n")
    do(source, run)
    lines = {line["image"]: (line["applied"], line["reason"]) for line in read_json(run.receipt)["fixes"]}
    assert lines[f"{POOL}/back\\slash.png"][0] and not read_json(run.receipt)["labels"][0]["used"]
    assert lines["photos\\a.jpg"] == (False, "is not in the source")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file": "../more/a.png"}, "is not the path of an image"),
        ({"file": "a\nb.png"}, "is not the path of an image"),
        ({"file": "caf\udce9.png"}, "is not the path of an image"),
        ({"labels": (Label((1, 1, 0.004, 5), "open"),)}, "has a side of 0 or less"),
        ({"labels": (Label((1, float("nan"), 3, 5), "open"),)}, "finite"),
    ],
)
def test_nothing_is_saved_that_could_not_be_loaded(run: Run, changes: dict[str, Any], words: str) -> None:
    save(run, labelled(run, "b.png", 2))
    before = labels.file_of(run).read_bytes()
    with pytest.raises(PipelineError) as error:
        save(run, replace(labelled(run), **changes))
    assert words in str(error.value) and "\n" not in str(error.value)
    assert labels.file_of(run).read_bytes() == before


def test_a_pool_above_the_project_can_be_labelled(source: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    project = run.project
    monkeypatch.chdir(project)
    outside = project.parent / "outside"
    sha256 = noise_image(outside / "a.png", 1)
    name = pool.name_of(Path("..", "outside", "a.png"), Run(Path("runs/tiny")))
    assert name == f"{outside}/a.png"
    assert pool.name_of("data/../data/raw/a.png", Run(Path("runs/tiny"))) == "data/raw/a.png"
    save(run, Image(name, (64, 64), sha256, (Label((1, 1, 50, 50), "open"),)))
    config = Config.model_validate(settings(source)).convert
    with pytest.raises(PipelineError, match=r"name its folder in label\.pool again, or move the images below"):
        convert.main(config, run, 0)
    convert.main(config, run, 0, pool=Path("..", "outside"))
    assert read_json(run.receipt)["labels"][0]["used"]


def test_all_label_files_of_a_folder_are_read(run: Run) -> None:
    folder = labels.file_of(run).with_suffix("")
    folder.mkdir(parents=True)
    for name in ("anna.json", "bob.JSON", "._anna.json", ".anna.partial.json", "notes.txt"):
        (folder / name).write_bytes(b"\x00")
    assert [path.name for path in labels.files_of(run)] == ["anna.json", "bob.JSON"]
    (folder / "more").mkdir()
    with pytest.raises(ConfigError, match=r"tiny/more: is not read; move its label files to .*labels/tiny, and"):
        labels.files_of(run)


def test_conflicting_labels_of_one_image_under_two_paths_are_refused(source: Path, run: Run) -> None:
    mine, copy = labelled(run), labelled(run, "copy.png")
    theirs = labels.file_of(run).with_suffix("") / "anna.json"
    save(run, mine)
    save(run, copy, path=theirs)
    assert len(labels.together(labels.files_of(run))) == 2
    save(run, replace(copy, labels=()), path=theirs)
    assert_refused(source, run, f"label {POOL}/a.png and {POOL}/copy.png, one image, differently (4 and 0 boxes)")


def test_labels_already_in_the_source_are_not_used_twice(source: Path, run: Run) -> None:
    name = read_coco(source, "train")["images"][0]["file_name"]
    path = next(source.rglob(Path(name).name))
    inside = path.relative_to(run.project).as_posix()
    save(run, Image(inside, (320, 320), "", (Label((1, 1, 50, 50), "open"),)))
    do(source, run)
    [line] = read_json(run.receipt)["labels"]
    assert not line["used"] and "the source labels it too" in line["reason"]


def test_a_pool_inside_the_source_can_be_labelled_step_by_step(source: Path, run: Run) -> None:
    folder = "source/images/more"
    sha256 = noise_image(run.project / folder / "a.png", 1)
    assert_refused(source, run, "a.png", split=SHARES)  # an image without labels
    save(run, Image(f"{folder}/a.png", (64, 64), sha256, (Label((1, 1, 50, 50), "open"),)))
    do(source, run, split=SHARES)
    assert read_json(run.receipt)["labels"][0]["used"] and len(written(run)["a"]) == 1


BAD: dict[str, tuple[str, str, str]] = {
    "git's conflict": (
        '"annotations"',
        '<<<<<<< HEAD\n"annotations"',
        "contains an unresolved git conflict; resolve it",
    ),
    "not JSON": ('"annotations"', "annotations", "not JSON"),
    "a class missing from the file": ('"category_id": 4', '"category_id": 44', "category 44"),
    "a class the dataset lacks": ('"name": "spur"', '"name": "spurr"', "'spurr' is not one of open, short"),
    "a side of 0": ("[1.0, 30.0, 10.5, 12.0]", "[1.0, 30.0, 0.0, 12.0]", "a side of 0 or less"),
    "a box outside": ("[1.0, 30.0, 10.5, 12.0]", "[100.0, 30.0, 10.5, 12.0]", "outside the image"),
    "a box without an image": ('"image_id": ', '"image_id": 1', "which is not in `images`"),
    "a path upwards": ('"file_name": "data/', '"file_name": "../data/', "is not the path of an image"),
    "a path elsewhere": ('"file_name": "data/', '"file_name": "/data/', "outside this folder and label.pool"),
    "not a number": ('"width": 64', '"width": "64"', "images.0.width"),
    "an image twice": (
        '"images": [\n',
        '"images": [\n{"id": 1, "file_name": "data/raw/more/a.png", "width": 1, "height": 1},\n',
        "twice",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_an_invalid_file_is_reported_in_one_line_and_the_data_set_stays(source: Path, run: Run, fault: str) -> None:
    do(source, run)
    before = run.receipt.read_bytes()
    path = save(run, labelled(run))
    old, new, words = BAD[fault]
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    inputs.digests(Config.model_validate(settings(source)).convert, run)  # make continues, so that convert reports it
    assert_refused(source, run, words)
    assert run.receipt.read_bytes() == before


def test_images_of_an_outside_pool_count_if_the_config_names_it(source: Path, run: Run, tmp_path: Path) -> None:
    config = Config.model_validate(settings(source))
    elsewhere = tmp_path / "elsewhere"
    image = labelled(run)
    shutil.move(run.project / POOL, elsewhere)
    save(run, replace(image, file=f"{elsewhere}/a.png"))
    with pytest.raises(PipelineError, match="outside this folder"):
        convert.main(config.convert, run, 0)
    convert.main(config.convert, run, 0, pool=elsewhere)
    assert (
        f"{elsewhere}/a.png".lstrip("/") in read_json(run.receipt)["sources"].values()
    )  # a path in the form fixes need
    assert len(written(run)["a"]) == 4


def test_drawing_labels_into_splits_needs_ratios(source: Path) -> None:
    with pytest.raises(ValueError, match="new_images: drawn needs shares in split"):
        Config.model_validate(settings(source, convert={"new_images": "drawn"}))

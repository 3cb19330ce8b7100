"""Conversion of real files, valid and invalid. An invalid source leaves no dataset behind."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, as_voc, as_yolo, read_coco, write_coco
from PIL import Image
from pycocotools.coco import COCO

from pipeline import convert, pixels
from pipeline.boxes import YoloDataset, image_size
from pipeline.config.data import Convert
from pipeline.errors import DataError
from pipeline.files import read_json
from pipeline.orientation import EXIF_ORIENTATION
from pipeline.run import Run


def do(source: Path, run: Run, seed: int = 0, **settings: Any) -> dict[str, Any]:
    convert.main(Convert.model_validate({"source": source, **settings}), run, seed)
    receipt: dict[str, Any] = read_json(run.receipt)
    return receipt


def labels(run: Run) -> dict[str, list[tuple[str, float, float, float, float]]]:
    """Every box by image stem, in pixels."""
    dataset = YoloDataset.read(run.dataset / "data.yaml")
    found = {}
    for split in dataset.images:
        for path in dataset.files(split):
            _, boxes = dataset.labelled(path)
            found[path.stem] = [(box.label, box.xmin, box.ymin, box.xmax, box.ymax) for box in boxes]
    return found


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def first_box(source: Path, **changes: Any) -> str:
    """Change the first training annotation; return the name of its image."""
    data = read_coco(source, "train")
    data["annotations"][0].update(changes)
    write_coco(source, "train", data)
    image_id = data["annotations"][0]["image_id"]
    return str(next(image["file_name"] for image in data["images"] if image["id"] == image_id))


# --- What goes in comes out -----------------------------------------------------------------------


def test_boxes_equal_those_pycocotools_reads(tiles: Path, run: Run) -> None:
    receipt = do(tiles, run)
    ours = labels(run)
    for split in ("train", "val", "test"):
        coco = COCO(str(tiles / "annotations" / f"{split}.json"))
        assert receipt["splits"][split]["images"] == len(coco.imgs)
        for image in coco.imgs.values():
            theirs = [
                (coco.cats[a["category_id"]]["name"], a["bbox"][0], a["bbox"][1], a["bbox"][0] + a["bbox"][2], a["bbox"][1] + a["bbox"][3])
                for a in coco.imgToAnns[image["id"]]
            ]  # fmt: skip
            found = ours[Path(image["file_name"]).stem]
            assert [box[0] for box in found] == [box[0] for box in theirs]
            # 0.01 px: six decimals at 320 px lose 0.0003.
            np.testing.assert_allclose([box[1:] for box in found], [box[1:] for box in theirs], atol=0.01)


def test_the_three_formats_agree(tiles: Path, tmp_path: Path) -> None:
    sources = {"coco": tiles, "voc": as_voc(tiles, tmp_path / "voc"), "yolo": as_yolo(tiles, tmp_path / "yolo")}
    found = {}
    for name, source in sources.items():
        run = Run(tmp_path / "runs" / name)
        receipt = do(source, run)
        assert receipt["format"] == name
        found[name] = labels(run)
    assert found["coco"].keys() == found["voc"].keys() == found["yolo"].keys()
    for name in ("voc", "yolo"):
        for stem, boxes in found["coco"].items():
            assert [box[0] for box in found[name][stem]] == [box[0] for box in boxes]
            np.testing.assert_allclose([b[1:] for b in found[name][stem]], [b[1:] for b in boxes], atol=0.01)


def test_the_receipt_adds_up(source: Path, run: Run) -> None:
    data = read_coco(source, "train")
    first, second, third, *_ = data["annotations"]
    first["bbox"][2] = 0
    second["iscrowd"] = 1
    third["bbox"] = [-5, 10, 20, 20]
    write_coco(source, "train", data)
    receipt = do(source, run)
    boxes = receipt["boxes"]
    for counts in (boxes, *receipt["files"].values()):
        assert counts["read"] == counts["kept"] + counts["clipped"] + counts["dropped"] + counts["ignored"]
    for split in ("train", "val", "test"):
        assert receipt["files"][f"annotations/{split}.json"]["read"] == len(read_coco(source, split)["annotations"])
    assert (boxes["dropped"], boxes["ignored"], boxes["clipped"]) == (1, 1, 1)
    assert boxes["kept"] + boxes["clipped"] == sum(split["boxes"] for split in receipt["splits"].values())
    assert [(problem["id"], problem["action"]) for problem in receipt["problems"]] == [
        (str(first["id"]), "dropped"),
        (str(second["id"]), "ignored"),
        (str(third["id"]), "clipped"),
    ]
    assert all(problem["file"] == "annotations/train.json" and problem["reason"] for problem in receipt["problems"])
    for split, summary in receipt["splits"].items():
        assert summary["boxes"] == sum(summary["boxes_per_class"].values())
        written = sum(len(path.read_text().splitlines()) for path in (run.dataset / "labels" / split).iterdir())
        assert summary["boxes"] == written


def test_background_images_get_empty_label_files(source: Path, run: Run) -> None:
    data = read_coco(source, "train")
    empty = data["images"][0]
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] != empty["id"]]
    write_coco(source, "train", data)
    receipt = do(source, run)
    assert receipt["splits"]["train"]["background_images"] >= 1
    assert (run.dataset / "labels" / "train" / f"{Path(empty['file_name']).stem}.txt").read_text() == ""


def test_classes_follow_the_order_of_the_config(tiles: Path, run: Run) -> None:
    order = ["spur", "open", "short", "mousebite", "pin hole", "spurious copper"]
    do(tiles, run, classes=order)
    assert list(YoloDataset.read(run.dataset / "data.yaml").names) == order


def test_category_ids_may_be_sparse_and_start_at_zero(source: Path, run: Run, tmp_path: Path) -> None:
    do(source, run)
    before = labels(run)
    new_id = {1: 0, 2: 7, 3: 90, 4: 91, 5: 300, 6: 4000}
    for split in ("train", "val", "test"):
        data = read_coco(source, split)
        for record, key in [(c, "id") for c in data["categories"]] + [(a, "category_id") for a in data["annotations"]]:
            record[key] = new_id[record[key]]
        write_coco(source, split, data)
    other = Run(tmp_path / "runs" / "sparse")
    do(source, other)
    assert labels(other) == before


def test_the_source_is_not_modified(source: Path, run: Run) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in source.rglob("*") if path.is_file()}
    do(source, run)
    do(source, run)
    assert before == {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in source.rglob("*") if path.is_file()
    }


# --- Splits ---------------------------------------------------------------------------------------


def test_ratios_use_every_image_once_and_follow_the_seed(tiles: Path, tmp_path: Path) -> None:
    runs = [Run(tmp_path / "runs" / name) for name in "abc"]
    ratios = {"train": 0.5, "val": 0.25, "test": 0.25}
    receipts = [do(tiles, run, seed, split=ratios) for run, seed in zip(runs, (0, 0, 1), strict=True)]
    sizes = {split: summary["images"] for split, summary in receipts[0]["splits"].items()}
    assert all(abs(sizes[split] - share * 14) < 1 for split, share in ratios.items())
    names = [
        {split: sorted(p.name for p in (run.dataset / "images" / split).iterdir()) for split in ratios} for run in runs
    ]
    assert names[0] == names[1] != names[2]
    assert len({name for split in names[0].values() for name in split}) == 14


def test_a_byte_identical_image_in_two_splits_is_reported(source: Path, run: Run) -> None:
    assert do(source, run)["leaks"]["exact"] == []
    shutil.copy(source / "images" / "train_0000.jpg", source / "images" / "val_0001.jpg")
    assert do(source, run)["leaks"]["exact"] == [["train/images/train_0000.jpg", "val/images/val_0001.jpg"]]


def test_images_in_no_split_are_counted(tiles: Path, tmp_path: Path, run: Run) -> None:
    voc = as_voc(tiles, tmp_path / "voc")
    names = voc / "ImageSets" / "Main" / "test.txt"
    names.write_text("\n".join(names.read_text().split()[1:]))
    receipt = do(voc, run)
    name = "JPEGImages/test_0000.jpg"
    assert receipt["images"] == {
        "read": 14,
        "used": 13,
        "dropped": {},
        "in_no_split": {name: "the source puts it in no split"},
        "left_out": {},
        "linked_again": {},
        "set_aside": {},
    }
    ignored = [problem for problem in receipt["problems"] if problem["image"] == name]
    assert len(ignored) == receipt["files"]["Annotations/test_0000.xml"]["ignored"] > 0


# --- Pixels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_boxes_refer_to_the_image_as_exif_rotates_it(source: Path, run: Run, suffix: str) -> None:
    """Labels refer to the upright image, which labelling tools show and OpenCV decodes."""
    path = source / "images" / "train_0000.jpg"
    with Image.open(path) as image:
        upright = image.convert("RGB").resize((320, 200))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6  # stored on its left side, to be rotated clockwise
    path.unlink()
    path = path.with_suffix(suffix)
    upright.transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=exif)
    data = read_coco(source, "train")
    data["images"][0] |= {"height": 200, "file_name": path.name}
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] != data["images"][0]["id"]]
    data["annotations"].append(
        {"id": 999, "image_id": data["images"][0]["id"], "category_id": 1, "bbox": [200, 20, 50, 30]}
    )
    write_coco(source, "train", data)
    receipt = do(source, run)
    written = run.dataset / "images" / "train" / path.name
    if suffix == ".jpg":  # re-encoding would change its pixels
        assert receipt["rewritten"] == {} and written.samefile(path)
    else:
        assert receipt["rewritten"] == {path.name: "EXIF orientation 6: turned upright"}
        with Image.open(written) as image:
            assert image.getexif().get(EXIF_ORIENTATION, 1) == 1
    assert image_size(written) == (320, 200)
    seen = pixels.read(written)
    # JPEG at quality 95: a few grey levels.
    assert np.abs(seen[:, :, ::-1].astype(float) - np.asarray(upright, float)).mean() < 4
    assert labels(run)["train_0000"] == [("open", *map(pytest.approx, (200, 20, 250, 50)))]  # type: ignore[arg-type]


@pytest.mark.parametrize("behind", [b"trailing bytes", b"\0\0"])
def test_a_jpeg_with_data_after_its_end_marker_keeps_its_pixels(source: Path, run: Run, behind: bytes) -> None:
    """Phones write data after the marker, and Ultralytics would re-encode such a file."""
    path = source / "images" / "train_0000.jpg"
    before = path.read_bytes() + behind
    path.write_bytes(before)
    assert "train_0000.jpg" in do(source, run)["rewritten"]
    written = run.dataset / "images" / "train" / "train_0000.jpg"
    assert written.read_bytes().endswith(b"\xff\xd9")
    assert not written.samefile(path) and path.read_bytes() == before
    assert np.array_equal(pixels.read(written), pixels.read(path))
    assert (run.dataset / "images" / "train" / "train_0001.jpg").samefile(source / "images" / "train_0001.jpg")


# --- Bad input: one clear line, nothing left behind -------------------------------------------------


def spoil_coco(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        data = read_coco(source, "train")
        change(data)
        (source / "annotations" / "train.json").write_text(json.dumps(data))

    return spoil


def write_bytes(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda source: (source / name).write_bytes(data)


BAD_COCO: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated image": (
        lambda s: os.truncate(s / "images" / "train_0000.jpg", 9000),
        r"train_0000\.jpg: not an image that can be read .*; replace it",
    ),
    "not an image": (write_bytes("images/train_0000.jpg", b"hello"), r"train_0000\.jpg: not an image"),
    "empty image": (write_bytes("images/train_0000.jpg", b""), r"train_0000\.jpg: not an image"),
    "unlisted category": (
        spoil_coco(lambda d: d["annotations"][0].update(category_id=77)),
        r"train\.json: 1: category 77 is not in `categories`; correct it",
    ),
    "annotation without its image": (
        lambda s: (s / "images" / "train_0000.jpg").unlink(),
        r"train_0000\.jpg: image missing; restore it \(its annotation is .*train\.json\)",
    ),
    "annotation of an unknown image": (
        spoil_coco(lambda d: d["annotations"][0].update(image_id=77)),
        r"annotation 1 belongs to image 77, which is not in `images`",
    ),
    "image without annotation": (
        spoil_coco(lambda d: d.update(images=d["images"][1:], annotations=[a for a in d["annotations"] if a["image_id"]])),
        r"train_0000\.jpg: no annotation; label it, leave it out .* or set `convert\.unlabelled: background`",
    ),
    "two images with one stem": (
        lambda s: Image.open(s / "images" / "train_0000.jpg").save(s / "images" / "train_0000.png"),
        r"train_0000\.png: no annotation; label it",
    ),
    "box outside its image": (
        spoil_coco(lambda d: d["annotations"][0].update(bbox=[655, 10, 20, 20])),
        r"train\.json: 1 \(.*\): \[655, 10, 675, 30\] is outside the image, which is 320x320",
    ),
    "NaN": (spoil_coco(lambda d: d["annotations"][0].update(bbox=[float("nan"), 1, 2, 3])), r"1 \(.*\): coordinates are not finite"),
    "infinite": (spoil_coco(lambda d: d["annotations"][0].update(bbox=[1, 1, float("inf"), 3])), r"bbox \[1, 1, inf, 3\]"),
    "three numbers": (spoil_coco(lambda d: d["annotations"][0].update(bbox=[1, 2, 3])), r"bbox \[1, 2, 3\] is not \[x, y"),
    "text for a number": (spoil_coco(lambda d: d["annotations"][0].update(bbox=["1", 2, 3, 4])), r"bbox \['1', 2, 3, 4\] is not"),
    "wrong size": (
        spoil_coco(lambda d: d["images"][0].update(width=640)),
        r"train_0000\.jpg: its annotation says it is 640x320, but it is 320x320.*train\.json",
    ),
    "malformed JSON": (write_bytes("annotations/train.json", b'{"images": ['), r"train\.json: not JSON .*; export it again"),
    "not UTF-8": (write_bytes("annotations/train.json", b"\xff\xfe{"), r"train\.json: not UTF-8"),
    "deep nesting": (write_bytes("annotations/train.json", b"[" * 1_000_000), r"train\.json: nested"),
    "images is not a list": (spoil_coco(lambda d: d.update(images={"a": 1})), r"needs a list `images` of objects"),
    "image id twice": (spoil_coco(lambda d: d["images"][1].update(id=0)), r"image id 0 appears twice"),
    "path outside the source": (
        spoil_coco(lambda d: d["images"][0].update(file_name="../../secret.jpg")),
        r"train\.json: names '.*secret\.jpg', outside",
    ),
    "absolute path": (spoil_coco(lambda d: d["images"][0].update(file_name="/etc/hostname")), r"train\.json: names '/etc/hostname', outside"),
    "no file name": (spoil_coco(lambda d: d["images"][0].update(file_name=None)), r"image 0 has the file_name None"),
    "one image in two splits": (
        spoil_coco(lambda d: d["images"][0].update(file_name="val_0000.jpg")),
        r"train\.json and .*val\.json: two entries describe val_0000\.jpg; remove one",
    ),
    "no boxes at all": (spoil_coco(lambda d: d.update(annotations=[])), r"no image in the train split; .*; 8 images cannot be used, such as train_0000\.jpg: train\.json lists images without"),
    "no box in train": (
        spoil_coco(lambda d: d.update(annotations=[{**box, "bbox": [5, 5, 0, 0]} for box in d["annotations"]])),
        r"no usable box in the training split; label training images",
    ),
}  # fmt: skip


def assert_refused(source: Path, run: Run, said: str, **settings: Any) -> None:
    with pytest.raises(DataError, match=said) as error:
        do(source, run, **settings)
    assert "\n" not in str(error.value)
    assert not run.root.exists() or not list(run.root.iterdir())


def spoil_xml(pattern: str, new: str) -> Callable[[Path], object]:
    def spoil(source: Path) -> None:
        path = source / "Annotations" / "train_0001.xml"
        text = path.read_text()
        assert re.search(pattern, text)
        path.write_text(re.sub(pattern, lambda _: new, text, count=1))

    return spoil


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;">]>'
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'

BAD_VOC: dict[str, tuple[Callable[[Path], object], str]] = {
    "malformed XML": (spoil_xml("</annotation>", ""), r"train_0001\.xml: not well-formed XML"),
    "entity bomb": (spoil_xml("<annotation>", BOMB + "<annotation>"), r"train_0001\.xml: defines XML entities"),
    "entity from a file": (spoil_xml("<annotation>", OUTSIDE + "<annotation>"), r"train_0001\.xml: defines XML entities"),
    "unknown encoding": (spoil_xml("<annotation>", '<?xml version="1.0" encoding="klingon"?><annotation>'), r"train_0001\.xml: "),
    "not a number": (spoil_xml("<xmin>", "<xmin>left "), r"train_0001\.xml: object 1 \(.*\): xmin is 'left .*', not a number"),
    "no bndbox": (spoil_xml("<bndbox>.*?</bndbox>", ""), r"train_0001\.xml: object 1 \(.*\): xmin is None, not a number"),
    "no name": (spoil_xml("<name>.*?</name>", "<name> </name>"), r"train_0001\.xml: object 1: no <name>"),
    "missing image": (lambda s: (s / "JPEGImages" / "train_0001.jpg").unlink(), r"train_0001\.jpg: image missing; restore it \(its annotation is .*train_0001\.xml\)"),
    "missing XML": (lambda s: (s / "Annotations" / "train_0001.xml").unlink(), r"train_0001\.jpg: no annotation"),
    "listed but missing": (
        lambda s: (s / "ImageSets" / "Main" / "train.txt").write_text("train_0001\nghost\n"),
        r"train\.txt: lists 'ghost', which has neither image nor XML",
    ),
    "listed in two splits": (
        lambda s: (s / "ImageSets" / "Main" / "val.txt").write_text("train_0001\nval_0000\n"),
        r"val\.txt: 'train_0001' is also in train\.txt",
    ),
    "no val list": (lambda s: (s / "ImageSets" / "Main" / "val.txt").unlink(), r"no image in the val split; set ratios in convert"),
}  # fmt: skip


BAD_YOLO: dict[str, tuple[Callable[[Path], object], str]] = {
    "class out of range": (write_bytes("labels/train/train_0000.txt", b"9 0.5 0.5 0.1 0.1"), r"train_0000\.txt: line 1: class 9"),
    "NaN": (write_bytes("labels/train/train_0000.txt", b"0 nan 0.5 0.1 0.1"), r"train_0000\.txt: line 1 .*not finite"),
    "box outside": (write_bytes("labels/train/train_0000.txt", b"0 2.5 0.5 0.1 0.1"), r"line 1 .* is outside the image"),
    "no label file": (lambda s: (s / "labels" / "train" / "train_0000.txt").unlink(), r"train_0000\.jpg: no annotation"),
    "names with gaps": (write_bytes("data.yaml", b"names: {0: a, 2: b}\ntrain: images/train\n"), r"data\.yaml: `names:`"),
    "missing folder": (write_bytes("data.yaml", b"names: [a]\ntrain: images/tain\n"), r"'images/tain': no such folder or list file"),
    "outside the source": (write_bytes("data.yaml", b"names: [a]\ntrain: ../../../etc\n"), r"data\.yaml: names .*outside"),
    "python in YAML": (write_bytes("data.yaml", b"names: !!python/name:os.system x\n"), r"data\.yaml: not YAML"),
    "a list of numbers": (write_bytes("data.yaml", b"names: [a]\ntrain: [1]\n"), r"`train:` is 1; write a folder"),
}  # fmt: skip


BAD: dict[str, tuple[Callable[[Path, Path], Path], dict[str, tuple[Callable[[Path], object], str]]]] = {
    "coco": (shutil.copytree, BAD_COCO),
    "voc": (as_voc, BAD_VOC),
    "yolo": (as_yolo, BAD_YOLO),
}


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, (_, cases) in BAD.items() for case in cases])
def test_an_invalid_source_is_refused_in_one_line(tiles: Path, tmp_path: Path, run: Run, name: str, case: str) -> None:
    write, cases = BAD[name]
    spoil, said = cases[case]
    source = write(tiles, tmp_path / name)
    spoil(source)
    assert_refused(source, run, said)


def test_a_label_the_config_does_not_list_is_refused(tiles: Path, tmp_path: Path, run: Run) -> None:
    voc = as_voc(tiles, tmp_path / "voc")
    names = ["open", "short", "mousebite", "spur", "pin_hole", "spurious copper"]
    assert_refused(
        voc,
        run,
        r"no box has the class 'pin_hole', but \d+ boxes have 'pin hole', which is not listed; correct the name",
        classes=names,
    )


def test_images_with_the_same_stem_are_separated(source: Path, run: Run) -> None:
    with Image.open(source / "images" / "train_0000.jpg") as image:
        image.save(source / "images" / "train_0000.png")
    (source / "images" / "train").mkdir()
    (source / "images" / "train_0000.png").rename(source / "images" / "train" / "train_0000.png")
    sources = do(source, run, unlabelled="background")["sources"]
    assert sources["train/images-train_0000.jpg"] == "images/train_0000.jpg"  # apart by their folders
    assert sources["train/images-train-train_0000.png"] == "images/train/train_0000.png"
    (source / "images" / "train" / "train_0000.png").rename(source / "images" / "train" / "train_0001.jpeg")
    shutil.copy(source / "images" / "train" / "train_0001.jpeg", source / "images" / "train" / "train_0001.webp")
    shutil.copy(
        source / "images" / "train" / "train_0001.jpeg", source / "images" / "train" / "images-train-train_0001-2.png"
    )
    fresh = Run(run.root.with_name("fresh"))
    sources = do(source, fresh, unlabelled="background")["sources"]
    assert {target: name for target, name in sources.items() if "train_0001" in target} == {
        "train/images-train_0001.jpg": "images/train_0001.jpg",
        "train/images-train-train_0001-2.png": "images/train/images-train-train_0001-2.png",
        "train/images-train-train_0001.png": "images/train/train_0001.jpeg",
        "train/images-train-train_0001-3.png": "images/train/train_0001.webp",
    }
    labels = [path.stem for path in (fresh.dataset / "labels").rglob("*.txt")]
    assert len(labels) == len(set(labels)) == len(sources)


def test_unlabelled_images_can_be_declared_background(tiles: Path, tmp_path: Path, run: Run) -> None:
    source = as_yolo(tiles, tmp_path / "yolo")
    (source / "labels" / "train" / "train_0000.txt").unlink()
    receipt = do(source, run, unlabelled="background")
    assert receipt["splits"]["train"]["images"] == 8
    assert (run.dataset / "labels" / "train" / "train_0000.txt").read_text() == ""


def test_a_missing_or_empty_source_is_refused(tmp_path: Path, run: Run) -> None:
    assert_refused(tmp_path / "nowhere", run, r"nowhere: no such folder; put the images")
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", run, r"empty: no annotations in a supported format; name one of voc, coco, yolo")
    assert_refused(tmp_path / "empty", run, r"empty: no coco images with annotations in it", format="coco")


def test_an_earlier_data_set_survives_a_failure(source: Path, run: Run) -> None:
    do(source, run)
    before = tree(run.dataset)
    broken = source / "images" / "train_0000.jpg"
    broken.unlink()  # the dataset still links to the old file
    broken.write_bytes(b"broken")
    with pytest.raises(DataError):
        do(source, run)
    assert tree(run.dataset) == before
    assert [path.name for path in run.root.iterdir()] == ["dataset"]


# --- Real data, where present -------------------------------------------------------------------------


def real(name: str) -> Path:
    folder = ROOT / "data" / "raw" / name
    if not folder.is_dir():
        pytest.skip(f"data/raw/{name} is missing; data/README.md says where to get it")
    return folder


def test_bccd_converts(run: Run) -> None:
    receipt = do(real("bccd"), run, classes=["RBC", "WBC", "Platelets"])
    assert {split: summary["images"] for split, summary in receipt["splits"].items()} == {
        "train": 205,
        "val": 87,
        "test": 72,
    }
    assert receipt["boxes"] == {"read": 4888, "kept": 4886, "clipped": 0, "dropped": 2, "ignored": 0}
    assert sorted((p["file"], p["action"], p["reason"].split(":")[0]) for p in receipt["problems"]) == [
        ("Annotations/BloodImage_00338.xml", "dropped", "zero area"),
        ("Annotations/BloodImage_00343.xml", "dropped", "zero area"),
    ]


def test_facemask_converts(run: Run) -> None:
    receipt = do(real("facemask"), run)
    assert {split: summary["images"] for split, summary in receipt["splits"].items()} == {"train": 677, "val": 171}
    assert receipt["boxes"] == {"read": 4021, "kept": 4018, "clipped": 0, "dropped": 3, "ignored": 0}
    assert [(p["file"], p["id"], p["reason"][:7]) for p in receipt["problems"]] == [
        ("annotations/custom_train.json", identity, "1x2 px:") for identity in ("2456", "2459", "2460")
    ]

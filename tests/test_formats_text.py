"""VOC, YOLO, CVAT, KITTI, Open Images, plain CSV and FiftyOne's importers, checked against what other libraries write."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import writers
import yaml
from conftest import needs_database, read_coco, write_coco
from globox import AnnotationSet
from PIL import Image

from pipeline import database, formats
from pipeline.boxes import Box
from pipeline.errors import DataError
from pipeline.extras.sample.dataset import CLASSES
from pipeline.formats import cvat, kitti, openimages, table, via_fiftyone, voc, yolo
from pipeline.formats.source import Source

SPLITS = ("train", "val", "test")
READ: dict[str, Callable[[Path], Source]] = {
    "voc": voc.read,
    "yolo": yolo.read,
    "cvat": cvat.read,
    "kitti": kitti.read,
    "openimages": openimages.read,
    "csv": table.read,
}
Corners = tuple[str, float, float, float, float]


@dataclass(frozen=True)
class Truth:
    """The drawn tiles as COCO, with fractional corners."""

    folder: Path
    boxes: dict[str, list[Corners]]  # by stem
    split: dict[str, str]

    def globox(self, split: str) -> AnnotationSet:
        return AnnotationSet.from_coco(self.folder / "annotations" / f"{split}.json")

    def of_one_word(self) -> Truth:
        """With one-word classes for KITTI, where a space would shift the columns."""
        boxes = {stem: [(label.replace(" ", "_"), *rest) for label, *rest in of] for stem, of in self.boxes.items()}
        return replace(self, boxes=boxes)

    def copy_images(self, split: str, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for stem in (stem for stem, of in self.split.items() if of == split):
            shutil.copy(self.folder / "images" / f"{stem}.jpg", target)


@pytest.fixture(scope="module")
def truth(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Truth:
    folder = Path(shutil.copytree(tiles, tmp_path_factory.mktemp("truth") / "coco"))
    boxes: dict[str, list[Corners]] = {}
    split_of = {}
    for split in SPLITS:
        data = read_coco(folder, split)
        names = {category["id"]: category["name"] for category in data["categories"]}
        stems = {image["id"]: Path(image["file_name"]).stem for image in data["images"]}
        # One image is background.
        data["annotations"] = [a for a in data["annotations"] if stems[a["image_id"]] != "train_0001"]
        for number, annotation in enumerate(data["annotations"]):
            annotation["bbox"] = [side + (number % 7) / 10 + 0.137 for side in annotation["bbox"]]
        write_coco(folder, split, data)
        split_of |= dict.fromkeys(stems.values(), split)
        boxes |= {stem: [] for stem in stems.values()}
        for annotation in data["annotations"]:
            x, y, w, h = annotation["bbox"]
            boxes[stems[annotation["image_id"]]].append((names[annotation["category_id"]], x, y, x + w, y + h))
    return Truth(folder, boxes, split_of)


def corners(box: Box) -> Corners:
    return box.label, box.xmin, box.ymin, box.xmax, box.ymax


def agree(source: Source, truth: Truth, tolerance: float) -> None:
    """Check every image with its split, and every box in order."""
    assert {item.image.stem: item.split for item in source.images} == truth.split
    assert source.has_splits
    for item in source.images:
        assert item.image.is_file()
        assert not any(box.ignore or box.damage for box in item.boxes)
        assert len({box.id for box in item.boxes}) == len(item.boxes)
        found, wanted = [corners(box) for box in item.boxes], truth.boxes[item.image.stem]
        assert [box[0] for box in found] == [box[0] for box in wanted]
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours[1:], theirs[1:], rtol=0, atol=tolerance)


# --- Written by others, read by us --------------------------------------------------------------------


def globox_voc(truth: Truth, target: Path) -> None:
    for split in SPLITS:
        truth.copy_images(split, target / "JPEGImages" / split)
        (target / "Annotations").mkdir(exist_ok=True)
        truth.globox(split).save_pascal_voc(target / "Annotations" / split)


def globox_yolo(truth: Truth, target: Path) -> None:
    for split in SPLITS:
        truth.copy_images(split, target / "images" / split)
        (target / "labels").mkdir(exist_ok=True)
        ids = {name: number for number, name in enumerate(CLASSES)}
        truth.globox(split).save_yolo_darknet(target / "labels" / split, label_to_id=ids)
    description = {"names": list(CLASSES), "nc": len(CLASSES)} | {split: f"images/{split}" for split in SPLITS}
    (target / "data.yaml").write_text(yaml.safe_dump(description))


def globox_darknet(truth: Truth, target: Path) -> None:
    """As labelImg lays it out: images, label files and class names in one folder, here one per split."""
    for split in SPLITS:
        truth.copy_images(split, target / split)
        ids = {name: number for number, name in enumerate(CLASSES)}
        truth.globox(split).save_yolo_darknet(target / split, label_to_id=ids)
        (target / split / "classes.txt").write_text("\n".join(CLASSES) + "\n")


def globox_cvat(truth: Truth, target: Path) -> None:
    for split in SPLITS:
        truth.copy_images(split, target / "images")
        truth.globox(split).save_cvat(target / f"{split}.xml")


def globox_openimages(truth: Truth, target: Path) -> None:
    ids = {name: f"/m/0{number}" for number, name in enumerate(CLASSES)}
    for split in SPLITS:
        truth.copy_images(split, target / split)  # all that tells of an image without boxes
        annotations = truth.globox(split).map_labels(ids)
        annotations = AnnotationSet(item.with_image_id(Path(item.image_id).stem) for item in annotations)
        annotations.save_openimage(target / f"{split}-annotations-bbox.csv")
    rows = [f"{identity},{name}\n" for name, identity in ids.items()]
    (target / "class-descriptions-boxable.csv").write_text("".join(rows))


def pandas_csv(truth: Truth, target: Path, **options: Any) -> None:
    """The table common from TensorFlow's tutorials, written by pandas."""
    for split in SPLITS:
        truth.copy_images(split, target / "images")
        rows = []
        for stem in (stem for stem, of in truth.split.items() if of == split):
            for label, *sides in truth.boxes[stem] or [(None, None, None, None, None)]:
                rows.append((f"{stem}.jpg", 320, 320, label, *sides))
        columns = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]
        pd.DataFrame(rows, columns=columns).to_csv(target / f"{split}_labels.csv", index=False, **options)


def hand_kitti(truth: Truth, target: Path) -> None:
    """KITTI's own layout, following its development kit; no library here writes it with fractions."""
    (target / "ImageSets").mkdir(parents=True)
    (target / "training" / "label_2").mkdir(parents=True)
    for split in SPLITS:
        truth.copy_images(split, target / "training" / "image_2")
        stems = [stem for stem, of in truth.split.items() if of == split]
        (target / "ImageSets" / f"{split}.txt").write_text("\n".join(stems) + "\n")
        for stem in stems:
            lines = [
                f"{label.replace(' ', '_')} 0.00 0 -0.20 {xmin:.2f} {ymin:.2f} {xmax:.2f} {ymax:.2f} 1.89 0.48 1.20 1.84 1.47 8.41 0.01"
                for label, xmin, ymin, xmax, ymax in truth.boxes[stem]
            ]
            (target / "training" / "label_2" / f"{stem}.txt").write_text("\n".join(lines))


WRITTEN: dict[str, tuple[str, Callable[[Truth, Path], None]]] = {
    "voc": ("voc", globox_voc),
    "yolo": ("yolo", globox_yolo),
    "darknet": ("yolo", globox_darknet),
    "cvat": ("cvat", globox_cvat),
    "openimages": ("openimages", globox_openimages),
    "csv": ("csv", pandas_csv),
    "csv with semicolons": ("csv", lambda truth, target: pandas_csv(truth, target, sep=";", decimal=",")),
    "csv with tabs": ("csv", lambda truth, target: pandas_csv(truth, target, sep="\t")),
    "kitti": ("kitti", hand_kitti),
}


@pytest.mark.parametrize("written", WRITTEN)
def test_what_other_libraries_write_is_read(written: str, truth: Truth, tmp_path: Path) -> None:
    name, write = WRITTEN[written]
    write(truth, tmp_path)
    assert formats.recognise(tmp_path) == name
    # 0.01 px: KITTI has two decimals, the others have more.
    agree(READ[name](tmp_path), truth.of_one_word() if name == "kitti" else truth, 0.01)


@pytest.mark.parametrize("written", WRITTEN)
def test_background_and_unlabelled_images_differ(written: str, truth: Truth, tmp_path: Path) -> None:
    """An image with an empty annotation is background; one that no annotation mentions may show anything."""
    name, write = WRITTEN[written]
    write(truth, tmp_path)
    with Image.open(truth.folder / "images" / "train_0000.jpg") as image:
        image.save(next(tmp_path.rglob("train_0000.jpg")).with_name("new.jpg"))
    annotations = {item.image.stem: item.annotation for item in READ[name](tmp_path).images}
    assert annotations["new"] is None
    # Open Images cannot express that an image is background.
    assert (annotations["train_0001"] is None) == (name == "openimages")


@pytest.mark.parametrize("name", ["voc", "yolo"])
def test_what_we_write_reads_back(name: str, truth: Truth, tmp_path: Path) -> None:
    write, images = {"voc": (writers.voc, "JPEGImages"), "yolo": (writers.yolo, "images")}[name]
    items = []
    for split in SPLITS:
        truth.copy_images(split, tmp_path / images / split)
        for stem in (stem for stem, of in truth.split.items() if of == split):
            items.append((f"{split}/{stem}.jpg", (320, 320), [Box(*box) for box in truth.boxes[stem]]))
    write(tmp_path, items, CLASSES)
    assert formats.recognise(tmp_path) == name
    agree(READ[name](tmp_path), truth, 0.01)
    if name == "voc":
        theirs = AnnotationSet.from_pascal_voc(tmp_path / "Annotations" / "val")
        assert {item.image_id for item in theirs} == {f"{s}.jpg" for s, of in truth.split.items() if of == "val"}
        for item in theirs:
            assert [(b.label, *b.ltrb) for b in item.boxes] == [
                (box[0], *map(pytest.approx, box[1:])) for box in truth.boxes[Path(item.image_id).stem]
            ]


def test_written_text_is_escaped(tmp_path: Path) -> None:
    names = ["<b> & 'quote\"", "größe"]
    Image.new("RGB", (64, 48)).save(tmp_path / "a & b.jpg")
    writers.voc(tmp_path, [("a & b.jpg", (64, 48), [Box(name, 1, 2, 3, 4) for name in names])], names)
    (item,) = voc.read(tmp_path).images
    assert [box.label for box in item.boxes] == names
    assert item.declared_size == (64, 48)
    assert "<xmin>1</xmin>" in item.annotation.read_text()  # not 1.000: many readers accept only integers


# --- FiftyOne: its exporters read by us, its importers behind `fiftyone:TYPE` ---------------------------


@pytest.fixture(scope="module")
def exported(truth: Truth, own_database: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder per type, with one per split inside, as FiftyOne's exporters write the tiles."""
    target = tmp_path_factory.mktemp("exported")
    with database.fiftyone() as fo:
        for split in SPLITS:
            dataset = fo.Dataset()
            for stem, boxes in truth.boxes.items():
                if truth.split[stem] != split:
                    continue
                detections = [
                    fo.Detection(label=label, bounding_box=[x1 / 320, y1 / 320, (x2 - x1) / 320, (y2 - y1) / 320])
                    for label, x1, y1, x2, y2 in boxes
                ]
                sample = fo.Sample(filepath=str(truth.folder / "images" / f"{stem}.jpg"), tags=[split])
                sample["ground_truth"] = fo.Detections(detections=detections)
                dataset.add_sample(sample)
            dataset.compute_metadata()
            for name in ("KITTIDetectionDataset", "CVATImageDataset", "VOCDetectionDataset", "YOLOv4Dataset", "FiftyOneDataset"):  # fmt: skip
                dataset.export(str(target / name / split), dataset_type=getattr(fo.types, name))
            folder = str(target / "YOLOv5Dataset")
            dataset.export(folder, dataset_type=fo.types.YOLOv5Dataset, split=split, classes=list(CLASSES))
            dataset.delete()
    return target


@needs_database
@pytest.mark.parametrize(
    ("kind", "name", "tolerance"),
    [
        # FiftyOne rounds KITTI's and CVAT's corners to whole pixels, truncates VOC's, and writes YOLO's to six decimals.
        ("KITTIDetectionDataset", "kitti", 0.5),
        ("CVATImageDataset", "cvat", 0.5),
        ("VOCDetectionDataset", "voc", 1.0),
        ("YOLOv4Dataset", "yolo", 0.01),
        ("YOLOv5Dataset", "yolo", 0.01),
    ],
)
def test_fiftyone_exports_are_read(kind: str, name: str, tolerance: float, exported: Path, truth: Truth) -> None:
    folder = exported / kind
    assert formats.recognise(folder) == name
    agree(READ[name](folder), truth.of_one_word() if name == "kitti" else truth, tolerance + 1e-9)


@needs_database
@pytest.mark.parametrize(("kind", "tolerance"), [("YOLOv5Dataset", 0.01), ("FiftyOneDataset", 0.01), ("VOCDetectionDataset", 1.0)])  # fmt: skip
def test_fiftyone_imports_are_read(kind: str, tolerance: float, exported: Path, truth: Truth) -> None:
    with database.fiftyone() as fo:
        before = fo.list_datasets()  # left by other tests
    name, source = formats.read(exported / kind, f"fiftyone:{kind}")
    assert name == f"fiftyone:{kind}"
    agree(source, truth, tolerance + 1e-9)
    with database.fiftyone() as fo:
        assert fo.list_datasets() == before  # no trace of it stays


@needs_database
def test_fiftyone_counts_each_coco_object_once(truth: Truth, own_database: None, tmp_path: Path) -> None:
    """FiftyOne's importer returns an outlined object twice: as a detection and as a mask."""
    data = read_coco(truth.folder, "val")
    truth.copy_images("val", tmp_path / "data")
    for annotation in data["annotations"]:
        x, y, w, h = annotation["bbox"]
        annotation |= {"segmentation": [[x, y, x + w, y, x + w, y + h]], "iscrowd": 0}
    data["annotations"][0]["iscrowd"] = 1
    (tmp_path / "labels.json").write_text(json.dumps(data))
    boxes = [box for item in via_fiftyone.read(tmp_path, "COCODetectionDataset").images for box in item.boxes]
    assert len(boxes) == len(data["annotations"])
    assert [box.ignore for box in boxes if box.ignore] == ["iscrowd: many objects in one box"]


@needs_database
def test_fiftyone_also_reads_images_without_labels(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported / "KITTIDetectionDataset" / "val", tmp_path / "kitti"))
    (folder / "labels" / "val_0000.txt").unlink()
    (folder / "labels" / "val_0001.txt").write_text("")
    items = via_fiftyone.read(folder, "KITTIDetectionDataset").images
    assert [(item.image.name, item.annotation is None) for item in items] == [
        ("val_0000.jpg", True),
        ("val_0001.jpg", False),
        ("val_0002.jpg", False),
    ]


def polygons(folder: Path) -> None:
    with database.fiftyone() as fo:
        dataset = fo.Dataset()
        Image.new("RGB", (200, 100)).save(folder / "a.png")
        sample = fo.Sample(filepath=str(folder / "a.png"))
        sample["shapes"] = fo.Polylines(
            polylines=[
                fo.Polyline(label="leaf", points=[[(0.1, 0.2), (0.5, 0.1), (0.3, 0.9)]], closed=True),
                fo.Polyline(label="vein", points=[[(0.1, 0.2), (0.5, 0.1)]]),
            ]
        )
        sample["weather"] = fo.Classification(label="rain")
        dataset.add_sample(sample)
        dataset.export(str(folder / "export"), dataset_type=fo.types.FiftyOneDataset)
        dataset.delete()
    (folder / "a.png").unlink()


@needs_database
def test_fiftyone_polygons_are_framed_and_other_labels_are_counted(own_database: None, tmp_path: Path) -> None:
    polygons(tmp_path)
    (item,) = via_fiftyone.read(tmp_path / "export", "FiftyOneDataset").images
    leaf, vein, rain = item.boxes
    assert corners(leaf) == ("leaf", *map(pytest.approx, (20, 10, 100, 90)))  # type: ignore[comparison-overlap]
    assert (vein.ignore, rain.ignore) == ("an open line: it encloses nothing", "a Classification, not a box")


@needs_database
def test_fiftyone_imports_are_refused_in_one_line(exported: Path, own_database: None, tmp_path: Path) -> None:
    with database.fiftyone() as fo:
        before = fo.list_datasets()
    with pytest.raises(DataError, match=r"no type 'VOCDetektionDataset'; did you mean 'VOCDetectionDataset'\?"):
        via_fiftyone.read(tmp_path, "VOCDetektionDataset")
    with pytest.raises(DataError, match=r"FiftyOne has no type 'os'"):
        via_fiftyone.read(tmp_path, "os")
    with pytest.raises(DataError, match=r"FiftyOne cannot import it as COCODetectionDataset \(") as error:
        via_fiftyone.read(tmp_path, "COCODetectionDataset")
    assert "\n" not in str(error.value)
    for label in "ab":
        (tmp_path / "tree" / label).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "tree" / label / f"{label}.png")
    with pytest.raises(DataError, match=r"tree: FiftyOne reads Classification 'ground_truth' in it, but no boxes"):
        via_fiftyone.read(tmp_path / "tree", "ImageClassificationDirectoryTree")

    moved = Path(shutil.copytree(exported / "FiftyOneDataset" / "val", tmp_path / "moved"))
    samples = json.loads((moved / "samples.json").read_text())
    samples["samples"][0]["filepath"] = "/etc/hostname"
    (moved / "samples.json").write_text(json.dumps(samples))
    with pytest.raises(DataError, match=r"moved: names '/etc/hostname', outside"):
        via_fiftyone.read(moved, "FiftyOneDataset")
    with database.fiftyone() as fo:
        assert fo.list_datasets() == before


# --- Peculiarities of each format -----------------------------------------------------------------------


def lay(folder: Path, images: str, files: dict[str, str]) -> Path:
    """A source of 64 x 48 images and text files."""
    for name in images.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48)).save(folder / name)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    return folder


def labels(source: Source, folder: Path) -> dict[str, list[str]]:
    """The labels on each image, by its path in the source."""
    return {item.image.relative_to(folder).as_posix(): [box.label for box in item.boxes] for item in source.images}


def splits(source: Source) -> dict[str, str | None]:
    return {item.image.name: item.split for item in source.images}


def only_box(source: Source) -> Box:
    (box,) = (box for item in source.images for box in item.boxes)
    return box


def an_object(label: str = "cat", box: tuple[object, ...] = (1, 2, 3, 4), more: str = "") -> str:
    sides = "".join(f"<{tag}>{side}</{tag}>" for tag, side in zip(voc.CORNERS, box, strict=True))
    return f"<object><name>{label}</name><bndbox>{sides}</bndbox>{more}</object>"


def voc_xml(objects: str = "", filename: str = "") -> str:
    return f"<annotation><filename>{filename}</filename>{objects}</annotation>"


def test_voc_parts_are_not_objects_and_difficult_objects_are(tmp_path: Path) -> None:
    head = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    objects = an_object("person", more=head + f"<extra>{an_object('ring')}</extra>") + an_object(
        "chair", more="<difficult>1</difficult>"
    )
    lay(tmp_path, "a.jpg", {"a.xml": voc_xml(objects)})
    (item,) = voc.read(tmp_path).images
    assert [(box.label, box.id, box.ignore) for box in item.boxes] == [
        ("person", "object 1", ""),
        ("chair", "object 2", ""),
    ]


SIDES = "<xmin>5</xmin><ymin>6</ymin><xmax>7</xmax><ymax>8</ymax>"
UNUSUAL_VOC = {
    "two boxes in an object": (an_object(more=f"<bndbox>{SIDES}</bndbox>"), "object 1, shape 2", "a further <bndbox>; write"),
    "two polygons in an object": (
        f"<object><name>cat</name>{'<polygon><x1>1</x1><y1>2</y1><x2>3</x2><y2>2</y2><x3>3</x3><y3>4</y3></polygon>' * 2}</object>",
        "object 1, shape 2",
        "a further <polygon>; write",
    ),
    "a wrapper": (an_object("dog") + f"<objects>{an_object()}</objects>", "objects, object 1", "in <objects>; put each <object> directly"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNUSUAL_VOC)
def test_voc_boxes_in_unusual_places_are_damaged_and_counted(case: str, tmp_path: Path) -> None:
    objects, identity, damage = UNUSUAL_VOC[case]
    (item,) = voc.read(lay(tmp_path, "a.jpg", {"a.xml": voc_xml(objects)})).images
    [box] = [box for box in item.boxes if box.damage]
    assert (box.id, box.label, len(item.boxes)) == (identity, "cat", 2)
    assert box.damage.startswith(damage)


def test_voc_names_of_other_images_are_noted_unless_their_own_xml_says_so(tmp_path: Path) -> None:
    files = {f"{n}.xml": voc_xml(an_object(), f"shots\\{n + 1}.jpg") for n in range(3)}
    files |= {"3.xml": voc_xml(an_object(), "3.jpg"), "3_flipped.xml": voc_xml(an_object(), "3.jpg")}
    source = voc.read(lay(tmp_path, "0.jpg 1.jpg 2.jpg 3.jpg 3_flipped.jpg", files))
    note = "0.xml: its <filename> is '1.jpg', but its boxes are on 0.jpg, which has the name of the XML: check which is right"
    assert source.notes == (f"{note} (and 1 more such)",)


def test_voc_finds_images_by_the_xml_file_name_first(tmp_path: Path) -> None:
    lay(
        tmp_path,
        "JPEGImages/a.jpg JPEGImages/b.png JPEGImages/old.jpeg JPEGImages/other.jpg twice/c.jpg twice/c.png",
        {
            "Annotations/a.xml": voc_xml(an_object("a"), "b.jpg"),  # b.jpg belongs to b.xml by name
            "Annotations/b.xml": voc_xml(an_object("b"), "b.jpg"),  # suffix changed
            "Annotations/new.xml": voc_xml(an_object("new"), "C:\\photos\\old.jpg"),  # only <filename> has the stem
            "Annotations/copy.xml": voc_xml(an_object("copy"), "a.jpg"),  # a copied XML whose own image is gone
            "twice/c.xml": voc_xml(an_object("c"), "c.png"),
        },
    )
    assert labels(voc.read(tmp_path), tmp_path) == {
        "JPEGImages/a.jpg": ["a"],
        "JPEGImages/b.png": ["b"],
        "JPEGImages/copy.jpg": ["copy"],
        "JPEGImages/old.jpeg": ["new"],
        "JPEGImages/other.jpg": [],
        "twice/c.jpg": [],
        "twice/c.png": ["c"],
    }


def test_voc_pairs_equal_stems_by_folder(tmp_path: Path) -> None:
    files = {f"{split}/Annotations/a.xml": voc_xml(an_object(split)) for split in ("train", "valid")}
    lay(tmp_path, "train/images/a.jpg valid/images/a.jpg", files)
    source = voc.read(tmp_path)
    assert labels(source, tmp_path) == {"train/images/a.jpg": ["train"], "valid/images/a.jpg": ["valid"]}
    assert [item.split for item in source.images] == ["train", "val"]
    (tmp_path / "valid" / "images" / "a.jpg").unlink()
    assert labels(voc.read(tmp_path), tmp_path) == {
        "train/images/a.jpg": ["train"],
        "valid/JPEGImages/a.jpg": ["valid"],
    }


def test_voc_pairs_equal_stems_by_folders_of_any_name(tmp_path: Path) -> None:
    files = {f"{camera}/Annotations/a.xml": voc_xml(an_object(camera)) for camera in ("left", "right")}
    lay(tmp_path, "left/JPEGImages/a.jpg right/JPEGImages/a.jpg", files)
    assert labels(voc.read(tmp_path), tmp_path) == {
        "left/JPEGImages/a.jpg": ["left"],
        "right/JPEGImages/a.jpg": ["right"],
    }
    (tmp_path / "left" / "JPEGImages" / "a.png").write_bytes(b"")
    with pytest.raises(
        DataError,
        match=r"left/Annotations/a\.xml: 'a' matches both .*/left/JPEGImages/a\.jpg and .*/a\.png; rename one",
    ):
        voc.read(tmp_path)


def test_voc_lists_may_hold_names_with_spaces_flags_and_suffixes(tmp_path: Path) -> None:
    lay(
        tmp_path,
        "VOC2012/JPEGImages/my_cat.jpg VOC2012/JPEGImages/b.jpg VOC2012/JPEGImages/c.jpg",
        {
            "VOC2012/Annotations/my cat.xml": voc_xml(an_object(), "my_cat.jpg"),
            "VOC2012/ImageSets/Main/train.txt": "my cat\r\n\r\nb  -1\r\n",
            "VOC2012/ImageSets/Main/val.txt": "c.jpg\n",
            "VOC2012/ImageSets/Segmentation/val.txt": "b\n",  # belongs to another task
        },
    )
    assert splits(voc.read(tmp_path)) == {"my_cat.jpg": "train", "b.jpg": "train", "c.jpg": "val"}


@pytest.mark.parametrize("words", ["Train Validation Test", "train valid test", "training val TESTING"])
def test_voc_lists_may_have_any_word_for_their_split(words: str, tmp_path: Path) -> None:
    lists = {f"ImageSets/Main/{word}.txt": f"{stem}\n" for word, stem in zip(words.split(), "abc", strict=True)}
    xmls = {f"Annotations/{stem}.xml": voc_xml(an_object()) for stem in "abc"}
    of_a_class = {"ImageSets/Main/cat_test.txt": "a  1\nb -1\nc  1\n"}
    lay(tmp_path, "JPEGImages/a.jpg JPEGImages/b.jpg JPEGImages/c.jpg", {**lists, **xmls, **of_a_class})
    assert splits(voc.read(tmp_path)) == {"a.jpg": "train", "b.jpg": "val", "c.jpg": "test"}
    (tmp_path / "ImageSets" / "Main" / "validation.txt").write_text("a\n")
    with pytest.raises(DataError, match=rf"validation\.txt: 'a' is also in {words.split()[0]}\.txt; remove it"):
        voc.read(tmp_path)


@pytest.mark.parametrize(
    ("files", "given"),
    [
        ({"train": "a\nb", "test": "c"}, ["train", "train", "test"]),
        ({"Main/trainval": "a\nb", "Main/test": "c"}, ["train", "train", "test"]),
        ({"Main/train": "a", "Main/trainval": "a\nb", "Main/val": "b", "Main/test": "c"}, ["train", "val", "test"]),
        ({"Main/train": "a", "Main/val": "b\nc", "train": "a\nb\nc"}, ["train", "val", "val"]),
    ],
    ids=["without Main", "trainval", "trainval beside train", "both folders"],
)
def test_voc_lists_without_main_and_of_train_and_val_together(
    files: dict[str, str], given: list[str], tmp_path: Path
) -> None:
    lists = {f"VOC2007/ImageSets/{name}.txt": f"{text}\n" for name, text in files.items()}
    xmls = {f"VOC2007/Annotations/{stem}.xml": voc_xml(an_object()) for stem in "abc"}
    lay(tmp_path, " ".join(f"VOC2007/JPEGImages/{stem}.jpg" for stem in "abc"), {**lists, **xmls})
    assert splits(voc.read(tmp_path)) == dict(zip(("a.jpg", "b.jpg", "c.jpg"), given, strict=True))


def test_voc_lists_of_names_that_begin_alike(tmp_path: Path) -> None:
    names = ("cat", "cat (1)", "dog", "dog (1)", "cow 0")
    xmls = {f"Annotations/{name}.xml": voc_xml(an_object()) for name in names}
    for name in names:
        lay(tmp_path, "", {f"JPEGImages/{name}.jpg": ""})
    lists = {
        "ImageSets/Main/train.txt": "cat.jpg\ncat (1).jpg\n",
        "ImageSets/Main/val.txt": "dog 1\ndog (1)  -1\ncow 0\n",
    }
    lay(tmp_path, "", {**xmls, **lists})
    expected = {f"{name}.jpg": "train" if name.startswith("cat") else "val" for name in names}
    assert splits(voc.read(tmp_path)) == expected


@pytest.mark.parametrize("form", ["voc", "kitti"])
def test_lines_of_lists_that_fit_no_image_are_noted_if_problems_are_dropped(form: str, tmp_path: Path) -> None:
    files = {"Annotations/a.xml": voc_xml(an_object())} if form == "voc" else {"label_2/a.txt": PEDESTRIAN}
    listed = "ImageSets/Main/train.txt" if form == "voc" else "ImageSets/train.txt"
    image = "JPEGImages/a.jpg" if form == "voc" else "image_2/a.jpg"
    lay(tmp_path, image, {**files, listed: "ghost (1)\na\nspirit\n"})
    with pytest.raises(
        DataError, match=r"train\.txt: lists 'ghost \(1\)', which .*; remove the line \(and 1 more such\)"
    ):
        formats.read(tmp_path, form)
    source = formats.read(tmp_path, form, orphans=True)[1]
    what = "XML" if form == "voc" else "label file"
    assert source.notes == (f"{listed}: lists 'ghost (1)', which has neither image nor {what} (and 1 more such)",)
    assert splits(source) == {"a.jpg": "train"}


def labelme_file(name: str) -> str:
    shape = {"label": "cat", "points": [[1, 2], [30, 40]], "shape_type": "rectangle"}
    return json.dumps({"shapes": [shape], "imagePath": name, "imageWidth": 64, "imageHeight": 48})


# Annotations of a.jpg and b.jpg, and where their images are -> the note.
ELSEWHERE = {
    "beside": ("done/{}.json", "done/a.jpg todo/b.jpg", "done/b.json: its image was found in another folder, todo/b.jpg"),
    "apart": ("Annotations/1/{}.xml", "JPEGImages/1/a.jpg JPEGImages/2/b.jpg", "Annotations/1/b.xml: its image was found in another folder, JPEGImages/2/b.jpg"),
    "both beside": ("done/{}.json", "done/a.jpg done/b.jpg todo/c.jpg", ""),
    "both apart": ("Annotations/{}.xml", "JPEGImages/a.jpg JPEGImages/b.jpg", ""),
    "both elsewhere": ("json/{}.json", "one/a.jpg two/b.jpg", ""),
    "one missing": ("done/{}.json", "done/a.jpg todo/c.jpg", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", ELSEWHERE)
def test_an_image_from_another_folder_than_those_beside_it_is_noted(case: str, tmp_path: Path) -> None:
    """Cameras count from DSC_0001 in each folder, so an image of the same name may be another one."""
    place, images, note = ELSEWHERE[case]
    files = {
        place.format(stem): labelme_file(f"{stem}.jpg") if "json" in place else voc_xml(an_object()) for stem in "ab"
    }
    source = formats.read(lay(tmp_path, images, files))[1]
    assert source.notes == ((f"{note}: check that it is the right one",) if note else ())


def test_the_note_on_images_from_other_folders_counts_them(tmp_path: Path) -> None:
    files = {f"done/{stem}.json": labelme_file(f"{stem}.jpg") for stem in "abcd"}
    [note] = formats.read(lay(tmp_path, "done/a.jpg x/b.jpg y/c.jpg z/d.jpg", files))[1].notes
    assert note.startswith("done/b.json: its image was found in another folder, x/b.jpg: check")
    assert note.endswith("that it is the right one (and 2 more such)")


def test_yolo_polygons_are_framed_and_keypoints_ignored(tmp_path: Path) -> None:
    text = "1 0.25 0.25 0.75 0.25 0.5 1\n0 0.5 0.5 0.25 0.5\n"
    lay(tmp_path, "images/a.jpg", {"data.yaml": "names: {0: cat, 1: dog}\nnc: 2\n", "labels/a.txt": text})
    (item,) = yolo.read(tmp_path).images
    assert [corners(box) for box in item.boxes] == [("dog", 16, 12, 48, 48), ("cat", 24, 12, 40, 36)]
    # The same count of numbers is a polygon or a box with keypoints: only data.yaml tells which.
    lay(
        tmp_path,
        "",
        {"data.yaml": "names: [cat]\nkpt_shape: [2, 2]\n", "labels/a.txt": "0 0.5 0.5 0.25 0.5 0.9 0.9 0.1 0.9"},
    )
    assert corners(only_box(yolo.read(tmp_path))) == ("cat", 24, 12, 40, 36)


@pytest.mark.parametrize("points", [1, 2])
def test_yolo_keypoints_without_kpt_shape_are_refused(points: int, tmp_path: Path) -> None:
    """An even count of numbers would pass for a polygon."""
    rows = "\n".join(f"0 0.5 0.5 0.25 0.5{f' 0.4 0.6 {visible}' * points}" for visible in ("2", "0.000000"))
    lay(tmp_path, "images/a.jpg", {"labels/a.txt": rows, "data.yaml": "names: [cat]\n"})
    said = rf"no `kpt_shape: \[{points}, 3\]`, but each row has a box and {points} points? with their visibility; "
    with pytest.raises(DataError, match=rf"data\.yaml: {said}add it$"):
        yolo.read(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / "classes.txt").write_text("cat")
    with pytest.raises(DataError, match=rf"{said}write a data\.yaml with `names:` and this$"):
        yolo.read(tmp_path)
    (tmp_path / "labels" / "a.txt").write_text(
        "0 0.1 0.1 0.4 0.1 0.4 0.4 1 0.4 0.1 1\n0 0.1 0.1 0.4 0.1 0.4 0.4 0.3 0.4 0.1 1"
    )
    assert [corners(box)[1:] for box in yolo.read(tmp_path).images[0].boxes][1] == pytest.approx((6.4, 4.8, 25.6, 48))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_relative_boxes_refer_to_the_upright_image(suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its left side
    for name, options in (("turned", {"exif": exif}), ("plain", {})):
        Image.new("RGB", (64, 48)).save(tmp_path / f"{name}.{suffix}", **options)
    for name in ("turned", "plain"):
        (tmp_path / f"{name}.txt").write_text("0 0.5 0.5 0.25 0.5")
    (tmp_path / "classes.txt").write_text("cat")
    found = {item.image.stem: corners(*item.boxes) for item in yolo.read(tmp_path).images}
    assert found == {"turned": ("cat", 18, 16, 30, 48), "plain": ("cat", 24, 12, 40, 36)}
    (tmp_path / "boxes.csv").write_text("ImageID,LabelName,XMin,XMax,YMin,YMax\nturned,cat,0.375,0.625,0.25,0.75\n")
    assert corners(only_box(openimages.read(tmp_path))) == ("cat", 18, 16, 30, 48)


def test_exif_after_the_pixels_of_a_png_is_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png", exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    start = data.index(b"eXIf") - 4
    chunk = data[start : start + 12 + int.from_bytes(data[start : start + 4], "big")]
    end = data.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(data[:start] + data[start + len(chunk) : end] + chunk + data[end:])
    lay(tmp_path, "", {"data.yaml": "names: [cat]", "a.txt": "0 0.5 0.5 0.25 0.5"})
    assert corners(only_box(yolo.read(tmp_path))) == ("cat", 18, 16, 30, 48)


def test_yolo_lists_from_another_machine_are_read(tmp_path: Path) -> None:
    one = "0 0.5 0.5 0.1 0.1"
    lay(
        tmp_path,
        "images/train/a.jpg images/val/a.jpg images/val/b.jpg images/spare/c.png images/spare/d.jpg",
        {
            "data.yaml": "path: /content/set\nnames: [cat]\ntrain: /content/set/lists/train.txt\nval: [lists/val.txt, /content/set/images/val]\n",
            "lists/train.txt": "/content/set/images/train/a.jpg\n",
            "lists/val.txt": "./../images/val/a.jpg\nimages/val/gone.jpg\nimages/val/a.jpg\n",
            "labels/train/a.txt": one,
            "labels/val/a.txt": one,
            "labels/val/gone.txt": one,
            "labels/val/lost.txt": one,
            "labels/spare/c.txt": one,
        },
    )
    source = yolo.read(tmp_path)
    # c is labelled but in no split, d is neither and set aside; convert reports the missing images of `gone` and `lost`.
    assert [(item.image.relative_to(tmp_path).as_posix(), item.split, len(item.boxes)) for item in source.images] == [
        ("images/spare/c.png", None, 1),
        ("images/spare/d.jpg", None, 0),
        ("images/train/a.jpg", "train", 1),
        ("images/val/a.jpg", "val", 1),
        ("images/val/b.jpg", "val", 0),
        ("images/val/gone.jpg", "val", 1),
        ("images/val/lost.jpg", "val", 1),
    ]
    assert [image.name for image in source.set_aside] == ["d.jpg"]
    assert {box.damage for item in source.images for box in item.boxes} == {"", "image cannot be read"}


@pytest.mark.parametrize("home", ["", "lists/"])
def test_yolo_lists_beside_class_names_give_the_splits(home: str, tmp_path: Path) -> None:
    names = [f"{letter}.jpg" for letter in "abcd"]
    labels = {f"data/{letter}.txt": "0 0.5 0.5 0.1 0.1" for letter in "abcd"}
    lists = {f"{home}train.txt": "data/a.jpg\n\ndata/b.jpg\n", f"{home}Valid.txt": "/content/data/c.jpg\n"}
    lay(tmp_path, " ".join(f"data/{name}" for name in names), {"data/classes.txt": "cat\n", **labels, **lists})
    given = ["train", "train", "val", None]
    assert splits(formats.read(tmp_path, "yolo")[1]) == dict(zip(names, given, strict=True))
    # Neither the labels of an image called `train` nor lists in two folders are lists of splits.
    (tmp_path / home / "train.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (tmp_path / home / "Valid.txt").rename(tmp_path / "test.txt")
    lay(tmp_path, f"{home}train.jpg", {"other/val.txt": "data/d.jpg\n"})
    assert set(splits(formats.read(tmp_path, "yolo")[1]).values()) == {None}


def test_darknet_name_lists_apply_to_their_own_folder(tmp_path: Path) -> None:
    lay(
        tmp_path,
        "obj_train_data/a.jpg obj_valid_data/b.jpg",
        {
            "obj_train_data/a.txt": "1 0.5 0.5 0.1 0.1",
            "obj_train_data/classes.txt": "cat\ndog\n",
            "obj_valid_data/b.txt": "1 0.5 0.5 0.1 0.1",
            "obj_valid_data/classes.txt": "dog\ncat\n",
            "obj_valid_data/lost.txt": "0 0.5 0.5 0.1 0.1",
            "notes.txt": "Labelled by hand.",
        },
    )
    source = yolo.read(tmp_path)
    assert labels(source, tmp_path) == {
        "obj_train_data/a.jpg": ["dog"],
        "obj_valid_data/b.jpg": ["cat"],
        "obj_valid_data/lost.jpg": ["dog"],
    }
    assert (source.classes, splits(source)) == (("cat", "dog"), {"a.jpg": "train", "b.jpg": "val", "lost.jpg": "val"})


CAT_DOG, DOG_CAT = "names: [cat, dog]\n", "names: [dog, cat]\n"
CONTRADICTIONS = {
    "labelImg's list": ({"data.yaml": CAT_DOG, "labels/classes.txt": "dog\ncat\n"}, "labels/classes.txt: other names than data.yaml"),
    "a list beside it": ({"data.yaml": CAT_DOG, "classes.txt": "dog\ncat\n"}, "classes.txt: other names than data.yaml"),
    "a YAML below": ({"data.yaml": CAT_DOG, "labels/data.yaml": DOG_CAT}, "labels/data.yaml: other names than data.yaml"),
    "a YAML elsewhere": ({"a/data.yaml": CAT_DOG, "labels/classes.txt": "dog\n"}, "labels/classes.txt: other names than a/data.yaml"),
    "YAMLs below a list": (
        {"classes.txt": "cat\ndog\n", "labels/data.yaml": DOG_CAT, "a/data.yaml": CAT_DOG},
        "labels/data.yaml: other names than the classes.txt in use",
    ),
    "a longer list": ({"data.yaml": CAT_DOG, "labels/classes.txt": "Cat\ndog\ncow\n"}, ""),
    "a shorter list": ({"data.yaml": CAT_DOG, "labels/classes.txt": "cat\n"}, ""),
    "no list of names": ({"data.yaml": CAT_DOG, "labels/labels.txt": "\n\n"}, ""),
    "of other labels": ({"data.yaml": CAT_DOG, "more/classes.txt": "dog\ncat\n"}, ""),
    "farther than the one in use": ({"labels/data.yaml": CAT_DOG, "classes.txt": "dog\ncat\n"}, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_yolo_lists_that_name_the_same_ids_differently_are_refused(case: str, tmp_path: Path) -> None:
    files, said = CONTRADICTIONS[case]
    lay(tmp_path, "images/a.jpg", {**files, "labels/a.txt": "1 0.5 0.5 0.1 0.1"})
    if said:
        with pytest.raises(DataError, match=re.escape(said) + " for the same class ids; delete the wrong one"):
            yolo.read(tmp_path)
    else:
        assert labels(yolo.read(tmp_path), tmp_path) == {"images/a.jpg": ["dog"]}


@pytest.mark.parametrize("text", ["0 0.5 0.5 0.1 0.1\n", ""])
@pytest.mark.parametrize("stem", ["labels", "names", "classes"])
def test_yolo_labels_of_an_image_called_like_a_list_of_names_are_read(stem: str, text: str, tmp_path: Path) -> None:
    for names in ({"data.yaml": "names: [cat]"}, {"predefined_classes.txt": "cat"}):
        folder = tmp_path / next(iter(names))
        lay(folder, f"images/{stem}.jpg", {**names, f"labels/{stem}.txt": text})
        [item] = yolo.read(folder).images
        assert item.annotation == folder / "labels" / f"{stem}.txt" and len(item.boxes) == len(text.splitlines())


def test_yolo_labels_may_lie_beside_images_in_a_folder_called_images(tmp_path: Path) -> None:
    lay(tmp_path, "images/a.jpg", {"classes.txt": "cat", "images/a.txt": "0 0.5 0.5 0.1 0.1"})
    assert formats.recognise(tmp_path) == "yolo"
    assert labels(yolo.read(tmp_path), tmp_path) == {"images/a.jpg": ["cat"]}


def cvat_xml(shapes: str, attributes: str = 'name="a.jpg" width="64" height="48"', meta: str = "") -> str:
    return f"<annotations><version>1.1</version>{meta}<image {attributes}>{shapes}</image></annotations>"


@pytest.mark.parametrize("rotation", [0, 30, 90, 135.5, 300, -20])
def test_cvat_rotated_boxes_are_framed_as_opencv_frames_them(rotation: float, tmp_path: Path) -> None:
    box = f'<box label="cat" xtl="10" ytl="20" xbr="40" ybr="30" rotation="{rotation}"/>'
    lay(tmp_path, "a.jpg", {"annotations.xml": cvat_xml(box)})
    points = cv2.boxPoints(((25.0, 25.0), (30.0, 10.0), rotation))
    frame = (*points.min(axis=0), *points.max(axis=0))
    # OpenCV's corners are in single precision.
    assert corners(only_box(cvat.read(tmp_path))) == (
        "cat",
        *map(lambda side: pytest.approx(float(side), abs=1e-4), frame),
    )


@pytest.mark.parametrize("rotation", [0, 30, 90, 135.5, 300])
def test_cvat_rotated_ellipses_are_framed_by_their_outline(rotation: float, tmp_path: Path) -> None:
    lay(
        tmp_path,
        "a.jpg",
        {"a.xml": cvat_xml(f'<ellipse label="cat" cx="30" cy="20" rx="15" ry="5" rotation="{rotation}"/>')},
    )
    angle, turn = np.linspace(0, 2 * np.pi, 100_001), np.radians(rotation)
    x = 30 + 15 * np.cos(angle) * np.cos(turn) - 5 * np.sin(angle) * np.sin(turn)
    y = 20 + 15 * np.cos(angle) * np.sin(turn) + 5 * np.sin(angle) * np.cos(turn)
    # The outline's points are 0.001 px apart, and far closer than that to its extremes.
    frame = [pytest.approx(side, abs=1e-6) for side in (x.min(), y.min(), x.max(), y.max())]
    assert corners(only_box(cvat.read(tmp_path))) == ("cat", *frame)


def test_cvat_shapes_are_framed_or_ignored_with_the_reason(tmp_path: Path) -> None:
    shapes = """
        <polygon label="a" points="10.5,20.00;30,5;20,40"/>
        <mask label="b" left="3" top="4" width="10" height="20" rle="1, 2"/>
        <polyline label="c" points="1,2;3,4"/>
        <points label="d" points="1,2"/>
        <tag label="e"/>
        <skeleton label="f"><points label="joint" points="1,2"/></skeleton>
        <cuboid label="g" xtl1="1"/>
        <box label="h" xtl="1" ytl="2" xbr="3" ybr="4"><attribute name="colour">red</attribute></box>"""
    meta = "<meta><task><labels><label><name>h</name></label><label><name>b</name></label><label><name>f</name><type>skeleton</type></label><label><name>joint</name><type>points</type><parent>f</parent></label></labels></task></meta>"
    lay(tmp_path, "images/a.jpg", {"annotations.xml": cvat_xml(shapes, meta=meta)})
    source = cvat.read(tmp_path)
    (item,) = source.images
    assert [corners(box) for box in item.boxes if not box.ignore] == [
        ("a", 10.5, 5, 30, 40),
        ("b", 3, 4, 13, 24),
        ("h", 1, 2, 3, 4),
    ]
    assert {box.label: box.ignore for box in item.boxes if box.ignore} == {
        "c": "a polyline: it encloses nothing",
        "d": "points: they enclose nothing",
        "e": "a tag of the whole image",
        "f": "a skeleton, not a box",
        "g": "a cuboid, not a box",
    }
    assert [box.id for box in item.boxes] == [f"a.jpg, shape {number}" for number in range(1, 9)]
    assert source.classes == ("h", "b", "a")  # the task's order, then classes it does not list
    assert item.declared_size == (64, 48)


def test_cvat_subsets_and_folders_give_the_splits(tmp_path: Path) -> None:
    named = [
        ("a.jpg", "Train"),
        ("val/b.jpg", "default"),
        ("c.jpg", "Validation"),
        ("d.jpg", "spare"),
        ("e.jpg", "test"),
    ]
    xml = "".join(f'<image name="{name}" subset="{subset}" width="64" height="48"/>' for name, subset in named)
    images = (
        "images/Train/a.jpg images/val/b.jpg images/Validation/c.jpg images/spare/d.jpg images/Train/d.jpg images/e.jpg"
    )
    lay(tmp_path, images, {"annotations.xml": f"<annotations>{xml}</annotations>"})
    found = {
        (item.image.parent.name, item.image.name): (item.split, item.annotation is not None)
        for item in cvat.read(tmp_path).images
    }
    assert found == {
        ("Train", "a.jpg"): ("train", True),
        ("val", "b.jpg"): ("val", True),
        ("Validation", "c.jpg"): ("val", True),
        ("spare", "d.jpg"): (None, True),
        ("images", "e.jpg"): ("test", True),
        ("Train", "d.jpg"): ("train", False),
    }


# The first object of KITTI's first training image, 000000.
PEDESTRIAN = "Pedestrian 0.00 0 -0.20 712.40 143.00 810.73 307.92 1.89 0.48 1.20 1.84 1.47 8.41 0.01"
DONT_CARE = "DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10"


def test_kitti_handles_its_cameras_scores_and_dont_care_regions(tmp_path: Path) -> None:
    images = (
        "training/image_2/000000.png training/image_3/000000.png testing/image_2/000000.png testing/image_3/000000.png"
    )
    lay(tmp_path, images, {"training/label_2/000000.txt": f"{PEDESTRIAN}\n{DONT_CARE}\n\n{PEDESTRIAN} 0.9\n"})
    source = kitti.read(tmp_path)
    assert labels(source, tmp_path) == {
        "training/image_2/000000.png": ["Pedestrian", "DontCare", "Pedestrian"],
        "testing/image_2/000000.png": [],
    }
    first, second, third = source.images[1].boxes
    assert corners(first) == corners(third) == ("Pedestrian", 712.40, 143.00, 810.73, 307.92)
    assert (first.id, third.id) == ("line 1", "line 4")
    assert (first.ignore, second.ignore) == ("", "DontCare: a region that KITTI does not label")
    assert [(item.split, item.annotation is None) for item in source.images] == [("test", True), ("train", False)]


OPEN_IMAGES = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)


def test_open_images_groups_and_negatives_are_ignored(tmp_path: Path) -> None:
    rows = "".join(f"a,xclick,{label},{sure},0.25,0.5,0.5,1,1,1,{group},1,0\n" for label, sure, group in [("/m/01", 1, 0), ("/m/02", 1, 1), ("/m/02", 0, 0), ("Cat", 0.7, -1)])  # fmt: skip
    lay(
        tmp_path,
        "images/a.png",
        {
            "oidv6-validation-annotations-bbox.csv": OPEN_IMAGES + rows,
            "image-labels.csv": "ImageID,Source,LabelName,Confidence\nz,verification,/m/01,1\n",
            "classes.csv": 'LabelName,DisplayName\n/m/01,"Cat, big"\n/m/02,Dog\n',
        },
    )
    (item,) = openimages.read(tmp_path).images
    assert corners(item.boxes[0]) == ("Cat, big", 16, 24, 32, 48)
    assert [(box.label, box.id, box.ignore.split(":")[0]) for box in item.boxes] == [
        ("Cat, big", "line 2", ""),
        ("Dog", "line 3", "IsGroupOf"),
        ("Dog", "line 4", "Confidence 0"),
        ("Cat", "line 5", ""),
    ]
    assert item.split == "val"


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "a.jpg,64,48,cat,1,2,3,4.5"),
        ('"ymax","xmax","ymin","xmin","label","image_path"', '"4.5","3","2","1","cat","images/a.jpg"'),
        ("Image;Class Name;X1;Y1;X2;Y2", "images\\a.jpg;cat;1;2;3;4,5"),
        ("image_id\tclass_name\tclass_id\tx_min\ty_min\tx_max\ty_max", "a\tcat\t7\t1\t2\t3\t4.5"),
        (",path,left,top,right,bottom,category,note", "0,/home/me/set/images/a.jpg,1,2,3,4.5,cat,"),
        ("\ufefffile,xtl,ytl,xbr,ybr,label", "a.jpg,1,2,3,4.5,cat"),
    ],
)
def test_plain_tables_with_common_headers_are_read(header: str, row: str, tmp_path: Path) -> None:
    lay(tmp_path, "images/a.jpg", {"labels.csv": f"{header}\r\n{row}\r\n\r\n"})
    assert formats.recognise(tmp_path) == "csv"
    source = table.read(tmp_path)
    assert labels(source, tmp_path) == {"images/a.jpg": ["cat"]}
    assert corners(only_box(source)) == ("cat", 1, 2, 3, 4.5)


def test_a_table_gives_splits_by_column_file_and_folder(tmp_path: Path) -> None:
    header = "filename,split,class,xmin,ymin,xmax,ymax\n"
    files = {
        "labels.csv": header + "a.jpg,validation,cat,1,2,3,4\nb.jpg,,cat,1,2,3,4\n",
        "test.csv": header + "c.jpg,,,,,,\n",
        "train/labels.csv": header + "d.jpg,,cat,1,2,3,4\n",
    }
    lay(tmp_path, "images/a.jpg train/b.jpg images/c.jpg train/d.jpg images/e.jpg", files)
    assert splits(table.read(tmp_path)) == {
        "a.jpg": "val",
        "b.jpg": "train",
        "c.jpg": "test",
        "d.jpg": "train",
        "e.jpg": None,
    }


def test_an_empty_row_beside_others_is_a_lost_box(tmp_path: Path) -> None:
    lay(tmp_path, "a.jpg", {"labels.csv": "filename,class,xmin,ymin,xmax,ymax\na.jpg,,,,,\na.jpg,cat,1,2,3,4\n"})
    (item,) = table.read(tmp_path).images
    assert [(box.id, box.damage) for box in item.boxes] == [("line 2", "no class"), ("line 3", "")]


# --- Invalid annotations: one box each, with the reason -------------------------------------------------

NAMED = "names: [cat]\ntrain: images\n"
TABLE = "filename,class,xmin,ymin,xmax,ymax\n"
DAMAGED: dict[str, tuple[str, dict[str, str], str, str, str]] = {
    # format, files, and the only box's id, label and damage
    "voc no number": ("voc", {"a.xml": voc_xml(an_object(box=("left", 2, 3, 4)))}, "object 1", "cat", "xmin is 'left', not a number"),
    "voc underscore": ("voc", {"a.xml": voc_xml(an_object(box=(1, 2, "1_0", 4)))}, "object 1", "cat", "xmax is '1_0', not a number"),
    "voc no bndbox": ("voc", {"a.xml": voc_xml("<object><name>cat</name></object>")}, "object 1", "cat", "xmin is None, not a number"),
    "voc no name": ("voc", {"a.xml": voc_xml(an_object(" "))}, "object 1", "", "no <name>"),
    "yolo class": ("yolo", {"data.yaml": NAMED, "labels/a.txt": "\n1 .5 .5 .1 .1"}, "line 2", "", "class 1, outside the valid range 0..0"),
    "yolo half class": ("yolo", {"data.yaml": NAMED, "labels/a.txt": "0.5 .5 .5 .1 .1"}, "line 1", "", "class 0.5, outside the valid range 0..0"),
    "yolo three numbers": ("yolo", {"data.yaml": NAMED, "labels/a.txt": "0 .5 .5 .1"}, "line 1", "", "3 numbers after the class; a box has 4, a polygon 6 or more"),
    "yolo text": ("yolo", {"data.yaml": NAMED, "labels/a.txt": "cat .5 .5 .1 .1"}, "line 1", "", "not numbers: 'cat .5 .5 .1 .1'"),
    "cvat no number": ("cvat", {"a.xml": cvat_xml('<box label="cat" xtl="1" ytl="2" xbr="3"/>')}, "a.jpg, shape 1", "cat", "ybr is None, not a number"),
    "cvat no label": ("cvat", {"a.xml": cvat_xml('<box xtl="1" ytl="2" xbr="3" ybr="4"/>')}, "a.jpg, shape 1", "", "a box without a label"),
    "cvat rotation": ("cvat", {"a.xml": cvat_xml('<ellipse label="cat" cx="1" cy="2" rx="3" ry="4" rotation="inf"/>')}, "a.jpg, shape 1", "cat", "rotation is inf degrees, more than two turns"),
    "cvat polygon": ("cvat", {"a.xml": cvat_xml('<polygon label="cat" points="1,2;3"/>')}, "a.jpg, shape 1", "cat", "points are not three or more x,y"),
    "cvat NaN": ("cvat", {"a.xml": cvat_xml('<polygon label="cat" points="1,2;nan,4;5,6"/>')}, "a.jpg, shape 1", "cat", "points are not finite numbers"),
    "cvat unknown": ("cvat", {"a.xml": cvat_xml('<blob label="cat"/>')}, "a.jpg, shape 1", "cat", "<blob> is not a shape of CVAT 1.1"),
    "kitti columns": ("kitti", {"labels/a.txt": f"{PEDESTRIAN} 1 2"}, "line 1", "Pedestrian", "17 columns; KITTI has 15, or 16 with a score"),
    "kitti number": ("kitti", {"labels/a.txt": PEDESTRIAN.replace("712.40", "wide")}, "line 1", "Pedestrian", "left is 'wide', not a number"),
    "open images number": ("openimages", {"a.csv": "ImageID,LabelName,XMin,XMax,YMin,YMax\na,cat,0.1,,0.1,0.2\n"}, "line 2", "cat", "XMax is '', not a number"),
    "open images label": ("openimages", {"a.csv": "ImageID,LabelName,XMin,XMax,YMin,YMax\na,,0,1,0,1\n"}, "line 2", "", "no LabelName"),
    "open images image": ("openimages", {"a.csv": "ImageID,LabelName,XMin,XMax,YMin,YMax\nb,cat,0,1,0,1\n"}, "line 2", "cat", "image cannot be read"),
    "csv number": ("csv", {"a.csv": TABLE + "a.jpg,cat,1,2,x,4\n"}, "line 2", "cat", "xmax is 'x', not a number"),
    "csv comma in a class": ("csv", {"a.csv": TABLE + "a.jpg,cat, big,1,2,3,4\n"}, "line 2", "cat", "7 values in 6 columns"),
    "csv short row": ("csv", {"a.csv": TABLE + "a.jpg,cat,1,2\n"}, "line 2", "cat", "4 values in 6 columns"),
    "csv name alone": ("csv", {"a.csv": TABLE + "a.jpg\n"}, "line 2", "", "1 value in 6 columns"),
    "csv no class": ("csv", {"a.csv": TABLE + "a.jpg,,1,2,3,4\n"}, "line 2", "", "no class"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_an_invalid_annotation_is_one_box_with_the_reason(case: str, tmp_path: Path) -> None:
    name, files, identity, label, damage = DAMAGED[case]
    box = only_box(READ[name](lay(tmp_path, "images/a.jpg", files)))
    assert (box.id, box.label, box.damage) == (identity, label, damage)
    assert all(map(math.isnan, (box.xmin, box.ymin, box.xmax, box.ymax)))


@pytest.mark.parametrize("name", ["yolo", "openimages"])
def test_boxes_of_a_broken_image_are_counted(name: str, tmp_path: Path) -> None:
    files = {"data.yaml": "names: [cat]", "a.txt": "0 .5 .5 .1 .1\n9 1 1 1 1", "a.csv": OPEN_IMAGES + "a,x,cat,1,0,1,0,1,0,0,0,0,0\n", "a.jpg": "hello"}  # fmt: skip
    (item,) = READ[name](lay(tmp_path, "", files)).images
    assert [box.damage.split(",")[0] for box in item.boxes] == ["image cannot be read", "class 9"][: len(item.boxes)]
    assert item.boxes[0].label == "cat"


def annotations(folder: Path, name: str) -> int:
    """The number of annotations in a source, by counting lines or tags."""
    texts = [path.read_text() for suffix in ("*.xml", "*.txt", "*.csv") for path in folder.rglob(suffix)]
    lines = [line for text in texts for line in text.splitlines()]
    if name in ("voc", "cvat"):
        return len(re.findall("<object>|<box ", "".join(texts)))
    if name in ("yolo", "kitti"):
        return sum(len(line.split()) > 1 for line in lines)
    # Rows minus three headers; two layouts name ids in two columns, and in one the empty image has its own row.
    return sum(line.count(",") > 6 for line in lines) - 3 - (name == "csv")


@pytest.mark.parametrize("written", ["voc", "yolo", "cvat", "openimages", "csv", "kitti"])
def test_no_annotation_vanishes_however_it_is_corrupted(written: str, truth: Truth, tmp_path: Path) -> None:
    name, write = WRITTEN[written]
    write(replace(truth.of_one_word(), folder=truth.folder), tmp_path)
    wanted = annotations(tmp_path, name)
    assert wanted == sum(map(len, truth.boxes.values()))
    rng = random.Random(0)
    damaged = 0
    pattern = {"voc": r"(?<=<xmin>)[\d.]+", "cvat": r"(?<= xtl=\")[\d.]+"}.get(name, r"\b\d+\.\d+\b")
    for junk in ("", "x", "nan", "1e400", "-1e400", "0x10", "1_0", "١", "9" * 400):
        for path in sorted(path for suffix in ("*.xml", "*.txt", "*.csv") for path in tmp_path.rglob(suffix)):
            parts = re.split(f"({pattern})", path.read_text())  # every second part is a number
            parts[1::2] = [junk if rng.random() < 0.03 else number for number in parts[1::2]]
            path.write_text("".join(parts))
        boxes = [box for item in READ[name](tmp_path).images for box in item.boxes]
        assert len(boxes) == wanted
        damaged = sum(bool(box.damage) for box in boxes)
    assert damaged


# --- Invalid files: one clear line --------------------------------------------------------------------

BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;">]>'
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
REFUSED: dict[str, tuple[str, dict[str, str], str]] = {
    "voc broken": ("voc", {"a.xml": "<annotation><object>"}, r"a\.xml: not well-formed XML \(no element found.*; export it again"),
    "voc bomb": ("voc", {"a.xml": BOMB + voc_xml()}, r"a\.xml: defines XML entities, which no annotation needs"),
    "voc entity of a file": ("voc", {"a.xml": OUTSIDE + voc_xml("&x;")}, r"a\.xml: defines XML entities"),
    "voc encoding": ("voc", {"a.xml": '<?xml version="1.0" encoding="klingon"?>' + voc_xml()}, r"a\.xml: cannot be read as XML \(unknown encoding: klingon\); save it as UTF-8"),
    "voc other root": ("voc", {"a.xml": "<html/>"}, r"a\.xml: <html> instead of <annotation>, so this is not Pascal VOC; remove it"),
    "voc leads out": ("voc", {"b.xml": voc_xml(filename="../../secret.jpg")}, r"b\.xml: names '\.\./\.\./secret\.jpg', outside"),
    "voc leads out absolutely": ("voc", {"b.xml": voc_xml(filename="/etc/hostname")}, r"b\.xml: names '/etc/hostname', outside"),
    "voc two of one image": ("voc", {"x/a.xml": voc_xml(), "y/a.xml": voc_xml()}, r"y/a\.xml: describes a\.jpg, and so does .*x/a\.xml; keep one"),
    "voc list": ("voc", {"ImageSets/Main/val.txt": "ghost\n"}, r"val\.txt: lists 'ghost', which has neither image nor XML; remove the line"),
    "voc two lists": ("voc", {"ImageSets/Main/val.txt": "a", "ImageSets/Main/train.txt": "a"}, r"val\.txt: 'a' is also in train\.txt; remove it"),
    "yolo no names": ("yolo", {"labels/a.txt": "0 1 1 1 1"}, r"no data\.yaml in it, and no classes\.txt beside the labels; write a data\.yaml with `names:`"),
    "yolo nc": ("yolo", {"data.yaml": "names: [a, b]\nnc: 3\n"}, r"data\.yaml: `nc:` says 3 classes, `names:` has 2; correct one"),
    "yolo gaps": ("yolo", {"data.yaml": "names: {0: a, 2: b}\n"}, r"data\.yaml: `names:` must be a list of texts, or numbers 0, 1, 2, \.\.\. with a text each; put names"),
    "yolo yes": ("yolo", {"data.yaml": "names: [yes]\n"}, r"data\.yaml: `names:` .*put names such as yes or 1 in quotes"),
    "yolo twice": ("yolo", {"data.yaml": "names: [a, a]\n"}, r"data\.yaml: a class name appears twice in `names:`; rename one"),
    "yolo python": ("yolo", {"data.yaml": "names: !!python/name:os.system x\n"}, r"data\.yaml: not YAML \(could not determine"),
    "yolo merge keys": ("yolo", {"data.yaml": "a: &a {k: 1}\nb: &b {<<: [*a, *a]}\nc: {<<: [*b, *b]}\nnames: [a]\n"}, r"data\.yaml: not YAML \(a merge key, <<, which no description needs\); export it again"),
    "yolo no keys": ("yolo", {"data.yaml": "- a\n"}, r"data\.yaml: no keys; write names:, train: and val:"),
    "yolo folder": ("yolo", {"data.yaml": "names: [a]\ntrain: imges\n"}, r"data\.yaml: 'imges': no such folder or list file in .*; write it relative to data\.yaml, for example train/images"),
    "yolo leads out": ("yolo", {"data.yaml": "names: [a]\ntrain: ../../../etc\n"}, r"data\.yaml: names '\.\./\.\./\.\./etc', outside"),
    "yolo list leads out": ("yolo", {"data.yaml": "names: [a]\ntrain: l.txt\n", "l.txt": "../../x.jpg"}, r"l\.txt: names '\.\./\.\./x\.jpg', outside"),
    "yolo null byte": ("yolo", {"data.yaml": "names: [a]\ntrain: l.txt\n", "l.txt": "a\0.jpg"}, r"l\.txt: names an impossible path"),
    "yolo impossible folder": ("yolo", {"data.yaml": 'names: [a]\ntrain: "a\\0b"\n'}, r"data\.yaml: names an impossible path, 'a\\x00b'; correct it"),
    "yolo endless folder": ("yolo", {"data.yaml": f"names: [a]\ntrain: {'a' * 5000}\n"}, r"data\.yaml: .*aaa"),
    "yolo half a letter": ("yolo", {"data.yaml": 'names: ["\\ud800"]\n'}, r"data\.yaml: (`names:` must be a list|not YAML)"),
    "yolo number": ("yolo", {"data.yaml": "names: [a]\ntrain: [1]\n"}, r"data\.yaml: `train:` is 1; write a folder or a list file, such as train/images"),
    "yolo two splits": ("yolo", {"data.yaml": "names: [a]\ntrain: images\nval: images\n"}, r"data\.yaml: a\.jpg is in train and in val; keep it in one"),
    "yolo two lists of names": ("yolo", {"classes.txt": "a\n", "obj.names": "b\n"}, r"obj\.names: its class names differ from another list in the same folder; delete one"),
    "yolo empty name": ("yolo", {"classes.txt": "a\n\nb\n"}, r"classes\.txt: an empty line or a repeated class name; write one name per line"),
    "cvat broken": ("cvat", {"a.xml": "<annotations><image>"}, r"a\.xml: not well-formed XML"),
    "cvat bomb": ("cvat", {"a.xml": BOMB + cvat_xml("")}, r"a\.xml: defines XML entities"),
    "cvat other root": ("cvat", {"a.xml": voc_xml()}, r"a\.xml: <annotation> instead of <annotations>, so this is not CVAT; remove it"),
    "cvat video": ("cvat", {"a.xml": '<annotations><track id="0"/></annotations>'}, r'a\.xml: holds a <track>, so it is a video; export the task from CVAT as "CVAT for images 1\.1"'),
    "cvat no name": ("cvat", {"a.xml": cvat_xml("", "id='0'")}, r"a\.xml: image 1 has no name; give its file name"),
    "cvat leads out": ("cvat", {"a.xml": cvat_xml("", 'name="../../a.jpg"')}, r"a\.xml: names '\.\./\.\./a\.jpg', outside"),
    "cvat absolute": ("cvat", {"a.xml": cvat_xml("", 'name="/etc/hostname"')}, r"a\.xml: names '/etc/hostname', outside"),
    "cvat twice": ("cvat", {"a.xml": cvat_xml(""), "b.xml": cvat_xml("")}, r"a\.xml and .*b\.xml: two entries describe a\.jpg; remove one"),
    "kitti list": ("kitti", {"labels/a.txt": PEDESTRIAN, "ImageSets/train.txt": "ghost"}, r"train\.txt: lists 'ghost', which has neither image nor label file"),
    "kitti two of one image": ("kitti", {"x/labels/a.txt": PEDESTRIAN, "y/labels/a.txt": PEDESTRIAN}, r"y/labels/a\.txt: describes a\.jpg, and so does"),
    "open images column": ("openimages", {"a.csv": "ImageID,LabelName,XMin,XMax,YMin\na,b,0,1,0\n"}, r"a\.csv: column YMax is missing; add it \(needed: ImageID, LabelName, XMin"),
    "open images no id": ("openimages", {"a.csv": OPEN_IMAGES + ",x,cat,1,0,1,0,1,0,0,0,0,0\n"}, r"a\.csv: line 2: no ImageID; give its name"),
    "open images leads out": ("openimages", {"a.csv": OPEN_IMAGES + "../../a,x,cat,1,0,1,0,1,0,0,0,0,0\n"}, r"a\.csv: names '\.\./\.\./a\.jpg', outside"),
    "open images names": ("openimages", {"a.csv": "/m/1,a\n/m/1,b\n"}, r"a\.csv: line 2: '/m/1' has no name or two names; give it one"),
    "csv column": ("csv", {"a.csv": "filename,class,xmin,ymin,xmax\na.jpg,cat,1,2,3\n"}, r"a\.csv: column ymax is missing; add it \(needed: filename, class, xmin, ymin, xmax, ymax\)"),
    "csv columns": ("csv", {"a.csv": "filename,xmin,ymin\n"}, r"a\.csv: columns xmax and ymax are missing; add them \(needed: "),
    "csv no image": ("csv", {"a.csv": TABLE + ",cat,1,2,3,4\n"}, r"a\.csv: line 2: no image; give its file name"),
    "csv leads out": ("csv", {"a.csv": TABLE + "../../a.jpg,cat,1,2,3,4\n"}, r"a\.csv: names '\.\./\.\./a\.jpg', outside"),
    "csv absolute": ("csv", {"a.csv": TABLE + "/etc/b.jpg,cat,1,2,3,4\n"}, r"a\.csv: names '/etc/b\.jpg', outside"),
    "csv endless field": ("csv", {"a.csv": TABLE + "a.jpg,\"" + "c" * 200_000}, r"a\.csv: line 2: not a table \(field larger"),
    "csv quote": ("csv", {"a.csv": TABLE + 'a.jpg,cat,1,2,3,4\na.jpg,"cat,1,2,3,4\na.jpg,cat,1,2,3,4\na.jpg,",1,2,3,4\n'}, r"a\.csv: line 3: not a table \(a quote is not closed on its line\); export it again"),
    "csv open quote": ("csv", {"a.csv": TABLE + 'a.jpg,"cat,1,2,3,4\na.jpg,cat,1,2,3,4\n'}, r"a\.csv: line 2: not a table"),
    "csv two sizes": ("csv", {"a.csv": "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,64,48,c,1,2,3,4\na.jpg,65,48,c,1,2,3,4\n"}, r"a\.csv: rows of 'a\.jpg' differ in split or size"),
    "csv twice": ("csv", {"a.csv": TABLE + "a.jpg,cat,1,2,3,4\n", "b.csv": TABLE + "a.jpg,cat,1,2,3,4\n"}, r"a\.csv and .*b\.csv: two entries describe a\.jpg; remove one"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_an_invalid_file_is_refused(case: str, tmp_path: Path) -> None:
    name, files, said = REFUSED[case]
    lay(tmp_path, "images/a.jpg", files)
    with pytest.raises(DataError, match=said) as error:
        READ[name](tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "file", "good"),
    [
        ("voc", "a.xml", voc_xml()),
        ("cvat", "a.xml", cvat_xml("")),
        ("kitti", "labels/a.txt", PEDESTRIAN),
        ("openimages", "a.csv", OPEN_IMAGES),
        ("csv", "a.csv", TABLE),
        ("yolo", "data.yaml", NAMED),
        ("yolo", "labels/a.txt", "0 .5 .5 .1 .1"),
    ],
)
def test_files_that_are_not_text_are_refused_by_name(name: str, file: str, good: str, tmp_path: Path) -> None:
    lay(tmp_path, "images/a.jpg", {"data.yaml": NAMED, file: good})
    (tmp_path / file).write_bytes(good.encode() + b"\xff\xfe\x80")
    way_out = "export it again" if file.endswith(".xml") else "save it as UTF-8"
    with pytest.raises(DataError, match=rf"{Path(file).name}: .*; {way_out}$") as error:
        READ[name](tmp_path)
    assert "\n" not in str(error.value)


def test_extremely_nested_xml_does_not_crash(tmp_path: Path) -> None:
    lay(tmp_path, "a.jpg", {"a.xml": voc_xml("<a>" * 1_000_000 + "</a>" * 1_000_000 + an_object())})
    assert only_box(voc.read(tmp_path)).label == "cat"


def test_a_broken_file_is_still_recognised(tmp_path: Path) -> None:
    """Its reader can then report what is wrong, instead of `no annotations in a supported format`."""
    for name, files in {"voc": {"a.xml": "<annotation><object>"}, "cvat": {"a.xml": "<?xml version='1.0'?><!-- x --><annotations"}, "csv": {"a.csv": "filename,xmin"}, "openimages": {"a.csv": "ImageID,LabelName,XMin"}, "yolo": {"data.yaml": "names: ["}}.items():  # fmt: skip
        assert formats.recognise(lay(tmp_path / name, "a.jpg", files)) == name
        with pytest.raises(DataError, match=next(iter(files))):
            READ[name](tmp_path / name)


@pytest.mark.parametrize("comment", ["<!-- <b>made</b> by hand\n<c/> -->", "<!---->", "<!-- one --><!-- <two> -->"])
def test_a_comment_before_the_root_may_hold_tags(comment: str, tmp_path: Path) -> None:
    lay(tmp_path, "a.jpg", {"a.xml": f"<?xml version='1.0'?>\n{comment}\n{voc_xml(an_object())}"})
    assert formats.recognise(tmp_path) == "voc" and only_box(voc.read(tmp_path)).label == "cat"


@pytest.mark.parametrize(
    ("form", "home", "label"),
    [
        ("yolo", "labels", "0 0.5 0.5 0.1 0.1"),
        ("kitti", "label_2", PEDESTRIAN),
        ("dota", "labelTxt", "1 2 30 2 30 40 1 40 plane 0"),
        ("visdrone", "annotations", "1,2,30,40,1,4,0,0"),
    ],
)
def test_a_readme_among_labels_is_no_label(form: str, home: str, label: str, tmp_path: Path) -> None:
    images = "image_2" if form == "kitti" else "images"
    texts = {f"{home}/a.txt": label, f"{home}/README.txt": "Made by hand.\n", f"{home}/LICENSE.txt": "MIT\n"}
    lay(tmp_path, f"{images}/a.jpg", {**texts, **({"classes.txt": "cat\n"} if form == "yolo" else {})})
    assert list(splits(formats.read(tmp_path, form)[1])) == ["a.jpg"]


# --- No quadratic work ----------------------------------------------------------------------------------

OPENED: list[str] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if OPENED is not None and event in ("open", "os.scandir"):
        OPENED.append(str(arguments[0]))


@pytest.fixture(scope="module")
def opened_files() -> None:
    sys.addaudithook(_hook)  # it cannot be removed again, so it does nothing while OPENED is None


@pytest.mark.usefixtures("opened_files")
@pytest.mark.parametrize("written", ["voc", "yolo", "darknet", "cvat", "openimages", "csv", "kitti"])
def test_every_folder_is_walked_once_and_every_file_opened_once(written: str, truth: Truth, tmp_path: Path) -> None:
    global OPENED
    name, write = WRITTEN[written]
    write(truth, tmp_path)
    OPENED = []
    try:
        READ[name](tmp_path)
        opened = [path for path in OPENED if path.startswith(str(tmp_path))]
    finally:
        OPENED = None
    assert len(opened) > 3
    assert sorted(opened) == sorted(set(opened))

"""COCO, LabelMe and CreateML: we read what others write, and nothing read gets lost."""

from __future__ import annotations

import copy
import gc
import json
import math
import random
import shutil
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import writers
from conftest import as_voc, as_yolo, read_coco, write_coco
from fixtures.make_json import BOXES, SHAPES
from globox import AnnotationSet
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from pipeline import formats
from pipeline.boxes import Box, Labelled
from pipeline.errors import DataError
from pipeline.formats import coco, coco_boxes, createml, labelme
from pipeline.formats.reading import candidates
from pipeline.formats.source import Source
from pipeline.formats.tree import Tree

FIXTURES = Path(__file__).parent / "fixtures"
SPLITS = ("train", "val", "test")
# Formats store pixels as decimals: the project promises a hundredth, and the actual loss is far smaller.
PIXELS = 0.01

Corners = tuple[str, float, float, float, float]


def corners(box: Box) -> Corners:
    return box.label, box.xmin, box.ymin, box.xmax, box.ymax


def found_in(source: Source) -> dict[str, list[Corners]]:
    """Every box, by image name."""
    return {item.image.name: [corners(box) for box in item.boxes] for item in source.images}


def same(found: dict[str, list[Corners]], expected: dict[str, list[Corners]], pixels: float = PIXELS) -> None:
    assert found.keys() == expected.keys()
    for image, boxes in expected.items():
        assert [box[0] for box in found[image]] == [box[0] for box in boxes], image
        np.testing.assert_allclose([box[1:] for box in found[image]], [box[1:] for box in boxes], atol=pixels)


@pytest.fixture(scope="module")
def truth(tiles: Path) -> dict[str, list[Corners]]:
    """The drawn tiles as pycocotools reads them."""
    expected = {}
    for split in SPLITS:
        data = COCO(str(tiles / "annotations" / f"{split}.json"))
        for image in data.imgs.values():
            boxes = [(data.cats[a["category_id"]]["name"], *a["bbox"]) for a in data.imgToAnns[image["id"]]]
            expected[image["file_name"]] = [(name, x, y, x + w, y + h) for name, x, y, w, h in boxes]
    assert sum(map(len, expected.values())) > 20
    return expected


def labels_of(name: str, tmp_path: Path, data: Any, *images: str) -> Source:
    """What a reader makes of one file and a few empty image files, which no JSON reader opens."""
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    for image in images:
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        (folder / image).touch()
    (folder / "a.json").write_text(data if isinstance(data, str) else json.dumps(data))
    return {"coco": coco, "labelme": labelme, "createml": createml}[name].read(folder)


# --- COCO: every known layout gives the same boxes --------------------------------------------------


def each_file(source: Path, change: Callable[[dict[str, Any]], object]) -> None:
    for split in SPLITS:
        data = read_coco(source, split)
        change(data)
        write_coco(source, split, data)


def each_name(source: Path, rename: Callable[[str], str]) -> None:
    each_file(source, lambda data: [image.update(file_name=rename(image["file_name"])) for image in data["images"]])


def each_id(source: Path, change: Callable[[int], Any]) -> None:
    def renumber(data: dict[str, Any]) -> None:
        for key in ("images", "annotations", "categories"):
            for record in data[key]:
                record["id"] = change(record["id"])
        for record in data["annotations"]:
            record.update(image_id=change(record["image_id"]), category_id=change(record["category_id"]))

    each_file(source, renumber)


def as_roboflow(source: Path) -> None:
    """One folder per split with its images and its file, and a parent category that no box has."""
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        data = read_coco(source, split)
        for category in data["categories"]:
            category["supercategory"] = "boards"
        data["categories"].insert(0, {"id": 0, "name": "boards", "supercategory": "none"})
        (source / folder).mkdir()
        for image in data["images"]:
            (source / "images" / image["file_name"]).rename(source / folder / image["file_name"])
        (source / folder / "_annotations.coco.json").write_text(json.dumps(data))
    shutil.rmtree(source / "annotations")


def as_cocodataset_org(source: Path) -> None:
    for split in SPLITS:
        (source / "annotations" / f"{split}.json").rename(source / "annotations" / f"instances_{split}2017.json")
        (source / "images" / f"{split}2017").mkdir()
        for image in source.glob(f"images/{split}_*.jpg"):
            image.rename(source / "images" / f"{split}2017" / image.name)


def as_one_file(source: Path) -> None:
    """As FiftyOne writes it, with image folders that name the splits."""
    whole: dict[str, Any] = {"images": [], "annotations": []}
    for number, split in enumerate(SPLITS):
        data = read_coco(source, split)
        for image in data["images"]:
            image["id"] += 1000 * number
        for annotation in data["annotations"]:
            annotation["image_id"] += 1000 * number
        whole["images"] += data["images"]
        whole["annotations"] += data["annotations"]
        whole["categories"] = data["categories"]
        (source / "data" / split).mkdir(parents=True)
        for image in source.glob(f"images/{split}_*.jpg"):
            image.rename(source / "data" / split / image.name)
    shutil.rmtree(source / "annotations")
    (source / "labels.json").write_text(json.dumps(whole))


def as_nested(source: Path) -> None:
    shutil.move(source / "images", source / "deep")
    (source / "images").mkdir()
    shutil.move(source / "deep", source / "images" / "deep")
    each_name(source, lambda name: f"deep/{name}")


def with_byte_order_mark(source: Path) -> None:
    for path in source.glob("annotations/*.json"):
        path.write_text(path.read_text(), encoding="utf-8-sig")


def with_other_ids_in_each_file(source: Path) -> None:
    for number, split in enumerate(SPLITS):
        data = read_coco(source, split)
        for record, key in [(c, "id") for c in data["categories"]] + [(a, "category_id") for a in data["annotations"]]:
            record[key] = record[key] * (number + 1) + 7 * number
        write_coco(source, split, data)


LAYOUTS: dict[str, Callable[[Path], object]] = {
    "ours": lambda s: None,
    "Roboflow's": as_roboflow,
    "cocodataset.org's": as_cocodataset_org,
    "one file": as_one_file,
    "nested names": as_nested,
    "names from the file": lambda s: each_name(s, lambda name: f"../images/{name}"),
    "names from the source": lambda s: each_name(s, lambda name: f"./images/{name}"),
    "Windows paths": lambda s: each_name(s, lambda name: f"..\\images\\{name}"),
    "images in a separate folder": lambda s: (s / "images").rename(s / "photographs"),
    "ids from 0": lambda s: each_id(s, lambda number: number - 1),
    "ids as text": lambda s: each_id(s, str),
    "ids as names": lambda s: each_id(s, lambda number: f"id-{number:03d}"),
    "ids as decimals": lambda s: each_id(s, float),
    "sparse ids": lambda s: each_id(s, lambda number: 10**12 + number * 977),
    "other ids in each file": with_other_ids_in_each_file,
    "byte order mark": with_byte_order_mark,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_coco_layout_gives_the_same_boxes(source: Path, truth: dict[str, list[Corners]], layout: str) -> None:
    LAYOUTS[layout](source)
    name, found = formats.read(source)
    assert name == "coco"
    same(found_in(found), truth)
    assert found.has_splits
    for item in found.images:
        assert item.image.is_file()
        assert item.split == item.image.name.partition("_")[0]
        assert item.declared_size == (320, 320)
    assert found.classes is not None and set(found.classes) == {box[0] for boxes in truth.values() for box in boxes}


def test_classes_are_ordered_by_id(source: Path) -> None:
    each_file(source, lambda data: data["categories"].reverse())
    order = [category["name"] for category in sorted(read_coco(source, "train")["categories"], key=lambda c: c["id"])]
    assert coco.read(source).classes == tuple(order)
    each_id(source, lambda number: 100 - number)
    assert coco.read(source).classes == tuple(reversed(order))


def categories(*pairs: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"id": number, "name": name, "supercategory": over} for number, (name, over) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("known", "used", "classes"),
    [
        (categories(("boards", "none"), ("open", "boards"), ("short", "boards")), 1, ("open", "short")),
        (categories(("boards", "none"), ("open", "boards"), ("short", "boards")), 0, ("boards", "open", "short")),
        (categories(("animal", "none"), ("dog", "animal"), ("car", "vehicle")), 1, ("animal", "dog", "car")),
        (categories(("head", "none"), ("head", "head")), 1, ("head",)),
        (categories(("head", "none"), ("head", "head")), 77, ("head",)),
        (categories(("person", "person"), ("car", "vehicle")), 1, ("person", "car")),
        (categories(("person", "person")), 0, ("person",)),
    ],
    ids=[
        "parent",
        "parent with boxes",
        "parent of some",
        "parent of its own name",
        "the same without boxes",
        "its own parent",
        "alone",
    ],
)
def test_a_category_that_is_only_a_parent_is_not_a_class(
    tmp_path: Path, known: list[dict[str, Any]], used: int, classes: tuple[str, ...]
) -> None:
    data = one_image({"id": 1, "image_id": 1, "category_id": used, "bbox": [1, 2, 3, 4]}, categories=known)
    assert labels_of("coco", tmp_path, data, "a.jpg").classes == classes


def test_a_category_under_two_ids_is_one_class(tmp_path: Path) -> None:
    known = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "cat "}]
    boxes = [{"id": n, "image_id": 1, "category_id": n, "bbox": [n, 2, 3, 4]} for n in (1, 2, 3)]
    source = labels_of("coco", tmp_path, one_image(*boxes, categories=known), "a.jpg")
    assert source.classes == ("cat", "dog") and [box.label for box in source.images[0].boxes] == ["cat", "dog", "cat"]
    assert source.notes == ("a.json: category 'cat' (id 3) appears twice, and counts as one class",)


def test_coco_written_by_globox_is_read(tiles: Path, tmp_path: Path, truth: dict[str, list[Corners]]) -> None:
    """One file with no split in its name, ids from 0, and images in a folder beside it."""
    whole = AnnotationSet()
    for split in SPLITS:
        whole |= AnnotationSet.from_coco(tiles / "annotations" / f"{split}.json")
    shutil.copytree(tiles / "images", tmp_path / "coco" / "images")
    shutil.copytree(tiles / "images", tmp_path / "labelme" / "images")
    whole.save_coco(tmp_path / "coco" / "boards.json", auto_ids=True)
    whole.save_labelme(tmp_path / "labelme" / "json")
    for name in ("coco", "labelme"):
        found_name, found = formats.read(tmp_path / name)
        assert found_name == name and not found.has_splits
        assert {item.split for item in found.images} == {None}
        same(found_in(found), truth)


# --- COCO: boxes from outlines ----------------------------------------------------------------------


def one_image(*annotations: dict[str, Any], **changes: Any) -> dict[str, Any]:
    image = {"id": 1, "file_name": "a.jpg", "width": 60, "height": 40}
    return {"images": [image], "annotations": list(annotations), "categories": [{"id": 1, "name": "cat"}], **changes}


def blobs(seed: int) -> list[np.ndarray[Any, Any]]:
    """Masks of 40 x 60: scattered, one column, one row, one pixel in each corner, all, none at the edge."""
    rng = np.random.default_rng(seed)
    masks = [np.zeros((40, 60), np.uint8) for _ in range(8)]
    masks[0][rng.random((40, 60)) < 0.01] = 1
    masks[1][5:30, 17] = 1
    masks[2][39, 3:50] = 1
    masks[3][0, 0] = 1
    masks[4][39, 59] = 1
    masks[5][:] = 1
    masks[6][10:20, 10:20] = 1
    masks[7][30:, 10:12] = masks[7][:3, 12:14] = 1  # one run that crosses the end of a column
    return masks


@pytest.mark.parametrize("absent", [{}, {"bbox": None}, {"bbox": []}], ids=["absent", "null", "empty"])
def test_run_length_masks_are_framed(tmp_path: Path, absent: dict[str, Any]) -> None:
    """pycocotools compresses the runs; the expected box comes from the pixels."""
    annotations, expected = [], []
    for mask in blobs(seed=3):
        compressed = coco_masks.encode(np.asfortranarray(mask))["counts"].decode()
        flat = mask.flatten(order="F")
        edges = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
        runs = np.diff([0, *edges, flat.size]).tolist()
        for counts in (compressed, runs):
            segmentation = {"size": [40, 60], "counts": counts}
            number = len(annotations) + 1
            annotations.append({"id": number, "image_id": 1, "category_id": 1, "segmentation": segmentation, **absent})
            rows, columns = np.nonzero(mask)
            expected.append(("cat", columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    found = labels_of("coco", tmp_path, one_image(*annotations), "a.jpg")
    assert not any(box.damage for box in found.images[0].boxes)
    same(found_in(found), {"a.jpg": expected})


def test_polygons_are_framed(tmp_path: Path) -> None:
    rng = random.Random(5)
    polygons = [
        [[rng.uniform(0, 40) for _ in range(2 * points)] for _ in range(parts)] for points, parts in ((3, 1), (9, 3))
    ]
    polygons.append([1, 2, 30, 5.5, 8, 9])  # type: ignore[arg-type] # a polygon that is not in a list
    annotations = [
        {"id": number, "image_id": 1, "category_id": 1, "segmentation": each} for number, each in enumerate(polygons)
    ]
    found = labels_of("coco", tmp_path, one_image(*annotations), "a.jpg").images[0].boxes
    for box, each in zip(found, polygons, strict=True):
        points = np.concatenate([np.ravel(part) for part in each] if isinstance(each[0], list) else [each]).reshape(
            -1, 2
        )
        assert corners(box) == ("cat", *points.min(axis=0), *points.max(axis=0))


def test_the_bbox_takes_precedence_over_the_outline(tmp_path: Path) -> None:
    annotation = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [1, 2, 3, 4],
        "segmentation": [[9, 9, 20, 9, 20, 20]],
    }
    same(found_in(labels_of("coco", tmp_path, one_image(annotation), "a.jpg")), {"a.jpg": [("cat", 1, 2, 4, 6)]})


RUNS = {"size": [40, 60], "counts": [5, 10, 2385]}
NO_OUTLINE: dict[str, tuple[Any, str]] = {
    "nothing": (None, "no bbox, and the segmentation is None; correct it"),
    "empty": ([], "no bbox, and the segmentation is []; correct it"),
    "text": ("x" * 200, "no bbox, and the segmentation is 'xxx"),
    "two points": ([[1, 2, 3, 4]], "no bbox, and a polygon has 4 numbers; three points have 6; correct it"),
    "half a point": ([[1, 2, 3, 4, 5, 6, 7]], "no bbox, and a polygon has 7 numbers; three points have 6; correct it"),
    "words": ([[1, 2, 3, 4, 5, "6"]], "no bbox, and a polygon is not a list of numbers: [1, 2, 3, 4, 5, '6']; correct it"),
    "not a number": ([[1, 2, math.nan, 4, 5, 6]], "no bbox, and a polygon is not a list of numbers: [1, 2, nan, 4, 5, 6]"),
    "mixed": ([[1, 2, 3, 4, 5, 6], 7], "no bbox, and a polygon is not a list of numbers: 7; correct it"),
    "no size": ({"counts": [1]}, "no bbox, and the size of its mask is None; correct it"),
    "size of 0": (RUNS | {"size": [0, 0]}, "no bbox, and the size of its mask is [0, 0]; correct it"),
    "huge size": (RUNS | {"size": [10**300, 10**300]}, "no bbox, and the size of its mask is [1"),
    "another size": (RUNS | {"size": [60, 40]}, "no bbox, and its mask is 40x60, but the image is not; correct it"),
    "too few": (RUNS | {"counts": [5, 10]}, "no bbox, and the counts of its mask add up to 15, not to 60x40; correct it"),
    "too many": (RUNS | {"counts": [5, 10**18]}, "no bbox, and the counts of its mask add up to 1000000000000000005, not to 60x40; correct it"),
    "negative": (RUNS | {"counts": [-5, 2405]}, "no bbox, and the counts of its mask are not whole numbers; correct it"),
    "decimals": (RUNS | {"counts": [5.0, 2395.0]}, "no bbox, and the counts of its mask are not whole numbers; correct it"),
    "no counts": (RUNS | {"counts": {}}, "no bbox, and the counts of its mask are not whole numbers; correct it"),
    "cut off": (RUNS | {"counts": "ooo"}, "no bbox, and its mask is not COCO's compressed text; correct it"),
    "no end": (RUNS | {"counts": "o" * 5000 + "0"}, "no bbox, and"),
    "other letters": (RUNS | {"counts": "\x01é💥"}, "no bbox, and"),
    "zero": (RUNS | {"counts": "\x000"}, "no bbox, and"),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_OUTLINE)
def test_an_unusable_outline_is_damage(tmp_path: Path, case: str) -> None:
    segmentation, said = NO_OUTLINE[case]
    annotation = {"id": 7, "image_id": 1, "category_id": 1, "segmentation": segmentation}
    (box,) = labels_of("coco", tmp_path, one_image(annotation), "a.jpg").images[0].boxes
    assert box.damage.startswith(said) and box.damage.endswith("; correct it") and len(box.damage) < 200
    assert (box.label, box.id) == ("cat", "7") and not box.is_finite


def test_a_mask_of_2_to_the_60_pixels_is_framed(tmp_path: Path) -> None:
    segmentation = {"size": [2**30, 2**30], "counts": [0, 2**60]}
    annotation = {"id": 7, "image_id": 1, "category_id": 1, "segmentation": segmentation}
    data = one_image(annotation, images=[{"id": 1, "file_name": "a.jpg"}])
    (box,) = labels_of("coco", tmp_path, data, "a.jpg").images[0].boxes
    assert corners(box) == ("cat", 0, 0, 2**30, 2**30)


def test_random_runs_never_crash(tmp_path: Path) -> None:
    """The library that unpacks runs is C++, so whatever reaches it must be valid."""
    rng = random.Random(0)
    whole = coco_masks.encode(np.asfortranarray(blobs(seed=1)[0]))["counts"].decode()
    annotations = []
    for number in range(3000):
        text = list(whole)
        for _ in range(rng.randint(1, 4)):
            text[rng.randrange(len(text))] = chr(
                rng.choice((rng.randint(1, 127), rng.randint(48, 111), rng.randint(1, 9999)))
            )
        segmentation = {"size": [40, 60], "counts": "".join(text[: rng.randint(1, len(text))])}
        annotations.append({"id": number, "image_id": 1, "category_id": 1, "segmentation": segmentation})
    boxes = labels_of("coco", tmp_path, one_image(*annotations), "a.jpg").images[0].boxes
    assert len(boxes) == 3000
    for box in boxes:
        assert box.damage or (0 <= box.xmin <= box.xmax <= 60 and 0 <= box.ymin <= box.ymax <= 40)
    assert sum(bool(box.damage) for box in boxes) > 2900


# --- COCO: ignored and damaged annotations ------------------------------------------------------------

ANNOTATIONS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "crowd": ({"iscrowd": 1}, {"ignore": coco_boxes.CROWD}),
    "crowd as text": ({"iscrowd": "1"}, {"ignore": coco_boxes.CROWD}),
    "no crowd": ({"iscrowd": 0}, {}),
    "marked": ({"ignore": 1}, {"ignore": coco_boxes.LEFT_OUT}),
    "crowd without a box": ({"iscrowd": 1, "bbox": None}, {"ignore": coco_boxes.CROWD, "damage": "no bbox, and the segmentation is None; correct it"}),
    "unknown category": ({"category_id": 77}, {"damage": "category 77 is not in `categories`; correct it", "label": ""}),
    "no category": ({"category_id": None}, {"damage": "category None is not in `categories`; correct it", "label": ""}),
    "a list of categories": ({"category_id": [1]}, {"damage": "category [1] is not in `categories`; correct it", "label": ""}),
    "category true": ({"category_id": True}, {"damage": "category True is not in `categories`; correct it", "label": ""}),
    "three numbers": ({"bbox": [1, 2, 3]}, {"damage": "bbox [1, 2, 3] is not [x, y, width, height]; correct it"}),
    "text for a number": ({"bbox": ["1", 2, 3, 4]}, {"damage": "bbox ['1', 2, 3, 4] is not [x, y, width, height]; correct it"}),
    "true for a number": ({"bbox": [True, 2, 3, 4]}, {"damage": "bbox [True, 2, 3, 4] is not [x, y, width, height]; correct it"}),
    "an object": ({"bbox": {"x": 1}}, {"damage": "bbox {'x': 1} is not [x, y, width, height]; correct it"}),
    "infinite": ({"bbox": [1, 1, math.inf, 3]}, {"damage": "bbox [1, 1, inf, 3] is not [x, y, width, height]; correct it"}),
    "beyond a float": ({"bbox": [1, 1, 10**400, 3]}, {"damage": f"bbox [1, 1, {str(10**400)[:18]}...{str(10**400)[-19:]}, 3] is not [x, y, width, height]; correct it"}),
}  # fmt: skip


@pytest.mark.parametrize("case", ANNOTATIONS)
def test_a_coco_annotation_is_read_ignored_or_damaged(tmp_path: Path, case: str) -> None:
    changes, expected = ANNOTATIONS[case]
    annotation = {"id": 7, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], **changes}
    (box,) = labels_of("coco", tmp_path, one_image(annotation), "a.jpg").images[0].boxes
    got = {"label": box.label, "id": box.id, "ignore": box.ignore, "damage": box.damage}
    assert got == {"label": "cat", "id": "7", "ignore": "", "damage": "", **expected}
    assert box.is_finite == (not box.damage)


def test_nan_in_a_box_is_left_to_convert(tmp_path: Path) -> None:
    annotation = {"id": 7, "image_id": 1, "category_id": 1, "bbox": [math.nan, 2, 3, 4]}
    (box,) = labels_of("coco", tmp_path, one_image(annotation), "a.jpg").images[0].boxes
    assert not box.damage and not box.is_finite


def test_annotations_without_ids_are_named_by_their_position(tmp_path: Path) -> None:
    annotations = [
        {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], **more} for more in ({}, {"id": None}, {"id": 3})
    ]
    boxes = labels_of("coco", tmp_path, one_image(*annotations), "a.jpg").images[0].boxes
    assert [box.id for box in boxes] == ["number 1", "number 2", "3"]


# --- Refused files -----------------------------------------------------------------------------------

BROKEN: dict[str, tuple[str, Any, str]] = {
    "coco: cut off": ("coco", '{"images": [', r"a\.json: not JSON \(Expecting value: line 1 column 13 \(char 12\)\); export it again"),
    "coco: nested": ("coco", '{"images": ' + "[" * 1_000_000, r"a\.json: nested too deeply, or with a number that is too long; correct it"),
    "coco: numbered": ("coco", '{"images": ' + "9" * 5000 + "}", r"a\.json: nested too deeply, or with a number that is too long; correct it"),
    "coco: images is no list": ("coco", one_image(images={"a": 1}), r"a\.json: needs a list `images` of objects; export it again as COCO"),
    "coco: no images": ("coco", {"annotations": [], "categories": []}, r"a\.json: needs a list `images` of objects; export it again as COCO"),
    "coco: no annotations": ("coco", {"images": [], "categories": []}, r"a\.json: needs a list `annotations` of objects; export it again as COCO"),
    "coco: an annotation is text": ("coco", one_image(annotations=["x"]), r"a\.json: needs a list `annotations` of objects; export it again as COCO"),
    "coco: image id twice": ("coco", one_image(images=[{"id": 1, "file_name": "a.jpg"}, {"id": "1", "file_name": "b.jpg"}]), r"a\.json: image id 1 appears twice; give every image its own id"),
    "coco: image without an id": ("coco", one_image(images=[{"file_name": "a.jpg"}]), r"a\.json: an image has the id None; give every image a number"),
    "coco: one image twice": ("coco", one_image(images=[{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "./a.jpg"}]), r"a\.json: two entries describe a\.jpg; remove one"),
    "coco: image unknown": ("coco", one_image({"id": 7, "image_id": 77, "category_id": 1}), r"a\.json: annotation 7 belongs to image 77, which is not in `images`; remove it"),
    "coco: image of a list": ("coco", one_image({"id": 7, "image_id": [1], "category_id": 1}), r"a\.json: annotation 7 belongs to image \[1\], which is not in `images`; remove it"),
    "coco: no file name": ("coco", one_image(images=[{"id": 1}]), r"a\.json: image 1 has the file_name None; give its file name"),
    "coco: category without an id": ("coco", one_image(categories=[{"name": "a"}]), r"a\.json: a category has the id None; give every category a number"),
    "coco: category without a name": ("coco", one_image(categories=[{"id": 1, "name": " "}]), r"a\.json: category 1 has the name ' '; names are text"),
    "coco: half a letter": ("coco", one_image(categories=[{"id": 1, "name": "\ud800"}]), r"a\.json: category 1 has the name '\\ud800'; names are text"),
    "coco: category id twice": ("coco", one_image(categories=[{"id": 1, "name": "a"}, {"id": 1.0, "name": "b"}]), r"a\.json: category 'b' \(id 1\) appears twice; keep one"),
    "coco: out of the source": ("coco", one_image(images=[{"id": 1, "file_name": "../secret.jpg"}]), r"a\.json: names '\.\./secret\.jpg', outside .*; move the image into the source"),
    "coco: out of it, as Windows has it": ("coco", one_image(images=[{"id": 1, "file_name": "..\\secret.jpg"}]), r"a\.json: names '\.\./secret\.jpg', outside"),
    "coco: absolute": ("coco", one_image(images=[{"id": 1, "file_name": "/etc/hostname"}]), r"a\.json: names '/etc/hostname', outside"),
    "coco: null byte": ("coco", one_image(images=[{"id": 1, "file_name": "a\0.jpg"}]), r"a\.json: names an impossible path, 'a\\x00\.jpg'; correct it"),
    "coco: half a letter in a path": ("coco", one_image(images=[{"id": 1, "file_name": "\ud800.jpg"}]), r"a\.json: names an impossible path, '\\ud800\.jpg'; correct it"),
    "coco: endless name": ("coco", one_image(images=[{"id": 1, "file_name": "a" * 5000}]), r"a\.json: names an impossible path, 'a{80}\.\.\.'; correct it"),
    "coco: the source itself": ("coco", one_image(images=[{"id": 1, "file_name": "."}]), r"a\.json: names '\.', which is not a file; give its file name"),
    "labelme: cut off": ("labelme", '{"shapes": [', r"a\.json: not JSON"),
    "labelme: no shapes": ("labelme", {"imagePath": "a.jpg"}, r"a\.json: `shapes` is not a list, so this is not LabelMe; export it again"),
    "labelme: out of the source": ("labelme", {"imagePath": "..\\..\\secret.jpg", "shapes": []}, r"a\.json: names '\.\./\.\./secret\.jpg', outside"),
    "labelme: no image": ("labelme", {"imagePath": None, "shapes": []}, r"a\.json: no image of the same name beside it, and imagePath is None; correct imagePath"),
    "createml: cut off": ("createml", '[{"image": "a.jpg", "annot', r"a\.json: not JSON"),
    "createml: an entry is text": ("createml", [{"image": "a.jpg", "annotations": []}, "x"], r"a\.json: entry 2 is 'x', so this is not CreateML; export it again"),
    "createml: no image": ("createml", [{"annotations": []}], r"a\.json: entry 1 has the image None; give its file name"),
    "createml: no annotations": ("createml", [{"image": "a.jpg"}], r"a\.json: entry 1: `annotations` is not a list, so this is not CreateML; export it again"),
    "createml: out of the source": ("createml", [{"image": "../secret.jpg", "annotations": []}], r"a\.json: names '\.\./secret\.jpg', outside"),
    "createml: one image twice": ("createml", [{"image": "b.jpg", "annotations": []}] * 2, r"a\.json: two entries describe b\.jpg; remove one"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, case: str) -> None:
    name, data, said = BROKEN[case]
    image = "b.jpg" if name == "labelme" else "a.jpg"
    with pytest.raises(DataError, match=said) as error:
        labels_of(name, tmp_path, data, image)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400 + 2 * len(str(tmp_path))
    if isinstance(data, str):  # broken JSON is still recognised: `format: auto` gives the same line
        with pytest.raises(DataError, match=said):
            formats.read(tmp_path / name)


@pytest.mark.parametrize("text", ["hello", "", "{", '{"a": 1,}', "[" * 100_000])
def test_auto_names_an_invalid_json_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "annotations.json").write_text(text)
    with pytest.raises(DataError, match=r"annotations\.json: (not JSON|nested)"):
        formats.read(tmp_path)


def test_heads_of_many_files_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LabelMe may store the image in the file, so that the heads of 100,000 files would take 6 GB."""
    monkeypatch.setattr("pipeline.formats.tree.MOST_KEPT", 200_000)
    for number in range(20):
        data = {"imageData": "QUJD" * 20_000, "imagePath": f"{number}.jpg", "shapes": []}
        (tmp_path / f"{number}.json").write_text(json.dumps(data))
    tree = Tree(tmp_path)
    tracemalloc.start()
    try:
        assert candidates(tree) == ["labelme"]
        assert tracemalloc.get_traced_memory()[0] < 300_000
    finally:
        tracemalloc.stop()


def test_auto_refuses_utf_16(tiles: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text((tiles / "annotations" / "train.json").read_text(), encoding="utf-16")
    with pytest.raises(DataError, match=r"a\.json: not UTF-8 text \(invalid start byte\); save it as UTF-8"):
        formats.read(tmp_path)
    assert coco.recognises(Tree(tmp_path))  # also beside other files, where it would otherwise be silently skipped


@pytest.mark.parametrize("first", ["annotations", "categories", "images", "info"])
def test_coco_is_recognised_by_its_beginning_in_any_key_order(tmp_path: Path, first: str) -> None:
    annotation = {"image_id": 1, "bbox": [1, 2, 3, 4], "category_id": 1}
    data = one_image(*[{"id": number, **annotation} for number in range(3000)], info={"description": "boards"})
    labels_of("coco", tmp_path, {first: data.pop(first), **data}, "a.jpg")
    assert (tmp_path / "coco" / "a.json").stat().st_size > 2 * 65536
    assert formats.recognise(tmp_path / "coco") == "coco"


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(60, 40, (60, 40)), (60.0, 40.0, (60, 40)), (60.5, 40, None), (0, 40, None), (None, 40, None), ("60", 40, None)],
)
def test_only_a_whole_positive_size_is_taken_as_declared(
    tmp_path: Path, width: Any, height: Any, expected: tuple[int, int] | None
) -> None:
    image = {"id": 1, "file_name": "a.jpg", "width": width, "height": height}
    (item,) = labels_of("coco", tmp_path, one_image(images=[image]), "a.jpg").images
    assert item.declared_size == expected


# --- Images: missing, linked, ambiguous, unlabelled ---------------------------------------------------


def test_a_missing_image_gets_its_expected_path(source: Path) -> None:
    (source / "images" / "train_0000.jpg").unlink()
    (missing,) = [item for item in coco.read(source).images if not item.image.exists()]
    assert missing.image == source / "annotations" / "train_0000.jpg"
    assert missing.boxes and missing.annotation == source / "annotations" / "train.json"


def test_an_image_of_another_split_does_not_replace_a_missing_one(source: Path) -> None:
    as_roboflow(source)
    (source / "train" / "train_0000.jpg").rename(source / "test" / "train_0000.jpg")
    found = {item.image: item for item in coco.read(source).images}
    assert found[source / "train" / "train_0000.jpg"].boxes
    assert found[source / "test" / "train_0000.jpg"].annotation is None


def test_a_name_that_fits_two_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json: 'a\.jpg' matches both x/a\.jpg and y/a\.jpg; give its folder"):
        labels_of("coco", tmp_path, one_image(), "x/a.jpg", "y/a.jpg")
    folders = one_image(images=[{"id": 1, "file_name": "x/a.jpg"}])
    first, second = labels_of("coco", tmp_path, folders, "x/a.jpg", "y/a.jpg").images
    assert first.annotation and second.annotation is None


def test_images_no_annotation_mentions_are_unlabelled(source: Path) -> None:
    for folder in ("", "images/val", ".hidden"):
        (source / folder).mkdir(exist_ok=True)
        shutil.copy(source / "images" / "train_0000.jpg", source / folder / f"extra{len(folder)}.JPG")
    extra = {item.image.name: item for item in coco.read(source).images if item.annotation is None}
    assert {name: item.split for name, item in extra.items()} == {"extra0.JPG": None, "extra10.JPG": "val"}
    assert not any(item.boxes for item in extra.values())


def test_images_without_objects_count_as_labelled(tmp_path: Path) -> None:
    files = {
        "coco": one_image(),
        "labelme": {"shapes": [], "imagePath": "a.jpg"},
        "createml": [{"image": "a.jpg", "annotations": []}],
    }
    for name, data in files.items():
        (item,) = labels_of(name, tmp_path, data, "a.jpg").images
        assert item.boxes == () and item.annotation == tmp_path / name / "a.json"


def test_files_without_images_are_refused(tmp_path: Path) -> None:
    for name, data in {"coco": one_image(images=[]), "labelme": {}, "createml": []}.items():
        assert labels_of(name, tmp_path, data).images == ()
        with pytest.raises(DataError, match=f"no {name} images with annotations in it"):
            formats.read(tmp_path / name, name)


def test_unicode_names_are_read(tmp_path: Path) -> None:
    image, label = "кот 猫 é.jpg", "chaton à poil 猫"
    files: dict[str, Any] = {
        "coco": one_image(
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]},
            images=[{"id": 1, "file_name": image}],
            categories=[{"id": 1, "name": label}],
        ),
        "labelme": {"shapes": [{"label": label, "shape_type": "rectangle", "points": [[1, 2], [4, 6]]}], "imagePath": image},
        "createml": [
            {"image": image, "annotations": [{"label": label, "coordinates": {"x": 2.5, "y": 4, "width": 3, "height": 4}}]}
        ],
    }  # fmt: skip
    for name, data in files.items():
        for escaped in (True, False):
            found = labels_of(name, tmp_path, json.dumps(data, ensure_ascii=escaped), image)
            same(found_in(found), {image: [(label, 1, 2, 4, 6)]})


# --- LabelMe ------------------------------------------------------------------------------------------


def test_boxes_frame_what_labelme_fills(tmp_path: Path) -> None:
    data = json.loads((FIXTURES / "labelme.json").read_text())
    boxes = labels_of("labelme", tmp_path, data, "a.jpg").images[0].boxes
    assert len(boxes) == len(SHAPES)
    for shape, box in zip(data["shapes"], boxes, strict=True):
        x, y, width, height = shape["seen"]
        # LabelMe also fills the pixel under each edge: up to one more pixel at the right and the bottom.
        np.testing.assert_allclose(corners(box)[1:], [x, y, x + width, y + height], atol=1.001)
        assert not box.ignore and not box.damage


def shape(kind: Any, points: Any, **more: Any) -> dict[str, Any]:
    return {"label": "cat", "shape_type": kind, "points": points, **more}


SHAPE_CASES: dict[str, tuple[Any, Corners | None, dict[str, str]]] = {
    "rectangle": (shape("rectangle", [[5, 8], [1, 2]]), ("cat", 1, 2, 5, 8), {}),
    "rectangle of four points": (shape("rectangle", [[1, 2], [5, 2], [5, 8], [1, 8]]), ("cat", 1, 2, 5, 8), {}),
    "no shape_type": ({"label": "cat", "points": [[1, 2], [5, 3], [2, 8]]}, ("cat", 1, 2, 5, 8), {}),
    "rotated rectangle": (shape("rotation", [[3, 1], [5, 3], [3, 5], [1, 3]]), ("cat", 1, 1, 5, 5), {}),
    "circle": (shape("circle", [[50, 60], [53, 64]]), ("cat", 45, 55, 55, 65), {}),
    "mask": (shape("mask", [[1, 2], [5, 8]], mask="iVBOR"), ("cat", 1, 2, 5, 8), {}),
    "point": (shape("point", [[1, 2]]), ("cat", 1, 2, 1, 2), {"ignore": "point: it has no area"}),
    "line": (shape("line", [[1, 2], [5, 8]]), ("cat", 1, 2, 5, 8), {"ignore": "line: it has no area"}),
    "linestrip": (shape("linestrip", [[1, 2], [5, 8], [3, 3]]), ("cat", 1, 2, 5, 8), {"ignore": "linestrip: it has no area"}),
    "a broken line": (shape("line", None), None, {"ignore": "line: it has no area", "damage": "points None are not [[x, y], ...]; correct it"}),
    "one corner": (shape("rectangle", [[1, 2]]), None, {"damage": "a rectangle with 1 point instead of 2 or more; correct it"}),
    "two points": (shape("polygon", [[1, 2], [5, 8]]), None, {"damage": "a polygon with 2 points instead of 3 or more; correct it"}),
    "circle of three": (shape("circle", [[1, 2], [5, 8], [1, 1]]), None, {"damage": "a circle with 3 points instead of its centre and one on its edge; correct it"}),
    "no points": (shape("polygon", []), None, {"damage": "points [] are not [[x, y], ...]; correct it"}),
    "text": (shape("rectangle", [["1", 2], [5, 8]]), None, {"damage": "points [['1', 2], [5, 8]] are not [[x, y], ...]; correct it"}),
    "half a point": (shape("rectangle", [[1], [5, 8]]), None, {"damage": "points [[1], [5, 8]] are not [[x, y], ...]; correct it"}),
    "not a number": (shape("rectangle", [[math.nan, 1], [5, 8]]), None, {"damage": "points [[nan, 1], [5, 8]] are not [[x, y], ...]; correct it"}),
    "infinite": (shape("rectangle", [[math.inf, 1], [5, 8]]), None, {"damage": "points [[inf, 1], [5, 8]] are not [[x, y], ...]; correct it"}),
    "unknown": (shape("banana", [[1, 2], [5, 8]]), None, {"damage": "shape_type 'banana' is not supported; correct it"}),
    "a list as type": (shape(["a"], [[1, 2], [5, 8]]), None, {"damage": "shape_type ['a'] is not supported; correct it"}),
    "no label": (shape("rectangle", [[1, 2], [5, 8]], label=" "), None, {"damage": "label is ' '; name its class", "label": ""}),
    "label of numbers": (shape("rectangle", [[1, 2], [5, 8]], label=3), None, {"damage": "label is 3; name its class", "label": ""}),
    "no shape at all": (17, None, {"damage": "17 instead of a shape; correct it", "label": ""}),
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPE_CASES)
def test_a_labelme_shape_is_read_ignored_or_damaged(tmp_path: Path, case: str) -> None:
    said, expected, more = SHAPE_CASES[case]
    (box,) = labels_of("labelme", tmp_path, {"imagePath": "a.jpg", "shapes": [said]}, "a.jpg").images[0].boxes
    got = {"label": box.label, "id": box.id, "ignore": box.ignore, "damage": box.damage}
    assert got == {"label": "cat", "id": "shape 1", "ignore": "", "damage": "", **more}
    assert corners(box) == expected if expected else not box.is_finite


def test_labelme_shapes_of_one_group_are_one_object(tmp_path: Path) -> None:
    """As in LabelMe's own converters: one object, partly hidden in the middle."""
    shapes = [
        shape("rectangle", [[10, 10], [20, 20]], group_id=1),
        shape("rectangle", [[30, 5], [40, 15]], group_id=1),
        shape("rectangle", [[50, 50], [60, 60]], group_id=2),
        shape("rectangle", [[50, 50], [60, 60]], group_id=1, label="dog"),
        shape("rectangle", [[1, 1], [2, 2]], group_id=None),
        shape("point", [[90, 90]], group_id=1),
        shape("polygon", [[90, 90]], group_id=1),
    ]
    boxes = labels_of("labelme", tmp_path, {"imagePath": "a.jpg", "shapes": shapes}, "a.jpg").images[0].boxes
    assert len(boxes) == len(shapes)
    assert corners(boxes[0]) == ("cat", 10, 5, 40, 20)
    assert [box.ignore for box in boxes] == [
        "",
        "part of shape 1, by its group_id",
        "",
        "",
        "",
        "point: it has no area",
        "",
    ]
    assert [bool(box.damage) for box in boxes] == [False] * 6 + [True]


@pytest.mark.parametrize(
    ("images", "said", "expected"),
    [
        (["a.jpg"], "a.jpg", "a.jpg"),
        (["a.jpg", "b.jpg"], "b.jpg", "a.jpg"),
        (["a.png"], "a.jpg", "a.png"),
        (["a.png", "a.jpg"], "x\\a.jpg", "a.jpg"),
        (["pictures/b.jpg"], "pictures\\b.jpg", "pictures/b.jpg"),
        (["images/b.jpg"], "b.jpg", "images/b.jpg"),
        (["images/a.jpg"], "/home/somebody/b.jpg", None),
        (["images/a.jpg"], "/home/somebody/a.jpg", "images/a.jpg"),
        ([], "pictures/b.jpg", "pictures/b.jpg"),
    ],
    ids=[
        "beside",
        "renamed",
        "another suffix",
        "two suffixes",
        "Windows",
        "in images",
        "absolute",
        "from another machine",
        "missing",
    ],
)
def test_the_image_of_a_labelme_file_is_found(
    tmp_path: Path, images: list[str], said: str, expected: str | None
) -> None:
    data = {"imagePath": said, "shapes": []}
    if expected is None:
        with pytest.raises(DataError, match=r"a\.json: names '/home/somebody/b\.jpg', outside"):
            labels_of("labelme", tmp_path, data, *images)
        return
    described = [item for item in labels_of("labelme", tmp_path, data, *images).images if item.annotation]
    assert [item.image for item in described] == [tmp_path / "labelme" / expected]


def test_a_labelme_file_that_fits_two_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json: matches both a\.jpg and a\.png; correct its imagePath"):
        labels_of("labelme", tmp_path, {"imagePath": "old.bmp", "shapes": []}, "a.png", "a.jpg")


def test_embedded_pixels_in_a_labelme_file_are_skipped(tmp_path: Path) -> None:
    """They may come first and push every other key out of the part that is inspected."""
    data = {
        "imageData": "iVBORw0KGgo=" * 20_000,
        "shapes": [shape("rectangle", [[1, 2], [5, 8]])],
        "imagePath": "a.jpg",
    }
    labels_of("labelme", tmp_path, data, "a.jpg")
    name, found = formats.read(tmp_path / "labelme")
    assert name == "labelme"
    same(found_in(found), {"a.jpg": [("cat", 1, 2, 5, 8)]})


def test_labelme_splits_follow_the_folders(tiles: Path, tmp_path: Path, truth: dict[str, list[Corners]]) -> None:
    for split in SPLITS:
        folder = tmp_path / "boards" / split
        folder.mkdir(parents=True)
        AnnotationSet.from_coco(tiles / "annotations" / f"{split}.json").save_labelme(folder)
        for image in tiles.glob(f"images/{split}_*.jpg"):
            shutil.copy(image, folder)
    name, found = formats.read(tmp_path / "boards")
    assert name == "labelme" and found.has_splits and found.classes is None
    assert all(item.split == item.image.name.partition("_")[0] for item in found.images)
    assert {item.declared_size for item in found.images} == {(320, 320)}
    same(found_in(found), truth)


def test_labelme_files_apart_from_their_images_give_the_split(tmp_path: Path) -> None:
    for number, split in enumerate(SPLITS):
        (tmp_path / "json" / split).mkdir(parents=True)
        (tmp_path / f"{number}.jpg").touch()
        data = {"imagePath": f"..\\..\\{number}.jpg", "shapes": []}
        (tmp_path / "json" / split / "a.json").write_text(json.dumps(data))
    found = {item.image.name: item.split for item in labelme.read(tmp_path).images}
    assert found == {f"{number}.jpg": split for number, split in enumerate(SPLITS)}


# --- CreateML -----------------------------------------------------------------------------------------


def test_createml_written_by_supervision_is_read(tmp_path: Path) -> None:
    for image in BOXES:
        (tmp_path / image).touch()
    shutil.copy(FIXTURES / "createml.json", tmp_path / "_annotations.createml.json")
    name, found = formats.read(tmp_path)
    assert name == "createml" and not found.has_splits and found.classes is None
    same(found_in(found), {image: [(name, *sides) for name, sides in boxes] for image, boxes in BOXES.items()})
    assert [box.id for box in found.images[0].boxes] == ["a.jpg 1", "a.jpg 2"]


def test_createml_as_documented_by_apple_is_read(tmp_path: Path) -> None:
    entry = {
        "imagefilename": "cat and dog.png",
        "annotation": [{"label": "cat", "coordinates": {"y": 20.0, "x": 13.5, "height": 40.5, "width": 20.0}}],
    }
    found = labels_of("createml", tmp_path, [entry], "cat and dog.png")
    same(found_in(found), {"cat and dog.png": [("cat", 3.5, -0.25, 23.5, 40.25)]})
    assert formats.recognise(tmp_path / "createml") == "createml"


def test_createml_splits_follow_folders_and_file_names(tmp_path: Path) -> None:
    for file, images in {
        "train/_annotations.createml.json": ["train/1.jpg"],
        "valid.json": ["2.jpg"],
        "test_0003.json": ["test_0003.jpg"],  # one file per image, whose name gives no split
    }.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(json.dumps([{"image": Path(image).name, "annotations": []} for image in images]))
        for image in images:
            (tmp_path / image).touch()
    splits = {item.image.name: item.split for item in createml.read(tmp_path).images}
    assert splits == {"1.jpg": "train", "2.jpg": "val", "test_0003.jpg": None}


CREATEML: dict[str, tuple[Any, str]] = {
    "no label": ({"coordinates": {"x": 1, "y": 1, "width": 1, "height": 1}}, "label is None; name its class"),
    "no coordinates": ({"label": "cat"}, "coordinates None are not the numbers x, y, width, height; correct them"),
    "no width": ({"label": "cat", "coordinates": {"x": 1, "y": 2, "height": 3}}, "coordinates {'height': 3, 'x': 1, 'y': 2} are not the numbers x, y, width, height; correct them"),
    "text": ({"label": "cat", "coordinates": {"x": "1", "y": 2, "height": 3, "width": 4}}, "coordinates {'height': 3, 'width': 4, 'x': '1', 'y': 2} are not the numbers x, y, width, height; correct them"),
    "no object": ("cat", "'cat' instead of an annotation; correct it"),
}  # fmt: skip


@pytest.mark.parametrize("case", CREATEML)
def test_a_damaged_createml_annotation_is_a_box_with_the_reason(tmp_path: Path, case: str) -> None:
    annotation, said = CREATEML[case]
    data = [{"image": "a.jpg", "annotations": [annotation]}]
    (box,) = labels_of("createml", tmp_path, data, "a.jpg").images[0].boxes
    assert (box.damage, box.id) == (said, "a.jpg 1") and not box.is_finite


# --- Which format is it? ------------------------------------------------------------------------------


def test_no_format_is_taken_for_another(tiles: Path, tmp_path: Path) -> None:
    folders = {"coco": tiles, "voc": as_voc(tiles, tmp_path / "voc"), "yolo": as_yolo(tiles, tmp_path / "yolo")}
    for name, fixture in (("labelme", "labelme.json"), ("createml", "createml.json")):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        shutil.copy(FIXTURES / fixture, folders[name] / "a.json")
    for name, folder in folders.items():
        assert formats.recognise(folder) == name
    shutil.copy(FIXTURES / "createml.json", folders["labelme"] / "b.json")
    with pytest.raises(DataError, match=r"labelme: looks like labelme and createml; name one of .* in convert\.format"):
        formats.recognise(folders["labelme"])


OTHER_JSON = {
    "package.json": {"name": "boards", "images": {"logo": "a.png"}, "scripts": {}},
    "notebook.json": {"cells": [], "metadata": {"annotations": []}},
    "results.json": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}],
    "names.json": ["cat", "dog"],
    "number.json": 17,
}


def test_other_json_is_not_an_annotation_file(tmp_path: Path) -> None:
    for name, data in OTHER_JSON.items():
        (tmp_path / name).write_text(json.dumps(data))
    with pytest.raises(DataError, match="no annotations in a supported format; name one of"):
        formats.read(tmp_path)


@pytest.mark.parametrize("name", ["coco", "labelme", "createml"])
def test_other_json_beside_annotations_is_skipped(tmp_path: Path, name: str) -> None:
    data = {
        "coco": one_image(),
        "labelme": {"imagePath": "a.jpg", "shapes": []},
        "createml": [{"image": "a.jpg", "annotations": []}],
    }
    for other in OTHER_JSON.keys() - {"package.json"}:
        labels_of(name, tmp_path, data[name], "a.jpg")
        (tmp_path / name / other).write_text(json.dumps(OTHER_JSON[other]))
    found_name, found = formats.read(tmp_path / name)
    assert found_name == name and [item.image.name for item in found.images] == ["a.jpg"]


def test_a_file_is_parsed_only_once(tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with `format: auto`: parsing a large set's files takes seconds."""
    parsed: Counter[int] = Counter()
    loads = orjson.loads
    monkeypatch.setattr("pipeline.formats.values.orjson.loads", lambda text: parsed.update([hash(text)]) or loads(text))
    formats.read(tiles)
    assert sorted(parsed.values()) == [1, 1, 1]


def test_the_garbage_collector_is_enabled_again_after_a_read(tiles: Path, tmp_path: Path) -> None:
    formats.read(tiles)
    assert gc.isenabled()
    (tmp_path / "a.json").write_text('{"images": [')
    with pytest.raises(DataError):
        formats.read(tmp_path, "coco")
    assert gc.isenabled()


# --- Nothing is lost ----------------------------------------------------------------------------------

NASTY: list[Any] = [
    None, True, False, 0, 1, -1, 7, 2**63, 10**400, -0.0, 0.5, 1e308, -1e308, math.nan, math.inf, "", " ", "1", "x" * 1000, "\ud800",
    "\0", "../a.jpg", "/etc/passwd", ".", "a.jpg", [], [[]], [1, 2], [[1, 2], [3, 4]], [None] * 4, {}, {"x": 1}, {"size": [4, 4], "counts": "ooo"},
]  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every position in a JSON value, as (container, key)."""
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [(value, key) for key, _ in inner] + [place for _, each in inner for place in places(each)]


def small(name: str) -> Any:
    if name == "coco":
        annotations = [
            {"id": n, "image_id": 1 + n % 2, "category_id": n % 3, "bbox": [n, 2, 3, 4], "iscrowd": n % 2}
            for n in range(4)
        ]
        annotations += [{"id": 9, "image_id": 1, "category_id": 1, "segmentation": [[1, 2, 3, 4, 5, 6]]}]
        annotations += [
            {"id": 10, "image_id": 1, "category_id": 1, "segmentation": {"size": [40, 60], "counts": [5, 10, 2385]}}
        ]
        images = [{"id": n, "file_name": f"{n}.jpg", "width": 60, "height": 40} for n in (1, 2)]
        return one_image(
            *annotations, images=images, categories=categories(("all", ""), ("cat", "all"), ("dog", "all"))
        )
    if name == "labelme":
        shapes = [shape(kind, points, group_id=1) for kind, points in SHAPES.items()]
        return {"imagePath": "1.jpg", "imageWidth": 60, "imageHeight": 40, "shapes": shapes}
    return json.loads((FIXTURES / "createml.json").read_text().replace("a.jpg", "1.jpg").replace("b.jpg", "2.jpg"))


def number_of_annotations(name: str, data: Any) -> int:
    if name == "createml":
        return sum(len(entry.get("annotations", entry.get("annotation"))) for entry in data)
    return len(data["annotations" if name == "coco" else "shapes"])


@pytest.mark.parametrize("name", ["coco", "labelme", "createml"])
def test_every_annotation_is_one_box_or_the_file_is_refused(tmp_path: Path, name: str) -> None:
    """Any value may be nonsense: then one line names the file, or each annotation is still one box."""
    rng = random.Random(1)
    read = 0
    for _ in range(600):
        data = small(name)
        for _ in range(rng.choice((1, 1, 1, 3))):
            container, key = rng.choice(places(data))
            if isinstance(container, dict) and rng.random() < 0.2:
                del container[key]
            else:
                container[key] = copy.deepcopy(rng.choice(NASTY))
        try:
            found = labels_of(name, tmp_path, json.dumps(data), "1.jpg", "2.jpg", "c.jpg")
        except DataError as error:
            assert "\n" not in str(error) and "a.json: " in str(error)
            continue
        boxes = [box for item in found.images for box in item.boxes]
        described = any(item.annotation for item in found.images)
        assert len(boxes) == (number_of_annotations(name, data) if described else 0)
        for box in boxes:
            assert box.id and isinstance(box.label, str) and (box.label or box.damage)
            assert all(type(side) is float for side in corners(box)[1:])
            assert not (box.damage and box.is_finite) and "\n" not in box.damage + box.ignore
            f"{box}".encode()  # the receipt must be able to store it
        read += 1
    assert read > 150  # most changes must be tolerated, so that counting is tested


def test_error_lines_stay_short_whatever_the_file_holds(tmp_path: Path) -> None:
    deep: Any = []
    for _ in range(sys.getrecursionlimit() // 4):
        deep = [deep]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": each} for each in (deep, list(range(10**5)), "x" * 10**6)
    ]
    for box in labels_of("coco", tmp_path, one_image(*annotations), "a.jpg").images[0].boxes:
        assert box.damage.endswith("is not [x, y, width, height]; correct it") and len(box.damage) < 200


# --- Writing ------------------------------------------------------------------------------------------


def test_pycocotools_reads_what_we_write(tiles: Path, tmp_path: Path, truth: dict[str, list[Corners]]) -> None:
    items: list[Labelled] = list(coco.read(tiles).images)
    names = coco.read(tiles).classes
    assert names
    folder = tmp_path / "written"
    shutil.copytree(tiles / "images", folder)
    writers.coco(folder / "all.json", [(item.image.name, (320, 320), item.boxes) for item in items], names)
    data = COCO(str(folder / "all.json"))
    theirs = {
        image["file_name"]: [
            (data.cats[a["category_id"]]["name"], a["bbox"][0], a["bbox"][1], a["bbox"][0] + a["bbox"][2], a["bbox"][1] + a["bbox"][3])
            for a in data.imgToAnns[image["id"]]
        ]
        for image in data.imgs.values()
    }  # fmt: skip
    same(theirs, truth)
    assert {number: category["name"] for number, category in data.cats.items()} == dict(enumerate(names, start=1))
    assert all(a["area"] == pytest.approx(a["bbox"][2] * a["bbox"][3]) for a in data.anns.values())
    again = coco.read(folder)
    same(found_in(again), truth)
    assert again.classes == names
    assert {item.declared_size for item in again.images} == {(320, 320)}

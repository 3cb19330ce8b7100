"""A bundle tests its device with the unusual images of the dataset: a crowd, a 16-bit image, one rotated by EXIF."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import Trained, read_coco, write_coco
from PIL import Image

from pipeline import convert, export
from pipeline.boxes import YoloDataset
from pipeline.config.data import Convert
from pipeline.config.export import Export
from pipeline.config.judging import Validate
from pipeline.device import runner
from pipeline.device.runner import Detections, headers, selftest
from pipeline.device.runner.base import RunnerError
from pipeline.export import bundle, choice
from pipeline.files import read_json, write_json
from pipeline.run import Run

DEFAULT = Validate().max_det
CROWD = 360  # objects, in a grid of 20 by 18
# Where the odd images lie among the plain ones: `export.images: 2` would take the first and the last.
ORDERS = {"in the middle": "val_0001_{}", "last": "val_9_{}", "first": "a_{}"}


def add(source: Path, name: str, write: Callable[[Path, np.ndarray[Any, Any]], Any], boxes: int) -> None:
    data = read_coco(source, "val")
    array: Any = cv2.imread(str(next((source / "images").glob("val*"))))
    # A different image, not a near-duplicate.
    array = cv2.flip(cv2.rotate(array, cv2.ROTATE_180), len(data["images"]) % 3 - 1)
    write(source / "images" / name, array)
    height, width = array.shape[:2]
    number = max(image["id"] for image in data["images"]) + 1
    data["images"].append({"id": number, "file_name": name, "width": width, "height": height})
    for index in range(boxes):
        bbox = [index % 20 * width / 20, index // 20 * height / 18, width / 25, height / 25]
        found = {"bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0, "image_id": number, "category_id": 1}
        data["annotations"].append({"id": len(data["annotations"]) + 1, **found})
    write_coco(source, "val", data)


def deep(path: Path, image: np.ndarray[Any, Any]) -> None:
    cv2.imwrite(str(path), image.astype(np.uint16) * 16 + 7)


def turned(path: Path, image: np.ndarray[Any, Any]) -> None:
    exif = Image.Exif()
    exif[headers.EXIF_ORIENTATION] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(image)[:, :, ::-1])).save(path, exif=exif, quality=95)


def plain(path: Path, image: np.ndarray[Any, Any]) -> None:
    cv2.imwrite(str(path), image)


@pytest.fixture
def odd(trained: Trained, source: Path, copy_of: Callable[[Run], Run], request: pytest.FixtureRequest) -> Run:
    name = ORDERS[request.param]
    for kind, write, boxes in (("crowd.png", plain, CROWD), ("deep.png", deep, 2), ("turned.jpg", turned, 2)):
        add(source, name.format(kind), write, boxes)
    run = copy_of(trained.run)
    convert.main(Convert(source=source, near_duplicates=False), run, 0)
    metrics = read_json(run.metrics)
    metrics["settings"] |= {"max_det": 1000, "iou": 0.9}
    write_json(run.metrics, metrics)
    return run


@pytest.mark.parametrize("odd", ORDERS, indirect=True)
def test_images_a_device_may_treat_differently_are_compared(odd: Run) -> None:
    dataset = YoloDataset.read(odd.dataset / "data.yaml")
    chosen = {path.stem.rpartition("_")[2] for path in choice.images(dataset, odd, 2)}
    assert {"crowd", "deep", "turned"} <= chosen and len(chosen) <= 5
    assert len(choice.images(dataset, odd, 100)) == len(dataset.files("val"))


def test_a_turned_jpeg_with_data_after_its_end_is_compared(source: Path, run: Run) -> None:
    """`convert` rewrites it because of its end, and keeps its orientation."""

    def trailing(path: Path, image: np.ndarray[Any, Any]) -> None:
        turned(path, image)
        path.write_bytes(path.read_bytes() + b"trailer of a telephone")

    add(source, "val_0001_turned.jpg", trailing, 2)
    convert.main(Convert(source=source, near_duplicates=False), run, 0)
    dataset = YoloDataset.read(run.dataset / "data.yaml")
    assert "val_0001_turned.jpg" in {path.name for path in choice.images(dataset, run, 2)}


@pytest.mark.parametrize("odd", ["in the middle"], indirect=True)
def test_a_bundle_contains_the_odd_images_and_tests_its_device_with_them(odd: Run) -> None:
    # 256 pixels have 1,344 box positions; this training's 64 pixels have 84.
    settings = {"images": 2, "conf": 0.0005, "targets": [{"format": "onnx", "imgsz": 256}]}
    export.main(Export.model_validate(settings), odd, 0, "cpu")
    unpacked = bundle.unpack(next(odd.export.glob("*.zip")), odd.root / "device")
    expected = read_json(unpacked / "golden" / "expected.json")
    assert max(len(one["scores"]) for one in expected) > DEFAULT
    depths, turns = set(), set()
    for one in expected:
        path = unpacked / "golden" / one["file"]
        array: Any = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        depths.add(array.dtype.name)
        with Image.open(path) as image:
            turns.add(image.getexif().get(headers.EXIF_ORIENTATION, 1))
    assert (depths, turns) == ({"uint8", "uint16"}, {1, 6})
    command = [sys.executable, str(unpacked / "run.py"), "--selftest"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout[:16], done.stderr, done.returncode) == ("selftest passed:", "", 0)
    # A device that truncates crowds fails.
    spec = read_json(unpacked / "model.json")
    spec["output"]["max_det"] = DEFAULT
    with pytest.raises(RunnerError, match=r"selftest FAILED: golden/\d\.png: \d+ of \d+ objects not found"):
        selftest.compare(runner.Model(unpacked, spec, 1), unpacked)


def test_the_selftest_pairs_crowds_like_a_plain_loop() -> None:
    """The nearest unpaired box of the class with an IoU of at least 0.5."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (150, 2)).repeat(2, axis=0).reshape(150, 4) + np.array([0, 0, 9, 9])
    ours = Detections(corners, rng.uniform(0.1, 1, 150), rng.integers(0, 2, 150))
    moved = rng.permutation(150)[:140]
    theirs = Detections(corners[moved] + rng.normal(0, 0.3, (140, 4)), ours.scores[moved] + 0.01, ours.classes[moved])
    free, most_px, most_score, lost = set(range(140)), 0.0, 0.0, 0
    for box, score, kind in zip(ours.corners, ours.scores, ours.classes, strict=True):
        near = []
        for index in free:
            other = theirs.corners[index]
            width, height = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
            shared = max(width, 0) * max(height, 0)
            areas = np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2])
            if theirs.classes[index] == kind and shared / (areas - shared) >= 0.5:
                apart = abs(theirs.scores[index] - score)
                near.append((np.abs(other - box).max() + 10 * apart, np.abs(other - box).max(), apart, index))
        if near:
            _, px, score_apart, index = min(near)
            free.remove(index)
            most_px, most_score = max(most_px, px), max(most_score, score_apart)
        lost += not near
    assert selftest.apart(ours, theirs) == pytest.approx((most_px, most_score, lost)) and lost >= 10
    nothing = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    assert selftest.apart(ours, nothing) == (0, 0, 150) and selftest.apart(nothing, ours) == (0, 0, 0)

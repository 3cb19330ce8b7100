from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline import pixels
from pipeline.boxes import Box, YoloDataset, from_yolo_line, read_labels, write_data_yaml, write_labels, yolo_text
from pipeline.errors import DataError
from pipeline.train.resume import data_digest

NAMES = ("cat", "dog")


def test_pixels_survive_a_yolo_round_trip() -> None:
    generator = random.Random(0)
    for _ in range(200):
        width, height = generator.randint(20, 4000), generator.randint(20, 4000)
        x, y = sorted(generator.uniform(0, width) for _ in "ab"), sorted(generator.uniform(0, height) for _ in "ab")
        box = Box("dog", x[0], y[0], x[1], y[1])
        again = from_yolo_line(yolo_text([box], {"dog": 1}, width, height), NAMES, width, height)
        assert again.label == "dog"
        # Six decimals: half a unit in the last place for the centre, a quarter for half the size.
        tolerance = 0.75e-6 * max(width, height) + 1e-9
        for side in ("xmin", "ymin", "xmax", "ymax"):
            assert getattr(again, side) == pytest.approx(getattr(box, side), abs=tolerance)


def test_images_that_cannot_be_coded_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(DataError, match=r"empty\.jpg: OpenCV cannot decode it"):
        pixels.read(tmp_path / "empty.jpg")
    with pytest.raises(DataError, match=r"an image of 65501x2 pixels cannot be written as \.jpg; cut it"):
        pixels.jpeg(np.zeros((2, 65501, 3), np.uint8), 90)


def test_a_polygon_becomes_the_box_around_it() -> None:
    box = from_yolo_line("0 0.1 0.2 0.5 0.1 0.3 0.6", NAMES, 100, 200)
    assert (box.xmin, box.ymin, box.xmax, box.ymax) == pytest.approx((10, 20, 50, 120))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 0.5 0.5 x 0.5", "not numbers"),
        ("0 0.5 0.5 0.5", "3 numbers after the class"),
        ("0 0.5 0.5 0.5 0.5 0.5", "5 numbers after the class"),
        ("2 0.5 0.5 0.5 0.5", r"class 2, outside the valid range 0\.\.1"),
        ("0.5 0.5 0.5 0.5 0.5", "class 0.5, outside"),
        ("nan 0.5 0.5 0.5 0.5", "not numbers"),
        ("1e999 0.5 0.5 0.5 0.5", "not numbers"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"0 0.5 0.5 0.1 0.1\n\n{line}\n")
    with pytest.raises(DataError, match=rf"a\.txt: line 3: {said}"):
        read_labels(path, NAMES, 10, 10)


def test_labels_that_are_not_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"a\.txt: not UTF-8 text"):
        read_labels(path, NAMES, 10, 10)


def test_what_was_removed_from_a_data_set_is_named(tmp_path: Path) -> None:
    image = tmp_path / "images" / "train" / "a.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(pixels.png(np.zeros((20, 20, 3), np.uint8)))
    dataset = YoloDataset(NAMES, {"train": tmp_path / "images" / "train"})
    again = rf"missing; delete {re.escape(str(tmp_path))} and run `make` again"
    for read in (lambda: dataset.labelled(image), lambda: data_digest(dataset)):
        with pytest.raises(DataError, match=rf"labels/train/a\.txt: {again}"):
            read()
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(DataError, match=rf"images/train: {again}"):
        dataset.files("train")


def test_a_data_set_reads_back_as_written(tmp_path: Path) -> None:
    (tmp_path / "images" / "val").mkdir(parents=True)
    (tmp_path / "labels" / "val").mkdir(parents=True)
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / "images" / "val" / name).touch()
    write_data_yaml(tmp_path / "data.yaml", {"val": "images/val"}, ("yes", "1"))
    dataset = YoloDataset.read(tmp_path / "data.yaml")
    assert dataset.names == ("yes", "1")
    assert [path.name for path in dataset.files("val")] == ["a.png", "b.JPG"]
    assert dataset.files("test") == []
    write_labels(dataset.label_file(dataset.files("val")[0]), [Box("1", 0, 0, 5, 5)], dataset.names, (10, 10))
    assert (tmp_path / "labels" / "val" / "a.txt").read_text() == "1 0.250000 0.250000 0.500000 0.500000\n"
    with pytest.raises(DataError, match="does not exist"):
        YoloDataset.read(tmp_path / "other.yaml")

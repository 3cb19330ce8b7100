"""Objects too small for `imgsz` are named before training, and again where nothing was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import train_tiny
from PIL import Image

from pipeline import augment, convert, export, object_sizes, validate
from pipeline.boxes import Box, YoloDataset, write_data_yaml, write_labels
from pipeline.config.data import Augment, Convert
from pipeline.config.export import Export
from pipeline.config.judging import Validate
from pipeline.run import Run

BIG, DOT = "big", "dot"


def draw(folder: Path, size: tuple[int, int], dot: float, images: int = 4) -> Path:
    """A YOLO dataset: each image has a dot (`dot` pixels wide, twice as high) and an object of half the image."""
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(images):
            pixels = np.random.default_rng(number + len(split)).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / split / f"{split}{number}.png")
            boxes = [Box(DOT, 10, 10, 10 + dot, 10 + 2 * dot), Box(BIG, 0, 0, size[0] / 2, size[1] / 2)]
            write_labels(folder / "labels" / split / f"{split}{number}.txt", boxes, (BIG, DOT), size)
    write_data_yaml(folder / "data.yaml", {split: f"images/{split}" for split in ("train", "val")}, (BIG, DOT))
    return folder


@pytest.mark.parametrize(
    ("size", "dot", "imgsz", "said"),
    [
        # 2400 pixels become 320, so 12 become 1.6; five times that is 8.
        ((2400, 1600), 12, 320, "dot 1.6 (smallest 1.6); set train.imgsz to 1600, or cut the images into tiles of 480"),
        ((1600, 2400), 12, 320, "dot 1.6 (smallest 1.6); set train.imgsz to 1600, or cut the images into tiles of 480"),
        ((1280, 1280), 3, 640, "dot 1.5 (smallest 1.5); set train.imgsz to 3424, or cut the images into tiles of 240"),
        ((640, 480), 2, 640, ""),
        ((100, 100), 1, 640, ""),
    ],
)
def test_objects_too_small_for_imgsz_are_reported(
    size: tuple[int, int], dot: float, imgsz: int, said: str, tmp_path: Path
) -> None:
    data = YoloDataset.read(draw(tmp_path / "d", size, dot, images=1) / "data.yaml")
    line = object_sizes.too_small(data, imgsz)
    assert said in line and bool(said) == bool(line) and BIG not in line and "\n" not in line


def test_every_stage_reports_the_same(tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    source = draw(tmp_path / "source", (320, 200), 9)
    convert.main(Convert(source=source, split="given"), run, 0)
    augment.main(Augment(), run, 0)
    capsys.readouterr()
    train_tiny(run, Path("yolo26n.yaml"))
    said = (
        "objects are too small to be found at imgsz 64; half of the objects of these classes have at most this many "
        "pixels: dot 1.8 (smallest 1.8); set"
    )
    assert f"train: {said}" in capsys.readouterr().out
    validate.main(Validate(conf=0.9), run, "cpu")
    assert f"validate: {said}" in capsys.readouterr().out
    assert f"nothing is proven; {said}" in export.main(Export(images=2, conf=0.9), run, 0, "cpu")

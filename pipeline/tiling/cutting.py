"""Write the tiles of one image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import files, pixels
from pipeline.boxes import Box, YoloDataset, write_labels
from pipeline.pixels import Image
from pipeline.records.tile_account import TiledImage
from pipeline.tiling import windows
from pipeline.tiling.grid import Tile

GREY = 114  # Ultralytics' padding, which is neither object nor background
LOSSLESS = (".png", ".bmp", ".tif", ".tiff")  # tiles of these are PNG, all others JPEG
JPEG_QUALITY = 95
FEWEST = 10  # pixels of a side; Ultralytics silently leaves out smaller images


@dataclass(frozen=True, slots=True)
class Plan:
    """An image, its boxes, the tiles to write, and whether to add the whole image.

    An image no larger than a tile is its only tile.
    """

    image: Path
    size: tuple[int, int]
    boxes: tuple[Box, ...]
    tiles: tuple[Tile, ...]
    whole: bool

    @property
    def is_one(self) -> bool:
        return len(self.tiles) == 1 and (self.tiles[0].width, self.tiles[0].height) == self.size

    def names(self) -> list[str]:
        """Return the names of the files without suffix; that of the whole image comes last."""
        stem = self.image.stem
        return [stem] if self.is_one else [*(f"{stem}-x{tile.x}-y{tile.y}" for tile in self.tiles), f"{stem}-whole"]


@dataclass(frozen=True, slots=True)
class Cutter:
    """A picklable function that writes the tiles of an image into `folder/images/SPLIT` and `folder/labels/SPLIT`.

    Whole images are fitted into `imgsz`.
    """

    names: tuple[str, ...]
    imgsz: int
    folder: Path
    split: str

    def __call__(self, plan: Plan) -> TiledImage:
        """Write the tiles and return their account. Raises DataError if the image cannot be decoded."""
        suffix = plan.image.suffix if plan.is_one else ".png" if plan.image.suffix.lower() in LOSSLESS else ".jpg"
        names, whole = plan.names(), None
        if plan.is_one:
            files.link_or_copy(plan.image, self._image(names[0], suffix))
            self._link_labels(plan, names[0])
        elif plan.tiles or plan.whole:
            with windows.open_image(plan.image) as image:
                row_by_row = sorted(zip(plan.tiles, names, strict=False), key=lambda pair: (pair[0].y, pair[0].x))
                for tile, name in row_by_row:
                    self._tile(image, plan, tile, self._image(name, suffix))
                if plan.whole:
                    whole = names[-1] + suffix
                    _write(self._image(names[-1], suffix), image.fitted(_fitted(plan.size, self.imgsz)))
                    self._link_labels(plan, names[-1])
        return _account(plan, [name + suffix for name in names], whole)

    def _image(self, name: str, suffix: str) -> Path:
        return self.folder / "images" / self.split / f"{name}{suffix}"

    def _link_labels(self, plan: Plan, name: str) -> None:
        """Link the labels of the whole image, which are relative to its size and so hold at any scale."""
        target = self.folder / "labels" / self.split / f"{name}.txt"
        files.link_or_copy(YoloDataset.label_file(plan.image), target)

    def _tile(self, image: windows.Windows, plan: Plan, tile: Tile, target: Path) -> None:
        window = image.read(tile.x, tile.y, tile.width, tile.height)
        whole = [_moved(plan.boxes[index], tile) for index in tile.whole]
        hide(window, [_moved(plan.boxes[index], tile) for index in tile.cut], whole)
        _write(target, window)
        write_labels(YoloDataset.label_file(target), whole, self.names, (tile.width, tile.height))


def hide(tile: Image, cut: Sequence[Box], whole: Sequence[Box]) -> None:
    """Paint cut boxes grey, except where whole ones cover them. Boxes are in pixels of the tile."""
    hidden = np.zeros(tile.shape[:2], bool)
    for boxes, value in ((cut, True), (whole, False)):
        for box in boxes:
            rows = slice(max(0, math.floor(box.ymin)), max(0, math.ceil(box.ymax)))
            hidden[rows, max(0, math.floor(box.xmin)) : max(0, math.ceil(box.xmax))] = value
    tile[hidden] = GREY


def _moved(box: Box, tile: Tile) -> Box:
    x, y = tile.x, tile.y
    return box._replace(xmin=box.xmin - x, ymin=box.ymin - y, xmax=box.xmax - x, ymax=box.ymax - y)


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return width and height with the longer one equal to `side`, or more if the shorter one would be under FEWEST."""
    scale = max(side / max(size), min(1, FEWEST / min(size)))
    width, height = (max(1, round(length * scale)) for length in size)
    return width, height


def _write(path: Path, image: Image) -> None:
    """Write an image with Python's own I/O, because OpenCV does not notice a full disk."""
    path.write_bytes(pixels.png(image) if path.suffix == ".png" else pixels.jpeg(image, JPEG_QUALITY))


def _account(plan: Plan, names: Sequence[str], whole: str | None) -> TiledImage:
    shown = {index for tile in plan.tiles for index in tile.whole}
    others = [_line(box) for index, box in enumerate(plan.boxes) if index not in shown]
    return {
        "file": plan.image.name,
        "boxes": len(plan.boxes),
        "tiles": [
            {
                "file": name,
                "window": [tile.x, tile.y, tile.width, tile.height],
                "boxes": [_line(plan.boxes[index]) for index in tile.whole],
                "hidden": [_line(plan.boxes[index]) for index in tile.cut],
            }
            for tile, name in zip(plan.tiles, names, strict=False)
        ],
        "whole": whole,
        "only_whole": others if whole else [],
        "lost": [] if whole else others,
    }


def _line(box: Box) -> int:
    """Return the line number of a box in its label file."""
    return int(box.id.removeprefix("line "))

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
PART = 128  # tiles that one process cuts at a time, a few seconds of work
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

    @property
    def suffix(self) -> str:
        own = self.image.suffix
        return own if self.is_one else ".png" if own.lower() in LOSSLESS else ".jpg"

    def name(self, tile: Tile) -> str:
        """Return the name of a tile's files, without suffix."""
        return self.image.stem if self.is_one else f"{self.image.stem}-x{tile.x}-y{tile.y}"

    @property
    def whole_name(self) -> str:
        return f"{self.image.stem}-whole"

    def names(self) -> list[str]:
        """Return the names of all its files, without suffix."""
        return [*map(self.name, self.tiles), *([] if self.is_one else [self.whole_name])]

    def parts(self) -> list[Part]:
        """Return the work in parts, so that several processes can cut one image; each reads the image row by row."""
        tiles = sorted(self.tiles, key=lambda tile: (tile.y, tile.x))
        starts = range(0, max(1, len(tiles)), PART)
        return [Part(self, tuple(tiles[start : start + PART]), start == 0) for start in starts]


@dataclass(frozen=True, slots=True)
class Part:
    """Some tiles of an image; the first part also has the whole image, if that is wanted."""

    plan: Plan
    tiles: tuple[Tile, ...]
    is_first: bool


@dataclass(frozen=True, slots=True)
class Cutter:
    """A picklable function that writes tiles into `folder/images/SPLIT` and `folder/labels/SPLIT`.

    Whole images are fitted into `imgsz`.
    """

    names: tuple[str, ...]
    imgsz: int
    folder: Path
    split: str

    def __call__(self, part: Part) -> None:
        """Write the tiles of a part. Raises DataError where the image cannot be decoded."""
        plan, whole = part.plan, part.plan.whole and part.is_first
        if plan.is_one:
            name = plan.name(plan.tiles[0])
            files.link_or_copy(plan.image, self._image(name, plan.suffix))
            self._link_labels(plan, name)
        elif part.tiles or whole:
            with windows.open_image(plan.image) as image:
                for tile in part.tiles:
                    self._tile(image, plan, tile, self._image(plan.name(tile), plan.suffix))
                if whole:
                    target = self._image(plan.whole_name, plan.suffix)
                    _write(target, image.fitted(_fitted(plan.size, self.imgsz)))
                    self._link_labels(plan, plan.whole_name)

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


def account(plan: Plan) -> TiledImage:
    """Return which tile shows which boxes."""
    shown = {index for tile in plan.tiles for index in tile.whole}
    others = [_line(box) for index, box in enumerate(plan.boxes) if index not in shown]
    whole = plan.whole_name + plan.suffix if plan.whole and not plan.is_one else None
    return {
        "file": plan.image.name,
        "boxes": len(plan.boxes),
        "tiles": [
            {
                "file": plan.name(tile) + plan.suffix,
                "window": [tile.x, tile.y, tile.width, tile.height],
                "boxes": [_line(plan.boxes[index]) for index in tile.whole],
                "hidden": [_line(plan.boxes[index]) for index in tile.cut],
            }
            for tile in plan.tiles
        ],
        "whole": whole,
        "only_whole": others if whole else [],
        "lost": [] if whole else others,
    }


def _line(box: Box) -> int:
    """Return the line number of a box in its label file."""
    return int(box.id.removeprefix("line "))

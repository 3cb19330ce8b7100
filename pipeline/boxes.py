"""Define boxes and labelled images, and read and write YOLO label text.

Every reader in `formats` returns these types, and every stage uses them. Coordinates are continuous, in pixels of the
upright image, with the origin at the outer corner of the top-left pixel:

    (0, 0) ┌──────────────── x
           │   xmin,ymin ┌────────┐
           │             │        │  width = xmax - xmin
           y             └────────┘ xmax,ymax
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import yaml
from PIL import Image, UnidentifiedImageError

from pipeline.errors import DataError, missing

# Image suffixes in a dataset that `convert` writes; Ultralytics reads them all.
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
# Suffixes that mark an image in a source; some are listed only so that such files are refused by name.
SOURCE_SUFFIXES = IMAGE_SUFFIXES | frozenset(
    {
        ".avif",
        ".dib",
        ".gif",
        ".heic",
        ".heif",
        ".j2k",
        ".jfif",
        ".jp2",
        ".jpe",
        ".mpo",
        ".pbm",
        ".pgm",
        ".pnm",
        ".ppm",
        ".tga",
    }
)


class Box(NamedTuple):  # a frozen dataclass takes four times as long to create, and there are thousands
    """One labelled object, in pixels.

    `id` identifies the annotation in its source file. `ignore` says why the source excludes it from training (a crowd,
    a don't-care region). `damage` says what is wrong with an annotation without valid corners, which are then NaN. Both
    are empty for an ordinary box.
    """

    label: str
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    id: str = ""
    ignore: str = ""
    damage: str = ""

    @property
    def width(self) -> float:
        return self.xmax - self.xmin

    @property
    def height(self) -> float:
        return self.ymax - self.ymin

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """Return (x, y, width, height), as COCO writes a box."""
        return self.xmin, self.ymin, self.width, self.height

    @property
    def is_finite(self) -> bool:
        return all(map(math.isfinite, (self.xmin, self.ymin, self.xmax, self.ymax)))

    def clipped(self, width: int, height: int) -> Box:
        return self._replace(
            xmin=min(max(self.xmin, 0.0), width),
            ymin=min(max(self.ymin, 0.0), height),
            xmax=min(max(self.xmax, 0.0), width),
            ymax=min(max(self.ymax, 0.0), height),
        )


class Labelled(NamedTuple):
    """An image and its boxes as a source gives them, not yet checked.

    `declared_size` is the (width, height) in pixels that the annotation gives; None if it gives none.
    `annotation` is the file that holds the boxes; None for an image that no annotation mentions.
    """

    image: Path
    boxes: tuple[Box, ...]
    annotation: Path | None
    declared_size: tuple[int, int] | None = None
    split: str | None = None


def yolo_text(boxes: Sequence[Box], ids: Mapping[str, int], width: int, height: int) -> str:
    """Return one line `class cx cy w h` per box, relative to the image size.

    `ids` maps labels to class ids. Six decimals round by at most 0.002 px in an image 4,000 px wide.
    """
    numbers: list[float] = []
    for label, xmin, ymin, xmax, ymax, *_ in boxes:
        numbers += (
            ids[label],
            (xmin + xmax) / 2 / width,
            (ymin + ymax) / 2 / height,
            (xmax - xmin) / width,
            (ymax - ymin) / height,
        )
    return "%d %.6f %.6f %.6f %.6f\n" * len(boxes) % tuple(numbers)  # twice as fast as f-strings


def check_sides(width: float, height: float) -> None:
    """Raise ValueError for a negative side, because no corner of the box is then known."""
    if width < 0 or height < 0:
        raise ValueError(f"width {width:g} and height {height:g}: a side cannot be negative")


def from_yolo_line(line: str, names: Sequence[str], width: int, height: int, id: str = "") -> Box:
    """Parse one line of YOLO text, a box or a polygon, and return its box in pixels.

    Raises ValueError with what is wrong with the line.
    """
    first, *rest = line.split()
    try:
        index, numbers = int(float(first)), [float(word) for word in rest]
    except (ValueError, OverflowError):
        raise ValueError(f"not numbers: {line[:60]!r}") from None
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        raise ValueError(f"{len(numbers)} numbers after the class; a box has 4, a polygon 6 or more")
    if not 0 <= index < len(names) or index != float(first):
        raise ValueError(f"class {first[:20]}, outside the valid range 0..{len(names) - 1}")
    if len(numbers) == 4:
        cx, cy, w, h = numbers
        check_sides(w, h)
        corners = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
    else:
        # With a NaN among the numbers, min and max depend on their order.
        xs, ys = ([math.nan], [math.nan]) if any(map(math.isnan, numbers)) else (numbers[0::2], numbers[1::2])
        corners = (min(xs), min(ys), max(xs), max(ys))
    xmin, ymin, xmax, ymax = corners
    return Box(names[index], xmin * width, ymin * height, xmax * width, ymax * height, id)


def read_labels(path: Path, names: Sequence[str], width: int, height: int) -> tuple[Box, ...]:
    """Return the boxes of a YOLO label file in pixels; the id of a box is its line number. Raises DataError."""
    boxes = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise missing(path, path.parents[2]) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                boxes.append(from_yolo_line(line, names, width, height, id=f"line {number}"))
            except ValueError as error:
                raise DataError(f"{path}: line {number}: {error}; correct the line") from None
    return tuple(boxes)


@lru_cache(maxsize=4)
def _ids(names: tuple[str, ...]) -> dict[str, int]:
    return {name: index for index, name in enumerate(names)}


def write_labels(path: Path | str, boxes: Sequence[Box], names: Sequence[str], size: tuple[int, int]) -> None:
    _write(str(path), yolo_text(boxes, _ids(tuple(names)), *size).encode())


def _write(path: str, data: bytes) -> None:
    """Write a small file by system calls: `open` takes twice as long, and there are thousands of files."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
    try:
        if os.write(file, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
    finally:
        os.close(file)


def write_data_yaml(path: Path, folders: dict[str, str], names: Sequence[str]) -> None:
    """Write Ultralytics' description of a dataset.

    Without a `path:` key, Ultralytics takes the folder of this file as the root, so the run can be moved.
    """
    text = yaml.safe_dump({**folders, "names": dict(enumerate(names))}, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class YoloDataset:
    """A dataset that an earlier stage wrote: its class names and the image folder of each split."""

    names: tuple[str, ...]
    images: dict[str, Path]

    @classmethod
    def read(cls, data_yaml: Path) -> YoloDataset:
        if not data_yaml.is_file():
            raise DataError(f"{data_yaml}: does not exist; `make` runs the stage that writes it")
        data = yaml.safe_load(data_yaml.read_text(encoding="utf-8"))
        names = tuple(data.pop("names").values())
        return cls(names, {split: data_yaml.parent / folder for split, folder in data.items()})

    def files(self, split: str) -> list[Path]:
        """Return the images of a split sorted by name; empty if there is no such split. Raises DataError."""
        if split not in self.images:
            return []
        folder = self.images[split]
        try:
            return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        except FileNotFoundError:
            raise missing(folder, folder.parents[1]) from None

    @staticmethod
    def label_file(image: Path) -> Path:
        return image.parents[1].with_name("labels") / image.parent.name / f"{image.stem}.txt"

    def labelled(self, image: Path) -> tuple[tuple[int, int], tuple[Box, ...]]:
        """Return (width, height) of an image and its boxes, in its pixels. Raises OSError and DataError."""
        size = image_size(image)
        return size, read_labels(self.label_file(image), self.names, *size)


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of an upright image of a dataset. Raises DataError if it has become damaged."""
    from pipeline import orientation  # late: it loads NumPy and OpenCV, which `params` does without

    try:
        with Image.open(path) as image:
            return image.size[::-1] if orientation.in_dataset(image) in orientation.SIDES_SWAPPED else image.size
    except (UnidentifiedImageError, ImportError):  # Ultralytics' own `Image.open` then looks for a plugin
        raise DataError(f"{path}: no longer an image; restore it in the source and convert again") from None

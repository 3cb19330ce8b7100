"""Place the tiles of one image so that they cut the fewest boxes. Boxes are (n, 4) arrays of corners in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError

OFFSETS = 8  # tried per axis, in all pairs
MOST = 100_000  # tiles of one image; an extreme overlap makes millions
Corners = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Tile:
    """A window of the image in whole pixels, and the indices of the boxes that are whole in it or cut by its edges."""

    x: int
    y: int
    width: int
    height: int
    whole: tuple[int, ...]
    cut: tuple[int, ...]


def place(image: tuple[int, int], boxes: Corners, size: int, overlap: float, seed: int) -> list[Tile]:
    """Return the tiles of an image of (width, height). Each box that fits into a tile is whole in at least one.

    A regular grid is shifted by the best of several seeded offsets. A box that it never shows whole, because it is
    longer than the overlap, gets a tile of its own. Raises ConfigError for too many tiles.
    """
    starts = [_offset_starts(side, size, overlap, seed + axis) for axis, side in enumerate(image)]
    _refuse_too_many(image, size, overlap, starts)
    sides = min(size, image[0]), min(size, image[1])
    fits = _fits(boxes, sides)
    columns = [_Axis.of(xs, sides[0], boxes[:, 0], boxes[:, 2]) for xs in starts[0]]
    rows = [_Axis.of(ys, sides[1], boxes[:, 1], boxes[:, 3]) for ys in starts[1]]
    across, down = min(product(columns, rows), key=lambda pair: _cost(pair[0], pair[1], fits))
    corners = [(x, y) for y in down.starts for x in across.starts]
    uncovered = fits & ~((across.whole > 0) & (down.whole > 0))
    while uncovered.any():
        corners.append(_around(boxes[int(np.argmax(uncovered))], image, sides))
        whole, _ = _seen(boxes, *corners[-1], *sides)
        uncovered[whole] = False
    return [Tile(x, y, *sides, *(tuple(part.tolist()) for part in _seen(boxes, x, y, *sides))) for x, y in corners]


def starts(side: int, size: int, overlap: float, offset: int = 0) -> list[int]:
    """Return where tiles begin on one axis. `offset` shifts all but the first; the last one is moved inward to fit."""
    step = step_of(size, overlap)
    number = max(0, -(-(side - size + offset) // step)) + 1
    return sorted({min(max(0, index * step - offset), max(0, side - size)) for index in range(number)})


def step_of(size: int, overlap: float) -> int:
    return max(size - round(size * overlap), 1)


def _offset_starts(side: int, size: int, overlap: float, seed: int) -> list[list[int]]:
    if side <= size:
        return [[0]]
    offsets = np.random.default_rng(seed).integers(step_of(size, overlap), size=OFFSETS - 1)
    return [starts(side, size, overlap, int(offset)) for offset in (0, *offsets)]


def _refuse_too_many(
    image: tuple[int, int], size: int, overlap: float, starts: Sequence[Sequence[Sequence[int]]]
) -> None:
    number = len(starts[0][0]) * len(starts[1][0])
    if number > MOST:
        raise ConfigError(
            f"tiles: size {size} and overlap {overlap:g} make {number:,} tiles of an image of "
            f"{image[0]}x{image[1]}; take a smaller overlap or a larger size"
        )


@dataclass(frozen=True, slots=True)
class _Axis:
    """The tiles along one axis, and for each box how many show it whole and how many it touches."""

    starts: Sequence[int]
    whole: Indices
    touched: Indices

    @classmethod
    def of(cls, starts: Sequence[int], side: int, low: Corners, high: Corners) -> _Axis:
        begin, end = np.array(starts), np.array(starts) + side
        # Both ascend, so the tiles that hold or touch a box are consecutive.
        first_whole, last_whole = np.searchsorted(end, high), np.searchsorted(begin, low, "right")
        first, last = np.searchsorted(end, low, "right"), np.searchsorted(begin, high)
        return cls(starts, np.maximum(last_whole - first_whole, 0), last - first)


def _cost(across: _Axis, down: _Axis, fits: NDArray[np.bool_]) -> tuple[int, int, int]:
    """Return the cost: the number of boxes that no tile shows whole, then of cut parts, then of tiles."""
    whole = across.whole * down.whole
    cut = across.touched * down.touched - whole
    return int((fits & (whole == 0)).sum()), int(cut.sum()), len(across.starts) * len(down.starts)


def _fits(boxes: Corners, sides: tuple[int, int]) -> NDArray[np.bool_]:
    sizes = np.ceil(boxes[:, 2:]) - np.floor(boxes[:, :2])
    return np.asarray((sizes <= sides).all(axis=1))


def _around(box: Any, image: tuple[int, int], sides: tuple[int, int]) -> tuple[int, int]:
    """Return the start of a tile centred on the box, or as close to that as the image allows.

    Rounding never cuts a box that `_fits` accepts.
    """
    x, y = (
        min(max(0, round((low + high - side) / 2)), length - side)
        for low, high, side, length in zip(box[:2], box[2:], sides, image, strict=True)
    )
    return x, y


def _seen(boxes: Corners, x: int, y: int, width: int, height: int) -> tuple[Indices, Indices]:
    """Return the indices of the boxes that are whole in a window, and of those that its edges cut."""
    low, high = np.array([x, y]), np.array([x + width, y + height])
    touched = ((boxes[:, :2] < high) & (boxes[:, 2:] > low)).all(axis=1)
    whole = touched & ((boxes[:, :2] >= low) & (boxes[:, 2:] <= high)).all(axis=1)
    return np.flatnonzero(whole), np.flatnonzero(touched & ~whole)

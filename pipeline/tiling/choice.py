"""Decide what `auto` stands for, from the sizes of images and objects."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.config.tiles import Tiles
from pipeline.records.tiles import Tiling

# Pixels: two cells of the head's finest grid, whose stride is 8 (YOLO26 has strides 8, 16 and 32).
CLEAR_SIDE = 16
SHARE_CLEAR = 0.9  # share of the objects that tiles should show at least CLEAR_SIDE large
SHARE_WHOLE = 0.9  # share of the objects that should fit into the overlap
LEAST, MOST = 0.1, 0.5  # overlap; with more, every pixel would be seen more than four times
ENLARGED = 2  # the largest enlargement, because it adds no information
GIVEN = "given in the config"
STEP = 32  # pixels; sizes are multiples of it, and none is smaller


def decide(config: Tiles, imgsz: int, sides: Sequence[tuple[float, float]], longest: int) -> Tiling:
    """Return the config's tiles with numbers in place of `auto`.

    `sides` holds (width, height) of each training object in pixels, `longest` is the longest side of a training image.
    """
    size, of_size = (config.size, "") if isinstance(config.size, int) else _size(imgsz, sides, longest)
    overlap, of_overlap = (config.overlap, "") if isinstance(config.overlap, float) else _overlap(size, sides)
    reason = "; ".join(filter(None, [of_size, of_overlap])) or GIVEN
    return {"size": size, "overlap": overlap, "whole": config.whole, "reason": reason}


def _size(imgsz: int, sides: Sequence[tuple[float, float]], longest: int) -> tuple[int, str]:
    small = float(np.quantile([math.sqrt(w * h) for w, h in sides], 1 - SHARE_CLEAR))
    size = max(round(imgsz * small / CLEAR_SIDE) // STEP * STEP, imgsz // ENLARGED // STEP * STEP, STEP)
    reason = (
        f"size: one object in ten is under {small:.0f} px, which imgsz {imgsz} shows as {small * imgsz / size:.0f} px "
        f"in a tile, and as {small * imgsz / longest:.0f} px in an image of {longest}"
    )
    return size, f"{reason}, so that no image needs more than one tile" if size >= longest else reason


def _overlap(size: int, sides: Sequence[tuple[float, float]]) -> tuple[float, str]:
    long = float(np.quantile([max(side) for side in sides], SHARE_WHOLE))
    overlap = min(max(math.ceil(long / size * 20) / 20, LEAST), MOST)
    return overlap, f"overlap: nine objects in ten are no longer than {long:.0f} px"

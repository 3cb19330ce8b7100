"""The box around a COCO outline: polygons, or a mask in run lengths."""

from __future__ import annotations

import math
from typing import Any

from pipeline.errors import counted
from pipeline.formats.text import show
from pipeline.formats.values import declared_size, numbers

Corners = tuple[float, float, float, float]
Size = tuple[int, int]


def around(outline: Any, size: Size | None) -> Corners:
    """Return the corners of the box around a segmentation: polygons `[[x, y, x, y, ...], ...]`, or a mask's runs.

    `size` is the declared size of the image. Raises ValueError with what is wrong.
    """
    if isinstance(outline, dict):
        return _around_runs(outline, size)
    if not isinstance(outline, list) or not outline:
        raise ValueError(f"no bbox, and the segmentation is {show(outline)}")
    polygons = outline if isinstance(outline[0], list) else [outline]
    xs: list[float] = []
    ys: list[float] = []
    for polygon in polygons:
        sides = numbers(polygon) if isinstance(polygon, list) else None
        if not sides or any(map(math.isnan, sides)):
            raise ValueError(f"no bbox, and a polygon is not a list of numbers: {show(polygon)}")
        if len(sides) < 6 or len(sides) % 2:
            raise ValueError(f"no bbox, and a polygon has {counted(len(sides), 'number')}; three points have 6")
        xs += sides[0::2]
        ys += sides[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _around_runs(rle: dict[str, Any], size: Size | None) -> Corners:
    """Return the corners of the box around a mask in COCO's run lengths, a list or compressed text.

    Runs that do not add up are refused before decoding, because some decoders crash on them.
    """
    from faster_coco_eval import mask_api_new_cpp as masks  # imported late: it loads OpenCV

    sides, counts = rle.get("size"), rle.get("counts")
    height, width = sides if isinstance(sides, list) and len(sides) == 2 else (None, None)
    mask_size = declared_size(width, height)
    if mask_size is None:
        raise ValueError(f"no bbox, and the size of its mask is {show(sides)}")
    width, height = mask_size
    if size not in (None, mask_size):
        raise ValueError(f"no bbox, and its mask is {width}x{height}, but the image is not")
    if isinstance(counts, str):
        try:
            counts = masks.toUncompressedRLE([{"size": [height, width], "counts": counts}])[0]["counts"]
        except (RuntimeError, TypeError, ValueError):
            raise ValueError("no bbox, and its mask is not COCO's compressed text") from None
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("no bbox, and the counts of its mask are not whole numbers")
    if sum(counts) != width * height:
        raise ValueError(f"no bbox, and the counts of its mask add up to {show(sum(counts))}, not to {width}x{height}")
    (packed,) = masks.frUncompressedRLE([{"size": [height, width], "counts": counts}])
    ((x, y, across, down),) = masks.toBbox([packed])
    return float(x), float(y), float(x + across), float(y + down)

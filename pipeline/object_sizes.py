"""Check how large objects are at `imgsz`, to which the longer side of an image is scaled for the model."""

from __future__ import annotations

import math
from statistics import median

from pipeline.boxes import YoloDataset

CELL = 8  # pixels: one cell of the head's finest grid
TOO_SMALL = CELL / 4  # pixels; below this, models trained on whole images found nothing at all
STRIDE = 32  # `imgsz` is a multiple of it


def too_small(data: YoloDataset, imgsz: int, tile: int | None = None) -> str:
    """Return a warning that names classes whose median object in train is below TOO_SMALL pixels; empty if none is.

    It says which size would do. `tile` is the side of the tiles, in pixels of the image, if the images are cut.
    """
    sides: dict[str, list[float]] = {name: [] for name in data.names}  # the shorter side of each object, in pixels
    scales = []
    for path in data.files("train"):
        size, boxes = data.labelled(path)
        scales.append(imgsz / min(max(size), tile or max(size)))
        for box in boxes:
            sides[box.label].append(min(box.width, box.height) * scales[-1])
    small = {name: values for name, values in sides.items() if values and median(values) < TOO_SMALL}
    if not small:
        return ""
    worst = max(min(median(values) for values in small.values()), 0.1)
    listed = ", ".join(f"{name} {median(values):.1f} (smallest {min(values):.1f})" for name, values in small.items())
    wanted = math.ceil(round(imgsz * CELL / worst, 3) / STRIDE) * STRIDE
    wanted_tile = round(imgsz * worst / CELL / median(scales))
    return (
        f"objects are too small to be found at imgsz {imgsz}; "
        f"half of the objects of these classes have at most this many pixels: {listed}; "
        f"set train.imgsz to {wanted}, or cut the images into tiles of {wanted_tile} pixels, to make them {CELL} pixels"
    )

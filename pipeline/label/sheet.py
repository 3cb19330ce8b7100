"""Draw the batch as one image: each image with its rank, the reason, and the boxes that the model drew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pipeline import files, pixels
from pipeline.errors import DataError
from pipeline.label import showing
from pipeline.records.label import Candidate

SIDE = 360  # pixels; each tile has LINE pixels of text below
LINE = 44
COLUMNS = 4
MOST = 100  # images shown; a larger sheet is no overview, and JPEG is limited to 65,535 pixels
QUALITY = 85
GROUND = 24


def write(path: Path, batch: Sequence[Candidate], names: Sequence[str]) -> None:
    """Write a JPEG. Sure boxes have thick lines, doubtful ones thin lines and their score."""
    shown = batch[:MOST]
    columns = min(COLUMNS, len(shown))
    sheet = np.full((math.ceil(len(shown) / columns) * (SIDE + LINE), columns * SIDE, 3), GROUND, np.uint8)
    for rank, candidate in enumerate(shown):
        row, column = divmod(rank, columns)
        tile = sheet[row * (SIDE + LINE) :, column * SIDE : (column + 1) * SIDE]
        try:
            image, scale = pixels.fit(pixels.read(showing.path_of(candidate)), SIDE - 8, enlarge=4)
        except (OSError, DataError):  # it has disappeared meanwhile
            continue
        for box in candidate["boxes"]:
            _draw(image, box["bbox"], scale, names.index(box["label"]), box["kind"] == "sure", box["score"])
        height, width = image.shape[:2]
        tile[4 : 4 + height, 4 : 4 + width] = image
        words = f"{rank + 1}  {candidate['by']}, {candidate['minutes']:.1f} min, {len(candidate['boxes'])} boxes"
        pixels.write(tile, words, (6, SIDE + 12), (255, 255, 255))
        name = Path(candidate["path"]).name.encode("ascii", "replace").decode()
        pixels.write(tile, name[-52:], (6, SIDE + 32), (170, 170, 170), scale=0.38)
    files.write_bytes(path, pixels.jpeg(sheet, QUALITY))


def _draw(image: pixels.Image, bbox: list[float], scale: float, index: int, sure: bool, score: float) -> None:
    x, y, width, height = (side * scale for side in bbox)
    colour = pixels.PALETTE[index % len(pixels.PALETTE)]
    if sure:
        cv2.rectangle(image, (round(x), round(y)), (round(x + width), round(y + height)), colour, 2)
    else:
        pixels.draw_box(image, (x, y, x + width, y + height), colour, f"{score:.1f}"[1:])

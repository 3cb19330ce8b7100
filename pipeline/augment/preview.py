"""Draw a contact sheet: originals beside their copies, with boxes in the colours of their classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline import pixels
from pipeline.augment.account import Original
from pipeline.boxes import YoloDataset, read_labels
from pipeline.pixels import Image

ROWS, COLUMNS = 5, 4  # each row has an original and its first three copies
TILE, CAPTION, GAP, LINE, SWATCH = 400, 26, 8, 28, 18  # pixels
GROUND, INK = (34, 34, 34), (235, 235, 235)


def sheet(folder: Path, images: Sequence[Original], names: Sequence[str]) -> Image:
    """Draw a selection of images of `folder` with their copies.

    Returns a BGR image, four tiles wide, with a legend of the shown classes on top.
    """
    copied = [image for image in images if image["copies"]]
    chosen = _spread([image for image in copied if image["boxes"]] or copied)
    shown: set[str] = set()
    rows = [
        [
            _tile(folder / image["file"], "original", names, shown),
            *(_tile(folder / copy["file"], "copy", names, shown) for copy in image["copies"][: COLUMNS - 1]),
        ]
        for image in chosen
    ]
    width = max(map(len, rows)) * (TILE + GAP) + GAP
    parts = [_legend([name for name in names if name in shown], names, width)]
    for row in rows:
        band = np.full((max(len(tile) for tile in row) + GAP, width, 3), GROUND, np.uint8)
        for column, tile in enumerate(row):
            x = GAP + column * (TILE + GAP)
            band[: len(tile), x : x + TILE] = tile
        parts.append(band)
    return np.vstack(parts)


def _spread(images: Sequence[Original]) -> Sequence[Original]:
    if len(images) <= ROWS:
        return images
    return [images[round(row * (len(images) - 1) / (ROWS - 1))] for row in range(ROWS)]


def _tile(path: Path, kind: str, names: Sequence[str], shown: set[str]) -> Image:
    image = pixels.read(path)
    height, width = image.shape[:2]
    boxes = read_labels(YoloDataset.label_file(path), names, width, height)
    shown |= {box.label for box in boxes}
    small, scale = pixels.fit(image, TILE, enlarge=4)
    for box in sorted(boxes, key=lambda box: box.width * box.height, reverse=True):  # small boxes over large ones
        corners = (box.xmin * scale, box.ymin * scale, box.xmax * scale, box.ymax * scale)
        # Boxes need text only if there are more classes than colours; otherwise the legend explains the colours.
        text = _words(box.label, names) if len(names) > len(pixels.PALETTE) else ""
        for ink, thickness in ((pixels.DARK, 4), (_colour(box.label, names), 2)):  # the rim shows on any background
            pixels.draw_box(small, corners, ink, text, thickness)
    tile = np.full((small.shape[0] + CAPTION, TILE, 3), GROUND, np.uint8)
    left = (TILE - small.shape[1]) // 2
    tile[CAPTION:, left : left + small.shape[1]] = small
    pixels.write(tile, f"{kind}: {path.name}", (2, CAPTION - 8), INK)
    return tile


def _legend(shown: Sequence[str], names: Sequence[str], width: int) -> Image:
    """Draw a colour swatch and a name for each class, wrapped to `width` pixels."""
    places: list[tuple[str, int, int]] = []
    x, line = GAP, 0
    for name in shown:
        needed = SWATCH + 6 + pixels.text_width(_words(name, names)) + 24
        if x + needed > width and x > GAP:
            x, line = GAP, line + 1
        places.append((name, x, line))
        x += needed
    legend = np.full(((line + 1) * LINE + GAP, width, 3), GROUND, np.uint8)
    for name, x, line in places:
        y = GAP + line * LINE
        legend[y : y + SWATCH, x : x + SWATCH] = _colour(name, names)
        pixels.write(legend, _words(name, names), (x + SWATCH + 6, y + SWATCH - 4), INK)
    return legend


def _words(name: str, names: Sequence[str]) -> str:
    # OpenCV's font has no other letters.
    return name if name.isascii() else f"class {names.index(name)}"


def _colour(name: str, names: Sequence[str]) -> pixels.Colour:
    return pixels.PALETTE[names.index(name) % len(pixels.PALETTE)]

"""Draw sample data that needs no download: printed circuit boards, or tiles of them, with manufacturing defects.

The six classes are those of the DeepPCB dataset (Tang et al. 2019), but every image is drawn from the seed. A tile
starts as a copper mask. Each defect adds or removes copper, and its box is where the mask changed, so labels are exact
by construction. Solder mask, pads, legend, light, dust and sensor noise follow. Structures make the task hard: drill
holes look like pin holes, test points like spurious copper, and necks in a trace like mouse bites.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np

from pipeline import files, logs, pixels
from pipeline.extras.sample.defects import DRAW
from pipeline.extras.sample.layout import Layout, Mask, Random, lay_out
from pipeline.extras.sample.photograph import render

FOLDER, LARGE_FOLDER = Path("data/raw/sample"), Path("data/raw/sample-large")
SPLITS = {"train": 240, "val": 40, "test": 80}
LARGE_SPLITS = {"train": 24, "val": 6, "test": 12}
CLASSES = tuple(DRAW)
SIZE = 320
SUPERSAMPLING = 2  # the layout is twice as large, so that edges are smooth
MARGIN = 4  # pixels between a defect and its box, as in labels made by people
PLAIN_TILES = 0.08  # share of tiles without any defect
DAMAGED_TILES = 0.5  # share of a board's tiles with a defect
FEWEST_PIXELS = 40  # minimum number of layout pixels that a visible defect changes
BORDER = 12  # pixels of the layout in which no defect may lie

Corners = tuple[float, float, float, float]
Defect = tuple[str, list[float]]


class Coco(TypedDict):
    info: dict[str, str]
    images: list[dict[str, int | str]]
    annotations: list[dict[str, float | list[float]]]
    categories: list[dict[str, int | str]]


def main(seed: int = 0, folder: Path | None = None, splits: dict[str, int] | None = None, large: bool = False) -> str:
    """Draw the dataset as JPEG images and one COCO JSON file per split. The same seed gives the same images.

    `large` draws whole boards instead of tiles.
    """
    folder = folder or (LARGE_FOLDER if large else FOLDER)
    splits = splits or (LARGE_SPLITS if large else SPLITS)
    draw, noun = (draw_board, "board") if large else (draw_tile, "tile")
    boxes = 0
    with files.new_folder(folder) as new:
        (new / "images").mkdir()
        (new / "annotations").mkdir()
        with logs.progress(description="sample: drawing", total=sum(splits.values()), unit=noun) as bar:
            for number, (split, count) in enumerate(splits.items()):
                coco = _empty_coco(noun)
                for index in range(count):
                    # One generator per image, so that a longer split keeps the images of a shorter one.
                    image, defects = draw(np.random.default_rng([seed, number, index]))
                    name = f"{split}_{index:04d}.jpg"
                    (new / "images" / name).write_bytes(pixels.jpeg(image, quality=92))
                    _add(coco, index, name, image, defects)
                    bar.update()
                files.write_json(new / "annotations" / f"{split}.json", coco)
                boxes += len(coco["annotations"])
    return f"{sum(splits.values())} images, {boxes} defects -> {folder}"


def draw_tile(rng: Random) -> tuple[pixels.Image, list[Defect]]:
    """Draw a BGR image; return it with its defects as (class, [x, y, width, height] in pixels)."""
    layout = lay_out(rng, SIZE * SUPERSAMPLING)
    wanted = 0 if rng.random() < PLAIN_TILES else int(rng.integers(3, 8))
    defects = _damage(rng, layout, SIZE, wanted)
    return render(rng, layout, (SIZE, SIZE)), defects


def draw_board(rng: Random) -> tuple[pixels.Image, list[Defect]]:
    """Draw a board of 8 x 6 tiles of 300 pixels, each laid out separately, some with one defect."""
    columns, rows, size = 8, 6, 300
    side = size * SUPERSAMPLING
    blank = np.zeros((rows * side, columns * side), np.uint8)
    board = Layout(blank, blank.copy(), blank.copy(), blank.copy())
    damaged = rng.random((rows, columns)) < DAMAGED_TILES
    defects: list[Defect] = []
    for row, column in np.ndindex(rows, columns):
        tile = lay_out(rng, side)
        for name, (x, y, w, h) in _damage(rng, tile, size, int(damaged[row, column])):
            defects.append((name, [round(x + column * size, 2), round(y + row * size, 2), w, h]))
        place = slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)
        for mask in ("copper", "pads", "holes", "legend"):
            getattr(board, mask)[place] = getattr(tile, mask)
    return render(rng, board, (columns * size, rows * size)), defects


def _damage(rng: Random, layout: Layout, size: int, wanted: int) -> list[Defect]:
    """Add `wanted` defects to a layout of `size` image pixels, or as many as have room."""
    defects: list[Defect] = []
    taken: list[Corners] = []
    for _ in range(wanted):
        name = CLASSES[int(rng.integers(len(CLASSES)))]
        for _attempt in range(30):
            changed = DRAW[name](rng, layout)
            box = None if changed is None else _box_of(layout.copper, changed, size)
            if box is None or any(_near(box, other) for other in taken):
                continue
            assert changed is not None
            layout.copper = changed
            taken.append(box)
            defects.append((name, [round(side, 2) for side in (box[0], box[1], box[2] - box[0], box[3] - box[1])]))
            break
    return defects


def _box_of(before: Mask, after: Mask, size: int) -> Corners | None:
    """Return the box of the changed area in pixels of the image; None if it is too small or too near the border."""
    rows, columns = np.nonzero(before != after)
    if len(rows) < FEWEST_PIXELS:
        return None
    xmin, xmax, ymin, ymax = columns.min(), columns.max() + 1, rows.min(), rows.max() + 1
    if min(xmin, ymin) < BORDER or max(xmax, ymax) > size * SUPERSAMPLING - BORDER:
        return None
    low = [float(side) / SUPERSAMPLING - MARGIN for side in (xmin, ymin)]
    high = [float(side) / SUPERSAMPLING + MARGIN for side in (xmax, ymax)]
    return low[0], low[1], high[0], high[1]


def _near(box: Corners, other: Corners) -> bool:
    gap = 4  # pixels
    return box[0] < other[2] + gap and other[0] < box[2] + gap and box[1] < other[3] + gap and other[1] < box[3] + gap


def _empty_coco(noun: str) -> Coco:
    return {
        "info": {"description": f"Drawn printed-circuit-board {noun}s with defects", "version": "1"},
        "images": [],
        "annotations": [],
        "categories": [{"id": index, "name": name} for index, name in enumerate(CLASSES, start=1)],
    }


def _add(coco: Coco, image_id: int, name: str, image: pixels.Image, defects: list[Defect]) -> None:
    height, width = image.shape[:2]
    coco["images"].append({"id": image_id, "file_name": name, "width": width, "height": height})
    for label, bbox in defects:
        coco["annotations"].append(
            {
                "id": len(coco["annotations"]) + 1,
                "image_id": image_id,
                "category_id": CLASSES.index(label) + 1,
                "bbox": bbox,
                "area": round(bbox[2] * bbox[3], 2),
                "iscrowd": 0,
            }
        )

"""Draw sample data that needs no download: tiles of printed circuit boards with manufacturing defects.

The six classes are those of the DeepPCB data set (Tang et al. 2019), but every image is drawn from the seed. A tile
starts as a copper mask. Each defect adds or removes copper, and its box is where the mask changed, so labels are exact
by construction. Solder mask, pads, legend, light, dust and sensor noise follow. They make the task hard: drill holes
look like pin holes, test points like spurious copper, and necks in a trace like mouse bites.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files, logs, pixels
from pipeline.extras.sample.defects import DRAW
from pipeline.extras.sample.layout import Mask, Random, lay_out
from pipeline.extras.sample.photograph import render

FOLDER = Path("data/raw/sample")
SPLITS = {"train": 240, "val": 40, "test": 80}
CLASSES = tuple(DRAW)
SIZE = 320
SUPERSAMPLING = 2  # the layout is twice as large, so that edges are smooth
MARGIN = 4  # pixels between a defect and its box, as in labels by people
PLAIN_TILES = 0.08  # share of tiles without any defect
FEWEST_PIXELS = 40  # pixels of the layout that a visible defect changes at least
BORDER = 12  # pixels of the layout in which no defect may lie

Corners = tuple[float, float, float, float]


def main(seed: int = 0, folder: Path = FOLDER, splits: dict[str, int] | None = None) -> str:
    """Draw the data set as JPEG images and one COCO JSON file per split. The same seed gives the same images."""
    splits = splits or SPLITS
    boxes = 0
    with files.new_folder(folder) as aside:
        (aside / "images").mkdir()
        (aside / "annotations").mkdir()
        with logs.progress(description="sample: drawing", total=sum(splits.values()), unit="tile") as bar:
            for number, (split, count) in enumerate(splits.items()):
                coco = _empty_coco()
                for index in range(count):
                    # One generator per tile: a longer split keeps the tiles of a shorter one.
                    image, found = draw_tile(np.random.default_rng([seed, number, index]))
                    name = f"{split}_{index:04d}.jpg"
                    (aside / "images" / name).write_bytes(pixels.jpeg(image, quality=92))
                    _add(coco, index, name, found)
                    bar.update()
                files.write_json(aside / "annotations" / f"{split}.json", coco)
                boxes += len(coco["annotations"])
    return f"{sum(splits.values())} tiles, {boxes} defects -> {folder}"


def draw_tile(rng: Random, size: int = SIZE) -> tuple[pixels.Image, list[tuple[str, list[float]]]]:
    """Draw a BGR image; return it with its defects as (class, [x, y, width, height] in pixels)."""
    layout = lay_out(rng, size * SUPERSAMPLING)
    defects: list[tuple[str, list[float]]] = []
    wanted = 0 if rng.random() < PLAIN_TILES else int(rng.integers(3, 8))
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
    return render(rng, layout, size), defects


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


def _near(box: Corners, other: Corners, gap: float = 4) -> bool:
    return box[0] < other[2] + gap and other[0] < box[2] + gap and box[1] < other[3] + gap and other[1] < box[3] + gap


def _empty_coco() -> dict[str, Any]:
    return {
        "info": {"description": "Drawn printed-circuit-board tiles with defects", "version": "1"},
        "images": [],
        "annotations": [],
        "categories": [{"id": index, "name": name} for index, name in enumerate(CLASSES, start=1)],
    }


def _add(coco: dict[str, Any], image_id: int, name: str, defects: list[tuple[str, list[float]]]) -> None:
    coco["images"].append({"id": image_id, "file_name": name, "width": SIZE, "height": SIZE})
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

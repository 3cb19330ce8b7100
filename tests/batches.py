"""A batch to label as `label` would choose it, for tests of what the user does with it."""

from __future__ import annotations

import shutil
from pathlib import Path

from conftest import read_coco

from pipeline import files
from pipeline.records.base import write_record
from pipeline.records.label import Candidate, Next
from pipeline.run import Run

MODEL = "cafe00" + 58 * "0"


def batch(tiles: Path, run: Run, folder: Path, count: int = 3) -> Next:
    """Write `next.json` for tiles copied into `folder`, with their true boxes in place of the model's.

    `folder` is the pool as the record names it. The first image is in a subfolder.
    """
    data = read_coco(tiles, "train")
    names = {category["id"]: category["name"] for category in data["categories"]}
    images: list[Candidate] = []
    for number, image in enumerate(data["images"][:count]):
        path = folder / ("some é" if number == 0 else ".") / Path(image["file_name"]).name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(next(tiles.rglob(path.name)), path)
        boxes = [
            {"bbox": [float(side) for side in one["bbox"]], "label": names[one["category_id"]], "score": 0.75}
            for one in data["annotations"]
            if one["image_id"] == image["id"]
        ]
        images.append(
            {
                "path": str(path),
                "sha256": files.sha256(path),
                "width": image["width"],
                "height": image["height"],
                "by": "uncertain",
                "reasons": ["of 5 boxes, 1.0 are perhaps wrong"],
                "expected_boxes": 5.0,
                "expected_wrong": 1.0,
                "expected_missed": 1.0,
                "minutes": 0.5,
                "boxes": [{**box, "kind": "sure"} for box in boxes],  # type: ignore[typeddict-item]
            }
        )
    record: Next = {
        "pool": str(folder),
        "model": {"file": "runs/tiny/model.pt", "sha256": MODEL, "imgsz": 64, "classes": list(names.values())},
        "calibration": {"right": [], "exact": [], "unseen": 0.0, "images": 0, "boxes": 0},
        "threshold": 0.25,
        "sure": 0.5,
        "classes": list(names.values()),
        "images": images,
        "minutes": 1.5,
        "minutes_by_hand": 3.0,
        "pool_images": count,
        "left_out": {},
        "problems": {},
        "settings": {},
    }
    write_record(run.label_next, Next, record)
    return record

"""Predict on a split, and write its labels and predictions as COCO."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import files, logs, pixels
from pipeline.boxes import Box, YoloDataset, image_size
from pipeline.config.judging import Validate
from pipeline.device.runner.base import Detections
from pipeline.metrics.iou import from_corners
from pipeline.records.coco import GroundTruth, Prediction
from pipeline.records.tiles import Tiling

PREDICT_BATCH = 8


@dataclass(slots=True)
class Predictions:
    """COCO results of the same images, in two forms.

    `every_label` has one entry per box and candidate class, as in Ultralytics' own validation and in all published
    figures of YOLO models. Average precision is computed from these. `single_label` has one entry per box, with its
    best class, as from `model.predict` and on a device. Operating points, calibration and error types are computed from
    these. The second is not a subset of the first; `BothPredictor` says why.
    """

    every_label: list[Prediction] = field(default_factory=list)
    single_label: list[Prediction] = field(default_factory=list)


def ground_truth(dataset: YoloDataset, images: list[Path]) -> GroundTruth:
    """Return the labels of a split of an earlier stage as a COCO dataset."""
    return as_coco(dataset.names, ((path, dataset.labelled(path)[1]) for path in images))


def as_coco(names: Sequence[str], labelled: Iterable[tuple[Path, tuple[Box, ...]]]) -> GroundTruth:
    """Return a COCO dataset. Image ids count from 1 in the given order, category ids from 0 in that of `names`."""
    coco: GroundTruth = {
        "images": [],
        "annotations": [],
        "categories": [{"id": index, "name": name} for index, name in enumerate(names)],
    }
    for image_id, (path, boxes) in enumerate(labelled, start=1):
        width, height = image_size(path)
        coco["images"].append({"id": image_id, "file_name": path.name, "width": width, "height": height})
        for box in boxes:
            coco["annotations"].append(
                {
                    "id": len(coco["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": names.index(box.label),
                    "bbox": [round(side, 3) for side in box.bbox],
                    "area": round(box.width * box.height, 3),
                    "iscrowd": 0,
                }
            )
    return coco


def predict(
    model: Any,
    images: list[Path],
    imgsz: int,
    config: Validate,
    device: str,
    description: str,
    tiling: Tiling | None = None,
) -> Predictions:
    """Predict and return COCO results: [x, y, width, height] in pixels of the original image, ids as in `as_coco`.

    Images pass through the same square letterbox as in exported models, and with `tiling` through the same views,
    merged by the bundles' runner, so that the figures hold for the device too.
    """
    from pipeline.upstream import predictor

    predictions = Predictions()
    settings = {"imgsz": imgsz, "conf": config.conf, "iou": config.iou, "max_det": config.max_det}
    at_once = 1 if tiling else PREDICT_BATCH  # large images do not all fit into memory
    with logs.progress(description=description, total=len(images)) as bar:
        for first in range(0, len(images), at_once):
            # Decoded as for training and the gate: Ultralytics would read paths with Pillow, which turns other images.
            batch = [pixels.read(path) for path in images[first : first + at_once]]
            found = predictor.detections(model, batch, tiling, device, PREDICT_BATCH, **settings)
            for image_id, (best, every) in enumerate(found, first + 1):
                predictions.single_label += _records(best, image_id)
                predictions.every_label += _records(every, image_id)
            bar.update(len(batch))
    return predictions


def _records(detections: Detections, image_id: int) -> list[Prediction]:
    # Round in double precision, so that JSON holds the shortest decimals.
    sides = from_corners(detections.corners).round(3).tolist()
    scores = detections.scores.astype(float).round(6).tolist()
    return [
        {"image_id": image_id, "category_id": int(category), "bbox": bbox, "score": score}
        for bbox, score, category in zip(sides, scores, detections.classes.tolist(), strict=True)
    ]


def write(path: Path, records: list[Prediction]) -> None:
    """Write COCO results, one record per line: there are hundreds per image, and indenting them takes seconds."""
    text = json.dumps(records, sort_keys=True, allow_nan=False)
    files.write_text(path, text.replace("}, {", "},\n{") + "\n")

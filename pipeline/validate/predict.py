"""The labels of a split as COCO, and what the model says about its images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import files, logs
from pipeline.boxes import Box, YoloDataset, read_labels
from pipeline.config import Validate

PREDICT_BATCH = 8


@dataclass(slots=True)
class Predictions:
    """COCO results of the same images, twice.

    `every_label`: a box comes with every class it may be, each with its score, as in Ultralytics' own
    validation and in all published figures of YOLO models. Average precision is taken of these.
    `single_label`: a box comes with its best class, as from `model.predict` and on a device. Operating points,
    calibration and error types are taken of these.

    The second is not a part of the first: a class that is only the second best of its box suppresses its
    neighbours in the first, and not in the second. So both are made, from one pass through the network.
    """

    every_label: list[dict[str, Any]] = field(default_factory=list)
    single_label: list[dict[str, Any]] = field(default_factory=list)


def ground_truth(dataset: YoloDataset, images: list[Path]) -> dict[str, Any]:
    """The labels of an earlier stage's split as a COCO data set."""

    def boxes_of(path: Path) -> tuple[Box, ...]:
        return read_labels(dataset.label_file(path), dataset.names, *_size(path))

    return as_coco(dataset.names, ((path, boxes_of(path)) for path in images))


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def as_coco(names: Sequence[str], labelled: Iterable[tuple[Path, tuple[Box, ...]]]) -> dict[str, Any]:
    """A COCO data set. Image ids count from 1 in the order given, category ids from 0 in that of `names`."""
    coco: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": index, "name": name} for index, name in enumerate(names)],
    }
    for image_id, (path, boxes) in enumerate(labelled, start=1):
        width, height = _size(path)
        coco["images"].append({"id": image_id, "file_name": path.name, "width": width, "height": height})
        for box in boxes:
            coco["annotations"].append(
                {
                    "id": len(coco["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": names.index(box.label),
                    "bbox": [round(side, 3) for side in (box.xmin, box.ymin, box.width, box.height)],
                    "area": round(box.width * box.height, 3),
                    "iscrowd": 0,
                }
            )
    return coco


def predict(model: Any, images: list[Path], imgsz: int, config: Validate, device: str, description: str) -> Predictions:
    """COCO results: [x, y, width, height] in pixels of the original image, ids as in `as_coco`.

    Images go through the same square letterbox that exported models get, so that what is measured here is what
    a device will do.
    """
    predictions = Predictions()
    settings = {"imgsz": imgsz, "conf": config.conf, "iou": config.iou, "max_det": config.max_det}
    predictor = _predictor_of_both()
    with logs.progress(description=description, total=len(images)) as bar:
        for first in range(0, len(images), PREDICT_BATCH):
            batch = [str(path) for path in images[first : first + PREDICT_BATCH]]
            single = model.predict(
                batch, predictor=predictor, rect=False, device=device or None, verbose=False, **settings
            )
            every, model.predictor.every_label = model.predictor.every_label, []
            for image_id, (best, all_of_it) in enumerate(zip(single, every, strict=True), start=first + 1):
                predictions.single_label += _records(best, image_id)
                predictions.every_label += _records(all_of_it, image_id)
            bar.update(len(batch))
    return predictions


def _records(result: Any, image_id: int) -> list[dict[str, Any]]:
    # In double precision, so that rounding gives the shortest decimals.
    corners = result.boxes.xyxy.cpu().numpy().astype(float)
    sides = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).round(3)
    scores = result.boxes.conf.cpu().numpy().astype(float).round(6)
    return [
        {"image_id": image_id, "category_id": int(category), "bbox": bbox, "score": score}
        for bbox, score, category in zip(sides.tolist(), scores.tolist(), result.boxes.cls.tolist(), strict=True)
    ]


def write(path: Path, records: list[dict[str, Any]]) -> None:
    """Write COCO results, one record per line: there are hundreds per image, and indenting them takes seconds."""
    text = json.dumps(records, sort_keys=True, allow_nan=False)
    files.write_text(path, text.replace("}, {", "},\n{") + "\n")


def _predictor_of_both() -> Any:
    from ultralytics.models.yolo.detect import DetectionPredictor
    from ultralytics.utils.nms import non_max_suppression

    class PredictorOfBoth(DetectionPredictor):  # type: ignore[misc]  # Ultralytics has no types
        """Ultralytics' predictor, which also keeps the results with every label in `every_label`."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.every_label: list[Any] = []

        def postprocess(self, preds: Any, img: Any, orig_imgs: Any, **kwargs: Any) -> Any:
            found = non_max_suppression(
                preds,
                self.args.conf,
                self.args.iou,
                multi_label=True,
                max_det=self.args.max_det,
                end2end=getattr(self.model, "end2end", False),
            )
            self.every_label += self.construct_results(found, img, orig_imgs, **kwargs)
            return super().postprocess(preds, img, orig_imgs, **kwargs)

    return PredictorOfBoth

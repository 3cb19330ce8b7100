"""Read labels, predictions and errors of a split, and refuse files that `validate` cannot have written.

The returned records are consistent: every id that they refer to exists. So a KeyError in a caller is our own bug, and
keeps its traceback.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from pipeline import files
from pipeline.errors import DataError
from pipeline.records.base import read_record
from pipeline.records.coco import Category, GroundTruth, Image, Prediction
from pipeline.records.errors import ErrorFile
from pipeline.run import Run

AGAIN = "delete metrics.json and run `make validate` again"


def truth(run: Run, split: str) -> GroundTruth:
    """Return the labels of a split as a COCO dataset. Raises DataError if the file is missing or damaged."""
    path = run.ground_truth(split)
    data = read_record(path, GroundTruth, AGAIN, "not a COCO dataset")
    images, classes = _ids(data["images"]), _ids(data["categories"])
    for number, label in enumerate(data["annotations"], start=1):
        if label["image_id"] not in images or label["category_id"] not in classes:
            raise DataError(f"{path}: annotation {number} refers to an image or class that does not exist; {AGAIN}")
    return data


def predictions(run: Run, split: str, single_label: bool = False) -> tuple[GroundTruth, list[Prediction]]:
    """Return ground truth and predictions: one per box and candidate class, or only the best class per box.

    Raises DataError if a file is missing or damaged, or the predictions do not belong to the ground truth.
    """
    path = run.single_label(split) if single_label else run.predictions(split)
    labels, records = truth(run, split), files.read_json(path)
    if wrong := _unfit(labels, records):
        raise DataError(f"{path}: {wrong}; {AGAIN}")
    return labels, records


def _unfit(truth: GroundTruth, predictions: Any) -> str:
    """Return what is wrong with the first bad prediction; empty if all can be evaluated."""
    images, categories = _ids(truth["images"]), _ids(truth["categories"])
    if not isinstance(predictions, list):
        return "not a list of COCO results"
    for number, record in enumerate(predictions, start=1):
        if not isinstance(record, dict) or not {"image_id", "category_id", "bbox", "score"} <= record.keys():
            return f"prediction {number} is not a COCO result"
        if record["image_id"] not in images:
            return f"prediction {number} is of image {record['image_id']!r}, which is not in the split"
        if record["category_id"] not in categories:
            return f"prediction {number} is of class {record['category_id']!r}, which is not in the dataset"
        numbers = [record["score"], *(record["bbox"] if isinstance(record["bbox"], list) else [])]
        if len(numbers) != 5 or not all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers):
            return f"prediction {number} has a score or box that is not a number"
    return ""


def errors(run: Run, split: str, truth: GroundTruth) -> ErrorFile:
    """Return the error type of each prediction and the outcome of each object of `truth`.

    Raises DataError if the file is missing or damaged, or belongs to other images or labels.
    """
    path = run.errors(split)
    data = read_record(path, ErrorFile, AGAIN, "not as `validate` writes it")
    names = [category["name"] for category in truth["categories"]]
    if lacking := [name for name in names if name not in data["thresholds"]]:
        raise DataError(f"{path}: lacks a threshold for {lacking[0]!r}; {AGAIN}")
    images, classes = _ids(truth["images"]), _ids(truth["categories"])
    image_of = {label["id"]: label["image_id"] for label in truth["annotations"]}
    predicted = {record["id"]: record["image_id"] for record in data["predictions"]}
    records: list[tuple[str, list[Any]]] = [("prediction", data["predictions"]), ("object", data["objects"])]
    for kind, judged in records:
        for number, record in enumerate(judged, start=1):
            image, name = record["image_id"], f"{kind} {number}"
            if image not in images:
                raise DataError(f"{path}: {name} is of image {image}, which is not in the split; {AGAIN}")
            if "category_id" in record and record["category_id"] not in classes:
                raise DataError(f"{path}: {name} is of class {record['category_id']}, which does not exist; {AGAIN}")
            for key, others in (("annotation_id", image_of), ("prediction_id", predicted)):
                if (other := record.get(key)) is not None and others.get(other) != image:
                    raise DataError(f"{path}: {name} refers to {key} {other}, which is not in its image; {AGAIN}")
    return data


def _ids(records: Iterable[Image | Category]) -> set[int]:
    return {record["id"] for record in records}

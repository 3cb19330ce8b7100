"""Read what `validate` left in a run, and refuse files that it cannot have written.

What these functions return fits together: every id that a record names is there. So a KeyError of whoever uses it
is a bug of ours, and keeps its traceback.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from pipeline import files
from pipeline.errors import DataError
from pipeline.run import Run

AGAIN = "delete metrics.json and `make validate` again"
Bbox = Annotated[list[FiniteFloat], Field(min_length=4, max_length=4)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True)  # "3" is no number


class _Image(_Record):
    id: int
    file_name: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)


class _Label(_Record):
    id: int
    image_id: int
    category_id: int
    bbox: Bbox


class _Category(_Record):
    id: int
    name: str


class _Truth(_Record):
    images: list[_Image]
    annotations: list[_Label]
    categories: list[_Category]


class _Prediction(_Record):
    id: int
    image_id: int
    category_id: int
    bbox: Bbox
    score: FiniteFloat
    type: Literal["tp", "classification", "localisation", "both", "duplicate", "background"]
    annotation_id: int | None
    iou: FiniteFloat


class _Object(_Record):
    annotation_id: int
    image_id: int
    type: Literal["tp", "classification", "localisation", "missed"]
    prediction_id: int | None


class _Overlaps(_Record):
    foreground: FiniteFloat


class _Errors(_Record):
    iou: _Overlaps
    thresholds: dict[str, FiniteFloat]
    predictions: list[_Prediction]
    objects: list[_Object]


class _Metrics(_Record):
    splits: dict[str, dict[str, Any]]


def splits(run: Run) -> list[str]:
    """Return the splits that were validated. Raises DataError where there are no figures, or damaged ones."""
    metrics = files.read_json(run.metrics)
    _check(run.metrics, _Metrics, metrics)
    return list(metrics["splits"])


def truth(run: Run, split: str) -> dict[str, Any]:
    """Return the labels of a split as a COCO data set. Raises DataError where the file is missing or damaged."""
    path = run.ground_truth(split)
    data: dict[str, Any] = files.read_json(path)
    _check(path, _Truth, data, "not a COCO data set")
    images, classes = _ids(data["images"]), _ids(data["categories"])
    for number, label in enumerate(data["annotations"], start=1):
        if label["image_id"] not in images or label["category_id"] not in classes:
            raise DataError(f"{path}: annotation {number} is of an image or class that is not there; {AGAIN}")
    return data


def read(run: Run, split: str, single_label: bool = False) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth and predictions, each box with every class it may be, or with its best one alone.

    Raises DataError where a file is missing or damaged, or the predictions cannot belong to the ground truth.
    """
    path = run.single_label(split) if single_label else run.predictions(split)
    labels, predictions = truth(run, split), files.read_json(path)
    if wrong := _unfit(labels, predictions):
        raise DataError(f"{path}: {wrong}; {AGAIN}")
    return labels, predictions


def _unfit(truth: dict[str, Any], predictions: Any) -> str:
    """Say what is wrong with the first bad prediction; empty where all can be evaluated."""
    images, categories = _ids(truth["images"]), _ids(truth["categories"])
    if not isinstance(predictions, list):
        return "not a list of COCO results"
    for number, record in enumerate(predictions, start=1):
        if not isinstance(record, dict) or not {"image_id", "category_id", "bbox", "score"} <= record.keys():
            return f"prediction {number} is not a COCO result"
        if record["image_id"] not in images:
            return f"prediction {number} is of image {record['image_id']!r}, which is not in the split"
        if record["category_id"] not in categories:
            return f"prediction {number} is of class {record['category_id']!r}, which is not in the data set"
        numbers = [record["score"], *(record["bbox"] if isinstance(record["bbox"], list) else [])]
        if len(numbers) != 5 or not all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers):
            return f"prediction {number} has a score or box that is not a number"
    return ""


def errors(run: Run, split: str, truth: dict[str, Any]) -> dict[str, Any]:
    """Return what each prediction is, and what became of each object of `truth`.

    Raises DataError where the file is missing or damaged, or is of other images or labels.
    """
    path = run.errors(split)
    data: dict[str, Any] = files.read_json(path)
    _check(path, _Errors, data)
    if untold := [category["name"] for category in truth["categories"] if category["name"] not in data["thresholds"]]:
        raise DataError(f"{path}: has no threshold for {untold[0]!r}; {AGAIN}")
    images, classes = _ids(truth["images"]), _ids(truth["categories"])
    image_of = {label["id"]: label["image_id"] for label in truth["annotations"]}
    predicted = {record["id"]: record["image_id"] for record in data["predictions"]}
    for kind in ("predictions", "objects"):
        for number, record in enumerate(data[kind], start=1):
            image, name = record["image_id"], f"{kind[:-1]} {number}"
            if image not in images:
                raise DataError(f"{path}: {name} is of image {image}, which is not in the split; {AGAIN}")
            if "category_id" in record and record["category_id"] not in classes:
                raise DataError(f"{path}: {name} is of class {record['category_id']}, which is not there; {AGAIN}")
            for key, others in (("annotation_id", image_of), ("prediction_id", predicted)):
                if (other := record.get(key)) is not None and others.get(other) != image:
                    raise DataError(f"{path}: {name} is about {key} {other}, not in its image; {AGAIN}")
    return data


def _ids(records: list[dict[str, Any]]) -> set[int]:
    return {record["id"] for record in records}


def _check(path: Path, shape: type[_Record], data: Any, wrong: str = "not as `validate` writes it") -> None:
    try:
        shape.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        why = "should be an object" if first["type"] == "model_type" else first["msg"].lower()
        raise DataError(f"{path}: {wrong} ({place}{': ' if place else ''}{why}); {AGAIN}") from None

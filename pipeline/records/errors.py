"""The errors of a split, object by object: `predictions/SPLIT_errors.json`.

The kinds are TIDE's (Bolya et al., 2020): classification, localisation, both, duplicate, background, missed.
"""

from __future__ import annotations

from typing import Literal

from pipeline.records.base import Bbox, Number, Record


class ErrorOverlaps(Record):
    foreground: Number
    """IoU from which a prediction has found an object."""
    background: Number
    """IoU below which a prediction is of the background."""


PredictionKind = Literal["tp", "classification", "localisation", "both", "duplicate", "background"]
ObjectKind = Literal["tp", "classification", "localisation", "missed"]


class JudgedPrediction(Record):
    """A prediction at or above the threshold of its class."""

    id: int
    image_id: int
    category_id: int
    bbox: Bbox
    score: Number
    type: PredictionKind
    annotation_id: int | None
    """The object that it overlaps most, by the rule of its kind."""
    iou: Number
    """Overlap with that object; the highest with any object where there is none."""


class JudgedObject(Record):
    annotation_id: int
    image_id: int
    type: ObjectKind
    prediction_id: int | None
    """The prediction that found it, or that was of it but wrong."""


class ErrorFile(Record):
    iou: ErrorOverlaps
    thresholds: dict[str, Number]
    """The lowest score shown, by class."""
    predictions: list[JudgedPrediction]
    objects: list[JudgedObject]
    missed: list[int]
    """Annotation ids that no prediction was about."""
    counts: dict[str, int]
    """Predictions by kind, `tp` for those that found an object, and objects that were `missed`."""

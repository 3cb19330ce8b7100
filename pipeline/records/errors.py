"""The errors of a split, object by object: `predictions/SPLIT_errors.json`.

The kinds are TIDE's (Bolya et al., 2020): classification, localisation, both, duplicate, background, missed.
"""

from __future__ import annotations

from typing import Literal

from pipeline.records.base import Bbox, Number, Record


class ErrorOverlaps(Record):
    foreground: Number
    """IoU from which a prediction counts as having found an object."""
    background: Number
    """IoU below which a prediction counts as background."""


Mistake = Literal["classification", "localisation", "both", "duplicate", "background"]
PredictionKind = Literal["tp"] | Mistake
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
    """The annotation that it matches, or is wrong about; null for background."""
    iou: Number
    """IoU with that object; if there is none, the highest IoU with any object."""


class JudgedObject(Record):
    annotation_id: int
    image_id: int
    type: ObjectKind
    prediction_id: int | None
    """The prediction that found it, or that concerns it but is wrong."""


class ErrorFile(Record):
    iou: ErrorOverlaps
    thresholds: dict[str, Number]
    """The lowest score shown, by class."""
    predictions: list[JudgedPrediction]
    objects: list[JudgedObject]
    missed: list[int]
    """Ids of annotations that no prediction concerns."""
    counts: dict[str, int]
    """Number of predictions by kind, `tp` for those that found an object, and of objects that were `missed`."""

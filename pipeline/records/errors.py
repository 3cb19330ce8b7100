"""The errors of a split, object by object: `predictions/SPLIT_errors.json`.

The kinds are TIDE's (Bolya et al., 2020): classification, localisation, both, duplicate, background, missed.
Predictions are those of `SPLIT_single_label.json`, boxes are as in `SPLIT_ground_truth.json`.
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
    """From 1, in this file only."""
    image_id: int
    """The image in `SPLIT_ground_truth.json`."""
    category_id: int
    """The predicted class."""
    bbox: Bbox
    score: Number
    """From 0 to 1."""
    type: PredictionKind
    """`tp` if it found an object of its class, else the kind of error."""
    annotation_id: int | None
    """The annotation that it matches, or is wrong about; null for background."""
    iou: Number
    """IoU with that object; if there is none, the highest IoU with any object."""


class JudgedObject(Record):
    """A labelled object."""

    annotation_id: int
    """The annotation in `SPLIT_ground_truth.json`."""
    image_id: int
    type: ObjectKind
    """`tp` if it was found, the kind of the highest-scored error that concerns it, or `missed`."""
    prediction_id: int | None
    """The prediction that found it, or that concerns it but is wrong; null if it is missed."""


class ErrorFile(Record):
    iou: ErrorOverlaps
    """IoU thresholds of the kinds."""
    thresholds: dict[str, Number]
    """The lowest score shown, by class."""
    predictions: list[JudgedPrediction]
    """Image by image, highest score first."""
    objects: list[JudgedObject]
    """Every labelled object of the split."""
    missed: list[int]
    """Ids of annotations that were not found and that no classification or localisation error concerns."""
    counts: dict[str, int]
    """Number of predictions by kind, `tp` for those that found an object, and of objects that were `missed`."""

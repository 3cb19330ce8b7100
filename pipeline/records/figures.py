"""COCO's figures of a split, and their intervals: a part of `metrics.json`."""

from __future__ import annotations

from pipeline.records.base import Interval, Number, Record


class ClassFigures(Record):
    objects: int
    """Number of labelled objects of the class in the split."""
    map50_95: Number | None
    map50: Number | None
    ar100: Number | None


class SizeFigures(Record):
    ap: Number | None
    """mAP50-95 of the objects of this size."""
    ar: Number | None
    """Average recall of the objects of this size."""


class ClassIntervals(Record):
    """Intervals [low, high]; null if fewer than five images show the class."""

    map50_95: Interval | None
    map50: Interval | None
    ar100: Interval | None


class Intervals(ClassIntervals):
    """Intervals [low, high] from resampling the images; null with fewer than five images with objects."""

    level: Number
    """Share of the resampled figures that an interval holds: `0.95`."""
    resamples: int
    """Of 1,000 resamples, how many contain every class; the means over classes use these. 0 if they are fewer than 200:
    then these means have no interval."""
    map75: Interval | None
    per_class: dict[str, ClassIntervals]


class CocoFigures(Record):
    images: int
    """Number of images in the split."""
    objects: int
    """Number of labelled objects in the split."""
    predictions: int
    """Number of predictions in `predictions/SPLIT.json`: one for each box and class that reaches `validate.conf`."""
    map50_95: Number | None
    map50: Number | None
    map75: Number | None
    ar1: Number | None
    """Average recall with at most 1 prediction per image and class."""
    ar10: Number | None
    """Average recall with at most 10 predictions per image and class."""
    ar100: Number | None
    """Average recall of the predictions that count: 100 unless `max_detections` says otherwise."""
    max_detections: int | None
    """Predictions per image and class that count: 100 as in COCO; null for all, if an image holds more objects of a
    class than that."""
    per_class: dict[str, ClassFigures]
    per_size: dict[str, SizeFigures]
    """`small`, `medium`, `large`: area of the box in the image below 32 x 32 pixels, below 96 x 96, and above."""

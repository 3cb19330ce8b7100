"""Figures of the model: `metrics.json`. Average precision and recall are COCO's, between 0 and 1.

A figure that was not measured, such as the precision of a class without objects, is null.
"""

from __future__ import annotations

from typing import Any, Literal

from pipeline import files
from pipeline.records.base import Interval, Number, Record, read_record
from pipeline.records.training import SourceWeights
from pipeline.run import Run


class ClassFigures(Record):
    objects: int
    map50_95: Number | None
    map50: Number | None
    ar100: Number | None


class SizeFigures(Record):
    ap: Number | None
    ar: Number | None


class ClassIntervals(Record):
    map50_95: Interval | None
    map50: Interval | None
    ar100: Interval | None


class Intervals(ClassIntervals):
    """Intervals from resampling the images; null with too few of them."""

    level: Number
    resamples: int
    map75: Interval | None
    per_class: dict[str, ClassIntervals]


class Counts(Record):
    """Counts and figures of the predictions at or above the thresholds."""

    tp: int
    fp: int
    fn: int
    precision: Number | None
    recall: Number | None
    f1: Number | None


class ClassCounts(Counts):
    threshold: Number


class CountsByClass(Counts):
    per_class: dict[str, ClassCounts]


class Calibration(Record):
    """Whether scores are right as often as they say."""

    bins: list[dict[str, Number | None]]
    """`from` and `to`: range of scores; `score`: their mean; `precision`: share right; `predictions`: number."""
    ece: Number | None
    """Expected calibration error: the mean difference between score and precision."""
    from_score: Number
    predictions: int


class Confusion(Record):
    labels: list[str]
    """Classes, then the background."""
    matrix: list[list[int]]
    """Rows are labels, columns predictions."""


class CocoFigures(Record):
    images: int
    objects: int
    predictions: int
    map50_95: Number | None
    map50: Number | None
    map75: Number | None
    ar1: Number | None
    ar10: Number | None
    ar100: Number | None
    """Average recall of the predictions that count: 100 unless `max_detections` says otherwise."""
    max_detections: int | None
    """Predictions per image and class that count: 100 as in COCO; null for all, if an image holds more objects of a
    class than that."""
    per_class: dict[str, ClassFigures]
    per_size: dict[str, SizeFigures]
    """`small`, `medium`, `large`: below 32 x 32 pixels, below 96 x 96, and above."""


class AtHundred(Record):
    """The figures with COCO's limit of 100 predictions per image and class."""

    map50_95: Number | None
    map50: Number | None
    ar100: Number | None


class Headline(Record):
    map50_95: Number
    map50: Number


class Step(Headline):
    """What one rule of another tool changes."""

    tool: str
    """`ultralytics`, `fiftyone`, or `model.predict` for the boxes that Ultralytics' predict shows."""
    cause: str


class Reconciliation(Record):
    figures: dict[str, Headline | None]
    """By tool, `coco` for our own; null for a tool that `validate.reconcile` does not name."""
    steps: list[Step]
    remaining: dict[str, Headline | None]
    """What the steps leave unexplained, by tool."""
    notes: list[str]


class SplitFigures(CocoFigures):
    at_100: AtHundred | None
    """Null if no image exceeds that limit, because the figures are the same then."""
    intervals: Intervals
    error_counts: dict[str, int]
    """Errors by kind at the thresholds, and `tp`."""
    error_costs: dict[str, Number | None]
    """What mAP50 would gain without the errors of a kind (TIDE)."""
    confusion: Confusion
    operating_point: CountsByClass
    calibration: Calibration
    reconciliation: Reconciliation | None
    """The steps from our figure to those of other tools, if `validate.reconcile` names some."""


class ChosenThreshold(Record):
    objects: int
    why: str


class OperatingPoint(Record):
    """The thresholds, chosen on val alone."""

    chosen_on: str
    iou: Number
    wanted: dict[str, Number | Literal["f1"]]
    """What the config asks for: `precision` or `recall`, or `best`."""
    thresholds: dict[str, Number]
    per_class: dict[str, ChosenThreshold]


class Latency(Record):
    median_ms: Number
    p95_ms: Number
    runs: int
    batch: int
    device: str
    includes: str


class Cost(Record):
    parameters: int
    gflops: Number | None
    """At `imgsz`, for one image."""
    imgsz: int
    latency: Latency


class Retained(Record):
    before: Number | None
    """Average precision of the source model."""
    after: Number | None
    """Null for a class that the model no longer has."""
    objects: int


class RetentionSet(Record):
    images_of: str
    """A split, or what `validate.retention` names."""
    images: int
    classes: dict[str, Retained]


class Retention(Record):
    source: str
    """File of the source model."""
    sets: list[RetentionSet]


class RetentionSkipped(Record):
    skipped: str
    """Why nothing was measured."""


class Metrics(Record):
    model_sha256: str
    """SHA-256 of the `model.pt` that was measured."""
    weights: SourceWeights
    """The weights that training started from."""
    splits: dict[str, SplitFigures]
    operating_point: OperatingPoint | None
    """Null without a val split."""
    cost: Cost
    retention: Retention | RetentionSkipped | None
    """What the model still knows of the source's classes; null if there is nothing to retain."""
    imgsz: int
    settings: dict[str, Any]
    """The `validate` section of the config, with its defaults."""


def read(run: Run) -> Metrics:
    return read_record(run.metrics, Metrics, "delete it and run `make validate` again")


def is_of_model(run: Run) -> bool:
    """Return whether the existing record measured the present model."""
    return run.model.is_file() and read(run)["model_sha256"] == files.sha256(run.model)

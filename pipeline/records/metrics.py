"""Figures of the model: `metrics.json`. Average precision and recall are COCO's, between 0 and 1.

`map50_95` is the mean over IoU thresholds from `0.5` to `0.95`, `map50` the one at `0.5`, `map75` the one at `0.75`.
`ar100` is average recall. Figures of a class are of that class alone. A figure that was not measured, such as the
average precision of a class without objects, is null.
"""

from __future__ import annotations

from typing import Any, Literal

from pipeline import files
from pipeline.errors import PipelineError
from pipeline.records.base import Number, Record, read_record
from pipeline.records.figures import CocoFigures, Intervals
from pipeline.records.training import SourceWeights
from pipeline.run import Run


class Counts(Record):
    tp: int
    """Number of predictions that found an object of their class."""
    fp: int
    """Number of predictions that found none."""
    fn: int
    """Number of labelled objects that no prediction found."""
    precision: Number | None
    """tp / (tp + fp), from 0 to 1; null without predictions."""
    recall: Number | None
    """tp / (tp + fn), from 0 to 1; null without objects."""
    f1: Number | None
    """2 tp / (2 tp + fp + fn), from 0 to 1; null without objects."""


class ClassCounts(Counts):
    """Counts and figures of one class, as in CountsByClass."""

    threshold: Number
    """Lowest score of the predictions counted."""


class CountsByClass(Counts):
    """Counts and figures of the predictions at or above the thresholds, one class per box, at an IoU of `0.5`."""

    per_class: dict[str, ClassCounts]


class Calibration(Record):
    """Whether scores are right as often as they say: how many predictions find an object, at an IoU of `0.5`."""

    bins: list[dict[str, Number | None]]
    """Ranges of scores, `from` and `to`: mean `score`, `precision` (share right), number of `predictions`; null if
    empty."""
    ece: Number | None
    """Expected calibration error: mean gap between score and precision, bins weighted by their numbers; 0 to 1."""
    from_score: Number
    """Predictions with a lower score do not count."""
    predictions: int
    """Number of predictions that count."""


class Confusion(Record):
    """The confusion matrix at the thresholds. Objects and predictions are paired from an IoU of `0.5`."""

    labels: list[str]
    """Classes, then the background."""
    matrix: list[list[int]]
    """Counts; rows are labels, columns predictions. The last row is predictions without an object, the last column
    objects without a prediction."""


class AtHundred(Record):
    """The figures with COCO's limit of 100 predictions per image and class."""

    map50_95: Number | None
    map50: Number | None
    ar100: Number | None


class Headline(Record):
    """Two figures, or a difference of two."""

    map50_95: Number
    map50: Number


class Step(Headline):
    """What one rule of another tool changes: the figure with the rule minus the figure without it."""

    tool: str
    """`ultralytics`, `fiftyone`, or `model.predict` for the boxes that Ultralytics' predict shows."""
    cause: str
    """The rule in words."""


class Reconciliation(Record):
    figures: dict[str, Headline | None]
    """By tool, `coco` for our own; null for a tool that `validate.reconcile` does not name."""
    steps: list[Step]
    remaining: dict[str, Headline | None]
    """What the steps leave unexplained, by tool; null as in `figures`."""
    notes: list[str]
    """Remarks that hold for all tools."""


class SplitFigures(CocoFigures):
    """The figures of one split."""

    at_100: AtHundred | None
    """Null if no image has more objects of a class than that, because the figures are the same then."""
    intervals: Intervals
    error_counts: dict[str, int]
    """Number of predictions by kind of error at the thresholds, of right ones (`tp`), and of objects `missed`."""
    error_costs: dict[str, Number | None]
    """What mAP50 would gain without the errors of a kind (TIDE), from 0 to 1, over predictions of any score."""
    confusion: Confusion
    operating_point: CountsByClass
    """What the thresholds give on this split."""
    calibration: Calibration
    reconciliation: Reconciliation | None
    """The steps from our figure to those of other tools, if `validate.reconcile` names some."""


class ChosenThreshold(Record):
    """Why a class has its threshold."""

    objects: int
    """Number of labelled objects of the class in val."""
    decided: bool
    """Whether val decided it; otherwise the threshold is a default."""
    why: str
    """`best F1`, the goal that it reaches, or why the goal or val could not decide."""


class OperatingPoint(Record):
    """The thresholds, chosen on val alone."""

    chosen_on: str
    """The split: `val`."""
    iou: Number
    """IoU from which a prediction counts as having found an object."""
    wanted: dict[str, Number | Literal["f1"]]
    """What the config asks for: `precision` or `recall` from 0 to 1, or `best`."""
    thresholds: dict[str, Number]
    """Lowest score that counts, by class."""
    per_class: dict[str, ChosenThreshold]


class Latency(Record):
    """Time of Ultralytics' `model.predict` for one image, on the machine that validated."""

    median_ms: Number
    """Median in milliseconds."""
    p95_ms: Number
    """95th percentile in milliseconds."""
    runs: int
    """Number of predictions timed."""
    batch: int
    """Images per prediction: 1."""
    device: str
    """Name of the GPU, or of the processor."""
    includes: str
    """The steps that the times include."""


class Cost(Record):
    """What the fused network costs: the one that predicts and is exported."""

    parameters: int
    """Number of weights."""
    gflops: Number | None
    """Billions of floating-point operations at `imgsz` for one image; null if Ultralytics cannot count them."""
    imgsz: int
    """Side of the input in pixels."""
    latency: Latency


class Retained(Record):
    before: Number | None
    """mAP50-95 of the source model for the class."""
    after: Number | None
    """mAP50-95 of the run's model; null for a class that it no longer has."""
    objects: int
    """Number of labelled objects of the class."""


class RetentionSet(Record):
    images_of: str
    """A split, or what `validate.retention` names."""
    images: int
    """Number of images measured on."""
    classes: dict[str, Retained]
    """Classes with labelled objects that the source model knows."""


class Retention(Record):
    source: str
    """File name of the source model."""
    sets: list[RetentionSet]
    """The splits that show classes of the source model, then the set of `validate.retention`."""


class RetentionSkipped(Record):
    skipped: str
    """Why nothing was measured."""


class Metrics(Record):
    model_sha256: str
    """SHA-256 of the `model.pt` that was measured."""
    weights: SourceWeights
    """The weights that training started from."""
    splits: dict[str, SplitFigures]
    """`val` and `test`, as far as the dataset has them."""
    operating_point: OperatingPoint | None
    """Null without a val split."""
    cost: Cost
    retention: Retention | RetentionSkipped | None
    """What the model still knows of the source's classes; null if there is nothing to retain."""
    imgsz: int
    """Side in pixels of the square that images, or their tiles, are fitted into."""
    settings: dict[str, Any]
    """The `validate` section of the config, with its defaults."""


def read(run: Run) -> Metrics:
    return read_record(run.metrics, Metrics, "delete it and run `make validate` again")


def replaced(run: Run) -> dict[str, float]:
    """Return the mAP50-95 of each split in the existing record, which validation will replace.

    Empty without a record, and with one that cannot be read, perhaps because another version wrote it.
    """
    try:
        splits = read(run)["splits"] if run.metrics.is_file() else {}
    except PipelineError:
        return {}
    return {split: figure for split, figures in splits.items() if (figure := figures["map50_95"]) is not None}


def is_of_another_model(run: Run) -> bool:
    """Return whether the existing record measured another model than the present one, if there is one."""
    return run.model.is_file() and read(run)["model_sha256"] != files.sha256(run.model)

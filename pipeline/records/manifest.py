"""What was exported and how it was proven: `export/manifest.json`."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import NotRequired

from pipeline.records.base import Interval, Number, Record, read_record
from pipeline.run import Run

Outcome = Literal["passed", "refused", "unproven"]


class Figures(Record):
    map50_95: Number | None
    map50: Number | None
    per_class: dict[str, Number | None]


class Drop(Record):
    points: Number | None
    """Points of mAP50-95 by which the export is below the model."""
    interval: Interval | None
    level: Number
    resamples: int


class Precision(Record):
    model: Figures
    artefact: Figures
    drop: Drop


class ParityFigures(Record):
    """Boxes of model and export with at least `from_score`, paired one to one."""

    images: int
    boxes: int
    from_score: Number
    lost: int
    extra: int
    flipped: int
    """Pairs whose classes differ."""
    changed: Number
    """Share of boxes that are lost, extra or flipped."""
    max_box_px: Number | None
    max_score: Number | None
    mean_score_shift: Number | None
    min_iou: Number | None
    worst: list[str]
    """Images with the largest differences."""


class Thresholds(Record):
    model: dict[str, Number]
    artefact: dict[str, Number]
    """Refitted for 8 bits, which shift the scores."""


class Comparison(Record):
    """How an export differs from the model."""

    parity: ParityFigures
    raw: dict[str, Any] | None
    """The same for output tensors, before non-maximum suppression and thresholds."""
    ap: Precision
    score_shift: dict[str, Number | None]
    limits: dict[str, Number | None]


class HandedOut(Record, total=False):
    bundle: str
    bundle_bytes: int
    preflight: dict[str, Any]
    """For TensorRT: what was checked before the engine is built on the device."""
    built: Any


class Artefact(Comparison, HandedOut):
    """One target of `export.targets`."""

    file: str
    sha256: str
    bytes: int
    format: str
    precision: str
    imgsz: int
    target: dict[str, Any]
    """The target as the config gives it."""
    verdict: Outcome
    """`unproven`: the model finds nothing in the images, so nothing was compared and nothing is handed out."""
    breaches: list[str]
    note: str
    thresholds: Thresholds
    tried: NotRequired[list[dict[str, Any]]]
    """Recipes for 8 bits, in the order in which they were tried."""
    calibration: NotRequired[dict[str, Any]]
    """Average precision with other draws of the calibration images."""
    other_head: NotRequired[dict[str, Number | None]]


class ModelFile(Record):
    file: str
    sha256: str


class ComparedOn(Record):
    split: str
    images: list[str]


class Manifest(Record):
    model: ModelFile
    classes: list[str]
    imgsz: int
    letterbox: str
    """How an image becomes the model's input."""
    compared_on: ComparedOn
    calibration: dict[str, Any] | None
    """Images for the calibration of 8 bits, and the proof that none is in val or test."""
    artefacts: list[Artefact]
    benchmark: dict[str, Any] | None
    """Written by `make bench-export`."""
    versions: dict[str, str]


def read(run: Run) -> Manifest:
    return read_record(run.manifest, Manifest, f"delete {run.export} and run `make export` again")

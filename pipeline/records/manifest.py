"""What was exported and how it was proven: `export/manifest.json`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import NotRequired

from pipeline.records.base import Interval, Number, Record, read_record
from pipeline.run import Run

Outcome = Literal["passed", "refused", "unproven"]
Ratio = Annotated[list[Number], Field(min_length=3, max_length=3)]


class HashedFile(Record):
    file: str
    sha256: str


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


class RawFigures(Record):
    images: int
    max_box_px: Number
    max_score: Number
    from_score: Number
    """Score of the model from which boxes are compared."""


class Thresholds(Record):
    model: dict[str, Number]
    artefact: dict[str, Number]
    """Fitted again for 8 bits, another head and another size, which shift the scores."""


class Comparison(Record):
    """How an export differs from the model."""

    parity: ParityFigures
    raw: RawFigures | None
    """The same for output tensors, before non-maximum suppression and thresholds."""
    ap: Precision
    score_shift: dict[str, Number | None]
    limits: dict[str, Number | None]


class Checked(Record):
    builder: str
    layers: int
    plan_bytes: int
    """Size of the engine that was built for the check."""
    seconds: Number


class NotChecked(Record):
    skipped: str
    """Why nothing was checked."""


class BuiltEngine(Comparison, HashedFile):
    """An engine built on the machine of the export."""


class HandedOut(Record, total=False):
    bundle: str
    bundle_bytes: int
    preflight: Checked | NotChecked
    """For TensorRT: what was checked before the engine is built on the device."""
    built: BuiltEngine | str
    """For TensorRT: the engine, or where it is built."""


class TriedRecipe(Record):
    recipe: str
    breaches: list[str]
    map50_95: Number | None
    ap_drop: Drop


class Draw(Record):
    seed: int
    map50_95: Number | None
    ap_drop: Number | None
    """Points of mAP50-95 by which the export is below the model."""


class Draws(Record):
    seed: int
    recipe: str
    draws: list[Draw]


class Artefact(Comparison, HandedOut):
    """One target of `export.targets`."""

    file: str
    sha256: str
    bytes: int
    format: str
    precision: str
    imgsz: int
    target: dict[str, str | int | bool | None]
    """The target as the config gives it, with its defaults."""
    verdict: Outcome
    """`unproven`: the model finds nothing in the images, so nothing was compared and nothing is handed out."""
    breaches: list[str]
    note: str
    thresholds: Thresholds
    tried: NotRequired[list[TriedRecipe]]
    """Recipes for 8 bits, in the order in which they were tried."""
    calibration: NotRequired[Draws]
    """Average precision with other draws of the calibration images."""
    validated_map50_95: NotRequired[Number]
    """Of the validated head at the size of training, on the same images, if this target has another head or size.
    `ap` compares with the model at this target's head and size."""


class ComparedOn(Record):
    split: str
    images: list[str]


class CalibrationImages(Record):
    split: str
    disjoint_from: list[str]
    compared_with: int
    """Number of images in the splits of `disjoint_from`."""
    images: list[HashedFile]


class Speed(Record):
    """An exported model on a number of threads: medians over the rounds. Ratios are [median, minimum, maximum]."""

    file: str
    format: str
    precision: str
    bytes: int
    map50_95: Number | None
    threads: int
    rounds: int
    runs: int
    """Minimum number of runs of each measurement."""
    import_ms: Number
    """Time to import the runtime."""
    load_ms: Number
    latency_ms: dict[str, Number]
    """Percentiles `p50` and `p95` of the network alone."""
    boxes: int
    images_per_s: Number
    images_per_s_at_once: Number
    """With one image per thread."""
    times_onnx: Ratio | None
    """Speed relative to ONNX in 32 bits; null without such a model."""
    ultralytics_boxes: int | None
    ultralytics_images_per_s: Number | None
    """Of `yolo predict` on the same file, for ONNX in 32 bits without tiles; else null."""
    times_ultralytics: Ratio | None


class Benchmark(Record):
    machine: str
    images: int
    rows: list[Speed]


class Manifest(Record):
    model: HashedFile
    classes: list[str]
    imgsz: int
    letterbox: str
    """How an image becomes the model's input."""
    compared_on: ComparedOn
    calibration: CalibrationImages | None
    """Images for the calibration of 8 bits, and the proof that none is in val or test."""
    artefacts: list[Artefact]
    benchmark: Benchmark | None
    """Written by `make bench-export`."""
    versions: dict[str, str]


def read(run: Run) -> Manifest:
    return read_record(run.manifest, Manifest, f"delete {run.export} and run `make export` again")

"""What was exported and how it was proven: `export/manifest.json`."""

from __future__ import annotations

from typing import Literal

from typing_extensions import NotRequired

from pipeline.records.base import Interval, Number, Record, read_record
from pipeline.records.benchmark import Benchmark
from pipeline.run import Run

Outcome = Literal["passed", "refused", "unproven"]


class HashedFile(Record):
    file: str
    sha256: str


class Figures(Record):
    """Average precision from 0 to 1 on the images of `compared_on`; null without labelled objects."""

    map50_95: Number | None
    map50: Number | None
    per_class: dict[str, Number | None]
    """mAP50-95 by class."""


class Drop(Record):
    points: Number | None
    """Points (hundredths) of mAP50-95 by which the export is below the model; null without labelled objects."""
    interval: Interval | None
    """Interval [low, high] of the points, from evaluating both on the same resampled images; null as `points`."""
    level: Number
    """Share of the resampled figures that the interval holds: `0.95`."""
    resamples: int
    """Number of times that the images were resampled."""


class Precision(Record):
    model: Figures
    """The model, with the head and the size of this target."""
    artefact: Figures
    """The export, in the runner of its bundle."""
    drop: Drop


class ParityFigures(Record):
    """Boxes of model and export with at least `from_score`, paired one to one from an IoU of `0.5`.

    A partner's score may be up to 10 % lower than that. Differences are of pairs of one class; null without such pairs.
    """

    images: int
    boxes: int
    """Number of the model's boxes."""
    from_score: Number
    """`export.conf`, or half of the model's best score if no box reaches that."""
    lost: int
    """Boxes of the model that the export lacks."""
    extra: int
    """Boxes of the export that the model lacks."""
    flipped: int
    """Pairs whose classes differ."""
    changed: Number
    """Lost, extra and flipped ones as a share of the model's boxes."""
    max_box_px: Number | None
    """Largest difference in one coordinate of the corners, in pixels of the image."""
    max_score: Number | None
    """Largest difference between the two scores of a pair."""
    mean_score_shift: Number | None
    """Mean score of the export minus that of the model."""
    min_iou: Number | None
    """Lowest IoU of a pair."""
    worst: list[str]
    """Up to three images with the largest differences."""


class RawFigures(Record):
    """The output of the network for the model's own input, before non-maximum suppression and thresholds."""

    images: int
    """Number of inputs compared, one for each of the first images."""
    max_box_px: Number
    """Largest difference in one number of a box, in pixels of the input."""
    max_score: Number
    """Largest difference of a score, over all anchors and classes."""
    from_score: Number
    """Score of the model from which boxes are compared."""


class Thresholds(Record):
    """Lowest score that is shown, by class."""

    model: dict[str, Number]
    """Those that validation chose; `export.conf` for a class that val could not decide."""
    artefact: dict[str, Number]
    """Those in the bundle: fitted again for 8 bits, another head and another size, which shift the scores."""


class Comparison(Record):
    """How an export differs from the model."""

    parity: ParityFigures
    raw: RawFigures | None
    """How far the output tensors differ; null if the graph selects the boxes (with `nms`) or if they are not finite."""
    ap: Precision
    score_shift: dict[str, Number | None]
    """Mean score of the export minus that of the model, by class; null without pairs."""
    limits: dict[str, Number | None]
    """The limits of `export.limits` that applied."""


class Checked(Record):
    """TensorRT's parser and builder accepted the ONNX model, without a GPU."""

    builder: str
    """Name and version of the builder."""
    layers: int
    """Number of layers of the parsed network."""
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
    """Name of the bundle in `export/`; missing unless the verdict is `passed`."""
    bundle_bytes: int
    preflight: Checked | NotChecked
    """For TensorRT: what was checked before the engine is built on the device."""
    built: BuiltEngine | str
    """For TensorRT: the engine, or where it is built."""


class TriedRecipe(Record):
    recipe: str
    """Name of the recipe, or what it keeps in float."""
    breaches: list[str]
    """The limits that it exceeds, in words; the first recipe without any is used, or else the best."""
    map50_95: Number | None
    """Of the export, from 0 to 1."""
    ap_drop: Drop


class Draw(Record):
    """The export calibrated on one choice of images."""

    seed: int
    """The seed of the choice: that of the config, plus 1 for each further choice."""
    map50_95: Number | None
    """Of the export, from 0 to 1."""
    ap_drop: Number | None
    """Points of mAP50-95 by which the export is below the model."""


class Draws(Record):
    seed: int
    """The `seed` of the config."""
    recipe: str
    """The recipe of all draws: the first one tried."""
    draws: list[Draw]
    """First the calibration images that are listed in the manifest."""


class Artefact(Comparison, HandedOut):
    """One target of `export.targets`."""

    file: str
    """Name of the exported file or folder in `export/`; it is deleted unless the verdict is `passed`."""
    sha256: str
    """Of the file; for a folder, of the listing that `sha256sum` makes of its files."""
    bytes: int
    """Size of the exported file or folder."""
    format: str
    precision: str
    """`fp32`, `fp16` or `int8`."""
    imgsz: int
    """Side of the input in pixels."""
    target: dict[str, str | int | bool | None]
    """The target as the config gives it, with its defaults."""
    verdict: Outcome
    """`unproven`: the model finds nothing in the images, so no box was compared and nothing is handed out."""
    breaches: list[str]
    """Why it is refused: limits that it exceeds, or a bundle or engine that fails; empty if it is not."""
    note: str
    """Remarks, such as a loss that may be chance; empty without any."""
    thresholds: Thresholds
    tried: NotRequired[list[TriedRecipe]]
    """Recipes for 8 bits, in the order in which they were tried; missing for other precisions."""
    calibration: NotRequired[Draws]
    """Average precision with other draws of the calibration images; missing as `tried`."""
    validated_map50_95: NotRequired[Number]
    """Of the validated head and size on the same images, if the target has others; `ap` compares with the target's."""


class ComparedOn(Record):
    split: str
    """`val`."""
    images: list[str]


class CalibrationImages(Record):
    """The images of the first draw."""

    split: str
    """`train`."""
    disjoint_from: list[str]
    """The splits whose images all differ from these, pixel by pixel."""
    compared_with: int
    """Number of images in the splits of `disjoint_from`, identical ones counted once."""
    images: list[HashedFile]
    """Names and digests of the files in `dataset/images/train/`."""
    classes_without_images: list[str]


class Manifest(Record):
    model: HashedFile
    """The run's model."""
    classes: list[str]
    """In the order of their ids."""
    imgsz: int
    """Side in pixels that the model was trained at."""
    letterbox: str
    """How an image becomes the model's input."""
    compared_on: ComparedOn
    """The images on which exports and model were compared."""
    calibration: CalibrationImages | None
    """Images for the calibration of 8 bits, and the proof that none is in val or test; null without such targets."""
    artefacts: list[Artefact]
    """In the order of `export.targets`."""
    benchmark: Benchmark | None
    """Written by `make bench-export`; null before."""
    versions: dict[str, str]
    """Versions of the packages that made and ran the exports, as far as they are installed."""


def read(run: Run) -> Manifest:
    return read_record(run.manifest, Manifest, f"delete {run.export} and run `make export` again")

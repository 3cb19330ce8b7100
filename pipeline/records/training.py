"""How a model was trained: `train.json`."""

from __future__ import annotations

from typing import Any

from typing_extensions import NotRequired

from pipeline.records.base import Number, Record, read_record
from pipeline.run import Run


class SourceWeights(Record):
    name: str
    sha256: str | None
    """Null if training began from a YAML file, with random weights."""
    instead_of: str | None
    """The weights that the config names, if `train.fallback` replaced them."""


class Proof(Record):
    """Proof that `freeze` held, compared tensor by tensor before the phase's first step and after its last."""

    frozen_tensors: int
    frozen_sha256_before: str
    frozen_sha256_after: str
    trainable_tensors: int
    trainable_changed: int


class Choice(Record):
    value: Any
    reason: str


class Gain(Record):
    """What a phase gained on val over the previous phase."""

    map50_95: Number
    interval: list[float] | None
    """95 % interval [low, high] of the paired difference over resampled images; null for too few images."""
    noise: Number
    """Standard deviation of the same difference."""


class CachedFeatures(Record):
    cached: bool
    """Whether the features of a split were computed only once."""
    reason: str
    file: NotRequired[str]
    """Their file in `features/`; missing if they were not cached."""


class TrainedPhase(Record):
    phase: int
    started_from: str
    epochs: int
    best_epoch: int | None
    best_fitness: Number | None
    """mAP50-95 of the kept epoch on val; null if val has no objects."""
    gain: Gain | None
    """Null for the first phase."""
    freeze: list[int | str]
    """Layer numbers and parameter names, as Ultralytics takes them."""
    lr0: Number
    """The rate that the phase began with; with `recipe: ultralytics`, the automatic optimizer's own."""
    lr_groups: dict[str, Number]
    """Factor of the rate for backbone, neck and head."""
    batchnorm: dict[str, str]
    batch: int
    precision: Choice
    """The precision that the phase computed in, `fp32` or `bf16`, and why."""
    features: dict[str, CachedFeatures] | None
    """By split; null if the phase caches no features."""
    without_effect: list[str]
    """Augmentations in `train.args` that were not applied, because features were cached or, for `mosaic`, `mixup` and
    `cutmix`, because the phase was no longer than `close_mosaic`."""
    parameters: int
    trainable_parameters: int
    proof: Proof
    seconds: Number


class Teacher(Record):
    name: str
    sha256: str


class Training(Record):
    weights: SourceWeights
    teacher: Teacher | None
    phases: list[TrainedPhase]
    best_phase: int
    """The phase that `model.pt` comes from; the first is 1."""
    recipe: dict[str, Choice]
    """Every setting that the config left open, with its value and the reason."""
    args: dict[str, Any]
    """Ultralytics' arguments that all phases share."""
    classes_kept: list[str]
    """Classes that the source's head knew by name."""
    imgsz: int
    batch: int
    seed: int
    seconds: Number
    device: str
    machine: str
    threads: int
    versions: dict[str, str]


def read(run: Run) -> Training:
    return read_record(run.train_record, Training, f"delete {run.model} and run `make train` again")

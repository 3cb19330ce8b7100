"""How a model was trained: `train.json`."""

from __future__ import annotations

from typing import Any

from typing_extensions import NotRequired

from pipeline.records.base import Number, Record, read_record
from pipeline.run import Run


class SourceWeights(Record):
    """Weights to start training from."""

    name: str
    """File name; in `rank.json` as the config names them."""
    sha256: str | None
    """Of the file; null for a model's YAML file, which gives random weights."""
    instead_of: str | None
    """The weights that the config names, if `train.fallback` replaced them; else null."""


class Proof(Record):
    """Proof that `freeze` held: the saved model, compared tensor by tensor with that before the phase's first step."""

    frozen_tensors: int
    """Number of frozen parameter tensors, and of BatchNorm's statistics if these are frozen too."""
    frozen_sha256_before: str
    """One digest over all frozen tensors in half precision, before the first step."""
    frozen_sha256_after: str
    """The same of the saved model; always equal, because the stage fails otherwise."""
    trainable_tensors: int
    """Number of parameter tensors that are not frozen."""
    trainable_changed: int
    """How many of them differ from before; at least 1."""


class Choice(Record):
    value: Any
    reason: str
    """Why it has this value."""


class Gain(Record):
    """What a phase gained on val over the previous phase."""

    map50_95: Number
    """Difference of mAP50-95: `0.01` is one point."""
    interval: list[float] | None
    """95 % interval [low, high] of the paired difference over resampled images; null with fewer than five images."""
    noise: Number
    """Standard deviation of the same difference."""


class CachedFeatures(Record):
    cached: bool
    """Whether the features of a split were computed only once."""
    reason: str
    """Why they were not, or their size in MB, or that an earlier training computed them."""
    file: NotRequired[str]
    """Their file in `features/`; missing if they were not cached."""


class TrainedPhase(Record):
    phase: int
    """Number of the phase; the first is 1."""
    started_from: str
    """File name of the source weights, or `phase N`."""
    epochs: int
    """Number of epochs trained; fewer than planned if `patience` ended the phase."""
    best_epoch: int | None
    """The epoch whose weights the phase keeps, from 1: the last one within `0.005` of the highest val mAP50-95."""
    best_fitness: Number | None
    """mAP50-95 of the kept epoch on val, from 0 to 1; null if val has no objects or was not measured."""
    gain: Gain | None
    """Null for the first phase, and if val has no objects or was not measured."""
    freeze: list[int | str]
    """Layer numbers and parameter names, as Ultralytics takes them."""
    lr0: Number
    """The learning rate that the phase began with; with `recipe: ultralytics`, the automatic optimizer's own."""
    lr_groups: dict[str, Number]
    """Factor of the rate for backbone, neck and head."""
    batchnorm: dict[str, str]
    """Mode of the BatchNorm layers, `train` or `eval`, by `frozen` and `trainable` layers."""
    batch: int
    """Images per batch; less than chosen if a GPU's memory ran out."""
    precision: Choice
    """The precision that the phase computed in, `fp32` or `bf16`, and why."""
    features: dict[str, CachedFeatures] | None
    """By `train` and `val`; null if the phase caches no features."""
    without_effect: list[str]
    """Augmentations in `train.args` that were not applied, because features were cached or, for `mosaic`, `mixup` and
    `cutmix`, because the phase was no longer than `close_mosaic`."""
    parameters: int
    """Number of weights of the model."""
    trainable_parameters: int
    """Number of weights that are not frozen."""
    proof: Proof
    seconds: Number
    """Time of the phase, with attempts that were killed."""


class Teacher(Record):
    """The model that `train.args.distill_model` names."""

    name: str
    """File name."""
    sha256: str


class Training(Record):
    weights: SourceWeights
    teacher: Teacher | None
    """Null without distillation."""
    phases: list[TrainedPhase]
    """In the order in which they were trained."""
    best_phase: int
    """The phase that `model.pt` comes from; the first is 1."""
    recipe: dict[str, Choice]
    """Settings by name, each with its value and the reason; `given in the config` if the config sets it."""
    args: dict[str, Any]
    """Ultralytics' arguments that all phases share."""
    classes_kept: list[str]
    """Classes that the source's head knew by name, so that their weights in the head were kept."""
    imgsz: int
    """Side in pixels of the square that images are fitted into."""
    batch: int
    """Images per batch, as chosen."""
    seed: int
    """The `seed` of the config."""
    seconds: Number
    """Sum over the phases."""
    device: str
    """Name of the GPU, or of the processor."""
    machine: str
    """Architecture of the machine, such as `x86_64`."""
    threads: int
    """Number of threads that PyTorch computed with."""
    versions: dict[str, str]
    """Versions of Python and of the packages that affect training."""


def read(run: Run) -> Training:
    return read_record(run.train_record, Training, f"delete {run.model} and run `make train` again")

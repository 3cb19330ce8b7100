"""Plan each phase: decide what the config leaves open and check it before the first step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.config.training import BatchNorm, LrGroups, Phase, Train
from pipeline.errors import ConfigError, counted
from pipeline.run import Run
from pipeline.train import arguments, freeze
from pipeline.train.recipe import QUICK_STEPS, Recipe
from pipeline.train.source import Source
from pipeline.upstream import checkpoints

# Frozen first layers. Caching turns augmentation off, and fewer layers would save too little time for that.
LEAST_CACHED = 5
NBS = 64  # images per optimizer step by Ultralytics' default


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """A cache in `folder` for the outputs of the layers before `cut`. With mode "auto", a full disk disables it."""

    cut: int
    mode: Literal["auto"] | bool
    folder: Path


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """The plan of one phase.

    `freeze` is the list that Ultralytics takes. With `by_step` the rate falls with every step, and with `heads_alike`
    the loss weighs both heads equally. `ema` is the span of the weights' moving average in epochs; None means
    Ultralytics' own. `l2_sp` pulls towards the weights in the file `source`. Without `cache` every epoch computes all
    layers. The augmentations in `without_effect` are given and not applied. Unless `is_validated`, no epoch is
    validated, not even the last.
    """

    number: int  # from 1
    started_from: str
    is_last: bool
    epochs: int
    freeze: tuple[int | str, ...]
    batchnorm: BatchNorm
    cache: FeatureCache | None
    without_effect: tuple[str, ...]
    lr0: float
    lr_groups: LrGroups
    by_step: bool
    heads_alike: bool
    ema: float | None
    l2_sp: float
    source: Path
    patience: int | None
    is_validated: bool
    precision: str  # auto, fp32 or bf16
    every_plot: bool  # if not, only training batches are plotted: our own report and curves show the rest


def phases(config: Train, recipe: Recipe, source: Source, run: Run) -> list[PhasePlan]:
    """Plan all phases. Raises ConfigError if a phase cannot follow the config."""
    if recipe.rounds and config.args.get("val") is False:
        raise ConfigError("train.recipe: thorough needs `val`, which ends it; remove `val: false` from train.args")
    if config.l2_sp and checkpoints.is_random(source.path):
        raise ConfigError(f"train.l2_sp: {source.path} has no trained weights to stay near; set l2_sp to 0")
    plans = [_phase(config, recipe, source, run, number) for number in range(1, len(recipe.phases) + 1)]
    if config.cache_features is True and not any(plan.cache for plan in plans):
        raise ConfigError(
            f"train.cache_features: no phase freezes at least its first {LEAST_CACHED} layers and their BatchNorm, so "
            "there is nothing to cache; freeze the backbone in a phase without `batchnorm: {frozen: train}` and "
            f"train.args.{' or '.join(sorted(arguments.NEED_IMAGES))}, or write auto"
        )
    return plans


def in_words(plans: Sequence[PhasePlan], recipe: Recipe, images: int) -> str:
    """Describe the phases for a number of training images; the last rounds are trained only while val gains."""
    sure, steps = plans[: len(plans) - recipe.rounds], _steps_per_epoch(recipe, images)
    more = f", then up to {recipe.rounds} times {plans[-1].epochs} while val gains" if recipe.rounds else ""
    return ", then ".join(_in_words(one, steps) for one in sure) + more


def too_few_steps(config: Train, plans: Sequence[PhasePlan], recipe: Recipe, images: int) -> str | None:
    """Return a warning if `config.minutes` allow fewer steps than a model needs; None if they suffice."""
    steps = sum(one.epochs for one in plans) * (_steps_per_epoch(recipe, images) or 0)
    if config.minutes is None or not 0 < steps < QUICK_STEPS:
        return None
    return (
        f"train.minutes: on this machine, as busy as it is now, {config.minutes:g} minutes are enough for "
        f"{counted(steps, 'step')}, but `recipe: quick` takes at least {QUICK_STEPS}; more minutes will probably help"
    )


def _steps_per_epoch(recipe: Recipe, images: int) -> int | None:
    """Return the optimizer steps in an epoch; None if a step takes several batches, because some are skipped."""
    every_batch_is_a_step = round(recipe.args.get("nbs", NBS) / recipe.batch) <= 1  # Ultralytics' own rule
    return math.ceil(images / recipe.batch) if every_batch_is_a_step else None


def _in_words(one: PhasePlan, steps: int | None) -> str:
    """Describe a phase with so many optimizer steps in an epoch; None if their number is unknown."""
    length = counted(one.epochs, "epoch") + (f" ({counted(one.epochs * steps, 'step')})" if steps else "")
    frozen = counted(len(one.freeze), "layer") if one.freeze else "nothing"
    return f"{length} with {frozen} frozen" + (" (computed once, images not augmented)" if one.cache else "")


def _phase(config: Train, recipe: Recipe, source: Source, run: Run, number: int) -> PhasePlan:
    phase, where = recipe.phases[number - 1], f"train.phases.{number - 1}"
    frozen = freeze.resolve(phase.freeze, source.model, f"{where}.freeze")
    _check_rates(phase, recipe.rate(phase), frozen, source.model, where)
    if phase.patience is not None and config.args.get("val") is False:
        raise ConfigError(f"{where}.patience: needs `val`; remove `val: false` from train.args")
    if config.precision == "bf16" and config.args.get("distill_model"):
        raise ConfigError("train.precision: bf16 does not work with train.args.distill_model; write auto or fp32")
    cache = None
    if cut := cached_layers(config, phase, frozen):
        arguments.check_cached(config.args)
        cache = FeatureCache(cut, config.cache_features, run.features.resolve())
    return PhasePlan(
        number=number,
        started_from=source.path.name if number == 1 else f"phase {number - 1}",
        is_last=number == len(recipe.phases),
        epochs=phase.epochs,
        freeze=tuple(frozen),
        batchnorm=phase.batchnorm,
        cache=cache,
        without_effect=tuple(arguments.without_effect(config.args, phase.epochs, cached=cache is not None)),
        lr0=recipe.rate(phase),
        lr_groups=phase.lr_groups,
        by_step=recipe.by_step(phase),
        heads_alike=recipe.is_short(phase),
        ema=recipe.average(phase),
        l2_sp=config.l2_sp,
        source=source.path,
        patience=phase.patience or recipe.patience,
        is_validated=config.args.get("val") is not False,
        precision="fp32" if config.recipe == "ultralytics" and config.precision == "auto" else config.precision,
        every_plot=config.args.get("plots") is True,
    )


def _check_rates(phase: Phase, rate: float, frozen: Sequence[int | str], model: Any, where: str) -> None:
    """Raise ConfigError for a learning rate of a frozen part, or one above 1."""
    parameters = [name for name, _ in model.named_parameters()]
    trainable = set(parameters) - set(freeze.frozen_names(frozen, parameters))
    for part in phase.lr_groups.model_fields_set - {freeze.part_of(name, model) for name in trainable}:
        raise ConfigError(
            f"{where}.lr_groups.{part}: `freeze` leaves nothing of the {part} to train; remove one of them"
        )
    if rate > 1:
        raise ConfigError(f"{where}: a learning rate of {rate:g} is too high; the maximum is 1")


def cached_layers(config: Train, phase: Phase, frozen: Sequence[int | str]) -> int:
    """Return how many of the first layers a phase computes only once, which turns its augmentation off.

    This depends on the config alone, never on a measurement on this machine, because it changes the model.
    """
    needs_images = any(config.args.get(key) for key in arguments.NEED_IMAGES)
    if phase.batchnorm.frozen == "train" or not config.cache_features or needs_images:
        return 0
    layers = freeze.cut(frozen)
    pays = layers >= LEAST_CACHED and (config.cache_features is True or phase.epochs > 1)
    return layers if pays else 0

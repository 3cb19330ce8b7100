"""Choose the settings that the config leaves open, for a few hundred images, each with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pipeline.config.training import Phase, Train
from pipeline.errors import ConfigError
from pipeline.records.training import Choice
from pipeline.train import arguments
from pipeline.upstream import checkpoints

GIVEN = "given in the config"
RATE = 0.001  # for AdamW; half and twice that were no better on any dataset but one (benchmarks/recipe.md)
SGD_RATE = 0.01  # Ultralytics' own lr0
PATIENCE = 100  # Ultralytics' own
FEW = 3  # epochs; with four or more the configs scored no better (benchmarks/recipe.md)
QUICK_STEPS = 150  # as in three epochs of 200 images, four per step
USUAL = 9  # epochs from 160 to 1,000 images
EARLY = 3  # first layers, which stay frozen to the end; accuracy changed no more than by seed (benchmarks/recipe.md)
ROUNDS = 4  # that `thorough` may add; each is as long as the phase before them
KEEPS = 0.8  # of the best layer's separability; below it a frozen backbone cost a point or more (benchmarks/recipe.md)
# Time of an epoch with frozen layers, relative to one that trains all layers (benchmarks/train.md, bccd), on features
# computed once:
CACHED = 0.5  # of the backbone, 7.5 s of 14.3
NOT_CACHED = 0.67  # of the backbone in a phase of one epoch, 9.6 s of 14.3
CACHED_FIVE = 0.75  # of the first five layers, 10.7 s of 14.3
# Time of an epoch with EARLY layers frozen and nothing cached, relative to the same (benchmarks/recipe.md):
EARLY_FROZEN = 0.9
LONG = 8  # epochs from which a longer average and a rate by step help, as in a last phase of FEW; in 5 they did not
EMA_SHARE = 1 / 12  # span of the average, as a share of the phase
NOISE = 0.005  # mAP50-95 on val; a few hundred images cannot resolve smaller differences


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of a training. `args` are Ultralytics' own; `reasons` say where each value comes from.

    With `own_schedule`, the rate falls with every step in phases of LONG epochs or more and in a last phase of FEW or
    fewer; in such a short phase, the loss also weighs both heads equally. `ema` is the config's value, in epochs. The
    last `rounds` phases are trained only while val gains. `patience` is that of phases without one.
    """

    phases: tuple[Phase, ...]
    batch: int
    lr0: float
    args: dict[str, Any]
    reasons: dict[str, Choice]
    own_schedule: bool
    ema: float | None
    rounds: int = 0
    patience: int | None = None

    def rate(self, phase: Phase) -> float:
        return phase.lr0 or self.lr0 * phase.lr

    def planned(self, number: int) -> tuple[Phase, ...]:
        """Return the phases that are sure to be trained when phase `number` is under way."""
        return self.phases[: max(number, len(self.phases) - self.rounds)]

    def is_short(self, phase: Phase) -> bool:
        """Return whether the loss weighs both heads of this phase equally."""
        return self.own_schedule and phase is self.phases[-1] and phase.epochs <= FEW

    def by_step(self, phase: Phase) -> bool:
        """Return whether the rate falls with every step; the average then spans EMA_SHARE unless `ema` is set."""
        return self.own_schedule and (phase.epochs >= LONG or self.is_short(phase))

    def average(self, phase: Phase) -> float | None:
        """Return the span of the moving average of the weights in epochs; None means Ultralytics' own average."""
        return self.ema or (phase.epochs * EMA_SHARE if self.by_step(phase) else None)


def choose(
    config: Train,
    images: int,
    kept: float | None = None,
    fit: float | None = None,
    counted: str = "images",
    looked: bool = False,
) -> Recipe:
    """Return the recipe for a number of training images; `counted` is the word for them.

    `kept` is the share of separability that the backbone keeps (`look.measure`). Without it the backbone counts as
    suitable, unless the stage `looked` at the images and could not measure it. `fit` is the number of epochs of all
    layers that `train.minutes` allows (`budget.measure`); without it the device is ignored, so that a config gives the
    same model wherever it is trained. Raises ConfigError if Ultralytics' own recipe is requested together with a rate
    that it would ignore.
    """
    if config.recipe == "ultralytics":
        return _ultralytics(config)
    batch = config.batch or batch_size(images)
    rate, why_rate = (SGD_RATE, _SGD_RATE) if arguments.is_sgd(config.args.get("optimizer")) else (RATE, _RATE)
    lr0 = config.lr0 or rate
    chosen, why = _phases(config, images, kept, fit, counted, looked)
    phases = config.phases or chosen
    reasons = {
        "phases": _choice(config.phases, [phase.model_dump(mode="json") for phase in phases], why),
        "batch": _choice(config.batch, batch, f"from {images} {counted}: {_BATCH}"),
        "lr0": _choice(config.lr0, lr0, why_rate),
    }
    ours: dict[str, tuple[Any, str]] = {
        "nbs": (batch, "every batch is a step; by default a step needs 64 images, which is 3 steps per epoch for 200"),
        "optimizer": ("AdamW", "as `auto` chooses for short trainings; `auto` itself would ignore a phase's rate"),
        "momentum": (0.9, "as `auto` chooses with AdamW"),
        "warmup_epochs": (0.5, "steps are few; the default of 3 epochs would fill most of a phase"),
        "warmup_bias_lr": (0.0, "as `auto` chooses with AdamW; a rate of 0.1 would undo what biases have learnt"),
        "close_mosaic": (
            arguments.CLOSE_MOSAIC,
            "Ultralytics' default: no mosaic in a phase's last 10 epochs; more mosaic cost mAP on BCCD",
        ),
    }
    for key, (value, reason) in ours.items():
        reasons[key] = _choice(config.args.get(key), config.args.get(key, value), reason)
    reasons |= {key: {"value": value, "reason": GIVEN} for key, value in config.args.items() if key not in ours}
    reasons |= {key: _choice(None, value, reason) for key, (value, reason) in _FEW_STEPS.items()}
    reasons["ema"] = _choice(config.ema, config.ema or _EMA_SPAN, _EMA)
    reasons["best"] = _choice(None, f"the last epoch within {NOISE} of the highest val mAP50-95", _BEST)
    args = {**{key: value for key, (value, _) in ours.items()}, **config.args}
    rounds = ROUNDS if config.recipe == "thorough" else 0
    return Recipe(phases, batch, lr0, args, reasons, own_schedule=True, ema=config.ema, rounds=rounds)


def looks_at_data(config: Train, images: int, fit: float | None) -> bool:
    """Return whether the phases depend on the features of the training images; `fit` is as in `choose`."""
    if config.phases or checkpoints.is_random(config.weights) or not epochs(images)[0]:
        return False
    return config.recipe in ("auto", "thorough") and not _is_brief(fit)


def _is_brief(fit: float | None) -> bool:
    return fit is not None and fit < 2 * FEW


def _phases(
    config: Train, images: int, kept: float | None, fit: float | None, counted: str, looked: bool
) -> tuple[tuple[Phase, ...], str]:
    """Return the phases of the recipe, and why it has them."""
    random = checkpoints.is_random(config.weights)
    if config.recipe == "quick":
        length = max(FEW, math.ceil((config.batch or batch_size(images)) * QUICK_STEPS / max(images, 1)))
        why = f"quick: at least {FEW} epochs and {QUICK_STEPS} steps"
        return (_quick(length, random),), f"{why}, {_RANDOM if random else _FIVE}"
    frozen, free = epochs(images)
    why = f"from {images} {counted}: {_EPOCHS}"
    if fit is not None:
        why = f"{config.minutes:g} minutes allow {fit:.1f} epochs of all layers here"
        if _is_brief(fit):
            length = max(1, int(fit if random else fit / CACHED_FIVE))
            return (_quick(length, random),), f"{why}: {_RANDOM if random else _FIVE}"
        if frozen:
            frozen = max(1, round(fit / 6))
    if random:
        why, frozen = f"{why}; {_RANDOM}", 0
    else:
        why = f"{why}; the first {EARLY} layers stay frozen; {_BACKBONE}"
    if kept is not None:
        why = f"{why}; on these images the backbone's last layer keeps {kept:.0%} of the best layer's separability"
        if kept < KEEPS:
            why, frozen = f"{why}, less than {KEEPS:.0%}, so no phase freezes the whole backbone", 0
    elif looked:
        why, frozen = f"{why}; on these images that could not be measured, so no phase freezes the whole backbone", 0
    if fit is not None:
        spent = frozen * (CACHED if frozen > 1 else NOT_CACHED)  # a phase of one epoch caches nothing
        free = max(1, round((fit - spent) / (1 if random else EARLY_FROZEN)))
    first = (Phase(epochs=frozen, freeze="backbone"),) if frozen else ()
    main = Phase(epochs=free, freeze="none" if random else EARLY)
    if config.recipe == "thorough":
        return (*first, main, *(Phase(epochs=main.epochs, lr=0.5),) * ROUNDS), f"{why}; {_ROUNDS}"
    return (*first, main), why


def _quick(length: int, random: bool) -> Phase:
    return Phase(epochs=length, freeze="none" if random else 5, lr=2)


def is_best(fitness: float, best: float) -> bool:
    """Return whether an epoch or phase of this fitness (val mAP50-95) is preferred to an earlier one with `best`.

    Within NOISE the later one is preferred, because it has seen more images, at a lower rate.
    """
    return fitness >= best - NOISE


def _choice(given: Any, value: Any, reason: str) -> Choice:
    return {"value": value, "reason": reason if given is None else GIVEN}


_EPOCHS = (
    f"{USUAL} epochs; below 160 images more, to see about 1,500 images; from 1,000 images fewer, 6 from about 1,300"
)
_BACKBONE = (
    "below 160 images, a short phase first freezes the whole backbone if its features suit the images; with 205 images "
    "or more, such a phase cost time and brought nothing"
)
_FIVE = "the first five layers frozen"
_RANDOM = "random weights have nothing to keep, so nothing is frozen"
_ROUNDS = (
    f"then up to {ROUNDS} rounds of the same length, with nothing frozen and at half the rate, while val gains more "
    "than its own noise"
)
_RATE = "the same for any number of classes: Ultralytics' rule gives one class twice as much, and was no better"
_SGD_RATE = f"Ultralytics' own for SGD; {RATE:g} is for AdamW, which divides each step by the size of recent gradients"
_BATCH = "4 below 1,500, 8 below 5,000, otherwise 16; few images need many steps"

_EMA_SPAN = f"a twelfth of a phase of {LONG} epochs or more, and of a last phase of {FEW} or fewer"
_EMA = "Ultralytics' average needs thousands of steps to take effect: after 600 it spans only one and a half"
_BEST = "the maximum of many noisy scores is often luck, and the last epochs had the lowest rate"

_FEW_STEPS = {
    "rate": (
        f"falls with every step in phases of {LONG} epochs or more, and in a last phase of {FEW} or fewer",
        "by epoch, the last of two epochs would still have half the rate, and the last of nine a ninth",
    ),
    "heads": (
        f"equal weight in a last phase of {FEW} epochs or fewer",
        "Ultralytics shifts the loss weights of the one-to-many and one-to-one heads from 0.8 and 0.2 to 0.1 and 0.9; "
        "AdamW scales steps by recent gradients, so backbone, neck and the first head would hardly move at the end",
    ),
}


def epochs(images: int) -> tuple[int, int]:
    """Return the number of epochs with the backbone frozen, and the number of epochs after them."""
    images = max(images, 1)
    least = min(max(6, round(8500 / images)), USUAL)  # falls from 9 to 6 between 1,000 and 1,308 images
    free = min(max(least, round(1500 / images)), 60)
    return round(free / 5) if free > USUAL else 0, free


def batch_size(images: int) -> int:
    return 4 if images < 1500 else 8 if images < 5000 else 16


def _ultralytics(config: Train) -> Recipe:
    phases = config.phases or (Phase(epochs=100),)
    rates = config.lr0 or any(phase.lr != 1 or phase.lr0 for phase in phases)
    if rates and arguments.is_automatic(config.args.get("optimizer", "auto")):
        raise ConfigError(
            "train.recipe: Ultralytics' automatic optimizer ignores a given rate; set train.args.optimizer"
        )
    given = {"batch": config.batch, "lr0": config.lr0, "ema": config.ema, **config.args}
    reasons = {key: _choice(value, value, GIVEN) for key, value in given.items() if value is not None}
    batch, lr0, args = config.batch or 16, config.lr0 or SGD_RATE, dict(config.args)
    return Recipe(phases, batch, lr0, args, reasons, own_schedule=False, ema=config.ema, patience=PATIENCE)

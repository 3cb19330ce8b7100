"""What a training is given where the config says nothing: for a few hundred images, each choice with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.config import Phase, Train
from pipeline.errors import ConfigError
from pipeline.records.training import Choice

GIVEN = "given in the config"
FEW = 3  # epochs; at four and more the configs scored no better for it (benchmarks/recipe.md)
LONG = 10  # epochs of a phase from which a longer average pays, as it does in a last one of FEW; of five it did not
EMA_SHARE = 1 / 12  # of a phase
NOISE = 0.005  # of mAP50-95 on val; a few hundred images do not tell smaller differences from luck


@dataclass(frozen=True, slots=True)
class Recipe:
    """`args` are Ultralytics' own; `reasons` say of every key where its value comes from, for `train.json`.

    `few_steps`: in a last phase of FEW epochs or fewer the rate falls with every step, and the loss weighs both heads
    alike all the time. `ema` is what the config says of it, in epochs.
    """

    phases: tuple[Phase, ...]
    batch: int
    lr0: float
    args: dict[str, Any]
    reasons: dict[str, Choice]
    few_steps: bool
    ema: float | None

    def rate(self, phase: Phase) -> float:
        return phase.lr0 or self.lr0 * phase.lr

    def is_short(self, phase: Phase) -> bool:
        """Whether its rate falls with every step, and both heads are weighed alike."""
        return self.few_steps and phase is self.phases[-1] and phase.epochs <= FEW

    def average(self, phase: Phase) -> float | None:
        """The epochs that the moving average of the weights looks back over; None is Ultralytics' own average."""
        pays = self.few_steps and (phase.epochs >= LONG or self.is_short(phase))
        return self.ema or (phase.epochs * EMA_SHARE if pays else None)


def choose(config: Train, images: int, classes: int) -> Recipe:
    """The recipe for so many training images and classes.

    It does not look at the device: the same config is to give the same model wherever it is trained. Raises
    ConfigError where Ultralytics' own recipe is asked for together with a rate that it would ignore.
    """
    if config.recipe == "ultralytics":
        return _ultralytics(config)
    frozen, free = epochs(images)
    batch = config.batch or _batch(images)
    # Ultralytics' own rule for AdamW (engine/trainer.py, `build_optimizer`).
    lr0 = config.lr0 or round(0.002 * 5 / (4 + classes), 6)
    phases = config.phases or (Phase(epochs=frozen, freeze="backbone"), Phase(epochs=free, lr=0.7))
    reasons = {
        "phases": _choice(
            config.phases, [phase.model_dump(mode="json") for phase in phases], f"from {images} images: {_EPOCHS}"
        ),
        "batch": _choice(config.batch, batch, f"from {images} images: {_BATCH}"),
        "lr0": _choice(config.lr0, lr0, f"Ultralytics' rule for AdamW and {classes} classes"),
    }
    ours: dict[str, tuple[Any, str]] = {
        "nbs": (batch, "every batch is a step; stock gradients wait for 64 images, three steps an epoch for 200"),
        "optimizer": ("AdamW", "what `auto` takes for short trainings; `auto` itself would ignore the rate of a phase"),
        "momentum": (0.9, "what `auto` takes with AdamW"),
        "warmup_epochs": (0.5, "steps are few; the default of 3 epochs would be most of a phase"),
        "warmup_bias_lr": (0.0, "what `auto` takes with AdamW; biases that begin at 0.1 lose what they know"),
        "close_mosaic": (10, "Ultralytics' own: a phase's last ten epochs see no mosaic; with more of it BCCD lost"),
    }
    for key, (value, reason) in ours.items():
        reasons[key] = _choice(config.args.get(key), config.args.get(key, value), reason)
    reasons |= {key: {"value": value, "reason": GIVEN} for key, value in config.args.items() if key not in ours}
    reasons |= {key: _choice(None, value, reason) for key, (value, reason) in _FEW_STEPS.items()}
    reasons["ema"] = _choice(config.ema, config.ema or _EMA_SPAN, _EMA)
    reasons["best"] = _choice(None, f"the last epoch within {NOISE} of the highest val mAP50-95", _BEST)
    args = {**{key: value for key, (value, _) in ours.items()}, **config.args}
    return Recipe(phases, batch, lr0, args, reasons, few_steps=True, ema=config.ema)


def is_best(fitness: float, best: float) -> bool:
    """Whether an epoch, or a phase, is preferred to an earlier one of `best`, which is the most so far or of all.

    Within NOISE the later one is: it has seen more, at a lower rate.
    """
    return fitness >= best - NOISE


def _choice(given: Any, value: Any, reason: str) -> Choice:
    return {"value": value, "reason": reason if given is None else GIVEN}


_EPOCHS = "about 2,000 images seen unfrozen, 5 epochs at least, and a quarter as many frozen before"
_BATCH = "4 below 1,500, 8 below 5,000, then 16; few images need many steps"

_EMA_SPAN = f"a twelfth of a phase of {LONG} epochs or more, and of a last one of {FEW} or fewer"
_EMA = "Ultralytics' average needs thousands of steps to begin: after 600 it still looks back over one and a half"
_BEST = "the highest of many noisy figures is often luck, and the last epochs had the lowest rate"

_FEW_STEPS = {
    "rate": (
        f"falls with every step in a last phase of {FEW} epochs or fewer",
        "by epoch, the last of two would still have half the rate",
    ),
    "heads": (
        f"alike in a last phase of {FEW} epochs or fewer",
        "Ultralytics moves the loss from the one-to-many head to the one-to-one, from 0.8 and 0.2 to 0.1 and 0.9; "
        "AdamW steps by a gradient's recent size, so backbone, neck and the first head would stand still at the end",
    ),
}


def epochs(images: int) -> tuple[int, int]:
    """Epochs of the frozen phase and of the free one."""
    free = min(max(5, round(2000 / max(images, 1))), 60)
    return max(1, round(free / 4)), free


def _batch(images: int) -> int:
    return 4 if images < 1500 else 8 if images < 5000 else 16


def _ultralytics(config: Train) -> Recipe:
    phases = config.phases or (Phase(epochs=100),)
    rates = config.lr0 or any(phase.lr != 1 or phase.lr0 for phase in phases)
    if rates and config.args.get("optimizer", "auto") == "auto":
        raise ConfigError("train.recipe: Ultralytics' own optimizer sets its own rate; name train.args.optimizer")
    given = {"batch": config.batch, "lr0": config.lr0, "ema": config.ema, **config.args}
    reasons: dict[str, Choice] = {
        key: {"value": value, "reason": GIVEN} for key, value in given.items() if value is not None
    }
    batch, lr0 = config.batch or 16, config.lr0 or 0.01
    return Recipe(phases, batch, lr0, dict(config.args), reasons, few_steps=False, ema=config.ema)

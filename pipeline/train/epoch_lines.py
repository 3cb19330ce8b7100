"""Print one line per epoch: losses, validation mAP, time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pipeline import logs
from pipeline.config.training import Phase
from pipeline.train.slow_steps import SlowSteps, Usage


def show(model: Any, phases: Sequence[Phase], number: int) -> None:
    """Make an Ultralytics `model` print a line for each epoch of phase `number` (from 1) of `phases`."""
    lines = Lines(f"train: phase {number} of {len(phases)}", sum(phase.epochs for phase in phases[number:]))
    model.add_callback("on_train_epoch_start", lines.begin)
    model.add_callback("on_train_batch_end", lines.step)
    model.add_callback("on_fit_epoch_end", lines.end)


class Lines:
    """The lines of one phase, with a bar for the epoch under way.

    The time left covers all remaining epochs, `later` those of later phases, at the pace of this phase so far; early
    stopping may shorten it. This is an object, because Ultralytics pickles callbacks for several GPUs, and unpickled
    closures would no longer share variables. There, only the first process prints.
    """

    def __init__(self, label: str, later: int) -> None:
        self.label, self.later = label, later
        self.bar: Any = None
        self.epoch, self.began, self.first = 0, 0.0, 0
        self.slow_steps = SlowSteps()

    def begin(self, trainer: Any) -> None:
        from ultralytics.utils import RANK

        if RANK > 0:
            return
        if self.bar is not None:  # Ultralytics repeats the epoch with a smaller batch
            self.bar.close()
        self.epoch = trainer.epoch + 1
        self.began, self.first = self.began or time.monotonic(), self.first or self.epoch
        self.bar = logs.progress(
            description=f"{self.label}, epoch {self.epoch} of {trainer.epochs}",
            total=len(trainer.train_loader),
            unit="batch",
        )
        self.slow_steps.begin()

    def step(self, trainer: Any) -> None:
        if self.bar is None:
            return
        self.bar.update()
        if line := self.slow_steps.step(Usage.now()):
            self.bar.clear()
            logs.say(f"{self.label}, epoch {self.epoch}: {line}")

    def end(self, trainer: Any) -> None:
        if self.bar is None:  # not the first process
            return
        self.bar.close()
        self.bar = None
        losses = " ".join(f"{name.removesuffix('_loss')} {float(loss):.3f}" for name, loss in trainer.tloss.items())
        is_validated = (trainer.args.val or self.epoch == trainer.epochs) and trainer.fitness is not None
        figure = f", val mAP50-95 {_map(trainer)}" if is_validated else ""
        remaining = trainer.epochs - self.epoch + self.later
        pace = (time.monotonic() - self.began) / (self.epoch - self.first + 1)
        left = f", {duration(pace * remaining)} left" if remaining else ""
        logs.say(f"{self.label}, epoch {self.epoch} of {trainer.epochs}: loss {losses}{figure}{left}")


def _map(trainer: Any) -> str:
    """Return the figure of this epoch; Ultralytics has 0 where val holds no objects."""
    objects = trainer.validator.metrics.nt_per_class
    if objects is None or not objects.sum():
        return "unknown"
    return f"{trainer.metrics['metrics/mAP50-95(B)']:.3f}"


def duration(seconds: float) -> str:
    """Format seconds as `40 s`, `2 min 5 s` or `3 h 4 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

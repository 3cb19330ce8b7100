"""Print one line per epoch: losses, validation mAP, time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pipeline import logs
from pipeline.config.training import Phase


def show(model: Any, phases: Sequence[Phase], number: int) -> None:
    """Make an Ultralytics `model` print a line for each epoch of phase `number` (from 1) of `phases`.

    The time left covers all remaining epochs at the pace of this phase so far; early stopping may shorten it.
    """
    later = sum(phase.epochs for phase in phases[number:])
    label = f"train: phase {number} of {len(phases)}"
    bar: Any = None
    epoch, began, first = 0, 0.0, 0

    def begin(trainer: Any) -> None:
        nonlocal bar, epoch, began, first
        if bar is not None:  # Ultralytics repeats the epoch with a smaller batch
            bar.close()
        epoch = trainer.epoch + 1
        began, first = began or time.monotonic(), first or epoch
        batches = len(trainer.train_loader)
        bar = logs.progress(description=f"{label}, epoch {epoch} of {trainer.epochs}", total=batches, unit="batch")

    def step(trainer: Any) -> None:
        bar.update()

    def end(trainer: Any) -> None:
        nonlocal bar
        if bar is None:  # Ultralytics reports its final validation as an epoch too
            return
        bar.close()
        bar = None
        losses = " ".join(f"{name.removesuffix('_loss')} {float(loss):.3f}" for name, loss in trainer.tloss.items())
        is_validated = trainer.args.val or epoch == trainer.epochs
        figure = f", val mAP50-95 {trainer.metrics['metrics/mAP50-95(B)']:.3f}" if is_validated else ""
        remaining = trainer.epochs - epoch + later
        left = f", {duration((time.monotonic() - began) / (epoch - first + 1) * remaining)} left" if remaining else ""
        logs.say(f"{label}, epoch {epoch} of {trainer.epochs}: loss {losses}{figure}{left}")

    model.add_callback("on_train_epoch_start", begin)
    model.add_callback("on_train_batch_end", step)
    model.add_callback("on_fit_epoch_end", end)


def duration(seconds: float) -> str:
    """Format seconds as `40 s`, `2 min 5 s` or `3 h 4 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

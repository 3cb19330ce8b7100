"""What a last phase of few steps gets: a rate that falls with each, equal heads, a shorter average of the weights."""

from __future__ import annotations

from typing import Any

from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.loss import E2ELoss


def fall_by_step(trainer: Any) -> None:
    """Have the rate fall with every step; Ultralytics' scheduler, which is made already, has it fall by epoch."""
    by_epoch, begun = trainer.lf, 0.0  # begun: the share of an epoch that is behind us

    def rest(trainer: DetectionTrainer) -> None:
        nonlocal begun
        begun = 0.0

    def follow(trainer: DetectionTrainer) -> None:
        nonlocal begun
        for group in trainer.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * trainer.lf(trainer.epoch)
        begun += 1 / len(trainer.train_loader)

    trainer.lf = lambda epoch: by_epoch(epoch + begun)
    trainer.add_callback("on_train_epoch_start", rest)
    trainer.add_callback("on_train_batch_start", follow)


def weigh_heads_alike(model: Any) -> None:
    """Have the loss weigh the one-to-many and the one-to-one head alike, where the model has both."""
    if isinstance(loss := model.init_criterion(), E2ELoss):
        loss.o2m = loss.o2o = loss.o2m_copy = loss.final_o2m = 0.5
        model.criterion = loss


def average_over(epochs: float, trainer: Any) -> None:
    """Have the average of the weights look back over so many epochs."""
    steps = max(1.0, epochs * len(trainer.train_loader) / trainer.accumulate)
    # Young, it looks back over a quarter of what it has seen, so that the start is soon forgotten.
    trainer.ema.decay = lambda updates: 1 - 1 / min(steps, 1 + updates / 4)

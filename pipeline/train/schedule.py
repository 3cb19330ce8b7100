"""Lower the learning rate with every step, weigh both heads equally, and set the span of the average of the weights.

`recipe.Recipe` decides which phases do each of these.
"""

from __future__ import annotations

from typing import Any

from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.loss import E2ELoss


def fall_by_step(trainer: Any) -> None:
    """Lower the learning rate with every step instead of every epoch. Call it after the scheduler is set up."""
    by_epoch, finished_share = trainer.lf, 0.0  # the share of the current epoch

    def begin_epoch(trainer: DetectionTrainer) -> None:
        nonlocal finished_share
        finished_share = 0.0

    def begin_step(trainer: DetectionTrainer) -> None:
        nonlocal finished_share
        for group in trainer.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * trainer.lf(trainer.epoch)
        finished_share += 1 / len(trainer.train_loader)

    trainer.lf = lambda epoch: by_epoch(epoch + finished_share)
    trainer.add_callback("on_train_epoch_start", begin_epoch)
    trainer.add_callback("on_train_batch_start", begin_step)


def weigh_heads_alike(model: Any) -> None:
    """Give the one-to-many and the one-to-one head equal weight in the loss, if the model has both."""
    if isinstance(loss := model.init_criterion(), E2ELoss):
        loss.o2m = loss.o2o = loss.o2m_copy = loss.final_o2m = 0.5
        model.criterion = loss


def average_over(epochs: float, trainer: Any) -> None:
    """Set the span of the moving average of the weights, in epochs."""
    steps = max(1.0, epochs * len(trainer.train_loader) / trainer.accumulate)
    # At first it spans a quarter of the steps so far, so that it soon forgets the start.
    trainer.ema.decay = lambda updates: 1 - 1 / min(steps, 1 + updates / 4)

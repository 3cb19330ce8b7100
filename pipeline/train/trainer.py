"""Extend Ultralytics' detection trainer to follow a phase's plan and keep what resuming and the proof need.

Only `phase` imports this, and late: it imports torch and Ultralytics.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from copy import copy
from subprocess import CalledProcessError
from typing import Any, ClassVar

import torch
from ultralytics.data import build_yolo_dataset
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import unwrap_model

from pipeline import files
from pipeline.errors import PipelineError
from pipeline.train import exact, features, freeze, gain, precision, precompute, rates, schedule
from pipeline.train.cpu import CpuTrainer
from pipeline.train.plan import PhasePlan
from pipeline.train.recipe import is_best
from pipeline.train.resume import PhaseFolder, Stopwatch
from pipeline.upstream import checkpoints


def trainer_class(plan: PhasePlan, folder: PhaseFolder, clock: Stopwatch) -> type[PhaseTrainer]:
    """Return the trainer class of one phase. Ultralytics creates the object itself, so it needs a class."""
    return type("PhaseTrainer", (PhaseTrainer,), {"plan": plan, "folder": folder, "clock": clock})


def student(model: Any) -> Any:
    """Return the trained model itself; with a teacher, Ultralytics wraps it in a DistillationModel."""
    model = unwrap_model(model)
    return getattr(model, "student_model", model)


class PhaseTrainer(CpuTrainer):
    """A trainer for one phase. Methods are in the order in which Ultralytics calls them."""

    plan: ClassVar[PhasePlan]
    folder: ClassVar[PhaseFolder]
    clock: ClassVar[Stopwatch]
    lf: Callable[[float], float]  # epoch -> factor of the rate
    frozen_before: dict[str, torch.Tensor]
    since_step = 0  # batches since the last optimizer step
    before_first_step = 0  # the batches of a step; 0 from the first step of a new or resumed training on

    def train(self) -> None:
        """Train; with several GPUs, pass on the error of a process that this one starts."""
        errors = [self.folder.error(rank) for rank in range(self.world_size)]
        for file in errors if self.ddp else ():
            file.unlink(missing_ok=True)
        try:
            super().train()
        except PipelineError as error:
            if RANK != -1:
                files.write_text(errors[RANK], str(error))
            raise
        except CalledProcessError:
            for file in errors:
                if file.is_file():
                    raise PipelineError(file.read_text(encoding="utf-8")) from None
            raise

    def get_model(self, *args: Any, **kwargs: Any) -> DetectionModel:
        model = super().get_model(*args, **kwargs)
        if self.plan.cache:
            assert type(model) is DetectionModel
            model.__class__ = features.Shortened
        return model

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        if mode == "train" and not self.plan.cache:
            return super().build_dataset(img_path, mode, batch)
        # Square, as validate, export and the device fit images: Ultralytics' `rect` pads 320 pixels to 352, and on
        # some images the figure that chooses the model then differs by 0.1.
        model, settings = unwrap_model(self.model), copy(self.args)
        settings.rect = False
        fraction = self.args.fraction if mode == "train" else None
        stride = max(int(model.stride.max()), 32)
        dataset = build_yolo_dataset(settings, img_path, batch, self.data, "val", stride=stride, fraction=fraction)
        if not self.plan.cache:
            return dataset
        dataset = features.FixedDataset.of(dataset)
        known = files.read_json(self.folder.features) if self.folder.features.is_file() else {}
        decision = precompute.USED_ONCE
        if mode == "train" or self.args.val:
            decision = precompute.attach(dataset, model, self.plan.cache, mode, known.get(mode))
        if RANK in {-1, 0}:  # of the processes of several GPUs, one writes
            files.write_json(self.folder.features, {**known, mode: decision})
        return dataset

    def get_validator(self) -> Any:
        validator = super().get_validator()
        assert type(validator) is DetectionValidator
        validator.__class__ = features.FixedValidator if self.plan.cache else gain.KeepingValidator
        return validator

    def build_optimizer(self, model: Any, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer = super().build_optimizer(model, *args, **kwargs)
        model, factors = student(model), self.plan.lr_groups.model_dump()
        if set(factors.values()) != {1.0}:
            rates.split(optimizer, model, factors)
        if self.plan.l2_sp:
            rates.pull(optimizer, model, checkpoints.load(self.plan.source)[0].state_dict(), self.plan.l2_sp)
        return optimizer

    def _setup_scheduler(self) -> None:
        super()._setup_scheduler()
        if self.plan.by_step:
            schedule.fall_by_step(self)

    def _setup_train(self) -> None:
        super()._setup_train()
        self.best = self.last  # Ultralytics would also write each epoch to best.pt, which nothing reads
        if (state := self.folder.exact(self.start_epoch)).is_file():
            exact.restore(state, self)
        model = student(self.model)
        set_precision(self, model)
        if self.plan.heads_alike:
            schedule.weigh_heads_alike(model)
        if self.plan.ema and self.ema:
            schedule.average_over(self.plan.ema, self)
        self.frozen_before = freeze.snapshot(model, self.plan.freeze, buffers=self.plan.batchnorm.frozen == "eval")
        if RANK in {-1, 0} and not self.resume:
            files.write_json(self.folder.digests, freeze.digests_before(model, self.frozen_before))

    def _model_train(self) -> None:
        super()._model_train()
        for name, module in student(self.model).named_modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                frozen = any(part in f"{name}." for part in self.freeze_layer_names)
                modes = self.plan.batchnorm
                module.train((modes.frozen if frozen else modes.trainable) == "train")

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        exact.count_batch(self)
        batch = super().preprocess_batch(batch)
        return features.with_features(batch, self.train_loader.dataset) if self.plan.cache else batch

    def plot_training_samples(self, batch: dict[str, Any], ni: int) -> None:
        if self.plan.cache:
            batch = features.with_images(batch, self.train_loader.dataset)
        super().plot_training_samples(batch, ni)

    def plot_training_labels(self) -> None:
        if self.plan.every_plot:
            super().plot_training_labels()

    def optimizer_step(self) -> None:
        super().optimizer_step()
        self.since_step = self.before_first_step = 0

    def validate(self) -> Any:
        if not self.plan.is_validated:  # Ultralytics would still validate the last epoch
            return self.metrics, None
        self.validator.args.plots = self.args.plots and self.plan.every_plot
        return super().validate()

    def plot_metrics(self) -> None:
        if self.plan.every_plot:
            super().plot_metrics()

    def _handle_nan_recovery(self, epoch: int) -> bool:
        # Ultralytics retries from its last checkpoint, and in a first epoch it continues with broken weights.
        if all(math.isfinite(float(value.detach())) for value in (self.loss, *self.tloss.values())):
            return False
        last = self.folder.last_epoch
        kept = "there is no earlier epoch to return to"
        if last.is_file():
            kept = f"copy the last good weights first, {last}: another rate starts training again"
        raise PipelineError(
            f"{self.folder.root.name}: the loss became NaN or infinite in epoch {epoch + 1}; "
            f"lower train.lr0 (this phase's is {self.args.lr0:g}); {kept}"
        )

    def save_model(self) -> bool:
        # The comparison is bit-exact in memory; on disk it is in half precision.
        if changed := freeze.moved(self.frozen_before, student(self.model)):
            raise PipelineError(f"{self.folder.root}: {freeze.complaint(changed)}")
        freeze.restore(self.frozen_before, student(self.ema.ema))
        self.last.unlink(missing_ok=True)  # kept epochs may be the same file, and Ultralytics writes to it in place
        with features.ordinary(self.ema.ema) if self.plan.cache else nullcontext():
            saved = super().save_model()
        keep_epoch(self)
        return bool(saved)

    def final_eval(self) -> None:
        """Do not validate the best epoch again: the stage `validate` does."""


def set_precision(trainer: PhaseTrainer, model: Any) -> None:
    """Let the model compute in bfloat16 if the phase's record says so; a resumed phase keeps what it began with."""
    record = trainer.folder.precision
    if record.is_file():
        chosen = files.read_json(record)
    else:
        wanted = trainer.plan.precision
        if wanted == "auto" and trainer.args.distill_model:
            chosen = {"value": "fp32", "reason": "a teacher's features are compared in 32 bits"}
        else:
            chosen = precision.choose(wanted, model, trainer.batch_size, trainer.args.imgsz)
        if RANK in {-1, 0}:
            files.write_json(record, chosen)
    if chosen["value"] == "bf16":
        precision.as_bfloat16(model)


def keep_epoch(trainer: PhaseTrainer) -> None:
    """Keep what Ultralytics has just saved, so that a later kill costs no epoch; `last_epoch` is replaced last."""
    folder, epochs = trainer.folder, trainer.epoch + 1
    fitness = None if trainer.fitness is None else round(float(trainer.fitness), 6)  # None: nothing validated yet
    best = {"best_epoch": epochs, "best_fitness": fitness}
    if is_best(float(trainer.fitness or 0), float(trainer.best_fitness or 0)):
        files.link(trainer.last, folder.best_epoch)
        if trainer.fitness is not None and hasattr(trainer.validator, "kept"):
            gain.keep(trainer.validator, folder.matches)
    else:
        best = {key: files.read_json(folder.progress)[key] for key in best}
    ended = bool(trainer.stop)  # after all epochs, or by `patience`
    # Memory may have halved the batch, and Ultralytics' automatic optimizer chooses its own rate.
    used = {"batch": trainer.args.batch, "lr0": trainer.args.lr0}
    progress = {"epochs": epochs, "ended": ended, **best, **used, "seconds": trainer.clock.seconds}
    files.write_json(folder.progress, progress)
    exact.save(folder.exact(epochs), trainer)
    files.link(trainer.last, folder.last_epoch)
    folder.exact(epochs - 1).unlink(missing_ok=True)

"""Ultralytics' detection trainer for one phase, with a witness: what was frozen is compared before and after.

Imported late, by `train` alone: it brings torch and Ultralytics with it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ultralytics.data import build_yolo_dataset
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import RANK
from ultralytics.utils.loss import E2ELoss
from ultralytics.utils.torch_utils import unwrap_model

from pipeline import files, weights
from pipeline.config import Phase
from pipeline.errors import PipelineError
from pipeline.train import exact, features, freeze, precompute, rates
from pipeline.train.cpu import CpuTrainer
from pipeline.train.recipe import is_best


@dataclass(slots=True)
class Witness:
    """One phase of training, and the files in its folder that outlive a crash.

    Ultralytics writes its last.pt and best.pt in place, so a kill can leave half a file. The copies
    here are written aside and renamed; only they are ever read back.
    """

    folder: Path
    phase: Phase
    items: Sequence[int | str]
    is_last_phase: bool
    wanted: features.Wanted | None
    source: Path
    l2_sp: float
    is_short: bool
    ema: float | None
    earlier_seconds: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    @property
    def last_epoch(self) -> Path:
        return self.folder / "resume.pt"

    @property
    def best_epoch(self) -> Path:
        return self.folder / "resume_best.pt"

    def exact(self, epochs: int) -> Path:
        """What the checkpoint after so many epochs leaves out."""
        return self.folder / f"resume_exact{epochs}.pt"

    @property
    def digests(self) -> Path:
        """Digests of all tensors before the phase's first step: {"frozen": {...}, "trainable": {...}}."""
        return self.folder / "digests.json"

    @property
    def decisions(self) -> Path:
        """Which features were computed once, split by split, and why."""
        return self.folder / "features.json"

    @property
    def progress(self) -> Path:
        """What the epochs so far came to; its `seconds` are those of all attempts together."""
        return self.folder / "progress.json"

    @property
    def can_resume(self) -> bool:
        return all(path.is_file() for path in (self.last_epoch, self.best_epoch, self.digests, self.progress))

    @property
    def seconds(self) -> float:
        return round(self.earlier_seconds + time.perf_counter() - self.began, 1)


def student(model: Any) -> Any:
    """The model that is trained: with a teacher, Ultralytics trains it inside a DistillationModel."""
    model = unwrap_model(model)
    return getattr(model, "student_model", model)


def trainer_class(witness: Witness) -> type[DetectionTrainer]:
    """The trainer of one phase. Ultralytics makes the object itself, so it is handed a class."""
    phase = witness.phase
    factors = phase.lr_groups.model_dump()

    class PhaseTrainer(CpuTrainer):
        lf: Callable[[float], float]  # epoch -> factor of the rate

        def get_model(self, *args: Any, **kwargs: Any) -> DetectionModel:
            model = super().get_model(*args, **kwargs)
            if witness.wanted:
                assert type(model) is DetectionModel
                model.__class__ = features.Shortened
            return model

        def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
            if not witness.wanted:
                return super().build_dataset(img_path, mode, batch)
            # As Ultralytics builds it for validation: no augmentation, and rectangles for the validation split alone.
            model = unwrap_model(self.model)
            stride, rect = max(int(model.stride.max()), 32), mode == "val"
            fraction = None if rect else self.args.fraction
            dataset = features.FixedDataset.of(
                build_yolo_dataset(self.args, img_path, batch, self.data, "val", rect, stride, fraction=fraction)
            )
            decision = precompute.attach(dataset, model, witness.wanted, mode)
            known = files.read_json(witness.decisions) if witness.decisions.is_file() else {}
            files.write_json(witness.decisions, {**known, mode: decision})
            return dataset

        def build_optimizer(self, model: Any, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
            optimizer = super().build_optimizer(model, *args, **kwargs)
            model = student(model)
            if set(factors.values()) != {1.0}:
                rates.split(optimizer, model, factors)
            if witness.l2_sp:
                source = weights.load(witness.source)[0].state_dict()
                rates.pull(optimizer, model, source, witness.l2_sp)
            return optimizer

        def _setup_scheduler(self) -> None:
            super()._setup_scheduler()
            if not witness.is_short:
                return
            by_epoch, begun = self.lf, 0.0  # begun: the share of an epoch that is behind us

            def rest(trainer: DetectionTrainer) -> None:
                nonlocal begun
                begun = 0.0

            def follow(trainer: DetectionTrainer) -> None:
                nonlocal begun
                for group in trainer.optimizer.param_groups:
                    group["lr"] = group["initial_lr"] * trainer.lf(trainer.epoch)
                begun += 1 / len(trainer.train_loader)

            self.lf = lambda epoch: by_epoch(epoch + begun)
            self.add_callback("on_train_epoch_start", rest)
            self.add_callback("on_train_batch_start", follow)

        def _setup_train(self) -> None:
            super()._setup_train()
            if (state := witness.exact(self.start_epoch)).is_file():
                exact.restore(state, self)
            model = student(self.model)
            if witness.is_short and isinstance(loss := model.init_criterion(), E2ELoss):
                loss.o2m = loss.o2o = loss.o2m_copy = loss.final_o2m = 0.5
                model.criterion = loss
            if witness.ema and self.ema:
                steps = max(1.0, witness.ema * len(self.train_loader) / self.accumulate)
                # Young, it looks back over a quarter of what it has seen, so that the start is soon forgotten.
                self.ema.decay = lambda updates: 1 - 1 / min(steps, 1 + updates / 4)
            self.frozen_before = freeze.snapshot(model, witness.items, buffers=phase.batchnorm.frozen == "eval")
            if RANK in {-1, 0} and not self.resume:
                trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
                before = {
                    "frozen": freeze.digests(model, self.frozen_before),
                    "trainable": freeze.digests(model, trainable),
                }
                files.write_json(witness.digests, before)

        def _model_train(self) -> None:
            super()._model_train()
            for name, module in student(self.model).named_modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    frozen = any(part in f"{name}." for part in self.freeze_layer_names)
                    module.train((phase.batchnorm.frozen if frozen else phase.batchnorm.trainable) == "train")

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            batch = super().preprocess_batch(batch)
            return features.with_features(batch, self.train_loader.dataset) if witness.wanted else batch

        def get_validator(self) -> Any:
            validator = super().get_validator()
            if witness.wanted:
                assert type(validator) is DetectionValidator
                validator.__class__ = features.FixedValidator
            return validator

        def plot_training_samples(self, batch: dict[str, Any], ni: int) -> None:
            if witness.wanted:
                batch = features.with_pictures(batch, self.train_loader.dataset)
            super().plot_training_samples(batch, ni)

        def _handle_nan_recovery(self, epoch: int) -> bool:
            # Ultralytics tries again from its last checkpoint, and in a first epoch goes on with what is left.
            if all(math.isfinite(float(value.detach())) for value in (self.loss, *self.tloss.values())):
                return False
            kept = f"the last good weights are {witness.last_epoch}" if witness.last_epoch.is_file() else "none is kept"
            raise PipelineError(
                f"{witness.folder.name}: the loss is no number any more in epoch {epoch + 1}; "
                f"lower train.lr0 (this phase's is {self.args.lr0:g}); {kept}"
            )

        def validate(self) -> Any:
            self.validator.args.plots = self.args.plots  # or it would remember the epochs that it drew nothing for
            return super().validate()

        def save_model(self) -> bool:
            # In memory the comparison is exact to the last bit; on disk it is to half precision.
            if changed := freeze.moved(self.frozen_before, student(self.model)):
                raise PipelineError(f"{witness.folder}: {freeze.complaint(changed)}")
            with features.ordinary(self.ema.ema) if witness.wanted else nullcontext():
                saved = super().save_model()
            fitness = float(self.fitness or 0)  # None before the first validation
            best = {"best_epoch": self.epoch + 1, "best_fitness": round(fitness, 6)}
            if is_best(fitness, float(self.best_fitness or 0)):
                files.copy(self.last, witness.best_epoch)
            else:
                best = {key: files.read_json(witness.progress)[key] for key in best}
            progress = {
                "epochs": self.epoch + 1,
                **best,
                "batch": self.args.batch,
                "seconds": witness.seconds,
            }
            files.write_json(witness.progress, progress)
            exact.save(witness.exact(self.epoch + 1), self)
            files.copy(self.last, witness.last_epoch)  # now the epoch is done: what it needs is there
            witness.exact(self.epoch).unlink(missing_ok=True)
            return bool(saved)

        def final_eval(self) -> None:
            # Between phases nobody reads Ultralytics' plots, and figures are the validate stage's work. The last
            # epoch drew its own; where it is the best, Ultralytics would validate it and draw them once more.
            if witness.is_last_phase and files.read_json(witness.progress)["best_epoch"] != self.epoch + 1:
                files.copy(witness.best_epoch, self.best)
                if witness.wanted:
                    self.test_loader.dataset.features = None  # best.pt is read anew, and is asked about images
                super().final_eval()

    return PhaseTrainer

"""Ultralytics' detection trainer for one phase, with a witness: what was frozen is compared before and after.

Imported late, by `train` alone: it brings torch and Ultralytics with it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ultralytics.data import build_yolo_dataset
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import unwrap_model

from pipeline import files, weights
from pipeline.config import Phase
from pipeline.errors import PipelineError
from pipeline.train import features, freeze, rates


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
    earlier_seconds: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    @property
    def last_epoch(self) -> Path:
        return self.folder / "resume.pt"

    @property
    def best_epoch(self) -> Path:
        return self.folder / "resume_best.pt"

    @property
    def digests(self) -> Path:
        """Digests of all tensors before the phase's first step: {"frozen": {...}, "trainable": {...}}."""
        return self.folder / "digests.json"

    @property
    def decisions(self) -> Path:
        """Which features were computed once, split by split, and why."""
        return self.folder / "features.json"

    @property
    def clock(self) -> Path:
        """Seconds up to the last finished epoch, all attempts together."""
        return self.folder / "seconds.json"

    @property
    def can_resume(self) -> bool:
        return all(path.is_file() for path in (self.last_epoch, self.best_epoch, self.digests, self.clock))

    @property
    def seconds(self) -> float:
        return round(self.earlier_seconds + time.perf_counter() - self.began, 1)


def trainer_class(witness: Witness) -> type[DetectionTrainer]:
    """The trainer of one phase. Ultralytics makes the object itself, so it is handed a class."""
    phase = witness.phase
    factors = phase.lr_groups.model_dump()

    class PhaseTrainer(DetectionTrainer):  # type: ignore[misc]  # Ultralytics has no types
        def get_model(self, *args: Any, **kwargs: Any) -> DetectionModel:
            model = super().get_model(*args, **kwargs)
            if witness.wanted:
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
            decision = features.attach(dataset, model, witness.wanted, mode)
            known = files.read_json(witness.decisions) if witness.decisions.is_file() else {}
            files.write_json(witness.decisions, {**known, mode: decision})
            return dataset

        def _build_train_pipeline(self) -> None:
            if self.device.type == "cpu":
                # Convolutions run a fifth faster on this layout; Ultralytics takes it for CUDA only.
                unwrap_model(self.model).to(memory_format=torch.channels_last)
            super()._build_train_pipeline()

        def build_optimizer(self, model: Any, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
            optimizer = super().build_optimizer(model, *args, **kwargs)
            model = unwrap_model(model)
            if set(factors.values()) != {1.0}:
                rates.split(optimizer, model, factors)
            if witness.l2_sp:
                source = weights.load(witness.source)[0].state_dict()
                rates.pull(optimizer, model, source, witness.l2_sp)
            if self.device.type == "cpu" and isinstance(optimizer, torch.optim.Adam):
                for group in optimizer.param_groups:  # one pass over memory instead of ten
                    group["fused"], group["foreach"] = True, False
            return optimizer

        def _setup_train(self) -> None:
            super()._setup_train()
            model = unwrap_model(self.model)
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
            for name, module in self.model.named_modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    frozen = any(part in f"{name}." for part in self.freeze_layer_names)
                    module.train((phase.batchnorm.frozen if frozen else phase.batchnorm.trainable) == "train")

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            batch = super().preprocess_batch(batch)
            return features.with_features(batch, self.train_loader.dataset) if witness.wanted else batch

        def get_validator(self) -> Any:
            validator = super().get_validator()
            if witness.wanted:
                validator.__class__ = features.FixedValidator
            return validator

        def plot_training_samples(self, batch: dict[str, Any], ni: int) -> None:
            if witness.wanted:
                dataset = self.train_loader.dataset
                batch = {**batch, "img": torch.stack([dataset.picture(index) for index in batch["index"]]) / 255}
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

        def save_model(self) -> bool:
            # In memory the comparison is exact to the last bit; on disk it is to half precision.
            if changed := freeze.moved(self.frozen_before, unwrap_model(self.model)):
                raise PipelineError(f"{witness.folder}: {freeze.complaint(changed)}")
            model = self.ema.ema
            if witness.wanted:  # what is saved is an ordinary checkpoint
                model.__class__ = DetectionModel
            try:
                saved = super().save_model()
            finally:
                if witness.wanted:
                    model.__class__ = features.Shortened
            if self.best_fitness == self.fitness:
                files.copy(self.last, witness.best_epoch)
            files.copy(self.last, witness.last_epoch)
            files.write_json(witness.clock, witness.seconds)
            return bool(saved)

        def final_eval(self) -> None:
            # Between phases nobody reads Ultralytics' plots, and figures are the validate stage's work.
            if witness.is_last_phase:
                if witness.wanted:
                    self.test_loader.dataset.features = None  # best.pt is read anew, and is asked about images
                super().final_eval()

    return PhaseTrainer

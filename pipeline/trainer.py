"""Ultralytics' detection trainer with a witness: what was frozen is compared before and after.

Imported late, by `train` alone: it brings torch and Ultralytics with it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.torch_utils import unwrap_model

from pipeline import files, freeze
from pipeline.errors import PipelineError


@dataclass(slots=True)
class Witness:
    """One phase of training, and the files in its folder that outlive a crash.

    Ultralytics writes its last.pt and best.pt in place, so a kill can leave half a file. The copies
    here are written aside and renamed; only they are ever read back.
    """

    folder: Path
    items: Sequence[int | str]
    is_last_phase: bool
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

    class PhaseTrainer(DetectionTrainer):  # type: ignore[misc]  # Ultralytics has no types
        def build_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
            optimizer = super().build_optimizer(*args, **kwargs)
            if self.device.type == "cpu" and isinstance(optimizer, torch.optim.Adam):
                for group in optimizer.param_groups:  # one pass over memory instead of ten
                    group["fused"], group["foreach"] = True, False
            return optimizer

        def _setup_train(self) -> None:
            super()._setup_train()
            model = unwrap_model(self.model)
            if self.device.type == "cpu":
                # Convolutions run a fifth faster on this layout; Ultralytics takes it for CUDA only.
                model.to(memory_format=torch.channels_last)
                self.ema.ema.to(memory_format=torch.channels_last)
            self.frozen_before = freeze.snapshot(model, witness.items)
            if not self.resume:
                trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
                before = {
                    "frozen": freeze.digests(model, self.frozen_before),
                    "trainable": freeze.digests(model, trainable),
                }
                files.write_json(witness.digests, before)

        def save_model(self) -> bool:
            # In memory the comparison is exact to the last bit; on disk it is to half precision.
            if changed := freeze.moved(self.frozen_before, unwrap_model(self.model)):
                raise PipelineError(f"{witness.folder}: {freeze.complaint(changed)}")
            saved = super().save_model()
            if self.best_fitness == self.fitness:
                files.copy(self.last, witness.best_epoch)
            files.copy(self.last, witness.last_epoch)
            files.write_json(witness.clock, witness.seconds)
            return bool(saved)

        def final_eval(self) -> None:
            # Between phases nobody reads Ultralytics' plots, and figures are the validate stage's work.
            if witness.is_last_phase:
                super().final_eval()

    return PhaseTrainer

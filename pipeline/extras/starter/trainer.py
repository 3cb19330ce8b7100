"""Train the starter weights so that a kill loses at most one epoch. Import it late: it imports torch."""

from __future__ import annotations

import time
from pathlib import Path

from pipeline import files
from pipeline.train.cpu import CpuTrainer


def trainer_class(resume: Path, progress: Path, earlier_seconds: float) -> type[CpuTrainer]:
    """Return the trainer class. Ultralytics creates the object itself, so it needs a class.

    Ultralytics writes last.pt in place, so a kill can leave half a file. `resume` is a copy that is renamed into place
    after `progress`, which records epochs, seconds and fitness.
    """
    began = time.perf_counter()

    class StarterTrainer(CpuTrainer):
        def save_model(self) -> bool:
            saved = super().save_model()
            seconds = round(earlier_seconds + time.perf_counter() - began, 1)
            fitness = round(float(self.fitness), 4)
            files.write_json(progress, {"epochs": self.epoch + 1, "seconds": seconds, "fitness": fitness})
            files.copy(self.last, resume)
            return bool(saved)

        def final_eval(self) -> None:
            """Do nothing, because the last epoch has been validated already."""

    return StarterTrainer

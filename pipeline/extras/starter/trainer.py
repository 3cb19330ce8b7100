"""Ultralytics' trainer for the starter weights, which can be killed anywhere. Imported late: it brings torch."""

from __future__ import annotations

import time
from pathlib import Path

from pipeline import files
from pipeline.train.cpu import CpuTrainer


def trainer_class(resume: Path, progress: Path, earlier_seconds: float) -> type[CpuTrainer]:
    """Ultralytics makes the object itself, so it is handed a class.

    Ultralytics writes last.pt in place, so a kill can leave half a file: `resume` is renamed into its place, after
    `progress`, which says what the epochs came to.
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
            """Nothing: the last epoch was validated already."""

    return StarterTrainer

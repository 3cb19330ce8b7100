"""Train one phase: one call of Ultralytics' trainer, from the plan to a proven model.

Only `stage` imports this, and late: it imports torch and Ultralytics.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultralytics import YOLO
from ultralytics.utils.torch_utils import strip_optimizer

from pipeline import files, logs
from pipeline.errors import PipelineError
from pipeline.records.training import Proof, TrainedPhase
from pipeline.run import Run
from pipeline.train import epoch_lines, freeze, record, trainer
from pipeline.train.plan import PhasePlan
from pipeline.train.recipe import Recipe
from pipeline.train.resume import PhaseFolder, Stopwatch
from pipeline.upstream import checkpoints


@dataclass(frozen=True, slots=True)
class Shared:
    """The settings that all phases of one training share and pass to Ultralytics."""

    run: Run
    recipe: Recipe
    imgsz: int
    seed: int
    device: str
    loaders: int
    teacher: Path | None


def train(shared: Shared, plan: PhasePlan, folder: PhaseFolder, start: Path) -> TrainedPhase:
    """Train one phase from the weights in `start`, write its `model.pt` and return its part of `train.json`.

    Resumes after the last finished epoch, if there is one. Raises PipelineError if a frozen tensor changed or no
    trainable one did.
    """
    resumed = folder.can_resume
    clock = Stopwatch(files.read_json(folder.progress)["seconds"]) if resumed else Stopwatch()
    kind = trainer.trainer_class(plan, folder, clock)
    if resumed:
        _resume(kind, shared, plan, folder)
    else:
        shutil.rmtree(folder.root, ignore_errors=True)
        model = YOLO(str(start), task="detect")
        epoch_lines.show(model, shared.recipe.planned(plan.number), plan.number)
        model.train(kind, **{**_settings(shared, plan), **_places(shared, folder)})
    saved, proof = _prove_and_save(folder)
    return record.of_phase(shared.run, plan, folder, saved, proof, clock.seconds)


def _resume(kind: type[trainer.PhaseTrainer], shared: Shared, plan: PhasePlan, folder: PhaseFolder) -> None:
    model, progress = YOLO(str(folder.last_epoch), task="detect"), files.read_json(folder.progress)
    done = model.ckpt["epoch"] + 1
    if progress["ended"] and progress["epochs"] == done:  # killed after its last epoch; `progress` may be one ahead
        return
    folder.forget_after(done)
    logs.say(f"train: phase {plan.number} continues after epoch {done} of {plan.epochs}")
    epoch_lines.show(model, shared.recipe.planned(plan.number), plan.number)
    model.train(kind, resume=True, **_places(shared, folder))


def _places(shared: Shared, folder: PhaseFolder) -> dict[str, Any]:
    """Return paths and devices. Resuming passes them again, because the run may have been moved since."""
    places: dict[str, Any] = {
        "data": str((shared.run.augmented / "data.yaml").resolve()),
        "save_dir": str(folder.root.resolve()),
        "device": shared.device or None,
        "workers": shared.loaders,
    }
    if shared.teacher:
        places["distill_model"] = str(shared.teacher.resolve())
    return places


def _settings(shared: Shared, plan: PhasePlan) -> dict[str, Any]:
    settings = {
        "epochs": plan.epochs,
        "freeze": list(plan.freeze) or None,
        "lr0": plan.lr0,
        "imgsz": shared.imgsz,
        "batch": shared.recipe.batch,
        "seed": shared.seed,
        # Validation takes time, and with a falling rate the last epochs are the best. So one validation at the end is
        # enough, unless `patience` may end the phase early.
        "val": plan.patience is not None,
        "patience": plan.patience or 0,  # 0 never ends it; without a value, Ultralytics ends it after 100 epochs
        "plots": plan.is_last,
        "exist_ok": True,
    }
    return {**settings, **shared.recipe.args}


def _prove_and_save(folder: PhaseFolder) -> tuple[Any, Proof]:
    """Prove the best epoch's frozen tensors unchanged and write it as `model.pt`; return the model and the proof."""
    try:
        with files.replacing(folder.model) as partial:
            checkpoints.load_any(folder.best_epoch)  # refuses code in the file, which `strip_optimizer` would run
            strip_optimizer(folder.best_epoch, s=str(partial))
            saved, _ = checkpoints.load(partial)
            proof = freeze.prove(files.read_json(folder.digests), saved)
    except PipelineError as error:
        raise PipelineError(f"{folder.model}: {error}") from None
    return saved, proof

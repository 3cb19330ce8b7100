"""Record the outcome of a training: `train.json` with all phases, and the last line on the terminal."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.errors import counted
from pipeline.records import receipt as receipt_record
from pipeline.records.training import Gain, Proof, TrainedPhase, Training
from pipeline.run import Run
from pipeline.train.plan import PhasePlan
from pipeline.train.recipe import Recipe, is_best
from pipeline.train.resume import PhaseFolder
from pipeline.train.source import Source
from pipeline.upstream import environment

PACKAGES = ("ultralytics-opencv-headless", "torch", "albumentations", "opencv-python-headless", "numpy")


def of_phase(run: Run, plan: PhasePlan, folder: PhaseFolder, saved: Any, proof: Proof, seconds: float) -> TrainedPhase:
    """Return one phase's part of `train.json`; `saved` is its DetectionModel."""
    progress, trainable = files.read_json(folder.progress), files.read_json(folder.digests)["trainable"]
    sizes = {name: parameter.numel() for name, parameter in saved.named_parameters()}
    return {
        "phase": plan.number,
        "started_from": plan.started_from,
        "epochs": progress["epochs"],
        "best_epoch": progress["best_epoch"],
        # Ultralytics returns 0 if val has no objects.
        "best_fitness": progress["best_fitness"] if receipt_record.val_has_objects(run) else None,
        "gain": _gain(run, plan.number),
        "freeze": list(plan.freeze),
        "lr0": progress["lr0"],
        "lr_groups": plan.lr_groups.model_dump(),
        "batchnorm": plan.batchnorm.model_dump(),
        "batch": progress["batch"],
        "precision": files.read_json(folder.precision),
        "features": files.read_json(folder.features) if folder.features.is_file() else None,
        "without_effect": list(plan.without_effect),
        "parameters": sum(sizes.values()),
        "trainable_parameters": sum(size for name, size in sizes.items() if name in trainable),
        "proof": proof,
        "seconds": seconds,
    }


def _gain(run: Run, number: int) -> Gain | None:
    from pipeline.train import gain

    before, after = (PhaseFolder.of(run, phase).matches for phase in (number - 1, number))
    return gain.between(before, after) if before.is_file() and after.is_file() else None


def is_gain(phase: TrainedPhase) -> bool:
    """Return whether a phase gained more on val than its own noise."""
    return phase["gain"] is not None and phase["gain"]["map50_95"] > phase["gain"]["noise"]


def best_phase(records: Sequence[TrainedPhase]) -> int:
    """Return the number (from 1) of the phase that becomes the model: the best one on the validation split."""
    fitness = [record["best_fitness"] or 0.0 for record in records]  # if one is unknown, all are
    return max(number for number, value in enumerate(fitness, start=1) if is_best(value, max(fitness)))


def of_training(
    beginning: Mapping[str, Any],
    recipe: Recipe,
    records: list[TrainedPhase],
    classes_kept: list[str],
    device: str,
) -> Training:
    """Return the content of `train.json`."""
    import torch

    return {
        "weights": beginning["weights"],
        "teacher": beginning["teacher"],
        "phases": records,
        "best_phase": best_phase(records),
        "args": recipe.args,
        "recipe": recipe.reasons,
        "batch": recipe.batch,
        "classes_kept": classes_kept,
        "seed": beginning["seed"],
        "imgsz": beginning["train"]["imgsz"],
        "seconds": round(sum(record["seconds"] for record in records), 1),
        "device": environment.device_name(device),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": platform.machine(),
    }


def last_line(source: Source, records: Sequence[TrainedPhase], rounds: bool, no_effect: str, model: Path) -> str:
    """Return the summary line; with `rounds` the last phase was trained to see whether it gains anything.

    `no_effect` is a warning about an ignored option, or empty.
    """
    best, epochs = best_phase(records), sum(record["epochs"] for record in records)
    fitness = records[best - 1]["best_fitness"]
    figure = "unknown" if fitness is None else f"{fitness:.3f}"
    parts = [
        f"{counted(epochs, 'epoch')} from {source.words} "
        f"in {sum(record['seconds'] for record in records):.0f} s, val mAP50-95 {figure} in phase {best}, "
        + _frozen(records),
        *(_unused(record) for record in records if record["without_effect"]),
        *([_last_round(records[-1])] if rounds else []),
        *([no_effect] if no_effect else []),
    ]
    return f"{'; '.join(parts)} -> {model}"


def _frozen(records: Sequence[TrainedPhase]) -> str:
    """Return how many frozen tensors of which phase are proven unchanged."""
    proven = [(record["proof"]["frozen_tensors"], record["phase"]) for record in records]
    words = [f"{tensors} in phase {phase}" for tensors, phase in proven if tensors]
    return f"frozen tensors proven unchanged ({', '.join(words)})" if words else "nothing frozen"


def _unused(phase: TrainedPhase) -> str:
    """Return which augmentations were not applied, why, and what would apply them."""
    number, names = phase["phase"], ", ".join(phase["without_effect"])
    if phase["features"]:
        return f"phase {number} trained on cached features, without {names}"
    return (
        f"phase {number} trained without {names}, because it is no longer than close_mosaic "
        f"(`close_mosaic: 0` in train.args keeps {'it' if len(phase['without_effect']) == 1 else 'them'})"
    )


def _last_round(phase: TrainedPhase) -> str:
    """Return what the last round gained and how long it took: another round would hardly gain more."""
    gain = phase["gain"]
    if gain is None:
        return "val has no objects, so the gain of a round is unknown"
    ends = f" ({gain['interval'][0]:+.3f} to {gain['interval'][1]:+.3f})" if gain["interval"] else ""
    return f"the last round gained {gain['map50_95']:+.3f}{ends} in {phase['seconds']:.0f} s"

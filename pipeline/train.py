"""Fine-tune in phases, each with its own frozen layers, and prove that frozen meant frozen."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline import files, freeze, weights
from pipeline.boxes import YoloDataset
from pipeline.config import Phase, Train
from pipeline.errors import ConfigError, PipelineError, did_you_mean
from pipeline.run import Run

CODE = ("train.py", "trainer.py", "freeze.py", "weights.py")  # as in the Makefile's TRAIN_CODE
# What this stage decides itself; `train.args` may hold anything else that Ultralytics knows.
OURS = {
    "model": "train.weights",
    "pretrained": "train.weights",
    "imgsz": "train.imgsz",
    "batch": "train.batch",
    "lr0": "train.lr0",
    "epochs": "train.phases",
    "freeze": "train.phases",
    "seed": "seed",
    "data": "convert.source",
    "device": "--device",
    "workers": "--workers",
    **dict.fromkeys(
        ("project", "name", "exist_ok", "resume", "save", "mode", "task", "cfg"), "the name of the config file"
    ),
}


@dataclass(frozen=True, slots=True)
class Context:
    """What every phase of one training shares."""

    config: Train
    run: Run
    seed: int
    device: str
    workers: int
    lr0: float
    args: dict[str, Any]


def main(config: Train, run: Run, seed: int, device: str, workers: int) -> str:
    """Train all phases on `run.augmented` and write `run.train_record`, then `run.model`.

    A training that was killed goes on from its last finished epoch if nothing it depends on has changed.
    Raises ConfigError, WeightsError or DataError before the first step where it cannot be done.
    """
    _check_args(config.args)
    if "," in device:
        raise PipelineError(f"--device {device}: training uses one device; name one, such as --device 0")
    weights.check_device(device)
    data = YoloDataset.read(run.augmented / "data.yaml")
    source = weights.find(config.weights)
    model = _source_model(source)
    items = [
        freeze.resolve(phase.freeze, model, f"train.phases.{number}.freeze")
        for number, phase in enumerate(config.phases)
    ]
    lr0 = config.lr0 or round(0.002 * 5 / (4 + len(data.names)), 6)  # Ultralytics' own rule for AdamW
    context = Context(config, run, seed, device, workers, lr0, _recipe(config))
    beginning = {
        "train": config.model_dump(mode="json"),
        "seed": seed,
        "weights": {"name": source.name, "sha256": files.sha256(source) if source.suffix == ".pt" else None},
        "data_sha256": _data_digest(data),
        "code_sha256": [files.sha256(Path(__file__).with_name(name)) for name in CODE],
    }
    _continue_or_clear(run, beginning)

    records: list[dict[str, Any]] = []
    start: Path = source
    for number, phase in enumerate(config.phases, start=1):
        folder = run.train / f"phase{number}"
        record_file = folder / "phase.json"
        if not record_file.is_file():
            files.write_json(record_file, _train_phase(context, phase, items[number - 1], number, start))
            for leftover in folder.glob("resume*.pt"):
                leftover.unlink()
        records.append(files.read_json(record_file))
        start = folder / "model.pt"

    # The best of all phases, by the validation split; on a tie the later one, which has seen more.
    best = max(range(len(records)), key=lambda index: (records[index]["best_fitness"], index))
    files.write_json(run.train_record, _record(beginning, context, records, best))
    files.copy(run.train / f"phase{best + 1}" / "model.pt", run.model)
    _unfinished(run).unlink()
    seconds = sum(record["seconds"] for record in records)
    frozen = max(record["proof"]["frozen_tensors"] for record in records)
    return (
        f"{sum(record['epochs'] for record in records)} epochs in {seconds:.0f} s, "
        f"val mAP50-95 {records[best]['best_fitness']:.3f} in phase {best + 1}, "
        f"{f'{frozen} frozen tensors proven unchanged' if frozen else 'nothing frozen'} -> {run.model}"
    )


def _check_args(args: dict[str, Any]) -> None:
    weights.prepare()
    from ultralytics.cfg import DEFAULT_CFG_DICT, get_cfg

    mistakes = []
    for key in args:
        if key in OURS:
            mistakes.append(f"train.args.{key}: is ours; set {OURS[key]} instead")
        elif key not in DEFAULT_CFG_DICT and key != "augmentations":
            mistakes.append(f"train.args.{key}: not an Ultralytics argument{did_you_mean(key, DEFAULT_CFG_DICT)}")
    if not mistakes:
        try:
            get_cfg(overrides=args)
        except (SyntaxError, TypeError, ValueError) as error:
            mistakes.append(f"train.args: {' '.join(str(error).split())}")
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _source_model(source: Path) -> Any:
    if source.suffix == ".yaml":
        from ultralytics.nn.tasks import DetectionModel

        try:
            return DetectionModel(str(source), verbose=False)
        except (FileNotFoundError, ValueError) as error:
            raise ConfigError(f"train.weights: {source}: {' '.join(str(error).split())}") from None
    return weights.load(source)[0]


def _recipe(config: Train) -> dict[str, Any]:
    """Ultralytics arguments for a few hundred images; `train.args` has the last word.

    Stock `nbs=64` saves gradients up until 64 images have gone by: three optimizer steps an epoch for 200
    images. Here every batch is a step. AdamW with momentum 0.9 and no bias warm-up is what Ultralytics'
    `optimizer=auto` takes for short runs; named here because `auto` would ignore the rate of a phase.
    """
    recipe = {"nbs": config.batch, "optimizer": "AdamW", "momentum": 0.9, "warmup_bias_lr": 0.0, "warmup_epochs": 0.5}
    return {**recipe, **config.args}


def _unfinished(run: Run) -> Path:
    """How a training began; there until it is finished."""
    return run.train / "unfinished.json"


def _continue_or_clear(run: Run, beginning: dict[str, Any]) -> None:
    """Keep a half-done training only if this one would begin in the same way."""
    known = _unfinished(run)
    if not (known.is_file() and files.read_json(known) == beginning):
        shutil.rmtree(run.train, ignore_errors=True)
        files.write_json(known, beginning)


def _data_digest(data: YoloDataset) -> str:
    """Names and sizes of the images and all their labels, so that a label mended meanwhile is noticed."""
    digest = hashlib.sha256(repr(data.names).encode())
    for image in (*data.files("train"), *data.files("val")):
        digest.update(f"{image.name} {image.stat().st_size}\n".encode() + data.label_file(image).read_bytes())
    return digest.hexdigest()


def _train_phase(context: Context, phase: Phase, items: list[int | str], number: int, start: Path) -> dict[str, Any]:
    """One call of Ultralytics' trainer. Writes the phase's `model.pt` and gives its part of `train.json`.

    Raises PipelineError where a frozen tensor changed or no other did.
    """
    from ultralytics import YOLO
    from ultralytics.utils.torch_utils import strip_optimizer

    from pipeline.trainer import Witness, trainer_class

    folder = context.run.train / f"phase{number}"
    witness = Witness(folder, items, is_last_phase=number == len(context.config.phases))
    resumed = witness.can_resume
    if resumed:
        witness.earlier_seconds = files.read_json(witness.clock)
    else:
        shutil.rmtree(folder, ignore_errors=True)

    model = YOLO(str(witness.last_epoch if resumed else start), task="detect")
    # Paths are absolute and given again on resuming: a run may have been moved meanwhile.
    where: dict[str, Any] = {
        "data": str((context.run.augmented / "data.yaml").resolve()),
        "save_dir": str(folder.resolve()),
        "device": context.device or None,
        "workers": context.workers,
    }
    if not resumed:
        settings = {
            "epochs": phase.epochs,
            "freeze": items or None,
            "lr0": context.lr0 * phase.lr,
            "imgsz": context.config.imgsz,
            "batch": context.config.batch,
            "seed": context.seed,
            # Between phases one look at the end is enough: the next phase goes on from there.
            "val": witness.is_last_phase,
            "plots": witness.is_last_phase,
            "exist_ok": True,
        }
        model.train(trainer_class(witness), **{**settings, **context.args}, **where)
    elif model.ckpt["epoch"] + 1 < phase.epochs:  # else it was killed after its last epoch
        model.train(trainer_class(witness), resume=True, **where)

    _, checkpoint = weights.load(witness.last_epoch)
    partial = files.aside(folder / "model.pt")
    strip_optimizer(witness.best_epoch, s=str(partial))
    saved, _ = weights.load(partial)
    proof = freeze.prove(files.read_json(witness.digests), saved)
    os.replace(partial, folder / "model.pt")
    return {
        "phase": number,
        "started_from": start.name if number == 1 else f"phase {number - 1}",
        "epochs": checkpoint["epoch"] + 1,
        "best_epoch": checkpoint["stopper"]["best_epoch"],
        "best_fitness": round(float(checkpoint["best_fitness"]), 6),
        "freeze": list(items),
        "lr0": context.lr0 * phase.lr,
        "parameters": sum(tensor.numel() for tensor in saved.parameters()),
        "trainable_parameters": _count(saved, files.read_json(witness.digests)["trainable"]),
        "proof": proof,
        "seconds": witness.seconds,
    }


def _count(model: Any, names: dict[str, str]) -> int:
    return sum(parameter.numel() for name, parameter in model.named_parameters() if name in names)


def _record(beginning: dict[str, Any], context: Context, records: list[dict[str, Any]], best: int) -> dict[str, Any]:
    import torch

    packages = ("ultralytics-opencv-headless", "torch", "albumentations", "opencv-python-headless", "numpy")
    return {
        "weights": beginning["weights"],
        "phases": records,
        "best_phase": best + 1,
        "args": context.args,
        "imgsz": context.config.imgsz,
        "batch": context.config.batch,
        "seed": context.seed,
        "seconds": round(sum(record["seconds"] for record in records), 1),
        "device": _device_name(context.device),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "machine": platform.machine(),
    }


def _device_name(device: str) -> str:
    import torch
    from ultralytics.utils.torch_utils import get_cpu_info, select_device

    chosen = select_device(device, verbose=False)
    return str(torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else get_cpu_info())

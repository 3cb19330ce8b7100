"""Fine-tune in phases, each with its own frozen layers, and prove that frozen meant frozen."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline import files, weights
from pipeline.boxes import YoloDataset
from pipeline.config import Phase, Train
from pipeline.errors import ConfigError, PipelineError
from pipeline.run import Run
from pipeline.train import arguments, curves, epoch_lines, freeze
from pipeline.train.recipe import Recipe, choose, is_best

# As in the Makefile's TRAIN_CODE: a training that was begun with other code is begun again.
CODE = (
    *sorted(Path(__file__).parent.glob("*.py")),
    *(Path(__file__).parents[1] / f"{name}.py" for name in ("boxes", "files", "history", "parallel", "weights")),
)
LOADERS = 4  # worker processes that load images for a GPU; on a CPU Ultralytics uses none


@dataclass(frozen=True, slots=True)
class Context:
    """What every phase of one training shares."""

    config: Train
    run: Run
    seed: int
    device: str
    workers: int
    recipe: Recipe
    source: Path
    teacher: Path | None


def main(config: Train, run: Run, seed: int, device: str, workers: int | None = None) -> str:
    """Train all phases on `run.augmented` and write `run.train_record`, then `run.model`.

    A training that was killed goes on from its last finished epoch if nothing it depends on has changed.
    Raises ConfigError, WeightsError or DataError before the first step where it cannot be done.
    """
    weights.prepare()
    arguments.check(config.args, config.recipe)
    _check_device(device)
    data = YoloDataset.read(run.augmented / "data.yaml")
    source = weights.find(config.weights, config.fallback)
    replaced = config.weights if source.name != Path(config.weights).name else None
    recipe = choose(config, len(data.files("train")), len(data.names))
    model = _source_model(source)
    teacher = _teacher(config)
    items = [
        freeze.resolve(phase.freeze, model, f"train.phases.{number}.freeze")
        for number, phase in enumerate(recipe.phases)
    ]
    _check_phases(config, recipe, items, model)
    loaders = LOADERS if workers is None else workers
    context = Context(config, run, seed, device, loaders, recipe, source, teacher)
    beginning = {
        "train": config.model_dump(mode="json"),
        "seed": seed,
        "weights": {
            "name": source.name,
            "sha256": files.sha256(source) if source.suffix == ".pt" else None,
            "instead_of": replaced,
        },
        "teacher": {"name": teacher.name, "sha256": files.sha256(teacher)} if teacher else None,
        "data_sha256": _data_digest(data),
        "code_sha256": [files.sha256(path) for path in CODE],
    }
    _continue_or_clear(run, beginning)

    records: list[dict[str, Any]] = []
    start = source
    for number, phase in enumerate(recipe.phases, start=1):
        folder = run.train / f"phase{number}"
        record_file = folder / "phase.json"
        if not record_file.is_file():
            files.write_json(record_file, _train_phase(context, phase, items[number - 1], number, start))
        for leftover in folder.glob("resume*.pt"):
            leftover.unlink()
        shutil.rmtree(folder / "weights", ignore_errors=True)  # Ultralytics' own; the best of them is model.pt
        records.append(files.read_json(record_file))
        start = folder / "model.pt"

    # The best of all phases, by the validation split.
    highest = max(record["best_fitness"] for record in records)
    best = max(index for index, record in enumerate(records) if is_best(record["best_fitness"], highest))
    record = _record(beginning, context, records, best)
    record["classes_kept"] = _known_classes(model, data.names) if config.args.get("cls_remap", True) else []
    curves.draw(run)
    files.write_json(run.train_record, record)
    files.copy(run.train / f"phase{best + 1}" / "model.pt", run.model)
    _unfinished(run).unlink()
    _drop_features(run, records)
    seconds = sum(record["seconds"] for record in records)
    frozen = max(record["proof"]["frozen_tensors"] for record in records)
    start_name = f"{source.name} instead of {replaced}" if replaced else source.name
    unused = "".join(
        f"; phase {record['phase']} computed frozen layers once and so applied no {', '.join(record['without_effect'])}"
        for record in records
        if record["without_effect"]
    )
    if workers is not None and not weights.is_gpu(device):
        unused += "; --workers has no effect on a CPU"
    epochs = sum(record["epochs"] for record in records)
    return (
        f"{epochs} epoch{'' if epochs == 1 else 's'} from {start_name} in {seconds:.0f} s, "
        f"val mAP50-95 {records[best]['best_fitness']:.3f} in phase {best + 1}, "
        f"{f'{frozen} frozen tensors proven unchanged' if frozen else 'nothing frozen'}{unused} -> {run.model}"
    )


def _source_model(source: Path) -> Any:
    if source.suffix == ".yaml":
        from ultralytics.nn.tasks import DetectionModel

        try:
            return DetectionModel(str(source), verbose=False)
        except (FileNotFoundError, ValueError) as error:
            raise ConfigError(f"train.weights: {source}: {' '.join(str(error).split())}") from None
    return weights.load(source)[0]


def _teacher(config: Train) -> Path | None:
    """The model that Ultralytics' distillation learns from, looked for like source weights."""
    if not (name := config.args.get("distill_model")):
        return None
    path = weights.find(str(name))
    if path.suffix != ".pt":
        raise ConfigError(f"train.args.distill_model: {name}: a teacher has to know something; name a .pt file")
    weights.load(path)
    return path


def _check_device(device: str) -> None:
    if "," in device and find_spec("cloudpickle") is None:
        raise PipelineError(
            f"--device {device}: Ultralytics trains on several devices with cloudpickle, which is not installed; "
            ".venv/bin/python -m pip install cloudpickle"
        )
    weights.check_device(device)


def _check_phases(config: Train, recipe: Recipe, items: list[list[int | str]], model: Any) -> None:
    """Raises ConfigError for a rate of what is frozen or beyond 1, and for features that no phase could keep."""
    parameters = [name for name, _ in model.named_parameters()]
    kept = 0
    for number, (phase, own) in enumerate(zip(recipe.phases, items, strict=True)):
        trainable = set(parameters) - set(freeze.frozen_names(own, parameters))
        for part in phase.lr_groups.model_fields_set - {freeze.part_of(name, model) for name in trainable}:
            raise ConfigError(
                f"train.phases.{number}.lr_groups.{part}: `freeze` leaves nothing of the {part} to train; drop one"
            )
        if recipe.rate(phase) > 1:
            raise ConfigError(f"train.phases.{number}: a rate of {recipe.rate(phase):g}; 1 is the most")
        if phase.patience is not None and config.args.get("val") is False:
            raise ConfigError(f"train.phases.{number}.patience: needs `val`; remove `val: false` from train.args")
        if own_kept := _kept_layers(config, phase, own):
            arguments.check_cached(config.args)
        kept = kept or own_kept
    if config.cache_features is True and not kept:
        raise ConfigError(
            "train.cache_features: no phase keeps its first layers frozen, so there is nothing to compute once; "
            f"freeze the backbone in one without train.args.{' or '.join(sorted(arguments.NEED_IMAGES))}, or write auto"
        )


def _kept_layers(config: Train, phase: Phase, items: list[int | str]) -> int:
    """How many of the first layers a phase computes once, which also means without augmentation in each epoch.

    That goes by the config alone, never by what this machine measures: it changes the model.
    """
    needs_images = any(config.args.get(key) for key in arguments.NEED_IMAGES)
    if phase.batchnorm.frozen == "train" or not config.cache_features or needs_images:
        return 0
    return freeze.cut(items) if config.cache_features is True or phase.epochs > 1 else 0


def _known_classes(model: Any, names: Sequence[str]) -> list[str]:
    """Classes whose rows of the source's head are kept: those it knows by name (Ultralytics' `cls_remap`)."""
    known = {str(name).strip().lower() for name in getattr(model, "names", {}).values()}
    return [name for name in names if name.strip().lower() in known]


def _drop_features(run: Run, records: list[dict[str, Any]]) -> None:
    """Delete what this training did not use: features of other images, sizes or weights."""
    splits = [split for record in records for split in (record["features"] or {}).values()]
    used = {Path(split["file"]).stem for split in splits if split["cached"]}
    for path in run.features.glob("*"):
        if path.stem not in used:
            path.unlink()


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

    from pipeline.train.features import Wanted
    from pipeline.train.trainer import Witness, trainer_class

    config, recipe = context.config, context.recipe
    folder = context.run.train / f"phase{number}"
    wanted = None
    if cut := _kept_layers(config, phase, items):
        wanted = Wanted(cut, config.cache_features, context.run.features.resolve())
    is_last = number == len(recipe.phases)
    is_short, ema = recipe.is_short(phase), recipe.average(phase)
    witness = Witness(folder, phase, items, is_last, wanted, context.source, config.l2_sp, is_short, ema)
    resumed = witness.can_resume
    if resumed:
        witness.earlier_seconds = files.read_json(witness.progress)["seconds"]
    else:
        shutil.rmtree(folder, ignore_errors=True)

    model = YOLO(str(witness.last_epoch if resumed else start), task="detect")
    epoch_lines.show(model, recipe.phases, number)
    # Paths are absolute and given again on resuming: a run may have been moved meanwhile.
    where: dict[str, Any] = {
        "data": str((context.run.augmented / "data.yaml").resolve()),
        "save_dir": str(folder.resolve()),
        "device": context.device or None,
        "workers": context.workers,
    }
    if context.teacher:
        where["distill_model"] = str(context.teacher.resolve())
    if not resumed:
        settings = {
            "epochs": phase.epochs,
            "freeze": items or None,
            "lr0": recipe.rate(phase),
            "imgsz": config.imgsz,
            "batch": recipe.batch,
            "seed": context.seed,
            # Between phases one look at the end is enough, unless it may come early: the next goes on from there.
            "val": is_last or phase.patience is not None,
            "plots": is_last,
            "exist_ok": True,
            **({} if phase.patience is None else {"patience": phase.patience}),
        }
        model.train(trainer_class(witness), **{**settings, **recipe.args, **where})
    elif (done := model.ckpt["epoch"] + 1) < phase.epochs:  # else it was killed after its last epoch
        _forget_after(done, folder / "results.csv")
        model.train(trainer_class(witness), resume=True, **where)

    progress = files.read_json(witness.progress)
    partial = files.aside(folder / "model.pt")
    strip_optimizer(witness.best_epoch, s=str(partial))
    saved, _ = weights.load(partial)
    proof = freeze.prove(files.read_json(witness.digests), saved)
    os.replace(partial, folder / "model.pt")
    return {
        "phase": number,
        "started_from": start.name if number == 1 else f"phase {number - 1}",
        "epochs": progress["epochs"],
        "best_epoch": progress["best_epoch"],
        "best_fitness": progress["best_fitness"],
        "freeze": list(items),
        "lr0": recipe.rate(phase),
        "lr_groups": phase.lr_groups.model_dump(),
        "batchnorm": phase.batchnorm.model_dump(),
        "batch": progress["batch"],
        "features": files.read_json(witness.decisions) if witness.decisions.is_file() else None,
        "without_effect": arguments.without_effect(config.args) if wanted else [],
        "parameters": sum(tensor.numel() for tensor in saved.parameters()),
        "trainable_parameters": _count(saved, files.read_json(witness.digests)["trainable"]),
        "proof": proof,
        "seconds": witness.seconds,
    }


def _forget_after(epochs: int, results: Path) -> None:
    """Ultralytics notes an epoch down before it saves it: one that was lost in between would be there twice."""
    header, *rows = results.read_text(encoding="utf-8").splitlines(keepends=True)
    files.write_text(results, "".join([header, *(row for row in rows if int(row.partition(",")[0]) <= epochs)]))


def _count(model: Any, names: dict[str, str]) -> int:
    return sum(parameter.numel() for name, parameter in model.named_parameters() if name in names)


def _record(beginning: dict[str, Any], context: Context, records: list[dict[str, Any]], best: int) -> dict[str, Any]:
    import torch

    packages = ("ultralytics-opencv-headless", "torch", "albumentations", "opencv-python-headless", "numpy")
    return {
        "weights": beginning["weights"],
        "teacher": beginning["teacher"],
        "phases": records,
        "best_phase": best + 1,
        "args": context.recipe.args,
        "recipe": context.recipe.reasons,
        "imgsz": context.config.imgsz,
        "batch": context.recipe.batch,
        "seed": context.seed,
        "seconds": round(sum(record["seconds"] for record in records), 1),
        "device": weights.device_name(context.device),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "machine": platform.machine(),
    }

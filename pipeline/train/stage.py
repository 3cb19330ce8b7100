"""Fine-tune in phases, each with its own frozen layers, and prove that frozen layers did not change.

source      the source weights and the teacher             plan        the checked plan of each phase
arguments   the keys that `train.args` may hold            recipe      the settings that the config leaves open
look        how well the source's features suit the data           budget      the epochs that fit into `minutes`
gain        the gain of a phase on val
resume      the files that survive a kill                  phase       one call of Ultralytics' trainer
record      train.json and the summary line                freeze      the frozen layers, and the proof
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline import files, logs, object_sizes
from pipeline.boxes import YoloDataset
from pipeline.config.training import Train
from pipeline.errors import ConfigError, PipelineError
from pipeline.records import tile_account
from pipeline.records.base import read_record, write_record
from pipeline.records.training import TrainedPhase, Training
from pipeline.run import Run
from pipeline.train import arguments, history_plot, plan, recipe, record, resume, source
from pipeline.train.resume import PhaseFolder
from pipeline.upstream import environment

LOADERS = 4  # worker processes that load images for a GPU; on a CPU Ultralytics uses none
LOOK, MINUTES = "look.json", "minutes.json"  # what the recipe measured, in `run.train`


def main(config: Train, run: Run, seed: int, device: str, workers: int | None = None) -> str:
    """Train all phases on `run.augmented` and write `run.train_record`, then `run.model`.

    A killed training resumes after its last finished epoch if nothing it depends on has changed.
    Raises ConfigError, WeightsError or DataError before the first step if the config cannot be fulfilled.
    """
    data = YoloDataset.read(run.augmented / "data.yaml")  # first: without data, nothing slow is imported
    environment.prepare()
    arguments.check(config.args, config.recipe)
    _check_device(device, config.precision)
    start = source.find(config)
    teacher = source.find_teacher(config)
    source.refuse_own_model(start, teacher, run)
    beginning = resume.beginning(config, seed, start, teacher, data)
    if resume.is_current(run, beginning, data):
        for path in (run.train_record, run.model):
            os.utime(path)  # make compares dates: the config may have been edited and edited back
        return f"nothing has changed since {run.model} was trained; to train it again, delete it first"
    changed = resume.why_again(run, beginning)
    chosen, measurements = _recipe(config, run, beginning, start, data, seed, device)
    _check_batch(chosen.batch, device)
    plans = plan.phases(config, chosen, start, run)
    resume.continue_or_clear(run, beginning, measurements)  # after all refusals: it deletes an old training

    if small := object_sizes.too_small(data, config.imgsz):
        logs.say(f"train: {small}")
    because = f", because {changed} changed" if changed else ""
    replaces = f"; this will replace {run.model}{because}" if run.model.is_file() else ""
    images = len(data.files("train"))
    logs.say(f"train: {images} images, {plan.in_words(plans, chosen, images)}{replaces}")
    if few := plan.too_few_steps(config, plans, chosen, images):
        logs.say(f"train: {few}")

    from pipeline.train import phase

    loaders = LOADERS if workers is None else workers
    shared = phase.Shared(run, chosen, config.imgsz, seed, device, loaders, teacher)
    records: list[TrainedPhase] = []
    weights_file = start.path
    for one in plans:
        folder = PhaseFolder.of(run, one.number)
        if not folder.record.is_file():
            write_record(folder.record, TrainedPhase, phase.train(shared, one, folder, weights_file))
        folder.tidy()
        records.append(read_record(folder.record, TrainedPhase, f"delete {run.train} and run `make train` again"))
        weights_file = folder.model
        if one.number > len(plans) - chosen.rounds and not record.is_gain(records[-1]):
            break  # another round would cost as much again

    history_plot.draw(run)
    kept_classes = start.known_classes(data.names) if config.args.get("cls_remap", True) else []
    trained = record.of_training(beginning, chosen, records, kept_classes, device)
    write_record(run.train_record, Training, trained)
    files.copy(PhaseFolder.of(run, trained["best_phase"]).model, run.model)
    resume.finish(run, beginning, data)
    _drop_other_features(run, records)
    no_effect = ""
    if workers is not None and not environment.is_gpu(device):
        where = "a CPU" if environment.torch_device(device).type == "cpu" else device
        no_effect = f"--workers has no effect on {where}"
    return record.last_line(start, records, chosen.rounds > 0, no_effect, run.model)


def _counted(run: Run) -> str:
    """Describe the training images in words."""
    account = tile_account.read(run)
    return f"tiles with {account['splits']['train']['boxes']['read']} objects" if account else "images"


def _recipe(
    config: Train,
    run: Run,
    beginning: Mapping[str, Any],
    start: source.Source,
    data: YoloDataset,
    seed: int,
    device: str,
) -> tuple[recipe.Recipe, dict[str, Any]]:
    """Choose the recipe; return it with what was measured for it, by file name in `run.train`."""
    from pipeline.train import budget, look

    images, val = (len(data.files(split)) for split in ("train", "val"))
    minutes: Any = None
    seen: Any = None
    if config.minutes is not None:
        minutes = resume.measured(
            run, beginning, MINUTES, lambda: budget.measure(config, start.model, images, val, device)
        )
    fit = minutes and minutes["epochs"]
    if looked := recipe.looks_at_data(config, images, fit):
        seen = resume.measured(run, beginning, LOOK, lambda: look.measure(start.model, data, config.imgsz, seed))
    chosen = recipe.choose(config, images, seen and seen["kept"], fit, _counted(run), looked)
    return chosen, {MINUTES: minutes, LOOK: seen}


def _check_device(device: str, precision: str) -> None:
    """Raise PipelineError for a device that this machine does not have, ConfigError for bf16 on another than a CPU."""
    if _devices(device) > 1 and find_spec("cloudpickle") is None:
        raise PipelineError(
            f"--device {device}: training on several devices needs the package cloudpickle; "
            "run .venv/bin/python -m pip install cloudpickle"
        )
    if environment.torch_device(device).type != "cpu" and precision == "bf16":
        raise ConfigError("train.precision: bf16 is for training on a CPU; on a GPU write train.args: {amp: bf16}")


def _check_batch(batch: int, device: str) -> None:
    """Raise ConfigError if a batch cannot be shared out equally: Ultralytics would train on fewer images per step."""
    if batch % (devices := _devices(device)):
        raise ConfigError(
            f"train.batch: {batch} images cannot be shared equally by the {devices} devices of --device {device}; "
            f"set train.batch to a multiple of {devices}"
        )


def _devices(device: str) -> int:
    return device.strip(",").count(",") + 1


def _drop_other_features(run: Run, records: list[TrainedPhase]) -> None:
    """Delete cached features that this training did not use: those of other images, sizes or weights."""
    splits = [split for one in records for split in (one["features"] or {}).values()]
    used = {Path(split["file"]).stem for split in splits if split["cached"]}
    for path in run.features.glob("*"):
        if path.stem not in used:
            path.unlink()

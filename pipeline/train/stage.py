"""Fine-tune in phases, each with its own frozen layers, and prove that frozen layers did not change.

source      the source weights and the teacher             plan        the checked plan of each phase
arguments   the keys that `train.args` may hold            recipe      the settings that the config leaves open
look        how well the source's features suit the data           budget      the epochs that fit into `minutes`
gain        the gain of a phase on val
resume      the files that survive a kill                  phase       one call of Ultralytics' trainer
record      train.json and the summary line                freeze      the frozen layers, and the proof
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from pipeline import files, logs, sides
from pipeline.boxes import YoloDataset
from pipeline.config.training import Train
from pipeline.errors import PipelineError
from pipeline.records import tile_account
from pipeline.records.base import read_record, write_record
from pipeline.records.training import TrainedPhase, Training
from pipeline.run import Run
from pipeline.train import arguments, history_plot, plan, recipe, record, resume, source
from pipeline.train.resume import PhaseFolder
from pipeline.upstream import environment

LOADERS = 4  # worker processes that load images for a GPU; on a CPU Ultralytics uses none


def main(config: Train, run: Run, seed: int, device: str, workers: int | None = None) -> str:
    """Train all phases on `run.augmented` and write `run.train_record`, then `run.model`.

    A killed training resumes after its last finished epoch if nothing it depends on has changed.
    Raises ConfigError, WeightsError or DataError before the first step if the config cannot be fulfilled.
    """
    environment.prepare()
    arguments.check(config.args, config.recipe)
    _check_device(device)
    data = YoloDataset.read(run.augmented / "data.yaml")
    start = source.find(config)
    teacher = source.find_teacher(config)
    beginning = resume.beginning(config, seed, start, teacher, data)
    images = len(data.files("train"))
    plan.phases(config, recipe.choose(config, images), start, run)  # refuse before anything of an old run is deleted
    resume.continue_or_clear(run, beginning)

    if small := sides.too_small(data, "train", config.imgsz):
        logs.say(f"train: {small}")

    from pipeline.train import budget, look, phase

    kept = None
    if recipe.looks_at_data(config):
        kept = look.share_kept(start.model, data, config.imgsz, seed, run.train / "look.json")
    fit = budget.epochs_that_fit(config, start.model, images, device, run.train / "minutes.json")
    chosen = recipe.choose(config, images, kept, fit, _counted(run))
    plans = plan.phases(config, chosen, start, run)
    logs.say(f"train: {images} images, {plan.in_words(plans, chosen.rounds)}")
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
    resume.finish(run)
    _drop_other_features(run, records)
    idle = workers is not None and not environment.is_gpu(device)
    return record.last_line(
        start, records, chosen.rounds > 0, "--workers has no effect on a CPU" if idle else "", run.model
    )


def _counted(run: Run) -> str:
    """Describe the training images in words."""
    account = tile_account.read(run)
    return f"tiles with {account['splits']['train']['boxes']['read']} objects" if account else "images"


def _check_device(device: str) -> None:
    if "," in device and find_spec("cloudpickle") is None:
        raise PipelineError(
            f"--device {device}: training on several devices needs the package cloudpickle; "
            "run .venv/bin/python -m pip install cloudpickle"
        )
    environment.check_device(device)


def _drop_other_features(run: Run, records: list[TrainedPhase]) -> None:
    """Delete cached features that this training did not use: those of other images, sizes or weights."""
    splits = [split for one in records for split in (one["features"] or {}).values()]
    used = {Path(split["file"]).stem for split in splits if split["cached"]}
    for path in run.features.glob("*"):
        if path.stem not in used:
            path.unlink()

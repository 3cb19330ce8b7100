"""Show the run and its errors in FiftyOne, and save the fixes that people tag there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline import app, cosine, database, files, logs
from pipeline.config.judging import Inspect
from pipeline.cosine import Vectors
from pipeline.errors import DataError, PipelineError, counted
from pipeline.inspect import contents, embeddings, keep, panels, tags, views
from pipeline.inspect import dataset as datasets
from pipeline.inspect.contents import RunImage
from pipeline.inspect.dataset import TRUTH, Model, Similarity
from pipeline.inspect.tags import RUN
from pipeline.records import metrics
from pipeline.run import Run

MADE_FROM = "made_from"  # key in the dataset's info: a digest of what it shows


def main(
    config: Inspect,
    run: Run,
    device: str = "",
    port: int | None = None,
    against: Path | None = None,
    config_file: Path | None = None,
) -> str:
    """Bring the FiftyOne dataset `NAME` up to date with the run; with a port, serve the App until it is stopped.

    `against` is the folder of another run on the same images, whose predictions are shown too. `config_file` is named
    in the command that saves fixes. Raises DataError if a run is not validated or the two do not match, PipelineError
    if FiftyOne has no database.
    """
    save = app.command("inspect", run.name, config_file, "--save-fixes")
    if port is not None:
        app.check_port(port, "inspect", run.name)
    other = Run(against) if against is not None else None
    if other is not None and other.root.resolve() == run.root.resolve():
        raise DataError(f"--against {against}: is the same run; name another one")
    images = contents.read(run, other)
    if port is not None:
        logs.say("inspect: FiftyOne starts; after a change, its dataset is built first, which takes minutes")
    with database.fiftyone():
        if port is None:
            return _summary(_up_to_date(config, run, other, images, device, save), images)
        answers = app.server(port)
        dataset = _up_to_date(config, run, other, images, device, save)
        summary = _summary(dataset, images)
        app.serve(dataset, port, "inspect", summary, answers)
        dataset.reload()
        summary = app.CLOSED
        if count := tags.unsaved(dataset):
            summary += f"; {counted(count, 'fix', 'fixes')} not saved yet; `{save}` writes them"
    return summary


def save_fixes(run: Run) -> str:
    """Write the tags set in the App to `data/fixes/NAME.yaml`, for the next `convert`.

    Raises DataError if FiftyOne has no dataset of the run.
    """
    with database.fiftyone():
        return tags.save(run)


def _up_to_date(config: Inspect, run: Run, against: Run | None, images: list[RunImage], device: str, save: str) -> Any:
    """Return the existing dataset if it is up to date; otherwise replace it.

    Raises PipelineError for unsaved tags. The command `save` saves them, unless they are of a run in another folder.
    """
    import fiftyone as fo

    name = tags.name_of(run)
    app.check_name(name)
    vectors = embeddings.of([image.path for image in images], run.model, device, run.root / "embeddings.npz")
    made_from = _digest(config, run, against, images)
    if fo.dataset_exists(name):
        dataset = fo.load_dataset(name)
        if RUN not in dataset.info or not dataset.has_field(TRUTH):
            raise PipelineError(
                f"FiftyOne has a dataset {name!r} that is not one of `make inspect`; rename it there, or this config"
            )
        if dataset.info.get(MADE_FROM) == made_from:
            return dataset
        elsewhere, shown = tags.is_elsewhere(dataset, run), dataset.info[RUN]
        if count := tags.unsaved(dataset):
            number = counted(count, "fix", "fixes")
            if elsewhere:
                raise PipelineError(
                    f"FiftyOne's dataset {name!r} has {number} of {shown} that nobody saved; save them there, or "
                    "rename this config"
                )
            raise PipelineError(
                f"FiftyOne's dataset {name!r} of {shown} is outdated, but it has {number} that you made or took "
                f"back and did not save; run `{save}`, then delete the lines that you do not want"
            )
        if elsewhere and (theirs := keep.added(dataset)):
            raise PipelineError(
                f"FiftyOne's dataset {name!r} shows {shown}, and people added {', '.join(theirs)} to it; rename this "
                "config, so that both can be kept"
            )
    return _build(config, run, against, images, vectors, made_from)


def _build(
    config: Inspect, run: Run, against: Run | None, images: list[RunImage], vectors: Vectors, made_from: str
) -> Any:
    import fiftyone as fo

    models = [Model(), *([Model.of(against.name)] if against else [])]
    splits = [split for split in contents.ORDER if any(image.split == split for image in images)]
    validated = [split for split in splits if any(image.split == split and image.evaluations for image in images)]
    standard = cosine.standardised(vectors)
    name = tags.name_of(run)
    with app.new_dataset(name) as dataset:
        datasets.add_samples(dataset, images, _similarities(images, standard, config), models, config.confident)
        for model, judge in zip(models, (run, against), strict=False):
            assert judge is not None
            iou = contents.foreground(judge)
            figures = panels.figures_of(metrics.read(judge))
            panels.register(dataset, validated, model, contents.class_names(run), iou, figures)
        panels.plot(dataset, standard)
        views.save(dataset, validated, config.confident)
        views.arrange(dataset, models)
        app.make_editable(dataset, TRUTH, contents.class_names(run))
        dataset.info = {RUN: str(run.root.resolve()), MADE_FROM: made_from}
        keep.note_ours(dataset)
        old = fo.load_dataset(name) if fo.dataset_exists(name) else None
        if old and tags.is_elsewhere(old, run):
            logs.say(f"inspect: replaces FiftyOne's dataset of the same name, which showed {old.info[RUN]}")
        elif old and (lost := keep.carry_over(old, dataset)):
            logs.say(f"inspect: not carried over from the earlier dataset: {', '.join(lost)}")
    return dataset


def _similarities(images: list[RunImage], vectors: Vectors, config: Inspect) -> list[Similarity]:
    indices, distances = embeddings.neighbours(vectors)
    groups = embeddings.similar_groups(indices, distances, config.similarity)
    splits: dict[int, set[str]] = {}
    for group, image in zip(groups, images, strict=True):
        if group is not None:
            splits.setdefault(group, set()).add(image.split)
    return [
        Similarity(unique, group, group is not None and len(splits[group]) > 1)
        for unique, group in zip(embeddings.uniqueness(distances), groups, strict=True)
    ]


def _digest(config: Inspect, run: Run, against: Run | None, images: list[RunImage]) -> str:
    """Hash everything that the dataset shows, and the code that builds it."""
    code = [files.sha256(path) for path in (*sorted(Path(__file__).parent.glob("*.py")), Path(app.__file__))]
    judges = [[str(judge.root.resolve()), files.sha256(judge.metrics)] for judge in (run, against) if judge]
    shown = [config.model_dump(mode="json"), code, judges, files.sha256(run.model), list(map(asdict, images))]
    return hashlib.sha256(json.dumps(shown, default=str).encode()).hexdigest()


def _summary(dataset: Any, images: list[RunImage]) -> str:
    counts = [image.evaluations[0].counts for image in images if image.evaluations]
    found, missed, wrong = (sum(count[kind] for count in counts) for kind in ("tp", "fn", "fp"))
    return (
        f"{counted(len(images), 'image')}; in the {len(counts)} of val and test, {found} of "
        f"{counted(found + missed, 'object')} found, {counted(wrong, 'wrong prediction')} "
        f"-> FiftyOne dataset {dataset.name!r}"
    )

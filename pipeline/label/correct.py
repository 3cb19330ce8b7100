"""Show the batch in FiftyOne, where people draw, move, relabel and delete boxes, and read the labels back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline import app, database, files, logs
from pipeline.boxes import Box
from pipeline.errors import DataError, PipelineError
from pipeline.label import saving, showing
from pipeline.label.saving import Returned
from pipeline.records import label as record
from pipeline.records.label import Candidate, Next
from pipeline.run import Run

LABELS, PATH, DONE = "labels", "source", "done"
# Keys in the dataset's own info; SAVED is a hash of what was saved, WRITTEN one for each image that was.
RUN, MADE_FROM, BATCH, SAVED, WRITTEN = "run", "made_from", "batch", "saved", "written"
BY_HAND = "#4ea8de"
COLOURS = {"sure": "#2e9e5b", "doubtful": "#ff9f1c", "None": BY_HAND}  # by the kind of box
VIEW = "label-next"
SIDEBAR = {"tags": [], "labels": [LABELS], "why": ["rank", "reasons", "minutes", PATH], "metadata": [], "other": []}


def name_of(run: Run) -> str:
    return app.dataset_name(run.name, "-label")


def main(run: Run, port: int | None = None, config: Path | None = None) -> str:
    """Bring FiftyOne's dataset `NAME-label` up to date with `next.json`; with a port, serve the App until stopped.

    A dataset with unsaved corrections stays as it is, as does any if `next.json` is gone. `config` is named in the
    command that saves. Raises PipelineError if FiftyOne has no database, or if the dataset is not of this run.
    """
    if port is not None:
        app.check_port(port, "label", run.name)
    with database.fiftyone():
        if port is None:
            return _summary(_up_to_date(run, config))
        answers = app.server(port)
        dataset = _up_to_date(run, config)
        app.serve(dataset, port, "label", _summary(dataset), answers)
        dataset.reload()
        if _unsaved(dataset):
            return f"corrections are not saved yet; `{_save(run, config)}` writes them"
        return app.CLOSED


def check(run: Run, port: int) -> bool:
    """Return whether FiftyOne has unsaved corrections of this run. Raises PipelineError as `main` does, before work."""
    app.check_port(port, "label", run.name)
    with database.fiftyone():
        dataset = _existing(run)
        return dataset is not None and _unsaved(dataset)


def save(run: Run, every: bool = False) -> str:
    """Write the corrections made in the App to `data/labels/NAME.json`.

    Raises DataError if FiftyOne has no batch of this run, or if a box has no class.
    """
    with database.fiftyone():
        import fiftyone as fo

        if not fo.dataset_exists(name_of(run)):
            raise DataError(f"FiftyOne has no dataset {name_of(run)!r}; run `make label` and correct its boxes")
        dataset = fo.load_dataset(name_of(run))
        if BATCH not in dataset.info or not _is_of(run, dataset):
            shown = dataset.info.get(RUN) or "something else"
            raise DataError(f"FiftyOne's dataset {name_of(run)!r} shows {shown}, not {run.root}; {_way_out(shown)}")
        batch: Any = dict(dataset.info[BATCH])
        moved = _moved(dataset, run)
        batch["images"] = [{**image, "path": moved[image["path"]]} for image in batch["images"]]
        seen = _returned(dataset)  # once: people may draw while this saves
        before = dict(dataset.info.get(WRITTEN) or ())
        changed = {path for path, back in seen.items() if before.get(path) not in (None, _digest(back))}
        returned = {moved[path]: replace(back, again=path in changed) for path, back in seen.items()}
        outcome = saving.judge(batch, returned, every, run)
        summary = saving.save(run, batch, outcome, "neither changed nor tagged `done`", "disappeared from FiftyOne")
        untouched = {*outcome.unchanged, *outcome.emptied}
        now = {path: _digest(back) for path, back in seen.items() if moved[path] not in untouched}
        # In pairs: a key of a dictionary in a database may hold no dot.
        dataset.info[WRITTEN], dataset.info[SAVED] = sorted({**before, **now}.items()), _state(seen)
        dataset.save()
        return summary


def _is_of(run: Run, dataset: Any) -> bool:
    """Return whether a dataset shows images of this run, whose project may have been moved since."""
    shown = dataset.info.get(RUN)
    if shown == str(run.root.resolve()):
        return True
    if not shown or Path(shown).exists():
        return False
    moved = _moved(dataset, run)
    found = [image for image in dataset.info[BATCH]["images"] if Path(moved[image["path"]]).is_file()]
    return bool(found) and all(files.sha256(Path(moved[image["path"]])) == image["sha256"] for image in found)


def _moved(dataset: Any, run: Run) -> dict[str, str]:
    """Map the path of each image to its present one: an absolute path in the project may have moved with it."""
    before, now = Path(dataset.info[RUN]).parents[1], run.project.absolute()
    moved = {}
    for image in dataset.info[BATCH]["images"]:
        path = Path(image["path"])
        moved[image["path"]] = str(now / path.relative_to(before) if path.is_relative_to(before) else path)
    return moved


def _save(run: Run, config: Path | None) -> str:
    return app.command("label", run.name, config, "--save")


def _way_out(shown: str) -> str:
    """Return what to do about a dataset that shows another run."""
    if Path(shown).exists():
        return "save them there, or rename this config"
    return "that is gone, and its images are not where they were: put them back, or rename this config"


def _existing(run: Run) -> Any:
    """Return FiftyOne's dataset of this run; None if there is none, or one that may be replaced."""
    import fiftyone as fo

    app.check_name(name_of(run))
    if not fo.dataset_exists(name_of(run)):
        return None
    dataset = fo.load_dataset(name_of(run))
    if BATCH not in dataset.info:
        raise PipelineError(
            f"FiftyOne has a dataset {name_of(run)!r} that another program created; rename it, or this config"
        )
    if _is_of(run, dataset):
        return dataset
    if _unsaved(dataset):
        raise PipelineError(
            f"FiftyOne's dataset {name_of(run)!r} has unsaved corrections of {dataset.info[RUN]}; "
            f"{_way_out(dataset.info[RUN])}"
        )
    return None


def _up_to_date(run: Run, config: Path | None) -> Any:
    """Return the existing dataset if it shows the batch, or must stay as it is; otherwise replace it."""
    dataset = _existing(run)
    if dataset is not None and not run.label_next.is_file():
        return dataset
    if dataset is not None and _unsaved(dataset):
        logs.say(
            f"label: the batch in FiftyOne has unsaved corrections, so it is opened again; "
            f"`{_save(run, config)}` writes them"
        )
        return dataset
    batch = record.read(run)
    if not batch["images"]:
        raise DataError(f"{run.label_next}: holds no image; run `make label` again")
    made_from = hashlib.sha256(files.to_json(batch).encode()).hexdigest()
    if dataset is not None and dataset.info[MADE_FROM] == made_from:
        return dataset
    return _build(run, batch, made_from)


def _build(run: Run, batch: Next, made_from: str) -> Any:
    import fiftyone as fo

    with app.new_dataset(name_of(run)) as dataset:
        dataset.add_sample_field(LABELS, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
        dataset.add_sample_field(f"{LABELS}.detections.kind", fo.StringField)
        samples = [_sample(rank, candidate) for rank, candidate in enumerate(batch["images"], start=1)]
        dataset.add_samples(samples, progress=False)
        app.make_editable(dataset, LABELS, batch["classes"])
        dataset.save_view(VIEW, dataset.sort_by("rank"), description="the images to label next, the first one first")
        dataset.app_config.color_scheme = fo.ColorScheme(
            color_by="value",
            fields=[
                {
                    "path": LABELS,
                    "fieldColor": BY_HAND,
                    "colorByAttribute": "kind",
                    "valueColors": [{"value": kind, "color": colour} for kind, colour in COLOURS.items()],
                }
            ],
        )
        dataset.app_config.sidebar_groups = [
            fo.SidebarGroupDocument(name=name, paths=paths, expanded=bool(paths) or name == "tags")
            for name, paths in SIDEBAR.items()
        ]
        dataset.info = {RUN: str(run.root.resolve()), MADE_FROM: made_from, BATCH: dict(batch), SAVED: ""}
        dataset.info[SAVED] = _state(_returned(dataset))
        dataset.save()
    return dataset


def _sample(rank: int, candidate: Candidate) -> Any:
    import fiftyone as fo

    width, height = candidate["width"], candidate["height"]
    detections = []
    for box in candidate["boxes"]:
        x, y, w, h = box["bbox"]
        sides = [x / width, y / height, w / width, h / height]
        detections.append(
            fo.Detection(label=box["label"], bounding_box=sides, confidence=box["score"], kind=box["kind"])
        )
    sample = fo.Sample(
        filepath=str(showing.path_of(candidate).resolve()), metadata=fo.ImageMetadata(width=width, height=height)
    )
    sample[LABELS] = fo.Detections(detections=detections)
    sample["rank"], sample["reasons"], sample["minutes"] = rank, candidate["reasons"], candidate["minutes"]
    sample[PATH] = candidate["path"]
    sample["drawn"] = [detection.id for detection in detections]  # ids that identify a box wherever it was moved
    return sample


def _returned(dataset: Any) -> dict[str, Returned]:
    returned = {}
    for sample in dataset.iter_samples():
        width, height = sample.metadata.width, sample.metadata.height
        boxes = []
        for box in sample[LABELS].detections if sample[LABELS] else ():
            x, y, w, h = box.bounding_box
            boxes.append(Box(box.label or "", x * width, y * height, (x + w) * width, (y + h) * height, box.id))
        ids = {identity: number for number, identity in enumerate(sample["drawn"] or ())}
        returned[sample[PATH]] = Returned(boxes, DONE in sample.tags, complete=True, ids=ids)
    return returned


def _digest(back: Returned) -> str:
    """Hash everything that a person can change in an image."""
    boxes = sorted((box.id, box.label, *(round(side, 3) for side in box[1:5])) for box in back.boxes)
    return hashlib.sha256(files.to_json([back.done, boxes]).encode()).hexdigest()


def _state(seen: Mapping[str, Returned]) -> str:
    """Hash everything that a person can change in all images."""
    return hashlib.sha256(files.to_json({path: _digest(back) for path, back in seen.items()}).encode()).hexdigest()


def _unsaved(dataset: Any) -> bool:
    return bool(_state(_returned(dataset)) != dataset.info[SAVED])


def _summary(dataset: Any) -> str:
    boxes = dataset.count(f"{LABELS}.detections")
    return f"{len(dataset)} images with {boxes} boxes to correct -> FiftyOne dataset {dataset.name!r}"

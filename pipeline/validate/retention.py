"""Measure what the model retains: average precision on the source model's classes, before and after fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.config.judging import Validate
from pipeline.errors import DataError
from pipeline.formats import yolo
from pipeline.formats.text import upright_size
from pipeline.metrics import coco
from pipeline.records import training as training_record
from pipeline.records.coco import GroundTruth, Prediction
from pipeline.records.metrics import Retention, RetentionSet, RetentionSkipped
from pipeline.records.tiles import Tiling
from pipeline.run import Run
from pipeline.upstream import checkpoints
from pipeline.validate.predict import as_coco, predict

Measured = tuple[GroundTruth, list[Path], list[Prediction]]  # ground truth, images, our predictions


@dataclass(frozen=True, slots=True)
class Baseline:
    """The source model to compare with, and the labelled set of its classes that the config names, if any."""

    file: Path
    model: Any
    names: list[str]
    labelled: tuple[GroundTruth, list[Path]] | None  # ground truth and images


def baseline(config: Validate, run: Run) -> Baseline | str | None:
    """Load the source model of the run; return a reason if it is not available, or None if it was random.

    Raises DataError, before any prediction, if the labelled set is missing or has no object that the source model
    knows.
    """
    recorded = training_record.read(run)["weights"]
    if recorded["sha256"] is None:
        return None
    given = files.read_json(run.params("train"))["train"] if run.params("train").is_file() else {}
    places = [given.get("weights"), given.get("fallback"), checkpoints.HOME / recorded["name"]]
    for path in (Path(place) for place in places if place):
        if path.is_file() and files.sha256(path) == recorded["sha256"]:
            break
    else:
        return f"the source weights {recorded['name']} are no longer in {checkpoints.HOME}, or have changed"
    from ultralytics import YOLO

    checkpoints.load(path)  # raises a one-line error for weights that cannot be compared with
    model = YOLO(str(path), task="detect")
    names = list(model.names.values())
    if config.retention is None:
        return Baseline(path, model, names, None)
    truth, images = labelled_set(config.retention)
    if not _labelled_classes(truth) & set(names):
        raise DataError(
            f"validate.retention: {config.retention}: no labelled object of a class that {path.name} knows; "
            "name a set with its classes, or null"
        )
    return Baseline(path, model, names, (truth, images))


def labelled_set(path: Path) -> tuple[GroundTruth, list[Path]]:
    """Return the val images of a YOLO dataset, else its test images, else all, as COCO and as paths.

    Raises DataError if there are none, or if an image or a label cannot be used.
    """
    if not path.exists():
        raise DataError(f"validate.retention: {path}: does not exist; name the data.yaml of a labelled set, or null")
    folder = (path if path.is_dir() else path.parent).resolve()
    source = yolo.read(folder, description=None if path.is_dir() else folder / path.name)
    splits = {item.split for item in source.images}
    split = next((split for split in ("val", "test") if split in splits), None)
    chosen = [item for item in source.to_use if split is None or item.split == split]
    if not chosen or source.classes is None:
        raise DataError(f"validate.retention: {path}: no images in it; name a set that has some, or null")
    for item in chosen:
        if upright_size(item.image) is None:
            raise DataError(
                f"validate.retention: {item.image}: missing or not an image; restore it, or remove its labels"
            )
        for box in item.boxes:
            if box.damage or not box.is_finite:
                why = box.damage or "coordinates are not finite numbers"
                raise DataError(f"validate.retention: {item.annotation}: {box.id}: {why}; correct it")
    return as_coco(source.classes, ((item.image, item.boxes) for item in chosen)), [item.image for item in chosen]


def measure(
    config: Validate,
    start: Baseline | str | None,
    model: Any,
    imgsz: int,
    device: str,
    measured: dict[str, Measured],
    tiling: Tiling | None = None,
) -> Retention | RetentionSkipped | None:
    """Return average precision of the source model and of `model` for each class name that both know.

    None if there is nothing to retain: random source weights, or no common class and no `retention` set. `tiling`
    applies to our images only: the labelled set has its own scale, so its images are predicted whole.
    """
    if start is None or isinstance(start, str):
        return {"skipped": start} if start else None
    ours = list(model.names.values())

    def predicted_by(
        network: Any, names: list[str], truth: GroundTruth, images: list[Path], tiling: Tiling | None = None
    ) -> list[Prediction]:
        predictions = predict(network, images, imgsz, config, device, "validate: retention", tiling).every_label
        return _renamed(predictions, names, truth)

    sets = []
    for split, (truth, images, after) in measured.items():
        if _labelled_classes(truth) & set(start.names):
            before = predicted_by(start.model, start.names, truth, images, tiling)
            sets.append(_compare(split, truth, before, after, start.names, ours))
    if start.labelled:
        truth, images = start.labelled
        before = predicted_by(start.model, start.names, truth, images)
        after = predicted_by(model, ours, truth, images)
        sets.append(_compare(str(config.retention), truth, before, after, start.names, ours))
    return {"source": start.file.name, "sets": sets} if sets else None


def _labelled_classes(truth: GroundTruth) -> set[str]:
    names = {category["id"]: category["name"] for category in truth["categories"]}
    return {names[record["category_id"]] for record in truth["annotations"]}


def _renamed(predictions: list[Prediction], names: list[str], truth: GroundTruth) -> list[Prediction]:
    """Return the predictions with the category ids of `truth`, without those of classes that it lacks."""
    ids = {category["name"]: category["id"] for category in truth["categories"]}
    return [
        {**record, "category_id": ids[names[record["category_id"]]]}
        for record in predictions
        if names[record["category_id"]] in ids
    ]


def _compare(
    images_of: str,
    truth: GroundTruth,
    before: list[Prediction],
    after: list[Prediction],
    known: list[str],
    ours: list[str],
) -> RetentionSet:
    old, new = (coco.evaluate(truth, predictions)["per_class"] for predictions in (before, after))
    return {
        "images_of": images_of,
        "images": len(truth["images"]),
        "classes": {
            name: {
                "before": old[name]["map50_95"],
                # A class that the new model no longer has is forgotten by construction, not by training.
                "after": new[name]["map50_95"] if name in ours else None,
                "objects": old[name]["objects"],
            }
            for name in sorted(_labelled_classes(truth) & set(known))
        },
    }

"""Read every image of a run with its labels and, if it was validated, its predictions and errors.

Everything comes from the files of `validate` and nothing is matched again, so the App, the report and `metrics.json`
agree. This module does not depend on FiftyOne.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.boxes import YoloDataset
from pipeline.errors import DataError
from pipeline.records import metrics as metrics_record
from pipeline.records import predictions as split_records
from pipeline.records import receipt as receipt_record
from pipeline.run import Run

ORDER = ("test", "val", "train")  # errors first


@dataclass(slots=True)
class Label:
    """One labelled object: `bbox` is [x, y, width, height] in pixels."""

    name: str
    bbox: tuple[float, float, float, float]


@dataclass(slots=True)
class Prediction:
    """One predicted object with its error type by TIDE; `about` is the index of the label it concerns, or None."""

    name: str
    bbox: tuple[float, float, float, float]
    score: float
    type: str  # tp, classification, localisation, both, duplicate, background
    about: int | None
    iou: float


@dataclass(slots=True)
class Outcome:
    """The outcome of one label; `prediction` is the index of the prediction that found it or is wrong about it."""

    type: str  # tp, classification, localisation, missed
    prediction: int | None


@dataclass(slots=True)
class Evaluation:
    """One model's predictions on an image, and the outcome of each label, in the order of the labels."""

    predictions: list[Prediction]
    outcomes: list[Outcome]

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of objects found (tp), wrong predictions (fp) and missed objects (fn)."""
        found = sum(prediction.type == "tp" for prediction in self.predictions)
        return {"tp": found, "fp": len(self.predictions) - found, "fn": len(self.outcomes) - found}


@dataclass(slots=True)
class RunImage:
    """An image of the run; `size` is (width, height) in pixels.

    `evaluations` holds that of the run's model, then that of the other run's model; it is empty for a split that was
    not validated. `source` is the path of the original image, relative to `convert.source`.
    """

    split: str
    path: Path
    size: tuple[int, int]
    labels: list[Label]
    evaluations: list[Evaluation] = field(default_factory=list)
    source: str = ""

    @property
    def name(self) -> str:
        return self.path.name


def read(run: Run, against: Run | None = None) -> list[RunImage]:
    """Return every image of the run, validated splits first, also evaluated by the model of `against` if given.

    Raises DataError if the run is not validated, its files do not fit together, or `against` was validated on other
    images or labels.
    """
    source = YoloDataset.read(run.dataset / "data.yaml")
    validated = _splits(run)
    if stray := [split for split in validated if split not in source.images]:
        raise DataError(
            f"{run.metrics}: has figures of the {stray[0]} split, but {run.dataset} has no such split; "
            "run `make validate` again"
        )
    images: list[RunImage] = []
    for split in (split for split in ORDER if split in source.images):
        if split not in validated:
            images += _labelled(source, split)
            continue
        evaluated = _validated(run, split, source.images[split], source.names)
        if others := {path.name for path in source.files(split)} ^ {image.name for image in evaluated}:
            raise DataError(
                f"{run.ground_truth(split)}: does not hold the images of the current {split} split, for example "
                f"{min(others)}; run `make validate` again"
            )
        images += evaluated
    _name_sources(images, run)
    if against is not None:
        _add(images, run, against, validated)
    return images


def class_names(run: Run) -> tuple[str, ...]:
    return YoloDataset.read(run.dataset / "data.yaml").names


def foreground(run: Run) -> float:
    """Return the IoU from which a prediction counts as having found an object."""
    [split, *_] = _splits(run)
    return float(split_records.errors(run, split, split_records.truth(run, split))["iou"]["foreground"])


def _name_sources(images: list[RunImage], run: Run) -> None:
    """Set the `source` of each image from the receipt. Raises DataError if one is missing there."""
    sources = receipt_record.read(run)["sources"]
    for image in images:
        name = f"{image.split}/{image.name}"
        if name not in sources:
            raise DataError(
                f"{run.receipt}: has no source for {name}; delete {run.dataset} and run `{run.make('convert')}`"
            )
        image.source = sources[name]


def _splits(run: Run) -> list[str]:
    if not run.metrics.is_file():
        raise DataError(f"{run.metrics}: does not exist; `make validate` writes it, and the predictions to look at")
    splits = list(metrics_record.read(run)["splits"])
    if not splits:
        raise DataError(f"{run.metrics}: has figures for no split; run `make validate` again")
    return splits


def _labelled(source: YoloDataset, split: str) -> Iterator[RunImage]:
    for path in source.files(split):
        try:
            size, boxes = source.labelled(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read as an image ({error}); run `make convert` again") from None
        labels = [Label(box.label, box.bbox) for box in boxes]
        yield RunImage(split, path, size, labels)


def _validated(run: Run, split: str, folder: Path, classes: Sequence[str] | None = None) -> list[RunImage]:
    """Return the images of a split with the labels and predictions that `validate` wrote.

    Raises DataError if `classes` are not the classes of the files.
    """
    truth = split_records.truth(run, split)
    errors = split_records.errors(run, split, truth)
    names = {category["id"]: category["name"] for category in truth["categories"]}
    if classes is not None and list(names.values()) != list(classes):
        raise DataError(
            f"{run.ground_truth(split)}: its classes are {list(names.values())}, but those of {run.dataset} "
            f"are {list(classes)}; run `make validate` again"
        )
    images = {
        image["id"]: RunImage(split, folder / image["file_name"], (image["width"], image["height"]), [])
        for image in truth["images"]
    }
    number_of: dict[int, int] = {}  # annotation id -> index among the labels of its image
    for annotation in truth["annotations"]:
        labels = images[annotation["image_id"]].labels
        number_of[annotation["id"]] = len(labels)
        labels.append(Label(names[annotation["category_id"]], _corner_and_sides(annotation["bbox"])))
    evaluations = {
        image_id: Evaluation([], [Outcome("missed", None) for _ in image.labels]) for image_id, image in images.items()
    }
    predicted: dict[int, int] = {}  # prediction id -> index among the predictions of its image
    for record in errors["predictions"]:
        predictions = evaluations[record["image_id"]].predictions
        predicted[record["id"]] = len(predictions)
        predictions.append(
            Prediction(
                names[record["category_id"]],
                _corner_and_sides(record["bbox"]),
                record["score"],
                record["type"],
                None if record["annotation_id"] is None else number_of[record["annotation_id"]],
                record["iou"],
            )
        )
    for entry in errors["objects"]:
        by = None if entry["prediction_id"] is None else predicted[entry["prediction_id"]]
        evaluations[entry["image_id"]].outcomes[number_of[entry["annotation_id"]]] = Outcome(entry["type"], by)
    for image_id, image in images.items():
        image.evaluations.append(evaluations[image_id])
    return list(images.values())


def _add(images: list[RunImage], run: Run, against: Run, validated: list[str]) -> None:
    """Add the evaluations of the other run's model on the same images. Raises DataError if images or labels differ."""
    theirs = _splits(against)
    for split in validated:
        if split not in theirs:
            raise DataError(
                f"{against.metrics}: has no figures of the {split} split; "
                f"run {against.make('validate')} on a dataset with the splits of {run.root}"
            )
        mine = {image.name: image for image in images if image.split == split}
        others = {image.name: image for image in _validated(against, split, Path())}
        for name in sorted({*mine, *others}):
            ours, other = mine.get(name), others.get(name)
            if not ours or not other or (ours.size, ours.labels) != (other.size, other.labels):
                raise DataError(
                    f"{against.root}: validated on other images or labels of the {split} split than {run.root}, "
                    f"for example {name}; convert both from the same source and validate them again"
                )
            ours.evaluations += other.evaluations


def _corner_and_sides(bbox: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = bbox
    return x, y, width, height

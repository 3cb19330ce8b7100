"""What there is to see: every image of a run with its labels and, where it was validated, what the model made of it.

All of it is read from what `validate` wrote; nothing is matched anew here, so the App, the report and
`metrics.json` tell the same. Nothing of FiftyOne is known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from pipeline.boxes import YoloDataset, read_labels
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
    """One predicted object, with what TIDE calls it; `about` is the number of the label it is about."""

    name: str
    bbox: tuple[float, float, float, float]
    score: float
    type: str  # tp, classification, localisation, both, duplicate, background
    about: int | None
    iou: float


@dataclass(slots=True)
class Fate:
    """What became of one label: `found_by` is the number of the prediction that found it, or is wrong about it."""

    type: str  # tp, classification, localisation, missed
    found_by: int | None


@dataclass(slots=True)
class Evaluation:
    """What one model made of an image: its predictions, and the fate of each label, in the order of the labels."""

    predictions: list[Prediction]
    fates: list[Fate]

    @property
    def counts(self) -> dict[str, int]:
        """Objects found, predictions that are wrong, objects not found."""
        found = sum(prediction.type == "tp" for prediction in self.predictions)
        return {"tp": found, "fp": len(self.predictions) - found, "fn": len(self.fates) - found}


@dataclass(slots=True)
class Picture:
    """An image of the run. `evaluations` are by its model, then by the one compared with; empty where not validated.

    `source` is the path below the source of the image that it was made from.
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


def read(run: Run, against: Run | None = None) -> list[Picture]:
    """Every image of the run, validated ones first; with those of `against` judged by its model too.

    Raises DataError where the run is not validated, its files do not fit together, or `against` was
    validated on other images or labels.
    """
    source = YoloDataset.read(run.dataset / "data.yaml")
    validated = _splits(run)
    if stray := [split for split in validated if split not in source.images]:
        raise DataError(
            f"{run.metrics}: has figures of the {stray[0]} split, but {run.dataset} has no such split; "
            "`make validate` again"
        )
    pictures: list[Picture] = []
    for split in (split for split in ORDER if split in source.images):
        if split not in validated:
            pictures += _labelled(source, split)
            continue
        found = _validated(run, split, source.images[split])
        if others := {path.name for path in source.files(split)} ^ {picture.name for picture in found}:
            raise DataError(
                f"{run.ground_truth(split)}: is of other images than the {split} split now has, {min(others)} for "
                "one; `make validate` again"
            )
        pictures += found
    _name_sources(pictures, run)
    if against is not None:
        _add(pictures, run, against, validated)
    return pictures


def class_names(run: Run) -> tuple[str, ...]:
    return YoloDataset.read(run.dataset / "data.yaml").names


def foreground(run: Run) -> float:
    """The IoU from which a prediction has found a label."""
    [split, *_] = _splits(run)
    return float(split_records.errors(run, split, split_records.truth(run, split))["iou"]["foreground"])


def _name_sources(pictures: list[Picture], run: Run) -> None:
    """Look up in the receipt where each image came from."""
    sources = receipt_record.read(run)["sources"]
    for picture in pictures:
        name = f"{picture.split}/{picture.name}"
        if name not in sources:
            raise DataError(
                f"{run.receipt}: does not say where {name} came from; delete {run.dataset} and `make` again"
            )
        picture.source = sources[name]


def _splits(run: Run) -> list[str]:
    if not run.metrics.is_file():
        raise DataError(f"{run.metrics}: not there; `make validate` writes it, and the predictions to look at")
    splits = list(metrics_record.read(run)["splits"])
    if not splits:
        raise DataError(f"{run.metrics}: has figures of no split; `make validate` again")
    return splits


def _labelled(source: YoloDataset, split: str) -> Iterator[Picture]:
    for path in source.files(split):
        try:
            with Image.open(path) as image:
                size = image.size
        except OSError as error:
            raise DataError(f"{path}: not an image that can be read ({error}); `make convert` again") from None
        boxes = read_labels(source.label_file(path), source.names, *size)
        labels = [Label(box.label, (box.xmin, box.ymin, box.width, box.height)) for box in boxes]
        yield Picture(split, path, size, labels)


def _validated(run: Run, split: str, folder: Path) -> list[Picture]:
    """The images of a split with their labels, as the model was judged by them, and with its predictions."""
    truth = split_records.truth(run, split)
    errors = split_records.errors(run, split, truth)
    names = {category["id"]: category["name"] for category in truth["categories"]}
    pictures = {
        image["id"]: Picture(split, folder / image["file_name"], (image["width"], image["height"]), [])
        for image in truth["images"]
    }
    number_of: dict[int, int] = {}  # of an annotation among the labels of its image
    for annotation in truth["annotations"]:
        labels = pictures[annotation["image_id"]].labels
        number_of[annotation["id"]] = len(labels)
        labels.append(Label(names[annotation["category_id"]], _corner_and_sides(annotation["bbox"])))
    evaluations = {
        image: Evaluation([], [Fate("missed", None) for _ in picture.labels]) for image, picture in pictures.items()
    }
    predicted: dict[int, int] = {}  # number of a prediction among those of its image
    for found in errors["predictions"]:
        predictions = evaluations[found["image_id"]].predictions
        predicted[found["id"]] = len(predictions)
        predictions.append(
            Prediction(
                names[found["category_id"]],
                _corner_and_sides(found["bbox"]),
                found["score"],
                found["type"],
                None if found["annotation_id"] is None else number_of[found["annotation_id"]],
                found["iou"],
            )
        )
    for thing in errors["objects"]:
        by = None if thing["prediction_id"] is None else predicted[thing["prediction_id"]]
        evaluations[thing["image_id"]].fates[number_of[thing["annotation_id"]]] = Fate(thing["type"], by)
    for image, picture in pictures.items():
        picture.evaluations.append(evaluations[image])
    return list(pictures.values())


def _add(pictures: list[Picture], run: Run, against: Run, validated: list[str]) -> None:
    """Let the other run's model judge the same images."""
    theirs = _splits(against)
    for split in validated:
        if split not in theirs:
            raise DataError(f"{against.metrics}: has no figures of the {split} split, which {run.root} has")
        mine = {picture.name: picture for picture in pictures if picture.split == split}
        others = {picture.name: picture for picture in _validated(against, split, Path())}
        for name in sorted({*mine, *others}):
            if name not in others or name not in mine or not _same_labels(mine[name], others[name]):
                raise DataError(
                    f"{against.root}: validated on other images or labels of the {split} split than {run.root}, "
                    f"{name} for one; convert both from the same source and validate them again"
                )
            mine[name].evaluations += others[name].evaluations


def _same_labels(one: Picture, other: Picture) -> bool:
    return one.size == other.size and one.labels == other.labels


def _corner_and_sides(bbox: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = bbox
    return x, y, width, height

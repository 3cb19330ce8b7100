"""Compare two runs by a paired bootstrap: both are evaluated on the same resamples of the same images.

Only the images are resampled. Each config is represented by one training; another seed would change its figures too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.metrics import bootstrap
from pipeline.metrics.matching import match
from pipeline.records import predictions as split_records
from pipeline.records.base import write_record
from pipeline.records.coco import GroundTruth, Prediction
from pipeline.records.comparison import Comparison, Difference, SplitDifferences, Verdict
from pipeline.run import Run

SPLITS = ("val", "test")
LIMITS = "intervals cover the choice of images, not the seed: one training each"
Resampled = NDArray[np.float64]  # [1 + resamples]: a figure of the split itself, then of every draw


def main(run: Run, other: Run) -> str:
    """Write `run.comparison` from the predictions of both runs on disk.

    Raises DataError if a run has no predictions, or if the two were not evaluated on the same images and labels. Each
    verdict is about one figure: of twenty figures of equal runs, one differs significantly by chance.
    """
    if other.root.resolve() == run.root.resolve():
        raise DataError(f"--against {other.root}: is the same run; name another one")
    for compared in (run, other):
        if not compared.metrics.is_file():
            raise DataError(
                f"{compared.metrics}: does not exist; `{compared.make('validate')}` writes it, "
                "and the predictions to compare"
            )
    splits = {}
    for split in _splits(run, other):
        (truth, ours), (their_truth, theirs) = (
            split_records.predictions(run, split),
            split_records.predictions(other, split),
        )
        if _content(truth) != _content(their_truth):
            raise DataError(
                f"--against {other.root}: its {split} split has other images or labels than {run.root}; "
                "convert both from the same source and validate them again"
            )
        splits[split] = differences(truth, ours, _as_in(truth, their_truth, theirs))
    record: Comparison = {
        "run": str(run.root),
        "against": str(other.root),
        "level": bootstrap.LEVEL,
        "resamples": bootstrap.RESAMPLES,
        "limits": LIMITS,
        "splits": splits,
    }
    write_record(run.comparison, Comparison, record)
    summary = ", ".join(f"{split} mAP50-95 {_in_words(splits[split]['figures']['map50_95'])}" for split in splits)
    return f"against {other.root}: {summary} ({LIMITS}) -> {run.comparison}"


def _in_words(figure: Difference) -> str:
    if figure["difference"] is None:
        return "not measured, no objects"
    if figure["interval"] is None:
        return f"cannot be told apart, fewer than {bootstrap.MIN_IMAGES} images with objects"
    low, high = figure["interval"]
    return f"{figure['difference']:+.3f} ({low:+.3f} to {high:+.3f}), {figure['verdict']}"


def _splits(run: Run, other: Run) -> list[str]:
    ours, theirs = ([split for split in SPLITS if side.ground_truth(split).is_file()] for side in (run, other))
    if ours != theirs:
        raise DataError(
            f"--against {other.root}: was measured on {' and '.join(theirs) or 'nothing'}, {run.root} on "
            f"{' and '.join(ours) or 'nothing'}; give both the same splits"
        )
    return ours


def _content(truth: GroundTruth) -> Any:
    """Return images and labels by name, because ids differ between runs."""
    names = {category["id"]: category["name"] for category in truth["categories"]}
    boxes: dict[int, list[Any]] = {image["id"]: [] for image in truth["images"]}
    for record in truth["annotations"]:
        boxes[record["image_id"]].append((names[record["category_id"]], *record["bbox"]))
    images = {
        image["file_name"]: (image["width"], image["height"], sorted(boxes[image["id"]])) for image in truth["images"]
    }
    return images, sorted(names.values())


def _as_in(truth: GroundTruth, their_truth: GroundTruth, predictions: list[Prediction]) -> list[Prediction]:
    """Return the predictions with the image and category ids of `truth`."""
    images = _ids(_images(truth), _images(their_truth))
    categories = _ids(_categories(truth), _categories(their_truth))
    return [
        {**record, "image_id": images[record["image_id"]], "category_id": categories[record["category_id"]]}
        for record in predictions
    ]


def _images(truth: GroundTruth) -> dict[str, int]:
    return {image["file_name"]: image["id"] for image in truth["images"]}


def _categories(truth: GroundTruth) -> dict[str, int]:
    return {category["name"]: category["id"] for category in truth["categories"]}


def _ids(ours: dict[str, int], theirs: dict[str, int]) -> dict[int, int]:
    """Map each id of the other run to the id in this run."""
    return {number: ours[name] for name, number in theirs.items()}


def differences(truth: GroundTruth, ours: list[Prediction], theirs: list[Prediction]) -> SplitDifferences:
    """Return both runs' figures, the difference, its interval and the verdict, overall and per class.

    Resamples that lack a class count too: both means are then over the same other classes.
    """
    matches = match(truth, ours)
    labelled = bootstrap.images_with_objects(matches)
    run, against = bootstrap.with_draws(matches), bootstrap.with_draws(match(truth, theirs))
    return {
        "images": len(truth["images"]),
        "figures": _compared(run.overall(), against.overall(), labelled),
        "per_class": {
            category["name"]: _compared(
                run.of_class(index), against.of_class(index), int((matches[index].objects > 0).sum())
            )
            for index, category in enumerate(truth["categories"])
        },
    }


def _compared(ours: dict[str, Resampled], theirs: dict[str, Resampled], images: int) -> dict[str, Difference]:
    return {name: _difference(ours[name], theirs[name], images) for name in ours}


def _difference(ours: Resampled, theirs: Resampled, images: int) -> Difference:
    interval = bootstrap.interval((ours - theirs)[1:], images)
    verdict: Verdict = "inside noise" if not np.isnan(ours[0]) else "not measured"  # no objects
    if interval and interval[0] > 0:
        verdict = "better"
    if interval and interval[1] < 0:
        verdict = "worse"
    run, against = (None if np.isnan(figures[0]) else round(float(figures[0]), 6) for figures in (ours, theirs))
    return {
        "run": run,
        "against": against,
        "difference": None if run is None or against is None else round(run - against, 6),
        "interval": interval,
        "verdict": verdict,
    }

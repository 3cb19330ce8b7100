"""Compare the average precision of an artefact with that of its model on the same images, with an interval."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.boxes import YoloDataset
from pipeline.device.runner import Detections
from pipeline.metrics import bootstrap
from pipeline.metrics.iou import from_corners
from pipeline.metrics.matching import ClassMatches, Rows, match_rows
from pipeline.records.manifest import Drop, Figures


def truth(dataset: YoloDataset, images: list[Path]) -> list[Detections]:
    """Return the labels of each image in the form of detections with score 1, in pixels."""
    labelled = []
    for path in images:
        _, boxes = dataset.labelled(path)
        corners = np.array([(box.xmin, box.ymin, box.xmax, box.ymax) for box in boxes], float).reshape(-1, 4)
        classes = np.array([dataset.names.index(box.label) for box in boxes], int)
        labelled.append(Detections(corners, np.ones(len(boxes)), classes))
    return labelled


def match(labelled: list[Detections], found: list[Detections], classes: int) -> list[ClassMatches]:
    """Match the detections of all images with their labels, as COCO does."""
    return match_rows(_rows(labelled), _rows(found), len(labelled), classes)


def _rows(sides: list[Detections]) -> Rows:
    return Rows(
        np.repeat(np.arange(len(sides)), [len(side) for side in sides]),
        np.concatenate([side.classes for side in sides]).astype(np.int64),
        from_corners(np.concatenate([side.corners for side in sides])),
        np.concatenate([side.scores for side in sides]).astype(np.float64),
    )


def figures(matches: list[ClassMatches], names: list[str]) -> Figures:
    """Return COCO's mAP50-95 and mAP50, 0 to 1, overall and per class; None without labelled objects."""
    found = bootstrap.figures(matches, bootstrap.once(len(matches[0].objects)))
    overall = found.overall()
    return {
        "map50_95": _rounded(overall["map50_95"]),
        "map50": _rounded(overall["map50"]),
        "per_class": {name: _rounded(found.of_class(index)["map50_95"]) for index, name in enumerate(names)},
    }


def redrawn(matches: list[ClassMatches]) -> NDArray[np.float64]:
    """Return mAP50-95 of the images, then of the resamples, which are the same for every model: [1 + resamples]."""
    return bootstrap.with_draws(matches).overall()["map50_95"]


def drop(model: NDArray[np.float64], artefact: NDArray[np.float64]) -> Drop:
    """Return by how many points (hundredths) the artefact's mAP50-95 is below the model's, with a bootstrap interval.

    Both are results of `redrawn` on the same images, so the difficulty of the images cancels out.
    """
    points, *resamples = model - artefact
    ends = bootstrap.percentiles(np.array(resamples))
    return {
        "points": None if np.isnan(points) else round(100 * float(points), 4),
        "interval": None if ends is None else [round(100 * end, 4) for end in ends],
        "level": bootstrap.LEVEL,
        "resamples": bootstrap.RESAMPLES,
    }


def _rounded(value: NDArray[np.float64]) -> float | None:
    """Return the single value, rounded; None for NaN."""
    return None if np.isnan(value[0]) else round(float(value[0]), 6)

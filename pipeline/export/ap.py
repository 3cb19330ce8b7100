"""Average precision of an artefact beside that of its model, on the same images, and how far chance moves the gap.

The figures are COCO's, computed here and not by faster-coco-eval because an interval of a *difference* needs the
matches of both sides image by image; that the figures agree with the library's is tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.boxes import YoloDataset, read_labels
from pipeline.device.runner import Found

IOUS: NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
RECALLS: NDArray[np.float64] = np.linspace(0, 1, 101)
MOST = 100  # predictions of a class in an image that count, as COCO has it
RESAMPLES = 1000
LEVEL = 0.95
BLOCK = 2_000_000  # numbers in one array at a time


@dataclass(frozen=True, slots=True)
class Matches:
    """Predictions of one class on all images, best score first; `hits[t]` are those that found an object at IOUS[t]."""

    scores: NDArray[np.float64]  # [predictions]
    images: NDArray[np.int64]  # [predictions], position of the image
    hits: NDArray[np.bool_]  # [overlaps, predictions]
    objects: NDArray[np.int64]  # [images], labelled objects


def truth(dataset: YoloDataset, images: list[Path]) -> list[Found]:
    """The labels of each image, as if found with score 1."""
    labelled = []
    for path in images:
        with Image.open(path) as image:
            width, height = image.size
        boxes = read_labels(dataset.label_file(path), dataset.names, width, height)
        corners = np.array([(box.xmin, box.ymin, box.xmax, box.ymax) for box in boxes], float).reshape(-1, 4)
        classes = np.array([dataset.names.index(box.label) for box in boxes], int)
        labelled.append(Found(corners, np.ones(len(boxes)), classes))
    return labelled


def match(labelled: list[Found], found: list[Found], classes: int) -> list[Matches]:
    """COCO's matching: the best score chooses first, and takes the free object that it overlaps most."""
    matches = []
    for kind in range(classes):
        scores, images = [np.zeros(0)], [np.zeros(0, int)]
        hits, objects = [np.zeros((len(IOUS), 0), bool)], np.zeros(len(labelled), int)
        for index, (there, seen) in enumerate(zip(labelled, found, strict=True)):
            wanted = there.corners[there.classes == kind]
            objects[index] = len(wanted)
            of_class = np.flatnonzero(seen.classes == kind)
            of_class = of_class[np.argsort(-seen.scores[of_class], kind="stable")][:MOST]
            scores.append(seen.scores[of_class].astype(float))
            images.append(np.full(len(of_class), index))
            hits.append(_hits(overlaps(seen.corners[of_class], wanted)))
        order = np.argsort(-np.concatenate(scores), kind="stable")
        matches.append(
            Matches(
                np.concatenate(scores)[order],
                np.concatenate(images)[order],
                np.concatenate(hits, axis=1)[:, order],
                objects,
            )
        )
    return matches


def overlaps(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union of corners (n, 4) with corners (m, 4): [n, m]."""
    shared = np.prod(
        np.clip(np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2]), 0, None),
        axis=2,
    )
    both = np.prod(a[:, 2:] - a[:, :2], axis=1)[:, None] + np.prod(b[:, 2:] - b[:, :2], axis=1)[None] - shared
    return np.asarray(np.divide(shared, both, out=np.zeros_like(shared), where=both > 0), float)


def _hits(iou: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[overlaps, predictions] from IoU [predictions, objects], best score first."""
    hits = np.zeros((len(IOUS), len(iou)), bool)
    if not iou.shape[1]:
        return hits
    free = np.ones((len(IOUS), iou.shape[1]), bool)
    for index in np.flatnonzero(iou.max(axis=1) >= IOUS[0]):
        candidates = np.where(free, iou[index], -1.0)
        # Of equal overlaps COCO takes the last one.
        best = iou.shape[1] - 1 - candidates[:, ::-1].argmax(axis=1)
        enough = candidates[np.arange(len(IOUS)), best] >= IOUS
        hits[enough, index] = True
        free[enough, best[enough]] = False
    return hits


def average_precision(matches: list[Matches], draws: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """[samples, classes, overlaps]; NaN for a class without objects.

    `draws` [samples, images] says how often each image is in a sample; without it there is one sample with each
    image once. COCO's rule: at 101 recalls the best precision of that or any higher recall, and their mean.
    """
    if draws is None:
        draws = np.ones((1, len(matches[0].objects)), int)
    result = np.full((len(draws), len(matches), len(IOUS)), np.nan)
    for column, of_class in enumerate(matches):
        # After the last hit nothing changes any more.
        last = int(np.flatnonzero(of_class.hits.any(axis=0)).max(initial=-1)) + 1
        step = max(1, BLOCK // max(last, 1))
        for first in range(0, len(draws), step):
            block = slice(first, first + step)
            objects = draws[block] @ of_class.objects
            weights = draws[block][:, of_class.images[:last]]
            ranks = np.cumsum(weights, axis=1)
            for row in range(len(IOUS)):
                hits = of_class.hits[row, :last]
                result[block, column, row] = _area(np.cumsum(weights[:, hits], axis=1), ranks[:, hits], objects)
    return result


def _area(found: NDArray[np.int64], ranks: NDArray[np.int64], objects: NDArray[np.int64]) -> NDArray[np.float64]:
    precision = found / (ranks + np.spacing(1))  # COCO's guard against 0 / 0
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = found / objects[:, None]
    points = np.searchsorted(RECALLS, recall, side="right")  # recall points reached with each hit
    area = np.sum(best * np.diff(points, axis=1, prepend=0), axis=1) / len(RECALLS)
    return np.where(objects > 0, area, np.nan)


def figures(matches: list[Matches], names: list[str]) -> dict[str, Any]:
    """COCO's mAP50-95 and mAP50, 0..1, overall and per class; None where nothing is labelled."""
    table = average_precision(matches)[0]
    with_objects = table[~np.isnan(table[:, 0])]
    return {
        "map50_95": _rounded(with_objects.mean()) if len(with_objects) else None,
        "map50": _rounded(with_objects[:, 0].mean()) if len(with_objects) else None,
        "per_class": {name: _rounded(row.mean()) for name, row in zip(names, table, strict=True)},
    }


@dataclass(frozen=True, slots=True)
class Spread:
    """mAP50-95 as it is, and of the resamples: the same images are redrawn for every model."""

    overall: float
    redrawn: NDArray[np.float64]  # [resamples]


def spread(matches: list[Matches]) -> Spread:
    images = len(matches[0].objects)
    draws = np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), size=RESAMPLES)
    return Spread(float(_mean(average_precision(matches))[0]), _mean(average_precision(matches, draws)))


def drop(model: Spread, artefact: Spread) -> dict[str, Any]:
    """mAP50-95 of the model less that of the artefact, in points (hundredths), with its bootstrap interval.

    Both are computed on the same redrawn images, so what both find hard cancels out.
    """
    points = model.overall - artefact.overall
    redrawn = model.redrawn - artefact.redrawn
    redrawn = redrawn[~np.isnan(redrawn)]
    tail = 50 * (1 - LEVEL)
    ends = np.percentile(redrawn, (tail, 100 - tail)) if len(redrawn) else None
    return {
        "points": None if np.isnan(points) else round(100 * points, 4),
        "interval": None if ends is None else [round(100 * float(end), 4) for end in ends],
        "level": LEVEL,
        "resamples": RESAMPLES,
    }


def _mean(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over classes and overlaps, leaving out classes that a sample has no object of: [samples]."""
    there = ~np.isnan(table)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, table, 0).sum(axis=(1, 2)) / there.sum(axis=(1, 2)))


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)

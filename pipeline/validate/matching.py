"""Which prediction found which object: COCO's matching, kept prediction by prediction.

faster-coco-eval gives the figures and throws the matches away. Intervals, thresholds, calibration and error
costs need them, so the matching is done once more here; that both agree is tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# COCO's ten overlaps, as pycocotools makes them.
IOU_THRESHOLDS: NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
RECALL_POINTS: NDArray[np.float64] = np.linspace(0, 1, 101)
MAX_DETECTIONS = 100  # of a class in an image, best scored first


@dataclass(frozen=True, slots=True)
class ClassMatches:
    """The predictions of one class on all images of a split, best score first.

    `images` holds, per prediction, the position of its image in the ground truth; `hits[t]` whether it is the
    prediction that found an object at the overlap `thresholds[t]`; `objects` the labelled objects per image.
    """

    scores: NDArray[np.float64]  # [predictions]
    images: NDArray[np.int64]  # [predictions]
    hits: NDArray[np.bool_]  # [thresholds, predictions]
    objects: NDArray[np.int64]  # [images]


def match(
    truth: dict[str, Any],
    predictions: list[dict[str, Any]],
    thresholds: NDArray[np.float64] = IOU_THRESHOLDS,
    max_detections: int | None = MAX_DETECTIONS,
) -> list[ClassMatches]:
    """Match as COCO does, a `ClassMatches` per category in the order of `truth`.

    Within an image and class the best scored prediction chooses first, and takes the free object that it
    overlaps most if that is enough. `truth` and `predictions` are a COCO data set and COCO results.
    """
    image_at = {image["id"]: index for index, image in enumerate(truth["images"])}
    class_at = {category["id"]: index for index, category in enumerate(truth["categories"])}
    kinds, images, corners = _columns(predictions, class_at, image_at)
    labelled_kinds, labelled_images, labelled_corners = _columns(truth["annotations"], class_at, image_at)
    scores = np.array([record["score"] for record in predictions], dtype=np.float64)
    # Stable, as COCO's merge sort is: equal scores stay in the order of the file.
    order = np.lexsort((-scores, images, kinds))
    group = kinds[order] * len(image_at) + images[order]  # of one class in one image
    counted = np.arange(len(order)) - np.searchsorted(group, group) < (max_detections or np.inf)
    order, group = order[counted], group[counted]
    kinds, images, corners, scores = kinds[order], images[order], corners[order], scores[order]

    objects_of: dict[int, list[int]] = {}
    for index, key in enumerate((labelled_kinds * len(image_at) + labelled_images).tolist()):
        objects_of.setdefault(key, []).append(index)
    hits = np.zeros((len(thresholds), len(order)), dtype=bool)
    for key, objects in objects_of.items():
        own = slice(*np.searchsorted(group, (key, key + 1)))
        hits[:, own] = greedy(overlaps(corners[own], labelled_corners[objects]), thresholds) >= 0

    matches = []
    for index in class_at.values():
        own = slice(*np.searchsorted(kinds, (index, index + 1)))
        order = np.argsort(-scores[own], kind="stable")
        per_image = np.bincount(labelled_images[labelled_kinds == index], minlength=len(image_at))
        matches.append(ClassMatches(scores[own][order], images[own][order], hits[:, own][:, order], per_image))
    return matches


def _columns(
    records: list[dict[str, Any]], class_at: dict[int, int], image_at: dict[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Positions of class and image, and boxes."""
    kinds = np.array([class_at[record["category_id"]] for record in records], dtype=np.int64)
    images = np.array([image_at[record["image_id"]] for record in records], dtype=np.int64)
    return kinds, images, boxes(records)


def boxes(records: list[dict[str, Any]]) -> NDArray[np.float64]:
    """[records, 4], as COCO has them: x, y, width, height."""
    return np.array([record["bbox"] for record in records], dtype=np.float64).reshape(-1, 4)


def overlaps(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of every box of `ours` [n, 4] with every one of `theirs` [m, 4]: [n, m]. Boxes are x, y, width, height."""
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, :2] + ours[:, None, 2:], theirs[None, :, :2] + theirs[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    together = np.prod(ours[:, 2:], axis=1)[:, None] + np.prod(theirs[:, 2:], axis=1)[None, :] - shared
    iou: NDArray[np.float64] = np.divide(shared, together, out=np.zeros_like(shared), where=together > 0)
    return iou


def greedy(iou: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """The object that each prediction takes at each threshold, -1 for none: [thresholds, predictions].

    `iou` is [predictions, objects], the best scored prediction first.
    """
    predictions, objects = iou.shape
    taken_by = np.full((len(thresholds), predictions), -1)
    if not objects:
        return taken_by
    every = np.arange(len(thresholds))
    free = np.ones((len(thresholds), objects), dtype=bool)
    for index in np.flatnonzero(iou.max(axis=1) >= thresholds[0]):
        open_iou = np.where(free, iou[index], -1.0)
        # Of equal overlaps COCO takes the last one.
        best = objects - 1 - open_iou[:, ::-1].argmax(axis=1)
        enough = open_iou[every, best] >= thresholds
        taken_by[enough, index] = best[enough]
        free[every[enough], best[enough]] = False
    return taken_by


def average_precision(
    ranks: NDArray[np.int64], weights: NDArray[np.int64], objects: NDArray[np.int64]
) -> NDArray[np.float64]:
    """COCO's average precision of samples in which predictions are there several times, or not at all: [samples].

    `ranks` and `weights` are [samples, hits], best score first: how many predictions there are up to and with each
    hit, and how often the hit itself is there; `objects` is [samples]. COCO's rule: precision at 101 recalls, each
    with the best precision of its own and any higher recall; mean of them. Recall rises only at a hit, so nothing
    else need be looked at. NaN where a sample has no objects.
    """
    found = np.cumsum(weights, axis=1)
    precision = found / (ranks + np.spacing(1))  # the spacing is COCO's guard against 0 / 0
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = found / objects[:, None]
    reached = np.searchsorted(RECALL_POINTS, recall, side="right")
    area = np.sum(best * np.diff(reached, axis=1, prepend=0), axis=1) / len(RECALL_POINTS)
    return np.where(objects > 0, area, np.nan)


def average_precision_of(hits: NDArray[np.bool_], objects: int) -> float:
    """The same of one sample with everything once; `hits` [predictions] with the best score first."""
    ranks = np.flatnonzero(hits)[None] + 1
    return float(average_precision(ranks, np.ones_like(ranks), np.array([objects]))[0])

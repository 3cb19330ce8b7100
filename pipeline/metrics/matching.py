"""Match predictions with objects as COCO does, and keep the result for every prediction.

faster-coco-eval returns only the figures, not the matches. Intervals, thresholds, curves, calibration, error costs and
comparisons of two models need them, so this module matches too; tests check that both agree.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.iou import iou_blocks
from pipeline.records.coco import Annotation, GroundTruth, Prediction

# COCO's ten IoU thresholds, computed as in pycocotools.
IOU_THRESHOLDS: NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = 100  # per class and image, highest scores first


class Rows(NamedTuple):
    """Boxes of all images, one per row: position of the image and of the class, [x, y, width, height], score."""

    images: NDArray[np.int64]  # [boxes]
    classes: NDArray[np.int64]  # [boxes]
    boxes: NDArray[np.float64]  # [boxes, 4]
    scores: NDArray[np.float64]  # [boxes], meaningless for labels


@dataclass(frozen=True, slots=True)
class ClassMatches:
    """The predictions of one class on all images of a split, highest score first.

    `images` holds the position of each prediction's image in the ground truth; `hits[t]` whether the prediction is a
    true positive at `IOU_THRESHOLDS[t]`; `objects` the number of labelled objects per image.
    """

    scores: NDArray[np.float64]  # [predictions]
    images: NDArray[np.int64]  # [predictions]
    hits: NDArray[np.bool_]  # [thresholds, predictions]
    objects: NDArray[np.int64]  # [images]


def match(truth: GroundTruth, predictions: list[Prediction], max_detections: float | None = None) -> list[ClassMatches]:
    """Match a COCO dataset with COCO results; return one `ClassMatches` per category, in the order of `truth`.

    `max_detections` predictions per image and class count, those of the highest scores: `limit` if None.
    """
    image_at = {image["id"]: index for index, image in enumerate(truth["images"])}
    class_at = {category["id"]: index for index, category in enumerate(truth["categories"])}

    def rows(records: Sequence[Annotation | Prediction]) -> Rows:
        return Rows(
            np.array([image_at[record["image_id"]] for record in records], dtype=np.int64),
            np.array([class_at[record["category_id"]] for record in records], dtype=np.int64),
            boxes(records),
            np.array([record.get("score", 1) for record in records], dtype=np.float64),
        )

    return match_rows(rows(truth["annotations"]), rows(predictions), len(image_at), len(class_at), max_detections)


def match_rows(
    labelled: Rows, found: Rows, images: int, classes: int, max_detections: float | None = None
) -> list[ClassMatches]:
    """Match as COCO does; return one `ClassMatches` per class.

    Within an image and class, predictions choose in order of score. Each takes the free object with the highest IoU, if
    that reaches the threshold.
    """
    # Stable, as COCO's merge sort is: equal scores stay in their order.
    order = np.lexsort((-found.scores, found.images, found.classes))
    group = found.classes[order] * images + found.images[order]  # one number per class and image
    labels = (labelled.classes * images + labelled.images).tolist()
    counted = np.arange(len(order)) - np.searchsorted(group, group) < (max_detections or limit(labels))
    order, group = order[counted], group[counted]
    found = Rows(found.images[order], found.classes[order], found.boxes[order], found.scores[order])

    objects_of: dict[int, list[int]] = {}
    for index, key in enumerate(labels):
        objects_of.setdefault(key, []).append(index)
    hits = np.zeros((len(IOU_THRESHOLDS), len(order)), dtype=bool)
    for key, objects in objects_of.items():
        rows = slice(*np.searchsorted(group, (key, key + 1)))
        hits[:, rows] = take(found.boxes[rows], labelled.boxes[objects], IOU_THRESHOLDS) >= 0

    matches = []
    for index in range(classes):
        rows = slice(*np.searchsorted(found.classes, (index, index + 1)))
        order = np.argsort(-found.scores[rows], kind="stable")
        per_image = np.bincount(labelled.images[labelled.classes == index], minlength=images)
        matches.append(
            ClassMatches(found.scores[rows][order], found.images[rows][order], hits[:, rows][:, order], per_image)
        )
    return matches


def limit(objects: Iterable[Hashable]) -> float:
    """Return how many predictions per image and class count; `objects` has the (image, class) of each labelled object.

    These are COCO's 100, or all if an image has more objects of a class than that, which 100 could not all find.
    """
    return MAX_DETECTIONS if most(objects) <= MAX_DETECTIONS else math.inf


def most(keys: Iterable[Hashable]) -> int:
    """Return how often the most frequent key occurs; 0 without keys."""
    return max(Counter(keys).values(), default=0)


def boxes(records: Sequence[Annotation | Prediction]) -> NDArray[np.float64]:
    """Return the boxes of COCO records as [records, 4]: x, y, width, height in pixels."""
    return np.array([record["bbox"] for record in records], dtype=np.float64).reshape(-1, 4)


def class_ids(records: Sequence[Annotation | Prediction]) -> NDArray[np.int64]:
    return np.array([record["category_id"] for record in records], dtype=np.int64)


def by_image(truth: GroundTruth, predictions: list[Prediction]) -> list[tuple[list[Annotation], list[Prediction]]]:
    """Return the annotations and predictions of each image, predictions with the highest score first."""
    images: dict[int, tuple[list[Annotation], list[Prediction]]] = {image["id"]: ([], []) for image in truth["images"]}
    for annotation in truth["annotations"]:
        images[annotation["image_id"]][0].append(annotation)
    for prediction in sorted(predictions, key=lambda record: -record["score"]):
        images[prediction["image_id"]][1].append(prediction)
    return list(images.values())


def take(
    ours: NDArray[np.float64],
    theirs: NDArray[np.float64],
    thresholds: NDArray[np.float64],
    classes: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> NDArray[np.int64]:
    """Return the object that each prediction takes at each threshold, or -1: [thresholds, predictions].

    Predictions are `ours`, the highest score first, and objects `theirs`. With the `classes` of both, a prediction
    takes only objects of its class.
    """
    taken_by = np.full((len(thresholds), len(ours)), -1)
    free = np.ones((len(thresholds), len(theirs)), dtype=bool)
    for rows, iou in iou_blocks(ours, theirs):
        comparable = iou if classes is None else iou * (classes[0][rows, None] == classes[1])
        taken_by[:, rows] = greedy(comparable, thresholds, free)
    return taken_by


def greedy(
    iou: NDArray[np.float64], thresholds: NDArray[np.float64], free: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Return what `take` returns, from IoU [predictions, objects] with the highest-scored prediction first.

    `free` [thresholds, objects] says which objects earlier predictions left, and is updated.
    """
    predictions, objects = iou.shape
    taken_by = np.full((len(thresholds), predictions), -1)
    if not objects:
        return taken_by
    every = np.arange(len(thresholds))
    if free is None:
        free = np.ones((len(thresholds), objects), dtype=bool)
    for index in np.flatnonzero(iou.max(axis=1) >= thresholds[0]):
        open_iou = np.where(free, iou[index], -1.0)
        # Among equal IoUs COCO takes the last one.
        best = objects - 1 - open_iou[:, ::-1].argmax(axis=1)
        enough = open_iou[every, best] >= thresholds
        taken_by[enough, index] = best[enough]
        free[every[enough], best[enough]] = False
    return taken_by

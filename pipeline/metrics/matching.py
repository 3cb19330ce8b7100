"""Which prediction found which object: COCO's matching, kept prediction by prediction.

faster-coco-eval gives the figures and throws the matches away. Intervals, thresholds, curves, calibration, error
costs and the differences between two models need them, so the matching is done here; that both agree is tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.iou import pairwise_iou
from pipeline.records.coco import Annotation, GroundTruth, Prediction

# COCO's ten overlaps, as pycocotools makes them.
IOU_THRESHOLDS: NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = 100  # of a class in an image, best scored first


class Rows(NamedTuple):
    """Boxes of all images, one per row: position of the image and of the class, [x, y, width, height], score."""

    images: NDArray[np.int64]  # [boxes]
    classes: NDArray[np.int64]  # [boxes]
    boxes: NDArray[np.float64]  # [boxes, 4]
    scores: NDArray[np.float64]  # [boxes], of no meaning for labels


@dataclass(frozen=True, slots=True)
class ClassMatches:
    """The predictions of one class on all images of a split, best score first.

    `images` holds, per prediction, the position of its image in the ground truth; `hits[t]` whether it is the
    prediction that found an object at the overlap `IOU_THRESHOLDS[t]`; `objects` the labelled objects per image.
    """

    scores: NDArray[np.float64]  # [predictions]
    images: NDArray[np.int64]  # [predictions]
    hits: NDArray[np.bool_]  # [thresholds, predictions]
    objects: NDArray[np.int64]  # [images]


def match(
    truth: GroundTruth, predictions: list[Prediction], max_detections: int | None = MAX_DETECTIONS
) -> list[ClassMatches]:
    """Match a COCO data set with COCO results: a `ClassMatches` per category in the order of `truth`."""
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
    labelled: Rows, found: Rows, images: int, classes: int, max_detections: int | None = MAX_DETECTIONS
) -> list[ClassMatches]:
    """Match as COCO does, a `ClassMatches` per class.

    Within an image and class the best scored prediction chooses first, and takes the free object that it
    overlaps most if that is enough.
    """
    # Stable, as COCO's merge sort is: equal scores stay in their order.
    order = np.lexsort((-found.scores, found.images, found.classes))
    group = found.classes[order] * images + found.images[order]  # of one class in one image
    counted = np.arange(len(order)) - np.searchsorted(group, group) < (max_detections or np.inf)
    order, group = order[counted], group[counted]
    found = Rows(found.images[order], found.classes[order], found.boxes[order], found.scores[order])

    objects_of: dict[int, list[int]] = {}
    for index, key in enumerate((labelled.classes * images + labelled.images).tolist()):
        objects_of.setdefault(key, []).append(index)
    hits = np.zeros((len(IOU_THRESHOLDS), len(order)), dtype=bool)
    for key, objects in objects_of.items():
        own = slice(*np.searchsorted(group, (key, key + 1)))
        hits[:, own] = greedy(pairwise_iou(found.boxes[own], labelled.boxes[objects]), IOU_THRESHOLDS) >= 0

    matches = []
    for index in range(classes):
        own = slice(*np.searchsorted(found.classes, (index, index + 1)))
        order = np.argsort(-found.scores[own], kind="stable")
        per_image = np.bincount(labelled.images[labelled.classes == index], minlength=images)
        matches.append(
            ClassMatches(found.scores[own][order], found.images[own][order], hits[:, own][:, order], per_image)
        )
    return matches


def boxes(records: Sequence[Annotation | Prediction]) -> NDArray[np.float64]:
    """[records, 4], as COCO has them: x, y, width, height."""
    return np.array([record["bbox"] for record in records], dtype=np.float64).reshape(-1, 4)


def by_image(truth: GroundTruth, predictions: list[Prediction]) -> list[tuple[list[Annotation], list[Prediction]]]:
    """Annotations and predictions of each image, the best scored prediction first."""
    images: dict[int, tuple[list[Annotation], list[Prediction]]] = {image["id"]: ([], []) for image in truth["images"]}
    for annotation in truth["annotations"]:
        images[annotation["image_id"]][0].append(annotation)
    for prediction in sorted(predictions, key=lambda record: -record["score"]):
        images[prediction["image_id"]][1].append(prediction)
    return list(images.values())


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

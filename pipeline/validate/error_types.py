"""Classify the error of each prediction, and compute the average precision that each error type costs.

The six types, their precedence and the computation of their costs follow TIDE (Bolya et al., "TIDE: A General Toolbox
for Identifying Object Detection Errors", ECCV 2020), at its two IoU thresholds:

    classification  IoU of at least 0.5 with an object of another class
    localisation    IoU of 0.1 to 0.5 with an object of its class
    both            neither class nor place is right, and no other type applies
    duplicate       IoU of at least 0.5 with an object of its class that a higher-scored prediction has found
    background      no IoU above 0.1 with any object
    missed          an object that no prediction found, and that no classification or localisation error concerns
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np

from pipeline.metrics.iou import iou_blocks
from pipeline.metrics.matching import boxes, by_image, class_ids, most, take
from pipeline.metrics.precision_recall import average_precision_of
from pipeline.records.coco import Annotation, GroundTruth, Prediction
from pipeline.records.errors import ErrorFile, Mistake, ObjectKind, PredictionKind
from pipeline.records.metrics import Confusion

FOREGROUND, BACKGROUND = 0.5, 0.1
MISTAKES: tuple[str, ...] = get_args(Mistake)
KINDS = (*MISTAKES, "missed")
MAX_DETECTIONS = 100  # per image, all classes together, as in TIDE; without limit if an image holds more objects
FIXABLE = ("classification", "localisation")  # the errors that find an object once they are fixed


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A prediction, its kind ("tp" or one of MISTAKES), and the object it concerns; None for background."""

    prediction: Prediction
    kind: PredictionKind
    annotation: Annotation | None
    iou: float


def diagnose(truth: GroundTruth, predictions: list[Prediction], max_detections: int | None = None) -> list[Diagnosis]:
    """Return every prediction with its kind, image by image, highest score first."""
    diagnoses = []
    for labelled, predicted in by_image(truth, predictions):
        diagnoses += _diagnose_image(labelled, predicted[:max_detections])
    return diagnoses


def _diagnose_image(labelled: list[Annotation], predicted: list[Prediction]) -> list[Diagnosis]:
    if not labelled:
        return [Diagnosis(prediction, "background", None, 0.0) for prediction in predicted]
    ours, theirs = boxes(predicted), boxes(labelled)
    our_classes, their_classes = class_ids(predicted), class_ids(labelled)
    [matched] = take(ours, theirs, np.array([FOREGROUND]), (our_classes, their_classes))
    found = np.isin(np.arange(len(labelled)), matched)
    diagnoses = []
    for rows, iou in iou_blocks(ours, theirs):
        same = our_classes[rows, None] == their_classes
        diagnoses += _diagnose_rows(labelled, predicted[rows], iou, same, matched[rows], found)
    return diagnoses


def _diagnose_rows(
    labelled: list[Annotation], predicted: list[Prediction], iou: Any, same: Any, matched: Any, found: Any
) -> list[Diagnosis]:
    """Diagnose some predictions of an image from their IoU with its objects and the object that each matched.

    `iou` is [predictions, objects], and so is `same`, which says whether they share a class. `found` says which objects
    any prediction of the image matched.
    """
    iou_same, iou_other = iou * same, iou * ~same
    iou_found = iou_same * found
    best_same, best_other, best = iou_same.max(axis=1), iou_other.max(axis=1), iou.max(axis=1)
    # The first case that is true gives the kind and the object of a prediction. The order is TIDE's: a localisation
    # error takes precedence over everything else that the box overlaps.
    cases = [
        ("tp", matched >= 0, matched),
        ("localisation", (best_same >= BACKGROUND) & (best_same <= FOREGROUND), iou_same.argmax(axis=1)),
        ("classification", best_other >= FOREGROUND, iou_other.argmax(axis=1)),
        ("duplicate", iou_found.max(axis=1) >= FOREGROUND, iou_found.argmax(axis=1)),
        ("background", best <= BACKGROUND, iou.argmax(axis=1)),
        ("both", np.ones(len(predicted), dtype=bool), iou.argmax(axis=1)),
    ]
    case = np.argmax([true for _, true, _ in cases], axis=0)
    about = np.choose(case, [position for _, _, position in cases])
    overlap = iou[np.arange(len(predicted)), about]
    return [
        Diagnosis(prediction, kind, None if kind == "background" else labelled[position], value)
        for prediction, kind, position, value in zip(
            predicted, (cases[number][0] for number in case), about.tolist(), overlap.tolist(), strict=True
        )
    ]


def objects(truth: GroundTruth, diagnoses: list[Diagnosis]) -> dict[int, tuple[ObjectKind, Diagnosis | None]]:
    """Return the outcome of each object by annotation id ("tp", a FIXABLE error or "missed") and its prediction.

    Among several errors about an object that was not found, the one with the highest score counts.
    """
    outcomes: dict[int, tuple[ObjectKind, Diagnosis | None]] = {
        record["id"]: ("missed", None) for record in truth["annotations"]
    }
    about_objects = [
        diagnosis for diagnosis in diagnoses if diagnosis.annotation and diagnosis.kind in ("tp", *FIXABLE)
    ]
    for diagnosis in sorted(
        about_objects, key=lambda diagnosis: (diagnosis.kind != "tp", -diagnosis.prediction["score"])
    ):
        if diagnosis.annotation and outcomes[diagnosis.annotation["id"]][1] is None:
            outcomes[diagnosis.annotation["id"]] = (cast(ObjectKind, diagnosis.kind), diagnosis)
    return outcomes


def count(diagnoses: list[Diagnosis], outcomes: dict[int, tuple[ObjectKind, Diagnosis | None]]) -> dict[str, int]:
    counts = dict.fromkeys(("tp", *MISTAKES), 0)
    for diagnosis in diagnoses:
        counts[diagnosis.kind] += 1
    return {**counts, "missed": sum(kind == "missed" for kind, _ in outcomes.values())}


def costs(truth: GroundTruth, predictions: list[Prediction]) -> dict[str, float | None]:
    """Return the gain in mAP50 (0 to 1) from fixing all errors of one type and none of the others.

    Fixing turns the highest-scored classification or localisation error about a missed object into a true positive and
    removes the rest. It removes all other errors, and removes missed objects from the ground truth. None if no objects
    remain.
    """
    crowded = most(record["image_id"] for record in truth["annotations"]) > MAX_DETECTIONS
    diagnoses = diagnose(truth, predictions, None if crowded else MAX_DETECTIONS)
    outcomes = objects(truth, diagnoses)
    diagnoses.sort(key=lambda diagnosis: -diagnosis.prediction["score"])
    labelled = {category["id"]: 0 for category in truth["categories"]}
    missed = dict(labelled)
    for annotation in truth["annotations"]:
        labelled[annotation["category_id"]] += 1
        missed[annotation["category_id"]] += outcomes[annotation["id"]][0] == "missed"
    kinds = np.array([diagnosis.kind for diagnosis in diagnoses], dtype=object)
    classes = np.array([diagnosis.prediction["category_id"] for diagnosis in diagnoses], dtype=int)
    # The class of the object that a prediction finds once it is fixed; -1 if fixing removes it.
    fixed = np.array([_fixed_class(diagnosis, outcomes) for diagnosis in diagnoses], dtype=int)
    before = _map50(classes, kinds == "tp", labelled, labelled)
    if before is None:
        return dict.fromkeys(KINDS)
    cost: dict[str, float | None] = {}
    for kind in KINDS:
        if kind == "missed":
            positives = {index: labelled[index] - missed[index] for index in labelled}
            after = _map50(classes, kinds == "tp", labelled, positives)
        else:
            right = kinds == kind
            after = _map50(np.where(right, fixed, classes), right | (kinds == "tp"), labelled, labelled)
        # With fewer points on the curve a recall may round differently; fixing never lowers the figure.
        cost[kind] = None if after is None else round(max(after - before, 0.0), 6)
    return cost


def _fixed_class(diagnosis: Diagnosis, outcomes: dict[int, tuple[ObjectKind, Diagnosis | None]]) -> int:
    if diagnosis.kind in FIXABLE and diagnosis.annotation and outcomes[diagnosis.annotation["id"]][1] is diagnosis:
        return int(diagnosis.annotation["category_id"])
    return -1


def _map50(classes: Any, hits: Any, labelled: dict[int, int], positives: dict[int, int]) -> float | None:
    """Return the mean AP over classes with objects; None if there are none. `positives` is the denominator of recall.

    `classes` and `hits` are [predictions], highest score first. As in COCO, and unlike in TIDE's own code, a class
    without objects does not count.
    """
    figures = []
    for index in (index for index, number in labelled.items() if number):
        of_class = hits[classes == index]
        if positives[index]:
            figures.append(average_precision_of(of_class, positives[index]))
        elif len(of_class):  # no objects remain, but there are predictions
            figures.append(0.0)
    return float(np.mean(figures)) if figures else None


def confusion(truth: GroundTruth, predictions: list[Prediction]) -> Confusion:
    """Return the confusion matrix: labelled classes in rows, predicted classes in columns, background last in both.

    Each object and each prediction counts once. True positives are paired first, then, highest score first, the
    remaining pairs of different classes with an IoU of at least 0.5. All others pair with background.
    """
    index_of = {category["id"]: index for index, category in enumerate(truth["categories"])}
    background = len(index_of)
    matrix = np.zeros((background + 1, background + 1), dtype=int)
    for labelled, predicted in by_image(truth, predictions):
        rows = [index_of[record["category_id"]] for record in labelled]
        columns = [index_of[record["category_id"]] for record in predicted]
        ours, theirs, threshold = boxes(predicted), boxes(labelled), np.array([FOREGROUND])
        [takes] = take(ours, theirs, threshold, (class_ids(predicted), class_ids(labelled)))
        left, free = np.flatnonzero(takes < 0), np.setdiff1d(np.arange(len(labelled)), takes)
        [rest] = take(ours[left], theirs[free], threshold)
        takes[left[rest >= 0]] = free[rest[rest >= 0]]
        for position, column in enumerate(columns):
            matrix[rows[takes[position]] if takes[position] >= 0 else background, column] += 1
        for position in set(range(len(labelled))) - set(takes.tolist()):
            matrix[rows[position], background] += 1
    names = [category["name"] for category in truth["categories"]]
    return {"labels": [*names, "background"], "matrix": matrix.tolist()}


def kept(predictions: list[Prediction], thresholds: list[float]) -> list[Prediction]:
    """Return the predictions that reach the threshold of their class; `thresholds` is indexed by category id."""
    return [record for record in predictions if record["score"] >= thresholds[record["category_id"]]]


def record(truth: GroundTruth, predictions: list[Prediction], thresholds: dict[str, float]) -> ErrorFile:
    """Return the errors file of a split: every prediction with its error type, every object with its outcome."""
    diagnoses = diagnose(truth, predictions)
    outcomes = objects(truth, diagnoses)
    number = {id(diagnosis): position for position, diagnosis in enumerate(diagnoses, start=1)}
    return {
        "iou": {"foreground": FOREGROUND, "background": BACKGROUND},
        "thresholds": thresholds,
        "predictions": [
            {
                "id": number[id(diagnosis)],
                **diagnosis.prediction,
                "type": diagnosis.kind,
                "annotation_id": diagnosis.annotation["id"] if diagnosis.annotation else None,
                "iou": round(diagnosis.iou, 6),
            }
            for diagnosis in diagnoses
        ],
        "objects": [
            {
                "annotation_id": annotation["id"],
                "image_id": annotation["image_id"],
                "type": outcomes[annotation["id"]][0],
                "prediction_id": number.get(id(outcomes[annotation["id"]][1])),
            }
            for annotation in truth["annotations"]
        ],
        "missed": [index for index, (kind, _) in outcomes.items() if kind == "missed"],
        "counts": count(diagnoses, outcomes),
    }

"""Compute COCO's figures with faster-coco-eval."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pipeline.metrics import pieces
from pipeline.metrics.matching import MAX_DETECTIONS, limit, most
from pipeline.records.coco import GroundTruth, Prediction
from pipeline.records.figures import CocoFigures

# Names of COCOeval's twelve figures, in its order; those of the three size bins are grouped below.
STATS = (
    "map50_95",
    "map50",
    "map75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar1",
    "ar10",
    "ar100",
    "ar_small",
    "ar_medium",
    "ar_large",
)


def evaluate(truth: GroundTruth, predictions: list[Prediction], max_detections: float | None = None) -> CocoFigures:
    """Return COCO average precision and recall, 0 to 1; None for a class or size without labelled objects.

    `max_detections` predictions per image and class count: `limit` if None.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    counted = max_detections or limit((record["image_id"], record["category_id"]) for record in truth["annotations"])
    names = {category["id"]: category["name"] for category in truth["categories"]}
    objects = {index: 0 for index in names}
    for annotation in truth["annotations"]:
        objects[annotation["category_id"]] += 1
    labelled, found = pieces.split(truth, predictions) if math.isinf(counted) else (truth, predictions)
    coco = COCO(labelled)
    results = coco.loadRes(found or [_nothing(truth)])
    evaluator = COCOeval_faster(coco, results, "bbox", print_function=lambda *words: None)
    if math.isinf(counted):
        evaluator.params.maxDets[-1] = max(MAX_DETECTIONS, most(record["image_id"] for record in found))
    evaluator.run()
    figure = dict(zip(STATS, map(float, evaluator.stats), strict=False))
    if math.isinf(counted):  # the predictions of a piece are not those of an image
        of_images = evaluate(truth, predictions, MAX_DETECTIONS)
        for name, value in (("ar1", of_images["ar1"]), ("ar10", of_images["ar10"])):
            figure[name] = -1.0 if value is None else value
    # [IoU threshold 0.5:0.95, recall, class, area (0: all), detections per image (2: all that count)]
    precision, recall = evaluator.eval["precision"][:, :, :, 0, 2], evaluator.eval["recall"][:, :, 0, 2]
    per_class = {
        index: (_mean(precision[:, :, column]), _mean(precision[0, :, column]), _mean(recall[:, column]))
        for column, index in enumerate(evaluator.params.catIds)
    }
    return {
        "map50_95": _or_none(figure["map50_95"]),
        "map50": _or_none(figure["map50"]),
        "map75": _or_none(figure["map75"]),
        "ar1": _or_none(figure["ar1"]),
        "ar10": _or_none(figure["ar10"]),
        "ar100": _or_none(figure["ar100"]),
        "per_size": {
            size: {"ap": _or_none(figure[f"ap_{size}"]), "ar": _or_none(figure[f"ar_{size}"])}
            for size in ("small", "medium", "large")
        },
        "per_class": {
            names[index]: {
                "map50_95": _or_none(ap) if objects[index] else None,
                "map50": _or_none(ap50) if objects[index] else None,
                "ar100": _or_none(ar) if objects[index] else None,
                "objects": objects[index],
            }
            for index, (ap, ap50, ar) in per_class.items()
        },
        "images": len(truth["images"]),
        "objects": len(truth["annotations"]),
        "predictions": len(predictions),
        "max_detections": None if math.isinf(counted) else int(counted),
    }


def _nothing(truth: GroundTruth) -> Prediction:
    """Return a prediction that finds nothing, because the evaluator refuses an empty list."""
    image, category = truth["images"][0]["id"], truth["categories"][0]["id"]
    return {"image_id": image, "category_id": category, "bbox": [0, 0, 0, 0], "score": 0.0}


def _mean(values: Any) -> float:
    """Return COCO's mean, which skips entries of -1 (classes without objects); -1 if nothing is left."""
    valid = values[values > -1]
    return float(np.mean(valid)) if valid.size else -1.0


def _or_none(figure: float) -> float | None:
    return None if figure < 0 else round(figure, 6)

"""Precision, recall and F1 at every score, from what `validate` left on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IOU = 0.5
MAX_DETECTIONS = 100  # of a class in an image, as COCO has it

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """One class, best score first: what holds if every prediction down to `scores[i]` counts.

    A prediction is right if it found an object at IoU 0.5. Empty for a class without objects or predictions.
    """

    name: str
    objects: int
    scores: Values
    precision: Values
    recall: Values

    @property
    def f1(self) -> Values:
        total = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0)


def curves(truth: dict[str, Any], predictions: list[dict[str, Any]]) -> list[Curve]:
    """A curve per class of a COCO data set, those with most objects first; `predictions` are COCO results."""
    hits = _hits(truth, predictions)
    found = []
    for category in truth["categories"]:
        objects = sum(record["category_id"] == category["id"] for record in truth["annotations"])
        scored = [
            (record["score"], number in hits)
            for number, record in enumerate(predictions, start=1)
            if record["category_id"] == category["id"]
        ]
        scored.sort(key=lambda pair: -pair[0])
        scores = np.array([score for score, _ in scored if objects], dtype=np.float64)
        right = np.cumsum([hit for _, hit in scored if objects], dtype=np.float64)
        # Equal scores count together: no threshold lies between them.
        last = np.flatnonzero(np.diff(scores, append=-1.0))
        found.append(
            Curve(category["name"], objects, scores[last], right[last] / (last + 1), right[last] / max(objects, 1))
        )
    return sorted(found, key=lambda curve: -curve.objects)


def _hits(truth: dict[str, Any], predictions: list[dict[str, Any]]) -> set[int]:
    """Numbers, from 1, of the predictions that found an object."""
    if not predictions or not truth["annotations"]:
        return set()
    from faster_coco_eval import COCO, COCOeval_faster

    coco = COCO(truth)
    evaluator = COCOeval_faster(
        coco, coco.loadRes(predictions), "bbox", print_function=lambda *words: None, extra_calc=True
    )
    # Only one overlap and all sizes: `matched` would mix them, and is named "PREDICTION_OBJECT".
    evaluator.params.iouThrs = [IOU]
    evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluator.params.maxDets = [MAX_DETECTIONS]
    evaluator.evaluate()
    evaluator.accumulate()
    return {int(pair.split("_")[0]) for pair in evaluator.eval["matched"]}

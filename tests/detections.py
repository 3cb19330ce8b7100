"""Ground truth and predictions for the tests of `validate`, random or by hand, and the reference evaluator."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

Truth = dict[str, Any]
Predictions = list[dict[str, Any]]
Bbox = tuple[float, float, float, float]

# pycocotools' stats, in its order.
STATS = ("map50_95", "map50", "map75", "small", "medium", "large", "ar1", "ar10", "ar100")


def scene(*images: list[tuple[str, Bbox]], names: str = "ab") -> Truth:
    """Images of 1000 x 1000 with objects given as (class, box). Classes are letters; ids count as validate's do."""
    truth: Truth = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": 1000, "height": 1000} for i in range(1, len(images) + 1)
        ],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }
    for image_id, objects in enumerate(images, start=1):
        for name, bbox in objects:
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "image_id": image_id, "category_id": names.index(name), "bbox": list(bbox), "area": bbox[2] * bbox[3], "iscrowd": 0}
            )  # fmt: skip
    return truth


def seen(image_id: int, name: str, bbox: Bbox, score: float, names: str = "ab") -> dict[str, Any]:
    return {"image_id": image_id, "category_id": names.index(name), "bbox": list(bbox), "score": score}


def noisy(seed: int, images: int = 25, classes: int = 3) -> tuple[Truth, Predictions]:
    """Objects of all sizes, and predictions: correct, shifted, of another class, duplicated, spurious or missing."""
    rng = np.random.default_rng(seed)
    truth = scene(*[[] for _ in range(images)], names="abcdefgh"[:classes])
    predictions = []
    for image_id in range(1, images + 1):
        for _ in range(int(rng.integers(0, 12))):
            width, height = np.exp(rng.uniform(np.log(8), np.log(250), 2))
            bbox = [*rng.uniform(0, (640 - width, 480 - height)).tolist(), float(width), float(height)]
            category = int(rng.integers(classes))
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "image_id": image_id, "category_id": category, "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0}
            )  # fmt: skip
            for _ in range(int(rng.choice([0, 1, 1, 1, 2]))):
                shifted = (np.array(bbox) + rng.normal(0, 0.08, 4) * [width, height, width, height]).tolist()
                label = category if rng.random() < 0.9 else int(rng.integers(classes))
                predictions.append(
                    {"image_id": image_id, "category_id": label, "bbox": shifted, "score": float(rng.random())}
                )
        for _ in range(int(rng.integers(0, 4))):
            predictions.append(
                {"image_id": image_id, "category_id": int(rng.integers(classes)), "bbox": [*rng.uniform(0, 300, 2).tolist(), 40.0, 40.0], "score": float(rng.random() * 0.6)}
            )  # fmt: skip
    return truth, predictions


def by_pycocotools(truth: Truth, predictions: Predictions, category: int | None = None) -> dict[str, float]:
    evaluator = _evaluated(truth, predictions, category)
    return dict(zip(STATS, evaluator.stats.tolist(), strict=False))


def matches_by_pycocotools(truth: Truth, predictions: Predictions) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Per class, the scores of its predictions and whether each matched an object at IoU 0.5."""
    evaluator = _evaluated(truth, predictions, None)
    every, most = evaluator.params.areaRng[0], evaluator.params.maxDets[-1]
    matches = {}
    for category in truth["categories"]:
        images = [
            image
            for image in evaluator.evalImgs
            if image and (image["category_id"], image["aRng"], image["maxDet"]) == (category["id"], every, most)
        ]
        scores = np.concatenate([[], *(image["dtScores"] for image in images)])
        matches[category["name"]] = scores, np.concatenate([[], *(image["dtMatches"][0] > 0 for image in images)])
    return matches


def _evaluated(truth: Truth, predictions: Predictions, category: int | None) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"info": {}, **truth}
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(predictions), "bbox")
        if category is not None:
            evaluator.params.catIds = [category]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator

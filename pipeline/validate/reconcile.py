"""Evaluate the same predictions with other tools' metrics, and explain the differences.

Three tools compute three figures called mAP. To explain how one differs from COCO's, settings are changed to that
tool's one at a time, and the effect of each step is measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics import coco, pieces
from pipeline.metrics.matching import IOU_THRESHOLDS, ClassMatches, by_image, match
from pipeline.metrics.precision_recall import average_precision_of
from pipeline.records.coco import Annotation, GroundTruth, Prediction
from pipeline.records.figures import CocoFigures
from pipeline.records.metrics import Headline, Reconciliation, Step

Pair = tuple[float, float]  # mAP50-95, mAP50
SHOWN_SCORE = 0.25  # from which Ultralytics' predict shows a box
# FiftyOne takes about 3 s per 1,000 boxes, because it is meant for predictions that people look at.
FIFTYONE_SCORE = 0.05


def measure(
    truth: GroundTruth,
    every_label: list[Prediction],
    single_label: list[Prediction],
    figures: CocoFigures,
    tools: Collection[str],
) -> Reconciliation:
    """Evaluate with each of `tools`. `figures` are COCO's for `every_label`. Needs at least one labelled object."""
    start = _pair(figures)
    theirs: dict[str, Pair] = {}
    remaining: dict[str, Headline] = {}
    steps: list[Step] = []
    if "ultralytics" in tools:
        everything = match(truth, every_label, math.inf)
        unlimited, interpolated = _mean(everything, average_precision_of), _mean(everything, _ultralytics_ap)
        single = _by_coco(truth, single_label)
        shown = _by_coco(truth, [record for record in single_label if record["score"] >= SHOWN_SCORE])
        if figures["max_detections"] is not None:
            steps.append(
                _step(
                    "ultralytics",
                    "counts all predictions of an image, COCO only the best 100 of each class",
                    start,
                    unlimited,
                )
            )
        steps += [
            _step(
                "ultralytics",
                "joins the 101 points of the precision-recall curve with lines and takes the area, COCO their mean",
                unlimited,
                interpolated,
            ),
            _step(
                "model.predict", "keeps one class per box, where validation counts every class of a box", start, single
            ),
            _step("model.predict", f"keeps scores from {SHOWN_SCORE:g} up; AP needs the whole curve", single, shown),
        ]
        theirs["ultralytics"] = by_ultralytics(truth, every_label)
        remaining["ultralytics"] = _difference(interpolated, theirs["ultralytics"])
    if "fiftyone" in tools:
        confident = [record for record in every_label if record["score"] >= FIFTYONE_SCORE]
        cut = _by_coco(truth, confident)
        why = f"was given only scores from {FIFTYONE_SCORE:g} up, because it is slow with thousands of boxes"
        steps.append(_step("fiftyone", why, start, cut))
        theirs["fiftyone"] = by_fiftyone(truth, confident)
        remaining["fiftyone"] = _difference(cut, theirs["fiftyone"])
    return {
        "figures": {
            "coco": _named(start),
            **{tool: _named(theirs[tool]) if tool in theirs else None for tool in ("ultralytics", "fiftyone")},
        },
        "steps": steps,
        "remaining": {tool: remaining.get(tool) for tool in ("ultralytics", "fiftyone")},
        "notes": ["There are no crowd regions: convert leaves them out of the labels."],
    }


def _named(pair: Pair) -> Headline:
    return {"map50_95": round(pair[0], 6), "map50": round(pair[1], 6)}


def _difference(before: Pair, after: Pair) -> Headline:
    return _named((after[0] - before[0], after[1] - before[1]))


def _step(tool: str, cause: str, before: Pair, after: Pair) -> Step:
    return {"tool": tool, "cause": cause, **_difference(before, after)}


def _by_coco(truth: GroundTruth, predictions: list[Prediction]) -> Pair:
    return _pair(coco.evaluate(truth, predictions))


def _pair(figures: CocoFigures) -> Pair:
    """Return mAP50-95 and mAP50 of a split with objects."""
    assert figures["map50_95"] is not None and figures["map50"] is not None  # nothing else is reconciled
    return figures["map50_95"], figures["map50"]


def _mean(matches: list[ClassMatches], area: Callable[[NDArray[np.bool_], int], float]) -> Pair:
    """Return mAP50-95 and mAP50 over classes with objects, where `area` computes the area under the curve."""
    table = np.array(
        [
            [area(hits, int(of_class.objects.sum())) for hits in of_class.hits]
            for of_class in matches
            if of_class.objects.any()
        ]
    )
    return float(table.mean()), float(table[:, 0].mean())


def _ultralytics_ap(hits: NDArray[np.bool_], objects: int) -> float:
    from ultralytics.utils.metrics import compute_ap

    if not len(hits):
        return 0.0
    tp = np.cumsum(hits)
    return float(compute_ap(tp / objects, tp / np.arange(1, len(hits) + 1))[0])


def by_ultralytics(truth: GroundTruth, predictions: list[Prediction]) -> Pair:
    """Return mAP50-95 and mAP50 as Ultralytics' validation computes them: its IoU, its matching, its area."""
    import torch
    from ultralytics.engine.validator import BaseValidator
    from ultralytics.utils.metrics import DetMetrics, box_iou

    # `match_predictions` uses only the validator's IoU thresholds.
    validator = SimpleNamespace(iouv=torch.linspace(0.5, 0.95, len(IOU_THRESHOLDS)))
    metrics = DetMetrics({category["id"]: category["name"] for category in truth["categories"]})
    in_pieces = by_image(*pieces.split(truth, predictions))  # it compares all boxes of an image at once
    for number, (labelled, predicted) in enumerate(in_pieces):
        theirs, ours = (
            torch.tensor([record["category_id"] for record in records], dtype=torch.float32)
            for records in (labelled, predicted)
        )
        if labelled and predicted:
            iou = box_iou(_corners(labelled), _corners(predicted))
            hits = BaseValidator.match_predictions(validator, ours, theirs, iou).numpy()
        else:
            hits = np.zeros((len(predicted), len(IOU_THRESHOLDS)), dtype=bool)
        metrics.update_stats(
            {
                "tp": hits,
                "conf": np.array([record["score"] for record in predicted], dtype=np.float32),
                "pred_cls": ours.numpy(),
                "target_cls": theirs.numpy(),
                "target_img": np.unique(theirs.numpy()),
                "im_name": str(number),
            }
        )
    metrics.process()
    return float(metrics.box.map), float(metrics.box.map50)


def _corners(records: Sequence[Annotation | Prediction]) -> Any:
    import torch

    boxes = torch.tensor([record["bbox"] for record in records], dtype=torch.float32)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def by_fiftyone(truth: GroundTruth, predictions: list[Prediction]) -> Pair:
    """Return mAP50-95 and mAP50 as FiftyOne's COCO evaluation computes them, without starting its database."""
    from fiftyone.core.labels import Detection, Detections
    from fiftyone.utils.eval.coco import COCOEvaluationConfig, _compute_pr_curves

    names = {category["id"]: category["name"] for category in truth["categories"]}
    sizes = {image["id"]: (image["width"], image["height"]) for image in truth["images"]}
    samples: dict[int, dict[str, list[Any]]] = {image: {"truth": [], "found": []} for image in sizes}
    for field, records in (("truth", truth["annotations"]), ("found", predictions)):
        for record in records:
            width, height = sizes[record["image_id"]]
            x, y, w, h = record["bbox"]
            samples[record["image_id"]][field].append(
                Detection(
                    label=names[record["category_id"]],
                    bounding_box=[x / width, y / height, w / width, h / height],
                    confidence=record.get("score"),
                )
            )
    view = _View(
        {field: Detections(detections=predicted) for field, predicted in fields.items()} for fields in samples.values()
    )
    config = COCOEvaluationConfig("found", "truth", iou=0.5, classwise=True, compute_mAP=True)
    precision = _compute_pr_curves(view, config, classes=list(names.values()))[0]  # [overlap, class, recall]
    counted = precision[:, (precision > -1).all(axis=(0, 2))]
    return float(counted.mean()), float(counted[0].mean())


class _View(list[dict[str, Any]]):
    """A stand-in for a FiftyOne view, with the methods that its evaluation calls, over labels in memory."""

    def select_fields(self, fields: list[str]) -> _View:
        return self

    def _handle_frame_field(self, field: str) -> tuple[str, bool]:
        return field, False

    def iter_samples(self, progress: Any = None) -> _View:
        return self

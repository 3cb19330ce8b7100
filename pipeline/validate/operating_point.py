"""Choose a score threshold per class on val, and evaluate it on every split.

All figures are for single-label predictions, as a device makes them, at an IoU of 0.5.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipeline.config.judging import Wanted
from pipeline.metrics.matching import ClassMatches
from pipeline.metrics.precision_recall import Curve
from pipeline.records.metrics import Calibration, ChosenThreshold, ClassCounts, Counts, CountsByClass, OperatingPoint

IOU = 0.5
# The threshold for a class that val cannot decide: the score from which Ultralytics' predict shows a box.
DEFAULT_SCORE = 0.25
# Each image has hundreds of predictions below this score, never shown and rightly near zero. With them, any ECE would
# be small.
CALIBRATION_SCORE = 0.05
BINS = 10


def choose(matches: list[ClassMatches], names: list[str], wanted: Wanted | None, conf: float) -> OperatingPoint:
    """Choose the threshold of each class: the one with the best F1, or the best one for the wanted precision or recall.

    Among the thresholds that reach a wanted precision, the one with the highest recall is chosen, and vice versa. A
    threshold lies halfway between the last score kept and the next one, so that the rounding of an exported model does
    not change which predictions are kept. No threshold is below `conf`, the lowest score of a prediction: what lies
    there was not measured.
    """
    goal: dict[str, float | Literal["f1"]] = wanted.model_dump(exclude_none=True) if wanted else {"best": "f1"}
    thresholds: dict[str, float] = {}
    per_class: dict[str, ChosenThreshold] = {}
    for name, of_class in zip(names, matches, strict=True):
        curve = Curve.of(name, of_class)
        thresholds[name], decided, why = _choose(curve, wanted, conf)
        per_class[name] = {"objects": curve.objects, "decided": decided, "why": why}
    return {"chosen_on": "val", "wanted": goal, "iou": IOU, "thresholds": thresholds, "per_class": per_class}


def undecided(conf: float) -> float:
    """Return the threshold of a class that val cannot decide; nothing below `conf` was measured."""
    return max(DEFAULT_SCORE, conf)


def _choose(curve: Curve, wanted: Wanted | None, conf: float) -> tuple[float, bool, str]:
    """Return the threshold, whether val decided it, and why it is what it is."""
    default, usual = undecided(conf), "Ultralytics' default" if conf <= DEFAULT_SCORE else "validate.conf"
    if not curve.objects:
        return default, False, f"no labelled object in val, {usual}"
    if not curve.found.any():
        return default, False, f"no right prediction in val, {usual}"
    best, why = int(curve.f1.argmax()), "best F1"
    if wanted:
        [(figure, level)] = wanted.model_dump(exclude_none=True).items()
        precision, recall = curve.precision, curve.recall
        reached, best_of = (precision, recall) if figure == "precision" else (recall, precision)
        if (reached >= level).any():
            best, why = int(np.where(reached >= level, best_of, -1).argmax()), f"{figure} {level:g}"
        else:
            why = f"{figure} {level:g} is out of reach, best F1 instead"
    below = max(curve.scores[best + 1] if best + 1 < len(curve.scores) else 0.0, conf)
    # Scores have six decimals, so halves of their sums have seven; fewer decimals could admit the next prediction.
    return round(float(curve.scores[best] + below) / 2, 7), True, why


def judge(matches: list[ClassMatches], names: list[str], thresholds: dict[str, float]) -> CountsByClass:
    """Return counts, precision, recall and F1 of the predictions that reach the threshold of their class."""
    per_class: dict[str, ClassCounts] = {}
    total = np.zeros(3, dtype=int)
    for name, of_class in zip(names, matches, strict=True):
        kept = of_class.hits[0][of_class.scores >= thresholds[name]]
        tp = int(kept.sum())
        counts = np.array([tp, len(kept) - tp, int(of_class.objects.sum()) - tp])
        total += counts
        per_class[name] = {"threshold": thresholds[name], **_counts(*counts.tolist())}
    return {**_counts(*total.tolist()), "per_class": per_class}


def _counts(tp: int, fp: int, fn: int) -> Counts:
    return {
        "tp": tp,
        "fp": fp,
        "fn": fn,
        "precision": round(tp / (tp + fp), 6) if tp + fp else None,
        "recall": round(tp / (tp + fn), 6) if tp + fn else None,
        "f1": round(2 * tp / (2 * tp + fp + fn), 6) if tp + fn else None,
    }


def calibration(matches: list[ClassMatches]) -> Calibration:
    """Return a reliability diagram and the expected calibration error.

    With perfect calibration, predictions with a score of 0.7 are right 7 times in 10. The error (Naeini et al. 2015,
    for detections Küppers et al. 2020) is the gap between mean score and precision, averaged over ten bins of equal
    width, weighted by their numbers of predictions.
    """
    scores = np.concatenate([of_class.scores for of_class in matches])
    hits = np.concatenate([of_class.hits[0] for of_class in matches])
    scores, hits = scores[scores >= CALIBRATION_SCORE], hits[scores >= CALIBRATION_SCORE]
    bin_of = np.minimum((scores * BINS).astype(int), BINS - 1)
    bins, error = [], 0.0
    for index in range(BINS):
        inside = bin_of == index
        number = int(inside.sum())
        score, precision = (float(scores[inside].mean()), float(hits[inside].mean())) if number else (None, None)
        if score is not None and precision is not None:
            error += number / len(scores) * abs(score - precision)
        bins.append(
            {
                "from": index / BINS,
                "to": (index + 1) / BINS,
                "predictions": number,
                "score": None if score is None else round(score, 6),
                "precision": None if precision is None else round(precision, 6),
            }
        )
    return {
        "from_score": CALIBRATION_SCORE,
        "ece": round(error, 6) if len(scores) else None,
        "predictions": len(scores),
        "bins": bins,
    }

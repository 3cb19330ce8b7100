"""Compute precision and recall of one class at every score, and average precision, the area under that curve."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.matching import ClassMatches, match
from pipeline.records.coco import GroundTruth, Prediction

RECALL_POINTS: NDArray[np.float64] = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True)
class Curve:
    """Counts of one class at IoU 0.5 for every threshold `scores[i]`, highest first.

    Predictions of equal score share one entry, because no threshold lies between them. Empty for a class without
    objects or predictions.
    """

    name: str
    objects: int
    scores: NDArray[np.float64]
    kept: NDArray[np.int64]  # predictions at or above the score
    found: NDArray[np.int64]  # true positives among them

    @classmethod
    def of(cls, name: str, matches: ClassMatches) -> Curve:
        objects = int(matches.objects.sum())
        scores = matches.scores if objects else matches.scores[:0]
        ends = np.flatnonzero(np.diff(scores, append=-1.0))
        return cls(name, objects, scores[ends], ends + 1, np.cumsum(matches.hits[0])[ends])

    @property
    def precision(self) -> NDArray[np.float64]:
        return self.found / self.kept

    @property
    def recall(self) -> NDArray[np.float64]:
        return self.found / max(self.objects, 1)

    @property
    def f1(self) -> NDArray[np.float64]:
        return 2 * self.found / (self.kept + self.objects)


def curves(truth: GroundTruth, predictions: list[Prediction]) -> list[Curve]:
    """Return one curve per class of a COCO dataset, sorted by decreasing number of objects."""
    names = [category["name"] for category in truth["categories"]]
    every = [Curve.of(name, matches) for name, matches in zip(names, match(truth, predictions, math.inf), strict=True)]
    return sorted(every, key=lambda curve: -curve.objects)


def average_precision(
    ranks: NDArray[np.int64], weights: NDArray[np.int64], objects: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return COCO's average precision of samples in which each prediction occurs any number of times: [samples].

    `ranks` and `weights` are [samples, hits], highest score first: the number of predictions up to and including each
    hit, and how often the hit itself occurs. `objects` is [samples]. By COCO's rule the result is the mean precision at
    101 recalls, where each takes the best precision at its own or any higher recall. Recall rises only at a hit, so the
    hits are enough. NaN for a sample without objects.
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
    """Return COCO's average precision of one class; `hits` is [predictions], highest score first."""
    ranks = np.flatnonzero(hits)[None] + 1
    return float(average_precision(ranks, np.ones_like(ranks), np.array([objects]))[0])

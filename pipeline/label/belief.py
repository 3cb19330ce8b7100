"""Calibrate the model's scores: how often boxes are right, and what correcting them costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.config.label import Cost
from pipeline.label.store import Array
from pipeline.metrics.matching import IOU_THRESHOLDS, Rows, match_rows

RIGHT, EXACT = 0, 5  # indices of COCO's thresholds: IoU 0.5, an object found; 0.75, a box that needs no correction
assert round(float(IOU_THRESHOLDS[EXACT]), 2) == 0.75
SURE = 0.9
BIN = 20  # minimum number of boxes to estimate a share of right ones
BINS = 40
Floats = NDArray[np.float64]
Curve = tuple[Floats, Floats]  # scores, and the probabilities there; straight lines between them
AS_IT_IS: Curve = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))


@dataclass(frozen=True, slots=True)
class Belief:
    """Probabilities by score, from comparing boxes on val with labels, and the objects that no box covers.

    `hits` says whether each box on val is right and whether it is exact, highest score first. `unseen` is the number of
    objects without any box, per object with one.
    """

    right: Curve = AS_IT_IS
    exact: Curve = AS_IT_IS
    unseen: float = 0.0
    scores: Floats = field(default_factory=lambda: np.empty(0))  # [boxes]
    hits: NDArray[np.bool_] = field(default_factory=lambda: np.empty((2, 0), bool))  # [2, boxes]

    def is_right(self, scores: Array | Floats) -> Floats:
        """Return the probability that a box finds an object of its class, at an IoU of 0.5."""
        probability: Floats = np.interp(scores, *self.right)
        return probability

    def is_exact(self, scores: Array | Floats) -> Floats:
        """Return the probability that a box can stay as it is, at an IoU of 0.75."""
        probability: Floats = np.minimum(np.interp(scores, *self.exact), self.is_right(scores))
        return probability


def of(seen: Sequence[Array], labels: Sequence[Array], classes: int) -> Belief:
    """Compare boxes with labels, one array per image: rows of x, y, width, height, score, class."""
    if not sum(map(len, labels)):
        return Belief()
    matches = match_rows(_rows(labels), _rows(seen), len(seen), classes)
    scores = np.concatenate([of_class.scores for of_class in matches])
    order = np.argsort(-scores, kind="stable")
    hits = np.concatenate([of_class.hits for of_class in matches], axis=1)[[RIGHT, EXACT]][:, order]
    scores, found, objects = scores[order], int(hits[0].sum()), sum(map(len, labels))
    return Belief(
        right=_curve(scores, hits[0]),
        exact=_curve(scores, hits[1]),
        unseen=(objects - found) / (found + 1),  # + 1: a model that finds nothing cannot tell how many there are
        scores=scores,
        hits=hits,
    )


def _rows(per_image: Sequence[Array]) -> Rows:
    images = np.repeat(np.arange(len(per_image)), [len(rows) for rows in per_image])
    rows = np.concatenate([*per_image, np.empty((0, 6))]).astype(np.float64)
    return Rows(images, rows[:, 5].astype(np.int64), rows[:, :4], rows[:, 4])


def _curve(scores: Floats, hits: NDArray[np.bool_]) -> Curve:
    """Return the share of hits by score, made non-decreasing (isotonic regression on bins).

    A logistic curve does not fit: the best boxes of a weak model are right only as often as its good ones.
    """
    if len(scores) < BIN:
        return AS_IT_IS
    blocks: list[list[float]] = []  # weight, mean score, share of hits
    for bin_ in np.array_split(np.arange(len(scores))[::-1], min(BINS, len(scores) // BIN)):
        mean = float(scores[bin_].mean())
        # Add one box that is as good as its score says, so that no share is 0 or 1.
        blocks.append([len(bin_) + 1, mean, (float(hits[bin_].sum()) + mean) / (len(bin_) + 1)])
        while len(blocks) > 1 and blocks[-2][2] >= blocks[-1][2]:
            (weight, x, y), (more, other_x, other_y) = blocks[-2:]
            both = weight + more
            blocks[-2:] = [[both, (weight * x + more * other_x) / both, (weight * y + more * other_y) / both]]
    xs, ys = np.array([block[1] for block in blocks]), np.array([block[2] for block in blocks])
    return np.concatenate([[0.0], xs, [1.0]]), np.concatenate([[0.0], ys, [ys[-1]]])


def threshold(belief: Belief, cost: Cost) -> float:
    """Return the score from which drawing boxes beforehand saves the most work on val; 1 if it saves none.

    A drawn box has to be checked, and deleted or moved if it is wrong. Without it, a person has to draw one if there is
    an object.
    """
    scores = belief.scores
    right, exact = belief.hits.astype(np.float64)
    if not len(scores):  # take scores as probabilities
        scores = np.linspace(1, 0.001, 1000)
        right, exact = belief.is_right(scores), belief.is_exact(scores)
    saved = np.cumsum(right * cost.draw - _seconds(right, exact, cost))
    best = int(saved.argmax())
    if saved[best] <= 0:
        return 1.0
    below = scores[best + 1] if best + 1 < len(scores) else 0.0
    return round(float(scores[best] + below) / 2, 6)


def seconds_if_drawn(belief: Belief, scores: Array, cost: Cost) -> Floats:
    """Return the seconds that a person needs to correct a box, for each score."""
    return _seconds(belief.is_right(scores), belief.is_exact(scores), cost)


def _seconds(right: Floats, exact: Floats, cost: Cost) -> Floats:
    return exact * cost.check + (right - exact) * (cost.check + cost.fix) + (1 - right) * cost.remove

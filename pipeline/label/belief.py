"""What the model's scores are worth: how often boxes are right, and what correcting them costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.config.label import Cost
from pipeline.label.store import Array
from pipeline.metrics.matching import IOU_THRESHOLDS, Rows, match_rows

RIGHT, EXACT = 0, 5  # of COCO's thresholds: IoU 0.5, an object found; 0.75, a box that nobody would touch
assert round(float(IOU_THRESHOLDS[EXACT]), 2) == 0.75
SURE = 0.9
FAR = 30.0  # a logit beyond which a probability is 0 or 1
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Belief:
    """Two lines that turn the logit of a score into that of a probability (Platt 1999), and what no box covers.

    `unseen` is the number of objects without any box, for each one with a box.
    """

    right: tuple[float, float] = (1.0, 0.0)
    exact: tuple[float, float] = (1.0, 0.0)
    unseen: float = 0.0
    boxes: int = 0  # of val, that decided

    def is_right(self, scores: Array) -> Floats:
        """Return the probability that a box finds an object of its class, at an IoU of 0.5."""
        return _through(self.right, scores)

    def is_exact(self, scores: Array) -> Floats:
        """Return the probability that a box can stay as it is, at an IoU of 0.75."""
        return np.minimum(_through(self.exact, scores), self.is_right(scores))


def of(seen: Sequence[Array], labels: Sequence[Array], classes: int) -> Belief:
    """Compare boxes with labels, one array per image: rows of x, y, width, height, score, class."""
    if not sum(map(len, labels)):
        return Belief()
    matches = match_rows(_rows(labels), _rows(seen), len(seen), classes)
    scores = np.concatenate([of_class.scores for of_class in matches])
    hits = np.concatenate([of_class.hits for of_class in matches], axis=1)
    found, objects = int(hits[RIGHT].sum()), sum(map(len, labels))
    return Belief(
        right=_fit(scores, hits[RIGHT]),
        exact=_fit(scores, hits[EXACT]),
        unseen=(objects - found) / (found + 1),  # + 1: a model that finds nothing says nothing about how many there are
        boxes=len(scores),
    )


def _rows(per_image: Sequence[Array]) -> Rows:
    images = np.repeat(np.arange(len(per_image)), [len(rows) for rows in per_image])
    rows = np.concatenate([*per_image, np.empty((0, 6))]).astype(np.float64)
    return Rows(images, rows[:, 5].astype(np.int64), rows[:, :4], rows[:, 4])


def _logit(scores: Array | Floats) -> Floats:
    clipped = np.clip(np.asarray(scores, np.float64), 1e-4, 1 - 1e-4)
    return np.log(clipped / (1 - clipped))


def _through(line: tuple[float, float], scores: Array) -> Floats:
    return _logistic(line[0] * _logit(scores) + line[1])


def _logistic(values: Floats) -> Floats:
    probability: Floats = 1 / (1 + np.exp(-np.clip(values, -FAR, FAR)))
    return probability


def _fit(scores: Floats, hits: NDArray[np.bool_]) -> tuple[float, float]:
    """Return slope and offset by Newton's method, drawn a little towards the scores as they are.

    The slope is not negative: a higher score never counts for less.
    """
    features = np.stack([_logit(scores), np.ones(len(scores))], axis=1)
    start = np.array([1.0, 0.0])
    line = start.copy()
    for _ in range(50):
        expected = _logistic(features @ line)
        slope = features.T @ (hits - expected) - (line - start)
        bend = (features * (expected * (1 - expected))[:, None]).T @ features + np.eye(2)
        step = np.linalg.solve(bend, slope)
        # Far from the top the slope says little about how far it is.
        line = line + step * min(1.0, 2 / float(np.abs(step).max()))
        if np.abs(step).max() < 1e-8:
            break
    return max(float(line[0]), 0.0), float(line[1])


def threshold(belief: Belief, cost: Cost) -> float:
    """Return the score from which drawing a box beforehand saves work.

    A box that is drawn has to be looked at, and deleted or moved where it is wrong; one that is not drawn has to be
    drawn where there is an object. 1 if no score is high enough.
    """
    scores = np.linspace(0, 1, 1001)[1:].astype(np.float32)
    worth = seconds_if_drawn(belief, scores, cost) < belief.is_right(scores) * cost.draw
    # From the top: below the first score that is not worth it nothing is drawn, whatever the lines do there.
    lowest = len(scores) - int(np.argmin(worth[::-1])) if not worth.all() else 0
    return round(float(scores[lowest]), 3) if lowest < len(scores) else 1.0


def seconds_if_drawn(belief: Belief, scores: Array, cost: Cost) -> Floats:
    """Return the seconds that a box of each score takes a person who corrects it."""
    right, exact = belief.is_right(scores), belief.is_exact(scores)
    return exact * cost.check + (right - exact) * (cost.check + cost.fix) + (1 - right) * cost.remove

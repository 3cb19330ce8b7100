"""Score features against labels: LogME, regularised H-score, balanced accuracy of a ridge probe.

`features` are (n, d) floats, `labels` (n,) integers from 0. More is better in all three.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Labels = NDArray[np.intp]
ROUNDS = 200  # of LogME's fixed point; it settles in fewer than 20 unless there are more columns than rows
SETTLED = 1e-6  # relative change of the ratio of precisions
FOLDS = 5
RIDGE = 0.1  # penalty per box, on standardised features


def log_me(features: Matrix, labels: Labels) -> float:
    """Return the log evidence per box of a Bayesian linear model, mean over one-hot columns (You et al., 2102.11005).

    Only classes that occur have a column: the evidence of an empty one says nothing about the labels.
    Columns are standardised first, because the layers of a detector differ in scale by orders of magnitude.
    """
    left, singular, _ = np.linalg.svd(_standardised(features), full_matrices=False)
    squares = singular**2
    columns = _one_hot(np.unique(labels, return_inverse=True)[1]).T
    return float(np.mean([_evidence(left.T @ column, squares, column) for column in columns]))


def _evidence(projected: Matrix, squares: Matrix, target: Matrix) -> float:
    """Maximise the evidence over the precisions of the weights (`a`) and the noise (`b`); return its log per box."""
    rows, tiny = len(target), 1e-12
    outside = max(float(target @ target - projected @ projected), 0.0)  # what linear weights cannot explain
    ratio, a, b = 1.0, 1.0, 1.0
    for _ in range(ROUNDS):
        explained = float(np.sum(squares / (squares + ratio)))
        weights = float(np.sum(squares * projected**2 / (squares + ratio) ** 2))
        residual = float(np.sum(projected**2 / (1 + squares / ratio) ** 2)) + outside
        a, b = max(explained, tiny) / max(weights, tiny), max(rows - explained, tiny) / max(residual, tiny)
        before, ratio = ratio, a / b
        if abs(ratio - before) <= SETTLED * before or not 1e-12 < ratio < 1e12:
            break
    logs = len(squares) * np.log(a) + rows * np.log(b) - np.sum(np.log(a + b * squares))
    return float(logs - b * residual - a * weights - rows * np.log(2 * np.pi)) / 2 / rows


def h_score(features: Matrix, labels: Labels) -> float:
    """Return the variance between classes in units of the variance within all, summed over directions.

    Bao et al.'s H-score with Ledoit and Wolf's shrinkage `s` of the covariance `C` (Ibrahim et al., 2110.06893):
    tr(C_s^-1 (1 - s) cov(E[F | y])).
    """
    centred = _standardised(features)
    covariance, shrinkage = ledoit_wolf(centred)
    between = np.zeros_like(covariance)
    for label in np.unique(labels):
        rows = centred[labels == label]
        mean = rows.mean(axis=0)
        between += len(rows) / len(centred) * np.outer(mean, mean)
    return float((1 - shrinkage) * np.sum(np.linalg.pinv(covariance, hermitian=True) * between))


def ledoit_wolf(centred: Matrix) -> tuple[Matrix, float]:
    """Return the covariance of centred rows, shrunk towards a multiple of the identity, and by how much (0 to 1)."""
    rows, columns = centred.shape
    covariance = centred.T @ centred / rows
    level = np.trace(covariance) / columns
    distance = np.sum(covariance**2) / columns - level**2
    squares = centred**2
    noise = (np.sum(squares.sum(axis=1) ** 2) / rows - np.sum(covariance**2)) / columns / rows
    shrinkage = float(np.clip(noise / distance, 0, 1)) if distance > 0 else 0.0
    return (1 - shrinkage) * covariance + shrinkage * level * np.eye(columns), shrinkage


@dataclass(frozen=True, slots=True)
class Probe:
    """Share of the boxes of each class that a linear model trained on other images classifies correctly, and the mean.

    None: only one image shows the class, so no other image is left to learn it from.
    """

    accuracy: float
    per_class: tuple[float | None, ...]


def ridge_probe(features: Matrix, labels: Labels, images: Labels) -> Probe:
    """Classify boxes with a ridge classifier trained on other images; `images` holds the image number of each box.

    All classes have the same weight, however many boxes they have.
    """
    folds, is_right = _folds(labels, images)[images], np.zeros(len(labels), bool)
    is_judged = judged(labels, images)
    for fold in np.unique(folds):
        held_out = folds == fold
        known = np.unique(labels[~held_out])
        if len(known):
            answers = known[_ridge(features[~held_out], np.searchsorted(known, labels[~held_out]), features[held_out])]
            is_right[held_out] = answers == labels[held_out]
    shares = []
    for label in range(int(labels.max()) + 1):
        rows = is_judged & (labels == label)
        shares.append(float(is_right[rows].mean()) if rows.any() else None)
    seen = [share for share in shares if share is not None]
    return Probe(float(np.mean(seen)) if seen else 0.0, tuple(shares))


def judged(labels: Labels, images: Labels) -> NDArray[np.bool_]:
    """Return for each box whether `ridge_probe` can judge it: other folds of images show its class."""
    folds, result = _folds(labels, images)[images], np.zeros(len(labels), bool)
    for fold in np.unique(folds):
        held_out = folds == fold
        result[held_out] = np.isin(labels[held_out], labels[~held_out])
    return result


def _folds(labels: Labels, images: Labels) -> Labels:
    """Deal images out to folds, those with the rarest classes first, so that each fold has some of each class."""
    counts = np.bincount(labels)
    rarest = np.full(int(images.max()) + 1, len(labels) + 1)
    np.minimum.at(rarest, images, counts[labels])
    folds = np.empty(len(rarest), np.intp)
    folds[np.argsort(rarest, kind="stable")] = np.arange(len(rarest)) % FOLDS
    return folds


def _ridge(features: Matrix, labels: Labels, queries: Matrix) -> Labels:
    """Fit one-hot targets, each class with the same total weight; return the class of each row of `queries`."""
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 0, scale, 1)
    rows, queries = (features - mean) / scale, (queries - mean) / scale
    targets, counts = _one_hot(labels), np.bincount(labels)
    weights = (len(labels) / len(counts) / counts)[labels][:, None]
    middle, level = ((weights * part).sum(axis=0) / len(labels) for part in (rows, targets))
    rows = rows - middle
    gram = (weights * rows).T @ rows + RIDGE * len(labels) * np.eye(rows.shape[1])
    answers = (queries - middle) @ np.linalg.solve(gram, (weights * rows).T @ (targets - level)) + level
    return np.asarray(answers.argmax(axis=1), np.intp)


def _one_hot(labels: Labels) -> Matrix:
    return np.eye(int(labels.max()) + 1)[labels]


def _standardised(features: Matrix) -> Matrix:
    scale = features.std(axis=0)
    return np.asarray((features - features.mean(axis=0)) / np.where(scale > 0, scale, 1), np.float64)

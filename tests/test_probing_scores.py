"""Scores of frozen features against scikit-learn, and against directly maximised evidence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.probing import scores, separability


def drawn(rows: int, columns: int, classes: int, apart: float, seed: int = 0) -> tuple[Any, Any, Any]:
    """Gaussian classes, columns of very different scales, and images of about three boxes."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=rows)
    labels[:classes] = np.arange(classes)
    centres = apart * random.normal(size=(classes, columns))
    features = (centres[labels] + random.normal(size=(rows, columns))) * 10 ** random.uniform(-3, 2, columns)
    return features + 5, labels, np.arange(rows) // 3


@pytest.mark.parametrize(("rows", "columns", "apart"), [(80, 6, 0.5), (60, 12, 2.0), (40, 10, 0.0)])
def test_log_me_is_the_maximum_evidence(rows: int, columns: int, apart: float) -> None:
    features, labels, _ = drawn(rows, columns, 3, apart)
    standard = StandardScaler().fit_transform(features)
    highest = []
    for label in range(3):
        target = (labels == label).astype(float)

        def evidence(logs: Any, target: Any = target) -> float:
            weights, noise = np.exp(logs)
            covariance = standard @ standard.T * weights + noise * np.eye(rows)
            return -float(multivariate_normal(np.zeros(rows), covariance).logpdf(target)) / rows

        highest.append(-min(minimize(evidence, at, method="Nelder-Mead").fun for at in ([-3, -1], [0, 0], [-8, -1])))
    # Nelder-Mead stops within 1e-4 of the maximum.
    assert scores.log_me(features, labels) == pytest.approx(np.mean(highest), abs=1e-3)


def test_classes_without_boxes_do_not_count_in_log_me() -> None:
    """As in a COCO file with 80 categories, of which three occur."""
    generator = np.random.default_rng(3)
    labels = np.repeat([0, 1, 2], 20)
    features = generator.normal(size=(60, 8)) + labels[:, None]
    assert scores.log_me(features, np.array([0, 17, 80])[labels]) == scores.log_me(features, labels)


@pytest.mark.parametrize("apart", [0.0, 1.0, 100.0])
def test_log_me_works_with_more_columns_than_rows(apart: float) -> None:
    features, labels, _ = drawn(30, 100, 3, apart)
    assert np.isfinite(scores.log_me(features, labels))


@pytest.mark.parametrize(("rows", "columns"), [(200, 8), (40, 60)])
def test_h_score_matches_scikit_learns_covariance(rows: int, columns: int) -> None:
    features, labels, _ = drawn(rows, columns, 4, 1.0)
    standard = StandardScaler().fit_transform(features)
    covariance, shrinkage = ledoit_wolf(standard)
    means = np.stack([standard[labels == label].mean(axis=0) for label in labels])  # E[F | y] of each box
    between = np.cov(means, rowvar=False, bias=True)
    expected = np.trace(np.linalg.solve(covariance, between)) * (1 - shrinkage)
    assert scores.h_score(features, labels) == pytest.approx(expected)


@pytest.mark.parametrize(("classes", "columns"), [(2, 5), (4, 20), (3, 90)])
def test_the_probe_equals_scikit_learns_ridge(classes: int, columns: int) -> None:
    features, labels, images = drawn(150, columns, classes, 0.5)
    folds = scores._folds(labels, images)[images]
    right = np.zeros(len(labels), bool)
    for fold in range(scores.FOLDS):
        held = folds == fold
        ridge = RidgeClassifier(alpha=scores.RIDGE * (~held).sum(), class_weight="balanced")
        oracle = make_pipeline(StandardScaler(), ridge).fit(features[~held], labels[~held])
        right[held] = oracle.predict(features[held]) == labels[held]
    probe = scores.ridge_probe(features, labels, images)
    assert probe.per_class == pytest.approx([right[labels == label].mean() for label in range(classes)])
    assert probe.accuracy == pytest.approx(np.mean([share for share in probe.per_class if share is not None]))


def test_no_image_is_used_to_predict_itself() -> None:
    """Identical boxes within one image must not help, or every image would predict itself."""
    random = np.random.default_rng(0)
    images = np.repeat(np.arange(40), 5)
    labels = random.integers(2, size=40)[images]
    features = random.normal(size=(40, 200))[images]
    assert scores.ridge_probe(features, labels, images).accuracy < 0.7  # 0.5 by chance; 1 with its copies


def test_a_class_of_one_box_has_unknown_accuracy() -> None:
    features, labels, images = drawn(60, 4, 2, 3.0)
    labels[7] = 2
    probe = scores.ridge_probe(features, labels, images)
    assert probe.per_class[2] is None and None not in probe.per_class[:2]
    known = [value for value in probe.per_class if value is not None]
    assert probe.accuracy == pytest.approx(np.mean(known))


@pytest.mark.parametrize("features", [np.zeros((12, 3)), np.ones((12, 3))])
def test_constant_features_score_at_chance(features: Any) -> None:
    labels, images = np.arange(12) % 2, np.arange(12)
    assert np.isfinite(scores.log_me(features, labels))
    assert scores.h_score(features, labels) == 0
    assert scores.ridge_probe(features, labels, images).accuracy == 0.5


@pytest.mark.parametrize(
    ("accuracy", "layers"),
    [
        ({2: 0.88, 4: 0.89, 6: 0.88, 10: 0.72, 13: 0.95}, 7),
        ({2: 0.6, 4: 0.7, 6: 0.65, 10: 0.71}, 5),  # nothing counts after a drop
        ({2: 0.7, 4: 0.6}, 3),
        ({2: 0.5, 4: 0.6, 9: 0.7, 12: 0.9}, 10),  # never the neck
    ],
)
def test_freezing_ends_before_accuracy_drops(accuracy: dict[int, float], layers: int) -> None:
    assert separability.depth(accuracy, backbone=10 if 9 in accuracy else 11) == layers

"""Operating points and calibration: worked by hand, by trying every threshold, and by simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from detections import noisy, scene, seen

from pipeline.config.judging import Wanted
from pipeline.metrics.matching import ClassMatches, match
from pipeline.validate.operating_point import BINS, CALIBRATION_SCORE, DEFAULT_SCORE, calibration, choose, judge


def of_hits(scores: list[float], hits: list[int], objects: int) -> list[ClassMatches]:
    """One class on one image, best score first."""
    right = np.tile(np.array(hits, dtype=bool), (10, 1))
    return [ClassMatches(np.array(scores), np.zeros(len(scores), dtype=int), right, np.array([objects]))]


def threshold(matches: list[ClassMatches], conf: float = 0.001, **wanted: float) -> tuple[float, str]:
    said = choose(matches, ["a"], Wanted(**wanted) if wanted else None, conf)
    assert said["per_class"]["a"]["decided"] == any(one.hits.any() for one in matches)
    return said["thresholds"]["a"], said["per_class"]["a"]["why"]


# Hits and misses by descending score, for 4 objects:  precision 1, 1, 2/3, 3/4, 3/5;  recall 1/4, 2/4, 2/4, 3/4, 3/4.
FIVE = ([0.9, 0.8, 0.6, 0.5, 0.3], [1, 1, 0, 1, 0], 4)


@pytest.mark.parametrize(
    ("wanted", "cut", "why"),
    [
        ({}, 0.4, "best F1"),  # F1 2/5, 4/6, 4/7, 6/8, 6/9
        ({"precision": 0.9}, 0.7, "precision 0.9"),  # both 0.9 and 0.8 have precision 1; 0.8 finds more
        ({"precision": 0.7}, 0.4, "precision 0.7"),  # lost at 0.6 and reached again at 0.5
        ({"recall": 0.5}, 0.7, "recall 0.5"),  # the sharpest cut that finds half
        ({"recall": 0.75}, 0.4, "recall 0.75"),
        ({"recall": 0.9}, 0.4, "recall 0.9 is out of reach, best F1 instead"),
    ],
)
def test_thresholds_match_values_worked_by_hand(wanted: dict[str, float], cut: float, why: str) -> None:
    assert threshold(of_hits(*FIVE), **wanted) == (pytest.approx(cut, abs=1e-6), why)


def test_an_unreachable_precision_is_reported() -> None:
    matches = of_hits([0.9, 0.8], [0, 1], 1)
    assert threshold(matches, precision=0.9) == (0.4005, "precision 0.9 is out of reach, best F1 instead")


@pytest.mark.parametrize("conf", [0.001, 0.4, 0.49])
def test_no_threshold_admits_what_was_not_measured(conf: float) -> None:
    """Halfway to zero, 0.25 would show predictions that validation left out."""
    assert threshold(of_hits([0.9, 0.5], [1, 1], 2), conf) == (pytest.approx((0.5 + conf) / 2), "best F1")


@pytest.mark.parametrize(("conf", "cut"), [(0.001, 0.25), (0.5, 0.5)])
def test_the_threshold_of_an_undecided_class_was_measured(conf: float, cut: float) -> None:
    assert threshold(of_hits([0.9], [0], 1), conf)[0] == threshold(of_hits([], [], 0), conf)[0] == cut


def test_equal_scores_stay_together() -> None:
    """Cutting between a hit and a miss of equal score would promise what no threshold can do."""
    matches = of_hits([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0], 2)
    assert threshold(matches) == (0.3, "best F1")
    assert judge(matches, ["a"], {"a": 0.3})["precision"] == pytest.approx(2 / 3, abs=1e-6)


def test_the_last_digit_of_a_score_matters() -> None:
    matches = of_hits([0.9, 0.500001, 0.5], [1, 1, 0], 2)
    assert judge(matches, ["a"], {"a": threshold(matches)[0]})["precision"] == 1


@pytest.mark.parametrize(
    ("matches", "why"),
    [
        (of_hits([0.9], [0], 0), "no labelled object in val, Ultralytics' default"),
        (of_hits([0.9], [0], 3), "no right prediction in val, Ultralytics' default"),
        (of_hits([], [], 3), "no right prediction in val, Ultralytics' default"),
    ],
)
def test_a_class_val_says_nothing_about_gets_the_default(matches: list[ClassMatches], why: str) -> None:
    assert threshold(matches) == (DEFAULT_SCORE, why)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_threshold_does_better(seed: int) -> None:
    """Against a thousand thresholds."""
    truth, predictions = noisy(seed)
    matches, names = match(truth, predictions), ["a", "b", "c"]
    tried = [judge(matches, names, dict.fromkeys(names, level / 1000))["per_class"] for level in range(1000)]
    best = judge(matches, names, choose(matches, names, None, 0)["thresholds"])["per_class"]
    precise = judge(matches, names, choose(matches, names, Wanted(precision=0.7), 0)["thresholds"])["per_class"]
    finding = judge(matches, names, choose(matches, names, Wanted(recall=0.6), 0)["thresholds"])["per_class"]
    for name in names:
        assert best[name]["f1"] >= max(one[name]["f1"] for one in tried)
        assert precise[name]["precision"] >= 0.7
        enough = [one[name] for one in tried if (one[name]["precision"] or 0) >= 0.7]
        assert precise[name]["recall"] >= max(one["recall"] for one in enough)
        assert finding[name]["recall"] >= 0.6
        enough = [one[name] for one in tried if one[name]["recall"] >= 0.6]
        assert finding[name]["precision"] >= max(one["precision"] for one in enough)


def test_judgement_matches_a_case_worked_by_hand() -> None:
    truth = scene([("a", (0, 0, 50, 50)), ("b", (100, 0, 50, 50)), ("b", (200, 0, 50, 50))])
    predictions = [
        seen(1, "a", (0, 0, 50, 50), 0.5),
        seen(1, "a", (0, 300, 50, 50), 0.4),  # below its threshold
        seen(1, "b", (100, 0, 50, 50), 0.4),
        seen(1, "b", (0, 300, 50, 50), 0.3),  # at its threshold: counts
    ]
    said = judge(match(truth, predictions), ["a", "b"], {"a": 0.45, "b": 0.3})
    per_class = said.pop("per_class")
    assert said == {"precision": pytest.approx(2 / 3, abs=1e-6), "recall": pytest.approx(2 / 3, abs=1e-6), "f1": pytest.approx(2 / 3, abs=1e-6), "tp": 2, "fp": 1, "fn": 1}  # fmt: skip
    assert per_class["a"] == {"threshold": 0.45, "precision": 1.0, "recall": 1.0, "f1": 1.0, "tp": 1, "fp": 0, "fn": 0}
    assert (per_class["b"]["precision"], per_class["b"]["recall"], per_class["b"]["fn"]) == (0.5, 0.5, 1)


def test_figures_without_predictions_or_labels_are_none() -> None:
    said = judge(match(scene([("a", (0, 0, 9, 9))]), []), ["a", "b"], {"a": 0.5, "b": 0.5})
    assert (said["per_class"]["a"]["precision"], said["per_class"]["a"]["recall"]) == (None, 0.0)
    assert (said["per_class"]["b"]["recall"], said["per_class"]["b"]["f1"]) == (None, None)


def reliable(bias: float) -> list[ClassMatches]:
    """20,000 predictions that are right as often as their score says, apart from the bias."""
    rng = np.random.default_rng(0)
    scores = np.sort(rng.uniform(CALIBRATION_SCORE, 1, 20_000))[::-1]
    return of_hits(scores.tolist(), (rng.random(20_000) < np.clip(scores + bias, 0, 1)).tolist(), 20_000)


@pytest.mark.parametrize(("bias", "ece"), [(0.0, 0.0), (-0.2, 0.2)])
def test_calibration_measures_the_bias(bias: float, ece: float) -> None:
    # Ten bins of 2,000: a standard error of 0.01 each, so their mean gap is close to that. Scores under 0.2 cannot
    # be too high by 0.2, which subtracts (0.15^2 / 2) / 0.95 = 0.012.
    assert calibration(reliable(bias))["ece"] == pytest.approx(ece, abs=0.02)


def test_calibration_matches_a_case_worked_by_hand() -> None:
    """Two bins: 0.9 twice, right once; 0.3 once, wrong; 0.01 is below the considered range."""
    said: dict[str, Any] = calibration(of_hits([0.9, 0.9, 0.3, 0.01], [1, 0, 0, 0], 1))
    assert said["ece"] == pytest.approx((2 * 0.4 + 1 * 0.3) / 3, abs=1e-6)
    assert said["predictions"] == 3 and len(said["bins"]) == BINS
    assert said["bins"][9] == {"from": 0.9, "to": 1.0, "predictions": 2, "score": 0.9, "precision": 0.5}
    assert said["bins"][3] == {"from": 0.3, "to": 0.4, "predictions": 1, "score": 0.3, "precision": 0.0}
    assert said["bins"][0] == {"from": 0.0, "to": 0.1, "predictions": 0, "score": None, "precision": None}


def test_a_score_of_one_is_in_the_last_bin() -> None:
    assert calibration(of_hits([1.0], [1], 1))["bins"][-1]["predictions"] == 1


def test_no_predictions_give_no_calibration() -> None:
    assert calibration(of_hits([], [], 1))["ece"] is None

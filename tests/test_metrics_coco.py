"""COCO's figures against pycocotools."""

from __future__ import annotations

import pytest
from detections import by_pycocotools, noisy

from pipeline.metrics.coco import evaluate

# Both evaluators use double precision; we round to six decimals.
TOLERANCE = 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_pycocotools(seed: int) -> None:
    truth, predictions = noisy(seed)
    ours, theirs = evaluate(truth, predictions), by_pycocotools(truth, predictions)
    for name in ("map50_95", "map50", "map75", "ar1", "ar10", "ar100"):
        assert ours[name] == pytest.approx(theirs[name], abs=TOLERANCE), name
    for size in ("small", "medium", "large"):
        assert ours["per_size"][size]["ap"] == pytest.approx(theirs[size], abs=TOLERANCE)
    for category in truth["categories"]:
        single = by_pycocotools(truth, predictions, category["id"])
        row = ours["per_class"][category["name"]]
        assert (row["map50_95"], row["map50"], row["ar100"]) == pytest.approx(
            (single["map50_95"], single["map50"], single["ar100"]), abs=TOLERANCE
        )
    assert 0.05 < ours["map50_95"] < 0.95  # a comparison of zeros would prove nothing


def test_a_class_without_objects_has_no_figure_and_is_not_counted() -> None:
    truth, predictions = noisy(0)
    truth["annotations"] = [a for a in truth["annotations"] if a["category_id"] != 2]
    ours = evaluate(truth, predictions)
    assert ours["per_class"]["c"] == {"map50_95": None, "map50": None, "ar100": None, "objects": 0}
    assert ours["map50_95"] == pytest.approx(by_pycocotools(truth, predictions)["map50_95"], abs=TOLERANCE)


def test_no_predictions_give_zero_not_an_error() -> None:
    truth, _ = noisy(0)
    truth["annotations"] = [a for a in truth["annotations"] if a["area"] > 32**2]
    ours = evaluate(truth, [])
    assert (ours["map50_95"], ours["ar100"], ours["predictions"]) == (0.0, 0.0, 0)
    assert (ours["per_size"]["large"]["ap"], ours["per_size"]["small"]["ap"]) == (0.0, None)


def test_no_objects_give_no_figure() -> None:
    truth, predictions = noisy(0)
    for found in (predictions, []):
        ours = evaluate({**truth, "annotations": []}, found)
        assert (ours["map50_95"], ours["ar100"], ours["per_class"]["a"]["map50"]) == (None, None, None)

"""Error types: one image per kind, worked by hand, and against TIDE's own code on the same predictions."""

from __future__ import annotations

import copy
import json
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from detections import Bbox, by_pycocotools, noisy, scene, seen

from pipeline.validate import error_types
from pipeline.validate.error_types import KINDS, confusion, costs, diagnose, record

TIDE = json.loads((ROOT / "tests" / "fixtures" / "tide.json").read_text())
OBJECT: Bbox = (100, 100, 100, 100)
THRESHOLDS = {"a": 0.1, "b": 0.1}


def shifted(by: float) -> Bbox:
    """The object's box moved right: its IoU with the object is (100 - by) / (100 + by)."""
    return (100 + by, 100, 100, 100)


@pytest.mark.parametrize(
    ("name", "bbox", "kind", "iou"),
    [
        ("a", shifted(0), "tp", 1),
        ("a", shifted(25), "tp", 75 / 125),
        ("a", shifted(50), "localisation", 50 / 150),
        ("b", shifted(25), "classification", 75 / 125),
        ("b", shifted(50), "both", 50 / 150),
        ("a", shifted(90), "background", 10 / 190),
        ("b", (600, 600, 50, 50), "background", 0),
    ],
)
def test_each_kind_matches_a_case_worked_by_hand(name: str, bbox: Bbox, kind: str, iou: float) -> None:
    [one] = diagnose(scene([("a", OBJECT)]), [seen(1, name, bbox, 0.5)])
    assert (one.kind, one.iou) == (kind, pytest.approx(iou, abs=1e-12))
    assert (one.annotation is None) == (kind == "background")


def test_a_second_prediction_on_a_found_object_is_a_duplicate() -> None:
    truth = scene([("a", OBJECT)])
    better, worse = diagnose(truth, [seen(1, "a", shifted(5), 0.4), seen(1, "a", shifted(10), 0.9)])
    assert (better.prediction["score"], better.kind, worse.kind) == (0.9, "tp", "duplicate")
    assert worse.annotation == truth["annotations"][0]


def test_bad_localisation_takes_precedence_over_another_classs_overlap() -> None:
    """TIDE's precedence: IoU 0.33 with its own class comes before 0.6 with another."""
    truth = scene([("a", OBJECT), ("b", shifted(75))])
    [one] = diagnose(truth, [seen(1, "a", shifted(50), 0.5)])
    assert (one.kind, one.annotation) == ("localisation", truth["annotations"][0])


def test_without_objects_every_error_is_background() -> None:
    assert [one.kind for one in diagnose(scene([]), [seen(1, "a", OBJECT, 0.5)])] == ["background"]


def test_each_object_gets_its_outcome() -> None:
    """Four objects: found; predicted as another class, twice; badly placed; missed."""
    boxes: list[Bbox] = [(0, 0, 100, 100), (200, 0, 100, 100), (400, 0, 100, 100), (600, 0, 100, 100)]
    truth = scene([("a", bbox) for bbox in boxes])
    predictions = [
        seen(1, "a", boxes[0], 0.9),
        seen(1, "b", boxes[1], 0.6),
        seen(1, "b", (200, 0, 100, 90), 0.8),
        seen(1, "a", (460, 0, 100, 100), 0.3),
    ]
    said = record(truth, predictions, THRESHOLDS)
    scores = {one["id"]: one["score"] for one in said["predictions"]}
    assert [(one["type"], scores.get(one["prediction_id"])) for one in said["objects"]] == [
        ("tp", 0.9),
        ("classification", 0.8),  # the higher-scored of the two
        ("localisation", 0.3),
        ("missed", None),
    ]
    assert said["missed"] == [4]
    assert said["counts"] == {"tp": 1, "classification": 2, "localisation": 1, "both": 0, "duplicate": 0, "background": 0, "missed": 1}  # fmt: skip


def test_a_prediction_at_its_threshold_is_kept() -> None:
    found = [seen(1, "a", OBJECT, 0.3), seen(1, "b", OBJECT, 0.3), seen(1, "b", OBJECT, 0.4)]
    assert error_types.kept(found, [0.3, 0.4]) == [found[0], found[2]]


def test_the_record_is_complete() -> None:
    truth, predictions = noisy(0)
    said = record(truth, predictions, {"a": 0.0, "b": 0.0, "c": 0.0})
    assert [one["id"] for one in said["predictions"]] == list(range(1, len(predictions) + 1))
    key = itemgetter("image_id", "score")
    own = [{name: one[name] for name in ("image_id", "category_id", "bbox", "score")} for one in said["predictions"]]
    assert sorted(own, key=key) == sorted(predictions, key=key)
    assert [one["annotation_id"] for one in said["objects"]] == [one["id"] for one in truth["annotations"]]
    annotations = {one["id"]: one for one in truth["annotations"]}
    for one in said["predictions"]:
        if one["annotation_id"] is not None:
            assert annotations[one["annotation_id"]]["image_id"] == one["image_id"]
        if one["type"] == "tp":
            assert annotations[one["annotation_id"]]["category_id"] == one["category_id"] and one["iou"] >= 0.5
    assert set(said["counts"]) == {"tp", *KINDS} and all(said["counts"].values())
    found = [one for one in said["objects"] if one["type"] == "tp"]
    assert len(found) == said["counts"]["tp"] == len({one["prediction_id"] for one in found})


def test_kinds_and_costs_equal_tides() -> None:
    diagnoses = diagnose(TIDE["truth"], TIDE["predictions"], error_types.MAX_DETECTIONS)
    counts = error_types.count(diagnoses, error_types.objects(TIDE["truth"], diagnoses))
    assert {kind: counts[kind] for kind in KINDS} == TIDE["counts"]
    # We round to six decimals.
    assert costs(TIDE["truth"], TIDE["predictions"]) == pytest.approx(TIDE["costs"], abs=1e-6)
    assert all(TIDE["counts"].values()) and all(cost > 0.001 for cost in TIDE["costs"].values())


def fixed_by_hand(truth: Any, predictions: Any, kind: str) -> tuple[Any, Any]:
    """The dataset with the errors of one kind fixed, for an independent evaluation."""
    truth, predictions = copy.deepcopy(truth), copy.deepcopy(predictions)
    diagnoses = diagnose(truth, predictions)
    outcomes = error_types.objects(truth, diagnoses)
    if kind == "missed":
        truth["annotations"] = [one for one in truth["annotations"] if outcomes[one["id"]][0] != "missed"]
        return truth, predictions
    left = []
    for one in diagnoses:
        if one.kind != kind:
            left.append(one.prediction)
        elif one.annotation is not None and outcomes[one.annotation["id"]][1] is one:
            bbox, category = one.annotation["bbox"], one.annotation["category_id"]
            left.append({**one.prediction, "bbox": bbox, "category_id": category})
    return truth, left


@pytest.mark.parametrize("kind", KINDS)
def test_a_cost_is_pycocotools_gain_after_fixing_the_errors(kind: str) -> None:
    truth, predictions = noisy(4)
    before = by_pycocotools(truth, predictions)["map50"]
    after = by_pycocotools(*fixed_by_hand(truth, predictions, kind))["map50"]
    assert after - before > 0.0001
    # Our six decimals.
    assert costs(truth, predictions)[kind] == pytest.approx(after - before, abs=1e-6)


def test_without_objects_there_are_no_costs() -> None:
    assert costs(scene([]), [seen(1, "a", OBJECT, 0.5)]) == dict.fromkeys(KINDS)
    assert costs(scene([("a", OBJECT)]), []) == {**dict.fromkeys(KINDS, 0.0), "missed": None}


def test_confusion_matches_a_case_worked_by_hand() -> None:
    """a found, a predicted as b, b missed, and two false positives; every object and prediction counts once."""
    truth = scene([("a", OBJECT), ("a", (300, 100, 100, 100)), ("b", (600, 600, 80, 80))], [])
    predictions = [
        seen(1, "a", OBJECT, 0.9),
        seen(1, "b", OBJECT, 0.8),  # its object is already found
        seen(1, "b", (300, 100, 100, 90), 0.7),
        seen(2, "a", OBJECT, 0.6),
    ]
    assert confusion(truth, predictions) == {
        "labels": ["a", "b", "background"],
        "matrix": [[1, 1, 0], [0, 0, 1], [1, 1, 0]],
    }


@pytest.mark.parametrize("seed", range(3))
def test_confusion_adds_up(seed: int) -> None:
    truth, predictions = noisy(seed)
    matrix = np.array(confusion(truth, predictions)["matrix"])
    for index in range(3):
        assert matrix[index].sum() == sum(one["category_id"] == index for one in truth["annotations"])
        assert matrix[:, index].sum() == sum(one["category_id"] == index for one in predictions)
    assert matrix[-1, -1] == 0 and np.trace(matrix) > 50
    hits = sum(one.kind == "tp" for one in diagnose(truth, predictions))
    assert np.trace(matrix) == hits

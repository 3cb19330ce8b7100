"""The same predictions through three tools; the difference left after the named causes is below 1e-3."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from detections import Predictions, Truth, by_pycocotools, noisy

from pipeline.config.loading import load
from pipeline.errors import ConfigError
from pipeline.metrics import coco
from pipeline.records.metrics import Reconciliation, Step
from pipeline.upstream import environment
from pipeline.validate import reconcile


@pytest.fixture(autouse=True, scope="module")
def prepared() -> None:
    environment.prepare()


AGREE = 1e-3


def measured(truth: Truth, predictions: Predictions, single: Predictions | None = None) -> Any:
    figures = coco.evaluate(truth, predictions)
    return reconcile.measure(truth, predictions, single or predictions, figures, {"ultralytics"})


def step(said: Reconciliation, words: str) -> Step:
    [only] = [one for one in said["steps"] if words in one["cause"]]
    return only


@pytest.mark.parametrize("seed", range(4))
def test_the_difference_to_ultralytics_is_explained(seed: int) -> None:
    said = measured(*noisy(seed))
    for name in ("map50_95", "map50"):
        ultralytics, ours = said["figures"]["ultralytics"][name], said["figures"]["coco"][name]
        steps = sum(one[name] for one in said["steps"] if one["tool"] == "ultralytics")
        # Seven figures with six decimals.
        assert ours + steps + said["remaining"]["ultralytics"][name] == pytest.approx(ultralytics, abs=5e-6)
        assert abs(said["remaining"]["ultralytics"][name]) < AGREE
        assert ours != pytest.approx(ultralytics, abs=1e-5)  # otherwise there is nothing to explain


def test_ultralytics_figure_equals_that_of_its_own_code() -> None:
    """Through `ap_per_class` and a matching reimplemented here; `by_ultralytics` uses its classes."""
    from ultralytics.utils.metrics import ap_per_class

    truth, predictions = noisy(0)
    hits, scores, classes = [], [], []
    for image in truth["images"]:
        labelled = [one for one in truth["annotations"] if one["image_id"] == image["id"]]
        taken: list[set[int]] = [set() for _ in range(10)]
        found = [one for one in predictions if one["image_id"] == image["id"]]
        for one in sorted(found, key=lambda one: -one["score"]):
            row = []
            for number, level in enumerate(np.linspace(0.5, 0.95, 10)):
                best, at = 0.0, -1
                for index, other in enumerate(labelled):
                    if other["category_id"] == one["category_id"] and index not in taken[number]:
                        x = min(one["bbox"][0] + one["bbox"][2], other["bbox"][0] + other["bbox"][2]) - max(one["bbox"][0], other["bbox"][0])  # fmt: skip
                        y = min(one["bbox"][1] + one["bbox"][3], other["bbox"][1] + other["bbox"][3]) - max(one["bbox"][1], other["bbox"][1])  # fmt: skip
                        shared = max(x, 0) * max(y, 0)
                        iou = shared / (one["bbox"][2] * one["bbox"][3] + other["bbox"][2] * other["bbox"][3] - shared)
                        best, at = max((best, at), (iou, index))
                row.append(best >= level)
                if best >= level:
                    taken[number].add(at)
            hits.append(row)
            scores.append(one["score"])
            classes.append(one["category_id"])
    labels = np.array([one["category_id"] for one in truth["annotations"]])
    ap = ap_per_class(np.array(hits), np.array(scores), np.array(classes), labels)[5]
    # Ultralytics computes overlaps in single precision; none of these is that close to a threshold.
    assert reconcile.by_ultralytics(truth, predictions) == pytest.approx((ap.mean(), ap[:, 0].mean()), abs=1e-6)


def test_each_cause_is_measured_separately() -> None:
    """150 predictions of one class in an image, the correct ones last, which COCO never considers."""
    truth, predictions = noisy(3, images=6, classes=1)
    rng = np.random.default_rng(0)
    everywhere = [
        {"image_id": 1, "category_id": 0, "bbox": [*rng.uniform(300, 600, 2).tolist(), 5.0, 5.0], "score": 0.9 + rng.random() / 20}
        for _ in range(150)
    ]  # fmt: skip
    crowded = [*everywhere, *predictions]
    limit = step(measured(truth, crowded), "the best 100 of each class")
    assert limit["map50"] > 0.001 and step(measured(truth, predictions), "the best 100")["map50"] == 0
    only = reconcile.measure(truth, crowded, predictions, coco.evaluate(truth, crowded), {"ultralytics"})
    confident = [one for one in predictions if one["score"] >= 0.25]
    expected = by_pycocotools(truth, predictions)["map50"] - by_pycocotools(truth, crowded)["map50"]
    assert step(only, "one class per box")["map50"] == pytest.approx(expected, abs=2e-6)
    expected = by_pycocotools(truth, confident)["map50"] - by_pycocotools(truth, predictions)["map50"]
    assert step(only, "scores from 0.25 up")["map50"] == pytest.approx(expected, abs=2e-6)


def test_no_predictions_give_figures_of_zero() -> None:
    truth, _ = noisy(0)
    assert measured(truth, [])["figures"]["ultralytics"] == {"map50_95": 0.0, "map50": 0.0}


def test_the_difference_to_fiftyone_is_explained(tmp_path: Path) -> None:
    """FiftyOne's evaluation on the same predictions, without its database; in a separate process, as it is heavy."""
    truth, predictions = noisy(0)
    (tmp_path / "drawn.json").write_text(json.dumps([truth, predictions]))
    code = (
        "import json, sys\n"
        "from pipeline.metrics import coco\nfrom pipeline.validate import reconcile\n"
        "truth, found = json.load(open(sys.argv[1]))\n"
        "said = reconcile.measure(truth, found, found, coco.evaluate(truth, found), {'fiftyone'})\n"
        "print(json.dumps(said))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "drawn.json")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    confident = [one for one in predictions if one["score"] >= reconcile.FIFTYONE_SCORE]
    assert len(confident) < len(predictions)
    theirs = by_pycocotools(truth, confident)
    for name in ("map50_95", "map50"):
        assert said["figures"]["fiftyone"][name] == pytest.approx(theirs[name], abs=AGREE)
        assert abs(said["remaining"]["fiftyone"][name]) < AGREE
    assert [one["tool"] for one in said["steps"]] == ["fiftyone"] and "from 0.05 up" in said["steps"][0]["cause"]
    assert said["figures"]["ultralytics"] is None  # not requested


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("{reconcile: [fifty]}", "validate.reconcile: 'fifty' is not one of ultralytics, fiftyone; did you mean 'fiftyone'?"),
        ("{reconcile: fiftyone}", "validate.reconcile: write a list of tools, [ultralytics, fiftyone], got 'fiftyone'"),
        ("{reconcile: true}", "validate.reconcile: write a list of tools, [ultralytics, fiftyone], got True"),
        ("{reconcile: [yes]}", "validate.reconcile: True is not one of ultralytics, fiftyone"),
        ("{reconcil: []}", "validate.reconcil: unknown key; did you mean 'reconcile'?"),
    ],
)  # fmt: skip
def test_tools_must_be_a_list_of_known_names(tmp_path: Path, section: str, line: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"convert: {{source: x}}\nvalidate: {section}\n")
    with pytest.raises(ConfigError) as error:
        load(path)
    assert str(error.value) == f"{path}: {line}"
    path.write_text("convert: {source: x}\nvalidate: {reconcile: [fiftyone, ultralytics]}\n")
    assert load(path).validate_.reconcile == ("fiftyone", "ultralytics")

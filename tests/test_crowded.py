"""More objects per image than COCO's limit of 100 predictions: every figure counts them all and reports the limit."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import Trained
from detections import scene, seen
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline import report, validate
from pipeline.boxes import YoloDataset
from pipeline.config.judging import Report, Validate
from pipeline.metrics import bootstrap, coco, pieces
from pipeline.metrics.matching import match
from pipeline.metrics.precision_recall import curves
from pipeline.records import metrics as metrics_record
from pipeline.records.base import write_record
from pipeline.run import Run
from pipeline.upstream import environment
from pipeline.validate import error_types, operating_point, reconcile

# Both evaluators use double precision, and we round to six decimals.
TOLERANCE = 1e-6


def crowd(of_a: int, of_b: int = 0, others: int = 0, found: float = 0.9) -> tuple[Any, Any]:
    """One image with rows of objects, `others` images with three each, and predictions of most, some shifted or repeated."""
    rng = np.random.default_rng(of_a)
    cells = [(40.0 * (index % 25), 40.0 * (index // 25), 30.0, 30.0) for index in range(of_a + of_b)]
    full = [("a" if index < of_a else "b", cell) for index, cell in enumerate(cells)]
    truth = scene(full, *[[("a", cells[0]), ("b", cells[1]), ("a", cells[2])]] * others)
    predictions = []
    for record in truth["annotations"]:
        x, y, width, height = record["bbox"]
        for _ in range(int(rng.random() < found) + int(rng.random() < 0.1)):
            box = (x + rng.normal(0, 2), y + rng.normal(0, 2), width, height)
            name = "ab"[record["category_id"]]
            predictions.append(seen(record["image_id"], name, box, round(float(rng.random()), 6)))
    return truth, predictions


def heap(seed: int) -> tuple[Any, Any]:
    """Two images of 400 objects that overlap each other, in all three size bins, with twice as many predictions."""
    rng = np.random.default_rng(seed)
    objects, predictions = [], []
    for image in (1, 2):
        sides = np.exp(rng.uniform(np.log(10), np.log(150), (400, 2)))
        places = rng.uniform(0, 900, (400, 2))
        objects.append([("ab"[row % 2], (*places[row], *sides[row])) for row in range(400)])
        for name, (x, y, width, height) in objects[-1]:
            for _ in range(int(rng.integers(0, 5))):
                jitter = rng.normal(0, 0.1, 4) * [width, height, width, height]
                box = (x + jitter[0], y + jitter[1], width + jitter[2], height + jitter[3])
                predictions.append(seen(image, name, box, float(rng.random())))
    return scene(*objects), predictions


def by_pycocotools(truth: Any, predictions: Any, most: int) -> tuple[float, float, float]:
    """Return mAP50-95, mAP50 and average recall with at most `most` predictions per image and class."""
    precision, recall = tables(truth, predictions, most)
    precision, recall = precision[:, :, :, 0, 2], recall[:, :, 0, 2]
    counted = (precision > -1).all(axis=(0, 1))
    return precision[:, :, counted].mean(), precision[0][:, counted].mean(), recall[:, counted].mean()


def tables(truth: Any, predictions: Any, most: int) -> tuple[Any, Any]:
    """Return pycocotools' precision [IoU, recall, class, area, limit] and recall [IoU, class, area, limit]."""
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = {"info": {}, **truth}
        data.createIndex()
        evaluator = COCOeval(data, data.loadRes(predictions), "bbox")
        evaluator.params.maxDets = [1, 10, most]
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator.eval["precision"], evaluator.eval["recall"]


@pytest.mark.parametrize(
    "drawn", [crowd(300), crowd(150, 250, others=8), crowd(20, 180, others=3), heap(0), heap(1), heap(2)]
)
def test_figures_equal_pycocotools_with_a_higher_limit(drawn: tuple[Any, Any]) -> None:
    truth, predictions = drawn
    figures: Any = coco.evaluate(truth, predictions)
    ours = (figures["map50_95"], figures["map50"], figures["ar100"])
    assert ours == pytest.approx(by_pycocotools(truth, predictions, 1000), abs=TOLERANCE)
    assert figures["max_detections"] is None
    resampled = bootstrap.figures(match(truth, predictions), bootstrap.once(len(truth["images"]))).overall()
    assert tuple(resampled[name][0] for name in ("map50_95", "map50", "ar100")) == pytest.approx(ours, abs=TOLERANCE)
    at_100: Any = coco.evaluate(truth, predictions, 100)
    theirs = by_pycocotools(truth, predictions, 100)
    assert (at_100["map50_95"], at_100["map50"], at_100["ar100"]) == pytest.approx(theirs, abs=TOLERANCE)
    assert figures["map50"] > at_100["map50"] + 0.01


@pytest.mark.parametrize("drawn", [crowd(150, 250, others=8), heap(3), heap(4)])
def test_recall_and_sizes_equal_pycocotools_with_a_higher_limit(drawn: tuple[Any, Any]) -> None:
    figures: Any = coco.evaluate(*drawn)
    precision, recall = tables(*drawn, 2000)
    for name, limit in (("ar1", 0), ("ar10", 1), ("ar100", 2)):
        assert figures[name] == pytest.approx(recall[:, :, 0, limit].mean(), abs=TOLERANCE), name
    for area, size in enumerate(("small", "medium", "large"), 1):
        if (recall[:, :, area, 2] > -1).all():
            ap, ar = precision[:, :, :, area, 2].mean(), recall[:, :, area, 2].mean()
            assert figures["per_size"][size] == {
                "ap": pytest.approx(ap, abs=TOLERANCE),
                "ar": pytest.approx(ar, abs=TOLERANCE),
            }


def test_a_crowded_image_becomes_small_pieces_with_the_same_boxes() -> None:
    """COCO's evaluators compare all predictions of an image with all objects: 30,000 with 5,000 would take gigabytes."""
    truth, predictions = crowd(5000, found=1)
    many = predictions + [{**record, "bbox": [9000.0, 9000.0, 10.0, 10.0]} for record in predictions * 5]
    split_truth, split_predictions = pieces.split(truth, many)
    for before, after in ((truth["annotations"], split_truth["annotations"]), (many, split_predictions)):
        assert [{**record, "image_id": 0} for record in before] == [{**record, "image_id": 0} for record in after]
    images = {image["id"] for image in split_truth["images"]}
    assert len(images) == len(split_truth["images"])
    objects, seen_in = (
        Counter(record["image_id"] for record in records) for records in (split_truth["annotations"], split_predictions)
    )
    assert set(objects) | set(seen_in) <= images
    assert max(objects[image] * seen_in[image] for image in images) <= 4


def test_images_with_few_objects_stay_whole() -> None:
    drawn = crowd(100, 90, others=3)
    assert pieces.split(*drawn) == drawn


def test_ultralytics_gives_the_same_figures_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """17,000 objects and 110,000 predictions in one image would take it tens of gigabytes."""
    environment.prepare()
    drawn = crowd(150, 110, others=4)
    in_pieces = reconcile.by_ultralytics(*drawn)
    monkeypatch.setattr(pieces, "split", lambda truth, predictions: (truth, predictions))
    # The order of the images decides only between equal scores, and these have none.
    assert in_pieces == pytest.approx(reconcile.by_ultralytics(*drawn), abs=1e-9)


@pytest.mark.parametrize(("of_a", "of_b", "limit"), [(100, 0, 100), (101, 0, None), (60, 60, 100), (3, 0, 100)])
def test_the_limit_is_cocos_until_a_class_exceeds_it(of_a: int, of_b: int, limit: int | None) -> None:
    assert coco.evaluate(*crowd(of_a, of_b))["max_detections"] == limit


def test_counts_curves_and_costs_cover_every_object() -> None:
    truth, predictions = crowd(250, 60, found=1)
    matches = match(truth, predictions, np.inf)
    counted: Any = operating_point.judge(matches, ["a", "b"], {"a": 0.0, "b": 0.0})
    assert (counted["tp"], counted["fn"]) == (310, 0)
    found = [int(curve.found[-1]) for curve in curves(truth, predictions)]
    assert found == [250, 60]
    chosen = operating_point.choose(matches, ["a", "b"], None, 0)["thresholds"]
    at_chosen: Any = operating_point.judge(matches, ["a", "b"], chosen)
    assert at_chosen["recall"] > 0.99  # of 310; a limit of 100 per class would give 0.52
    for one in ((truth, predictions), crowd(60, 60, found=1)):  # two classes of 60 exceed TIDE's 100 per image, too
        assert error_types.costs(*one)["missed"] == 0


def test_headline_record_and_report_give_both_figures(
    trained: Trained, copy_of: Callable[[Run], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(trained.run)
    run.metrics.unlink()
    dataset = YoloDataset.read(run.dataset / "data.yaml")
    label = dataset.label_file(dataset.files("val")[0])
    lines = [f"0 {x / 16 + 0.03:.4f} {y / 16 + 0.03:.4f} 0.04 0.04" for x in range(15) for y in range(8)]
    label.write_text("\n".join(lines) + "\n")
    line = validate.main(Validate(max_det=50), run, "cpu")
    figures: Any = metrics_record.read(run)["splits"]
    assert figures["val"]["max_detections"] is None and figures["val"]["at_100"] is not None
    assert figures["test"]["max_detections"] == 100 and figures["test"]["at_100"] is None
    assert line.count("more than 100 objects of a class (with COCO's limit of 100: mAP50 ") == 1
    assert "an image holds 120 objects, but at most 50 can be found; set validate.max_det to 240" in (
        capsys.readouterr().out
    )
    # The page shows test if there is one, otherwise val.
    metrics: Any = metrics_record.read(run)
    del metrics["splits"]["test"]
    write_record(run.metrics, metrics_record.Metrics, metrics)
    report.main(Report(), run)
    page = (run.report / "index.html").read_text(encoding="utf-8")
    assert "With COCO's limit of 100 per image and class: mAP50-95" in page and "AR, all counted" in page
    assert "AR100</th>" not in page

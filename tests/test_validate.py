from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import Trained
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline import validate
from pipeline.config import Validate
from pipeline.errors import DataError
from pipeline.files import read_json
from pipeline.run import Run

# pycocotools' stats in its order; both evaluators compute in double precision, we round to six decimals.
STATS = ("map50_95", "map50", "map75", "small", "medium", "large", "ar1", "ar10", "ar100")
TOLERANCE = 1e-6


def noisy(seed: int, images: int = 25, classes: int = 3) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects of all sizes and predictions that are right, shifted, of another class, doubled, invented or missing."""
    rng = np.random.default_rng(seed)
    truth: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": f"c{i}"} for i in range(classes)],
    }
    predictions = []
    for image_id in range(1, images + 1):
        truth["images"].append({"id": image_id, "file_name": f"{image_id}.jpg", "width": 640, "height": 480})
        for _ in range(int(rng.integers(0, 12))):
            width, height = np.exp(rng.uniform(np.log(8), np.log(250), 2))
            bbox = [
                float(rng.uniform(0, 640 - width)),
                float(rng.uniform(0, 480 - height)),
                float(width),
                float(height),
            ]
            category = int(rng.integers(classes))
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "image_id": image_id, "category_id": category, "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0}
            )  # fmt: skip
            for _ in range(int(rng.choice([0, 1, 1, 1, 2]))):
                shifted = (np.array(bbox) + rng.normal(0, 0.08, 4) * [width, height, width, height]).tolist()
                label = category if rng.random() < 0.9 else int(rng.integers(classes))
                predictions.append(
                    {"image_id": image_id, "category_id": label, "bbox": shifted, "score": float(rng.random())}
                )
        for _ in range(int(rng.integers(0, 4))):
            predictions.append(
                {"image_id": image_id, "category_id": int(rng.integers(classes)), "bbox": [*rng.uniform(0, 300, 2).tolist(), 40.0, 40.0], "score": float(rng.random() * 0.6)}
            )  # fmt: skip
    return truth, predictions


def by_pycocotools(
    truth: dict[str, Any], predictions: list[dict[str, Any]], category: int | None = None
) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"info": {}, **truth}
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(predictions), "bbox")
        if category is not None:
            evaluator.params.catIds = [category]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return dict(zip(STATS, evaluator.stats.tolist(), strict=False))


@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_those_of_pycocotools(seed: int) -> None:
    truth, predictions = noisy(seed)
    ours, theirs = validate.evaluate(truth, predictions), by_pycocotools(truth, predictions)
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


def test_a_class_without_objects_has_no_figure_and_does_not_count() -> None:
    truth, predictions = noisy(0)
    truth["annotations"] = [a for a in truth["annotations"] if a["category_id"] != 2]
    ours = validate.evaluate(truth, predictions)
    assert ours["per_class"]["c2"] == {"map50_95": None, "map50": None, "ar100": None, "objects": 0}
    assert ours["map50_95"] == pytest.approx(by_pycocotools(truth, predictions)["map50_95"], abs=TOLERANCE)


def test_no_predictions_is_zero_not_an_error() -> None:
    truth, _ = noisy(0)
    ours = validate.evaluate(truth, [])
    assert (ours["map50_95"], ours["ar100"], ours["predictions"]) == (0.0, 0.0, 0)


def test_what_is_written(trained: Trained) -> None:
    metrics = read_json(trained.run.metrics)
    assert set(metrics["splits"]) == {"val", "test"}
    for split, figures in metrics["splits"].items():
        truth, predictions = read_json(trained.run.ground_truth(split)), read_json(trained.run.predictions(split))
        assert figures["images"] == len(truth["images"]) == 3
        assert figures["predictions"] == len(predictions) > 0
        assert validate.evaluate(truth, predictions) == figures
        assert {record["image_id"] for record in predictions} <= {image["id"] for image in truth["images"]}
        assert set(figures["per_class"]) == {category["name"] for category in truth["categories"]}


def test_predictions_are_in_pixels_of_the_original(trained: Trained) -> None:
    """Ours, in batches and with every label, against Ultralytics' predictor on the single image."""
    from ultralytics import YOLO

    truth, predictions = read_json(trained.run.ground_truth("test")), read_json(trained.run.predictions("test"))
    image = truth["images"][-1]
    ours = [record for record in predictions if record["image_id"] == image["id"]]
    path = trained.run.dataset / "images" / "test" / image["file_name"]
    [result] = YOLO(str(trained.run.model)).predict(
        str(path), imgsz=64, conf=0.001, iou=0.7, rect=False, device="cpu", verbose=False
    )
    xyxy = result.boxes.xyxy.numpy()
    boxes = np.array([record["bbox"] for record in ours])
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    best = np.argsort(-result.boxes.conf.numpy())[:10]
    for index in best:
        # 0.05 px: batches of another size add up in another order, and 64 px are scaled up to 320.
        same = np.abs(corners - xyxy[index]).max(1) < 0.05
        scores = [
            r["score"]
            for r, near in zip(ours, same, strict=True)
            if near and r["category_id"] == result.boxes.cls[index]
        ]
        assert scores and max(scores) == pytest.approx(float(result.boxes.conf[index]), abs=1e-4)


def test_a_box_comes_with_every_class_it_may_be(trained: Trained) -> None:
    """As in Ultralytics' validation; keeping the best class alone costs average precision."""
    predictions = read_json(trained.run.predictions("test"))
    classes: dict[tuple[Any, ...], set[int]] = {}
    for record in predictions:
        classes.setdefault((record["image_id"], *record["bbox"]), set()).add(record["category_id"])
    assert max(map(len, classes.values())) > 1


def test_an_unfinished_run(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    run.model.unlink()
    with pytest.raises(DataError, match=r"model\.pt: not there; `make train` writes it"):
        validate.main(Validate(), run, "cpu")

"""Precision and recall at every score: by hand, and against pycocotools' matches."""

from __future__ import annotations

import numpy as np
import pytest
from detections import matches_by_pycocotools, noisy

from pipeline.metrics.precision_recall import curves


def test_curves_match_a_case_worked_by_hand() -> None:
    """Two objects; by score: a hit at IoU 0.6, a miss at 0.45, then a hit and a duplicate of equal score."""
    truth = {
        "images": [{"id": 1, "width": 200, "height": 200, "file_name": "a"}],
        "categories": [{"id": 0, "name": "hole"}, {"id": 1, "name": "never"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 0, "bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 0, "bbox": [100, 0, 20, 20], "area": 400, "iscrowd": 0},
        ],
    }
    found = [(0.5, [100, 0, 20, 20]), (0.9, [0, 0, 20, 12]), (0.7, [100, 0, 20, 9]), (0.5, [100, 0, 20, 20])]
    predictions = [{"image_id": 1, "category_id": 0, "bbox": bbox, "score": score} for score, bbox in found]
    hole, never = curves(truth, predictions)
    assert (hole.name, hole.objects, hole.scores.tolist()) == ("hole", 2, [0.9, 0.7, 0.5])
    assert hole.precision.tolist() == [1, 0.5, 0.5]
    assert hole.recall.tolist() == [0.5, 0.5, 1]
    assert hole.f1.tolist() == pytest.approx([2 / 3, 0.5, 2 / 3])
    assert (never.objects, never.scores.size) == (0, 0)
    assert [curve.scores.size for curve in curves(truth, [])] == [0, 0]


def test_curves_count_as_coco_does() -> None:
    """Against pycocotools' matches. Boxes shifted by up to their side: hits, misses and duplicates at all scores."""
    truth, _ = noisy(0)
    random = np.random.default_rng(0)
    predictions = []
    for number, record in enumerate(truth["annotations"] * 3):
        x, y, width, height = record["bbox"]
        bbox = [x + width * random.normal(0, 0.2), y + height * random.normal(0, 0.2), width, height]
        predictions.append({**record, "bbox": bbox, "score": float(random.permutation(1000)[number % 1000]) / 1000})
    theirs = matches_by_pycocotools(truth, predictions)
    drawn = [curve for curve in curves(truth, predictions) if curve.objects]
    assert drawn
    for curve in drawn:
        scores, hits = theirs[curve.name]
        for score, precision, recall in zip(curve.scores, curve.precision, curve.recall, strict=True):
            kept = scores >= score
            right = int(hits[kept].sum())
            assert (precision, recall) == pytest.approx((right / kept.sum(), right / curve.objects))
    assert any(0 < curve.precision[-1] < 1 for curve in drawn)

"""The predictor's own suppression of non-maxima, on outputs made by hand."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.device import runner
from pipeline.device.runner import Detections
from pipeline.upstream import environment

SIZE = 640
CLASSES = 80


def output(*boxes: tuple[float, float, float, float, int]) -> np.ndarray[Any, Any]:
    """A network's output (1, 4 + classes, n) with boxes given as corners and class; earlier ones score higher."""
    made = np.zeros((1, 4 + CLASSES, len(boxes)), np.float32)
    for index, (left, top, right, bottom, kind) in enumerate(boxes):
        made[0, :4, index] = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
        made[0, 4 + kind, index] = 0.9 - 0.1 * index
    return made


def predicted(outputs: np.ndarray[Any, Any]) -> tuple[list[Detections], list[Detections]]:
    environment.prepare()
    import torch

    from pipeline.upstream import predictor

    made = predictor.BothPredictor(overrides={"conf": 0.01, "iou": 0.7, "max_det": 300, "mode": "predict"})
    made.model = SimpleNamespace(names=dict(enumerate(map(str, range(CLASSES)))), end2end=False)
    made.batch = [[str(index) for index in range(len(outputs))]]
    tensor = torch.from_numpy(outputs)
    images = [np.zeros((SIZE, SIZE, 3), np.uint8)] * len(outputs)
    best = made.postprocess((tensor, None), torch.zeros(len(outputs), 3, SIZE, SIZE), images)
    assert made.tensors is not None and made.tensors[1] is tensor  # what the export comparison sees is unchanged
    return [predictor._found(one.boxes) for one in best], [predictor._found(one.boxes) for one in made.every_label]


@pytest.mark.parametrize("shift", [1.75, 1.78])  # IoU 0.702 and 0.698
@pytest.mark.parametrize("kind", [0, 79])
def test_the_last_class_is_suppressed_as_on_a_device(kind: int, shift: float) -> None:
    """Two boxes of 10 pixels. Moved by 79 * 7680 pixels, 32 bits would round 1.78 to 1.75."""
    raw = output((100, 100, 110, 110, kind), (100 + shift, 100, 110 + shift, 110, kind))
    spec: Any = {
        "input": {"size": SIZE, "fit": "letterbox"},
        "output": {"layout": "columns", "normalised": False, "conf": 0.01, "iou": 0.7, "max_det": 300},
    }
    expected = runner.read_output(raw, spec, (SIZE, SIZE, 3), 0.01)
    assert len(expected) == 1 + (shift > 1.7647)
    for found in predicted(raw):
        assert found[0].classes.tolist() == expected.classes.tolist()
        assert found[0].corners == pytest.approx(expected.corners)


def test_a_busy_machine_loses_no_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock is 1000 seconds after the last."""
    monkeypatch.setattr("ultralytics.utils.nms.time", SimpleNamespace(time=itertools.count(0, 1000).__next__))
    raw = np.concatenate([output((100, 100, 110, 110, kind)) for kind in range(3)])
    for found in predicted(raw):
        assert [one.classes.tolist() for one in found] == [[0], [1], [2]]

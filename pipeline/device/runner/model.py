# SPDX-License-Identifier: AGPL-3.0-only
"""Run the model: from an image to detections."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Sequence

import numpy as np

from .base import Detections, RunnerError, Spec, cores
from .letterbox import prepare, to_original
from .runtimes import load
from .tiles import WHOLE_COUNTS, View, merge, views


class Model:
    """The model that `spec`, the content of model.json, describes; its file is in `folder`.

    It uses `threads` threads for each input and takes `at_once` inputs at a time: images, or tiles of one image.
    """

    def __init__(self, folder: str | Path, spec: Spec, threads: int = 0, at_once: int = 1) -> None:
        path = Path(folder) / spec["model"]
        if not path.exists() and "engine" in spec:
            raise RunnerError(
                f"{path}: does not exist yet; build the engine on this device: python build.py, or sh build.sh"
            )
        if not path.exists():
            raise RunnerError(f"{path}: does not exist; unpack the whole bundle again")
        self.spec, self.size = spec, spec["input"]["size"]
        # As precise as scores: 0.7 in 32 bits is less than 0.7 in 64.
        self.thresholds = np.array([spec["thresholds"][name] for name in spec["classes"]], np.float32)
        self.forward = load(path, spec, threads or len(cores()), at_once)
        self.tiles, self.pool = spec.get("tiles"), ThreadPoolExecutor(at_once)

    def detect(self, image: Any) -> Detections:
        """Return the objects in an image (height, width, 3; uint8, BGR) that reach the threshold of their class.

        Boxes below validation's `conf` take no part, because validation did not see them either.
        """
        conf = self.spec["output"]["conf"]
        detections = self.detect_all(image, max(float(self.thresholds.min()), conf), conf)
        return detections.only(detections.scores >= self.thresholds[detections.classes])

    def detect_all(self, image: Any, lowest: float, conf: float = 0.0) -> Detections:
        """Return all detections from `lowest`, merged with those from `conf`."""
        # An uncut box with a lower score may replace a cut one from `lowest`.
        least = lowest / WHOLE_COUNTS if len(views(image.shape, self.tiles)) > 1 else lowest
        [detections] = self.look(image, max(least, conf), (False,))
        return detections.only(detections.scores >= lowest)

    def look(self, image: Any, lowest: float, kinds: Sequence[bool]) -> list[Detections]:
        """Return the detections of one pass for each value of `every_label` in `kinds`. Views run in parallel.

        With `every_label` a box comes once per class, for average precision.
        """

        def found_in(view: View) -> list[Detections]:
            left, top, right, bottom = view
            part = image[top:bottom, left:right]
            raw = self.forward(prepare(part, self.spec["input"]))
            return [read_output(raw, self.spec, part.shape, lowest, every_label) for every_label in kinds]

        looked = views(image.shape, self.tiles)
        if len(looked) == 1:
            return found_in(looked[0])
        return [merge(seen, looked, self.tiles) for seen in zip(*self.pool.map(found_in, looked))]


def read_output(raw: Any, spec: Spec, shape: tuple[int, ...], lowest: float, every_label: bool = False) -> Detections:
    """Return the detections from `lowest` in a model's output, in pixels of the original image of this shape.

    Raises FloatingPointError if the output is not finite, as when 16 bits overflow: that is no image without objects.
    """
    if not np.isfinite(raw).all():
        raise FloatingPointError("the model's output is not finite; export it with another precision")
    output, size = spec["output"], spec["input"]["size"]
    if output["layout"] == "rows":  # (1, n, 6) after suppression in the graph: corners, score, class
        rows = raw[0][raw[0][:, 4] >= lowest]
        detections = Detections(rows[:, :4], rows[:, 4], rows[:, 5].astype(int))
    else:  # "columns", (1, 4 + classes, n): centre, width, height, one score per class
        detections = _candidates(raw[0], lowest, every_label)
        detections.corners = detections.corners * (size if output["normalised"] else 1)
        # A barely trained model predicts some boxes with negative sides. They must not suppress others.
        detections = detections.only(_have_area(detections.corners))
        detections = detections.only(
            _suppress(detections.corners, detections.scores, detections.classes, output["iou"], output["max_det"])
        )
    detections.corners = to_original(detections.corners, shape, size, spec["input"]["fit"])
    return detections.only(_have_area(detections.corners))


def _have_area(corners: Any) -> Any:
    return (corners[:, 2:] > corners[:, :2]).all(axis=1)


def _candidates(columns: Any, lowest: float, every_label: bool) -> Detections:
    boxes, scores = columns[:4], columns[4:]
    likely = np.flatnonzero(scores.max(axis=0) >= lowest)
    boxes, scores = boxes[:, likely], scores[:, likely]
    if every_label:
        anchors, classes = np.nonzero(lowest <= scores.T)
    else:
        anchors, classes = np.arange(len(likely)), scores.argmax(axis=0)
    centre, half = boxes[:2, anchors].T, boxes[2:, anchors].T / 2
    return Detections(np.concatenate([centre - half, centre + half], axis=1), scores[classes, anchors], classes)


def _suppress(corners: Any, scores: Any, classes: Any, iou: float, most: int) -> Any:
    """Suppress non-maxima within each class; return the indices of the remaining boxes, highest score first."""
    left = np.argsort(-scores, kind="stable")
    areas = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    kept: list[int] = []
    while len(left) and len(kept) < most:
        best, left = left[0], left[1:]
        kept.append(int(best))
        low = np.maximum(corners[best, :2], corners[left, :2])
        high = np.minimum(corners[best, 2:], corners[left, 2:])
        overlap = np.prod(np.clip(high - low, 0, None), axis=1)
        same = classes[left] == classes[best]
        left = left[~same | (overlap <= iou * (areas[left] + areas[best] - overlap))]
    return np.array(kept, dtype=int)

"""Measure how well the outputs of each layer tell the classes apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.probing.sample import Scene
from pipeline.probing.scores import ridge_probe

IMAGES = 64  # enough for a hint in a few seconds
FALL = 0.02  # of accuracy; less is within the variation by choice of images


def separability(model: Any, scenes: Sequence[Scene], imgsz: int) -> dict[int, float]:
    """Return the balanced accuracy of a linear probe on the outputs of each stage, by layer number.

    `model` is a DetectionModel in eval mode. `sample.draw(data, IMAGES, seed)` gives the scenes.
    """
    from pipeline.probing import features

    rows = features.of_boxes(model, scenes, features.stages(model), imgsz, "separability of layers")
    return by_layer(rows, *numbers(scenes))


def by_layer(rows: Mapping[int, Any], labels: Any, images: Any) -> dict[int, float]:
    return {layer: ridge_probe(values, labels, images).accuracy for layer, values in rows.items()}


def depth(accuracy: Mapping[int, float], backbone: int) -> int:
    """Return how many of the first layers may be frozen: up to the last one before the accuracy falls.

    `backbone` is the number of its layers; deeper ones are never proposed. 0 if the accuracy falls at once, or if the
    images separate nothing.
    """
    if not any(accuracy.values()):
        return 0
    best, frozen = 0.0, 0
    for layer in sorted(layer for layer in accuracy if layer < backbone):
        if accuracy[layer] < best - FALL:
            break
        best, frozen = max(best, accuracy[layer]), layer + 1
    return frozen


def numbers(scenes: Sequence[Scene]) -> tuple[Any, Any]:
    """Return the class number and the image number of each box of all scenes."""
    labels = np.concatenate([scene.labels for scene in scenes])
    return labels, np.repeat(np.arange(len(scenes)), [len(scene.labels) for scene in scenes])

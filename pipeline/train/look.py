"""Measure how well the features of the source's backbone suit the training images.

Import it late: it imports torch.
"""

from __future__ import annotations

from typing import Any

from pipeline.boxes import YoloDataset
from pipeline.errors import DataError
from pipeline.probing import sample
from pipeline.probing.scores import judged
from pipeline.probing.separability import numbers, separability

IMAGES = 60  # takes seconds on one core; more images changed the share by only 0.02


def measure(model: Any, data: YoloDataset, imgsz: int, seed: int) -> dict[str, Any] | None:
    """Return the separability at the backbone's last layer as a share of that at the best layer, from 0 to 1.

    Separability is the balanced accuracy of a linear probe that separates classes and background by a layer's features
    of the boxes. `model` is the source's DetectionModel. The result has the share as `kept`, and the `accuracy` by
    layer. Returns None if there is nothing to separate, or if no class appears in two images: the probe learns from
    some images and is evaluated on others.
    """
    try:
        scenes = sample.draw(data, IMAGES, seed)
    except DataError:
        return None
    labels, images = numbers(scenes)
    if not judged(labels, images)[labels < len(data.names)].any():  # background alone says nothing about the classes
        return None
    training = model.training
    accuracy = separability(model.float().eval(), scenes, imgsz)
    model.train(training)
    last = max(layer for layer in accuracy if layer < len(model.yaml["backbone"]))
    if not (best := max(accuracy.values())):
        return None
    by_layer = {str(layer): round(value, 3) for layer, value in accuracy.items()}
    return {"kept": round(accuracy[last] / best, 3), "accuracy": by_layer}

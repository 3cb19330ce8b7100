"""Run the layers of an Ultralytics model by its own wiring (nn/tasks.py, `_predict_once`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def sources(layer: Any) -> list[int]:
    """Return the layers whose outputs a layer takes: negative numbers count back from it; -1 is the image."""
    numbers = [layer.f] if isinstance(layer.f, int) else layer.f
    return [number if number >= 0 else layer.i + number for number in numbers]


def taken(model: Any, cut: int) -> list[int]:
    """Return the layers before the cut whose outputs later layers take."""
    return sorted({number for layer in model.model[cut:] for number in sources(layer) if 0 <= number < cut})


def run(layers: Iterable[Any], outputs: dict[int, Any]) -> Any:
    """Add the output of each layer to `outputs`, which begins with the image at -1, and return the last."""
    for layer in layers:
        inputs = [outputs[number] for number in sources(layer)]
        outputs[layer.i] = layer(inputs[0] if isinstance(layer.f, int) else inputs)
    return outputs[layer.i]

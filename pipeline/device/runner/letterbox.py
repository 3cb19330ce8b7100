# SPDX-License-Identifier: AGPL-3.0-only
"""Fit an image into the square input of the model, and map boxes back."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Input, cv2


def prepare(image: Any, spec: Input) -> Any:
    """Return the model's input, (1, 3, size, size) float32, for an image (height, width, 3; uint8, BGR)."""
    size = spec["size"]
    new_width, new_height, left, top = _fitted(image.shape, size, spec["fit"])
    if image.shape[:2] != (new_height, new_width):
        image = _resize(image, new_width, new_height)
    square = np.full((size, size, 3), spec["pad"], np.uint8)
    square[top : top + new_height, left : left + new_width] = image
    if spec["colour"] == "RGB":
        square = square[:, :, ::-1]
    planes = np.ascontiguousarray(square.transpose(2, 0, 1)[None])
    return np.multiply(planes, np.float32(spec["scale"]), dtype=np.float32)


def _fitted(shape: tuple[int, ...], size: int, fit: str) -> tuple[int, int, int, int]:
    """Return the width and height of an image in the model's square, and the offsets of its left and top edges."""
    if fit == "stretch":
        return size, size, 0, 0
    height, width = shape[:2]
    gain = min(size / height, size / width)
    new_width, new_height = max(round(width * gain), 1), max(round(height * gain), 1)
    return new_width, new_height, round((size - new_width) / 2 - 0.1), round((size - new_height) / 2 - 0.1)


def _resize(image: Any, width: int, height: int) -> Any:
    if cv2 is not None:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    # Not with Pillow: it averages, whereas OpenCV, as in training, interpolates between four pixels.
    rows, y = _between(image.shape[0], height)
    columns, x = _between(image.shape[1], width)
    x, y = x[None, :, None], y[:, None, None]
    upper, lower = image[rows[0]].astype(np.float32), image[rows[1]].astype(np.float32)
    upper = upper[:, columns[0]] * (1 - x) + upper[:, columns[1]] * x
    lower = lower[:, columns[0]] * (1 - x) + lower[:, columns[1]] * x
    return np.floor(upper * (1 - y) + lower * y + 0.5).astype(np.uint8)


def _between(old: int, new: int) -> tuple[tuple[Any, Any], Any]:
    """Return for each of `new` positions the two of `old` around it, and the weight of the second."""
    at = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    first = np.floor(at).astype(int)
    return (first, np.minimum(first + 1, old - 1)), (at - first).astype(np.float32)


def to_original(corners: Any, shape: tuple[int, ...], size: int, fit: str) -> Any:
    """Map corners in the model's square to pixels of the original image.

    Each side has its own factor, because the resized sides are rounded to whole pixels.
    """
    height, width = shape[:2]
    new_width, new_height, left, top = _fitted(shape, size, fit)
    gain = np.array([new_width / width, new_height / height])
    corners = (corners.astype(np.float64) - [left, top, left, top]) / [*gain, *gain]
    return np.clip(corners, 0, [width, height, width, height])

"""Compute the intersection over union of boxes. All boxes are [x, y, width, height], as in COCO."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pairwise_iou(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the intersection over union of every box of `ours` [n, 4] with every one of `theirs` [m, 4]: [n, m]."""
    low = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    high = np.minimum(ours[:, None, :2] + ours[:, None, 2:], theirs[None, :, :2] + theirs[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    together = np.prod(ours[:, 2:], axis=1)[:, None] + np.prod(theirs[:, 2:], axis=1)[None, :] - shared
    iou: NDArray[np.float64] = np.divide(shared, together, out=np.zeros_like(shared), where=together > 0)
    return iou


def from_corners(corners: NDArray[Any]) -> NDArray[np.float64]:
    """Convert boxes [n, 4] from [xmin, ymin, xmax, ymax] to [x, y, width, height]."""
    corners = corners.astype(np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)

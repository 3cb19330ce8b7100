"""Compute the intersection over union of boxes. All boxes are [x, y, width, height], as in COCO."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

PAIRS = 1 << 22  # of boxes at a time, 200 MB; a slide can hold 10,000 objects and ten times as many predictions


def iou_blocks(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield the rows of `pairwise_iou` in blocks that fit into memory, each with its place in `ours`."""
    step = max(1, PAIRS // max(1, len(theirs)))
    for start in range(0, len(ours), step):
        rows = slice(start, min(start + step, len(ours)))
        yield rows, pairwise_iou(ours[rows], theirs)


def pairwise_iou(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the intersection over union of every box of `ours` [n, 4] with every one of `theirs` [m, 4]: [n, m]."""
    # Most pairs are far apart, so only those that overlap are computed.
    apart = np.zeros((len(ours), len(theirs)), dtype=bool)
    for axis in (0, 1):
        apart |= ours[:, axis, None] >= theirs[None, :, axis] + theirs[None, :, axis + 2]
        apart |= theirs[None, :, axis] >= ours[:, axis, None] + ours[:, axis + 2, None]
    iou = np.zeros(apart.shape)
    rows, columns = np.nonzero(~apart)
    first, second = ours[rows], theirs[columns]
    sides = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:]) - np.maximum(
        first[:, :2], second[:, :2]
    )
    shared = sides[:, 0] * sides[:, 1]
    together = first[:, 2] * first[:, 3] + second[:, 2] * second[:, 3] - shared
    # Two crossing lines share nothing and have no area.
    iou[rows, columns] = np.divide(shared, together, out=np.zeros_like(shared), where=together > 0)
    return iou


def from_corners(corners: NDArray[Any]) -> NDArray[np.float64]:
    """Convert boxes [n, 4] from [xmin, ymin, xmax, ymax] to [x, y, width, height]."""
    corners = corners.astype(np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)

# SPDX-License-Identifier: AGPL-3.0-only
"""Look at a large image through several views: overlapping tiles and, for longer objects, the whole image.

Two boxes of the same class from two views are one object if their IoU is at least `SAME` in the area that both views
show. If an inner edge cuts one of them, the other is first clipped to the view of the cut one, which cannot show more.
So a part matches its whole, and a small object on top of a large one stays, because it does not match the visible part
of the large one. Two boxes from one view are never the same object, because the model has separated them.

Each object keeps its uncut box with the highest score; its other boxes are dropped. A cut box is kept instead only if
its score is more than `WHOLE_COUNTS` times as high. If all boxes are cut, they are joined, one of each view.
"""

from __future__ import annotations

from typing import Any, Sequence, Tuple

import numpy as np

from .base import Detections, Tiles

View = Tuple[int, int, int, int]  # left, top, right, bottom, in pixels of the image
SAME = 0.5  # IoU
WHOLE_COUNTS = 4  # an uncut box is preferred to a cut one with up to this many times its score
# An inner edge cuts a box that comes this near to it, in shares of the tile and of the box: models are not more exact.
OF_TILE, OF_BOX = 0.01, 0.15


def views(shape: Sequence[int], tiles: Tiles | None) -> list[View]:
    """Return tiles row by row, the last of a row or column moved inward; then the whole image if `tiles` says so.

    `shape` is that of the image, height first. An image no larger than a tile is its own only view.
    """
    height, width = shape[:2]
    whole = (0, 0, width, height)
    if not tiles or max(height, width) <= tiles["size"]:
        return [whole]
    size, step = tiles["size"], max(tiles["size"] - overlap(tiles), 1)
    grid = [
        (x, y, min(x + size, width), min(y + size, height))
        for y in _starts(height, size, step)
        for x in _starts(width, size, step)
    ]
    return [*grid, whole] if tiles["whole"] else grid


def overlap(tiles: Tiles) -> int:
    """Return the minimum overlap of neighbours in pixels. Any object no longer than that is whole in a tile."""
    return round(tiles["size"] * tiles["overlap"])


def _starts(side: int, size: int, step: int) -> list[int]:
    number = max(0, -(-(side - size) // step)) + 1
    return [max(0, min(index * step, side - size)) for index in range(number)]


def merge(seen: Sequence[Detections], looked: Sequence[View], tiles: Tiles | None) -> Detections:
    """Merge the detections of all views. `seen` has those of each view, in its pixels; `looked` is `views(...)`."""
    if len(looked) == 1 or not tiles:
        return seen[0]
    parts = [
        Detections(one.corners + np.array([*view[:2], *view[:2]]), one.scores, one.classes)
        for one, view in zip(seen, looked)
    ]
    if tiles["whole"]:  # drop its small objects, which tiles show better
        sides = parts[-1].corners[:, 2:] - parts[-1].corners[:, :2]
        parts[-1] = parts[-1].only(sides.max(axis=1, initial=0) > overlap(tiles))
    view = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    windows = np.array(looked, float)
    every = Detections(
        np.concatenate([part.corners for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.classes for part in parts]),
    )
    cut = _cut(every.corners, windows[view], windows[:, 2:].max(axis=0), tiles["size"])
    kept = _choose(every, cut, view, _agreeing(every, cut, view, windows))
    return every.only(kept[np.argsort(-every.scores[kept], kind="stable")])


def _cut(corners: Any, windows: Any, image: Any, size: int) -> Any:
    """Return whether an inner edge of its view cuts each box, (n,)."""
    inner = np.concatenate([windows[:, :2] > 0, windows[:, 2:] < image], axis=1)
    sides = corners[:, 2:] - corners[:, :2]
    near = np.abs(corners - windows) <= OF_TILE * size + OF_BOX * np.concatenate([sides, sides], axis=1)
    return (inner & near).any(axis=1)


def _agreeing(every: Detections, cut: Any, view: Any, windows: Any) -> list[dict[int, float]]:
    """Return for each box the boxes of other views that are the same object, with their IoU."""
    partners: list[dict[int, float]] = [{} for _ in range(len(every))]
    ends = np.searchsorted(view, np.arange(len(windows) + 1))
    for a in range(len(windows)):
        for b in a + 1 + np.flatnonzero(_meet(windows[a + 1 :], windows[a])):
            ours = ends[a] + np.flatnonzero(_meet(every.corners[ends[a] : ends[a + 1]], windows[b]))
            theirs = ends[b] + np.flatnonzero(_meet(every.corners[ends[b] : ends[b + 1]], windows[a]))
            if len(ours) and len(theirs):
                our_boxes = _clipped(every.corners[ours], windows[b], cut[theirs])
                their_boxes = _clipped(every.corners[theirs], windows[a], cut[ours]).transpose(1, 0, 2)
                iou = _iou(our_boxes, their_boxes)
                iou *= every.classes[ours][:, None] == every.classes[theirs]
                for i, j in zip(*np.nonzero(iou >= SAME)):
                    partners[ours[i]][int(theirs[j])] = partners[theirs[j]][int(ours[i])] = float(iou[i, j])
    return partners


def _meet(boxes: Any, window: Any) -> Any:
    return ((boxes[:, :2] < window[2:]) & (boxes[:, 2:] > window[:2])).all(axis=1)


def _clipped(corners: Any, window: Any, where: Any) -> Any:
    """Return each box as compared with each other one, (boxes, others, 4): clipped to `window` `where` that is cut."""
    inside = np.clip(corners, [*window[:2], *window[:2]], [*window[2:], *window[2:]])
    return np.where(where[None, :, None], inside[:, None], corners[:, None])


def _iou(one: Any, other: Any) -> Any:
    shared = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    common = np.prod(np.clip(shared, 0, None), axis=2)
    areas = [np.prod(boxes[..., 2:] - boxes[..., :2], axis=2) for boxes in (one, other)]
    return common / np.maximum(areas[0] + areas[1] - common, 1e-9)


def _choose(every: Detections, cut: Any, view: Any, partners: list[dict[int, float]]) -> Any:
    """Return the indices of the boxes that stay. Join cut boxes in place, at most one of each view.

    From each other view, a box removes only its best uncut match, so the box of an overlapping neighbour stays.
    """
    free = np.ones(len(every), bool)
    kept = []
    for i in np.argsort(-every.scores / np.where(cut, WHOLE_COUNTS, 1), kind="stable"):
        if not free[i]:
            continue
        kept.append(i)
        free[i] = False
        taken: dict[int, tuple[float, int]] = {}
        joined, waiting = {view[i]}, [i]
        while waiting:
            for j, iou in sorted(partners[waiting.pop()].items(), key=lambda partner: -partner[1]):  # the best first
                if not free[j] or view[j] in joined:
                    continue
                if not cut[j]:
                    taken[view[j]] = max(taken.get(view[j], (0.0, j)), (iou * float(every.scores[j]), j))
                    continue
                free[j] = False
                if cut[i] and WHOLE_COUNTS * every.scores[j] >= every.scores[i]:
                    every.corners[i, :2] = np.minimum(every.corners[i, :2], every.corners[j, :2])
                    every.corners[i, 2:] = np.maximum(every.corners[i, 2:], every.corners[j, 2:])
                    joined.add(view[j])
                    waiting.append(j)
        free[[j for number, (_, j) in taken.items() if number not in joined]] = False
    return np.array(kept, int)

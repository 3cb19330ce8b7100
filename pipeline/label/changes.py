"""Compare labels with the boxes that a model drew: kept, moved, relabelled, deleted and new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from pipeline.boxes import Box
from pipeline.labels.content import Label
from pipeline.metrics.iou import pairwise_iou

ROUNDING = 0.5  # pixels; CVAT and YOLO round by less, even in wide images, and nobody moves a box by less
SAME_OBJECT = 0.3  # IoU; a box that overlaps less is a new one, and the old one was deleted


def compare(
    before: Sequence[Label], after: Sequence[Box], ids: Mapping[str, int] | None = None
) -> tuple[tuple[Label, ...], tuple[Label, ...]]:
    """Return the labels of an image with their origins, and the boxes that were deleted.

    `ids` gives the number in `before` of a box whose id is known, however far it was moved. All other boxes are paired
    by their overlap, those of the same class first.
    """
    partner: dict[int, int] = {}  # number in `after` -> number in `before`
    for number, box in enumerate(after):
        if ids and box.id in ids and ids[box.id] not in partner.values():
            partner[number] = ids[box.id]
    partner |= _by_overlap(before, after, partner)
    labels = []
    for number, box in enumerate(after):
        if number not in partner:
            labels.append(Label(box.bbox, box.label))
            continue
        old = before[partner[number]]
        if old.label != box.label:
            labels.append(replace(old, bbox=box.bbox, label=box.label, origin="relabelled"))
        elif max(abs(was - now) for was, now in zip(_corners(old.box()), _corners(box), strict=True)) > ROUNDING:
            labels.append(replace(old, bbox=box.bbox, origin="moved"))
        else:
            labels.append(replace(old, origin="kept"))
    return tuple(labels), tuple(old for number, old in enumerate(before) if number not in partner.values())


def _by_overlap(before: Sequence[Label], after: Sequence[Box], paired: Mapping[int, int]) -> dict[int, int]:
    if not before or not after:
        return {}
    overlap = pairwise_iou(*(np.array([box.bbox for box in boxes], dtype=float) for boxes in (after, before)))
    order = sorted(
        ((new, old) for new in range(len(after)) for old in range(len(before)) if overlap[new, old] > SAME_OBJECT),
        key=lambda pair: (after[pair[0]].label != before[pair[1]].label, -overlap[pair], pair),
    )
    pairs: dict[int, int] = {}
    for new, old in order:
        if new not in paired and new not in pairs and old not in paired.values() and old not in pairs.values():
            pairs[new] = old
    return pairs


def _corners(box: Box) -> tuple[float, float, float, float]:
    return box.xmin, box.ymin, box.xmax, box.ymax

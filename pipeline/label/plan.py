"""Plan the work from what the model sees: boxes to draw, expected errors, minutes, reasons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.config.label import Cost
from pipeline.label import belief
from pipeline.label.belief import Belief, Floats
from pipeline.label.store import Array
from pipeline.metrics.iou import pairwise_iou
from pipeline.records.label import Guess

SAME = 0.5  # IoU from which two boxes are of one object


@dataclass(frozen=True, slots=True)
class Work:
    """The expected work in one image."""

    boxes: float
    wrong: float
    missed: float
    unlike_mirror: float  # boxes in only one of image and mirrored image; 0 if the latter was not checked
    seconds: float
    by_hand: float  # seconds without pre-drawn boxes

    @property
    def unsure(self) -> float:
        """Return the expected errors. A box in only one of image and mirrored image is half an error."""
        return self.wrong + self.missed + self.unlike_mirror / 2


def work(boxes: Array, mirrored: Array | None, trust: Belief, threshold: float, cost: Cost) -> Work:
    """Estimate a person's work on an image. Boxes are rows of x, y, width, height, score, class."""
    scores = boxes[:, 4]
    right, drawn = trust.is_right(scores), scores >= threshold
    objects = float(right.sum())
    unseen = objects * trust.unseen
    missed = float(right[~drawn].sum()) + unseen
    seconds = float(belief.seconds_if_drawn(trust, scores[drawn], cost).sum()) + missed * cost.draw
    return Work(
        boxes=objects + unseen,
        wrong=float((1 - right[drawn]).sum()),
        missed=missed,
        unlike_mirror=0.0 if mirrored is None else _unlike(boxes, mirrored, trust) + _unlike(mirrored, boxes, trust),
        seconds=cost.image + seconds,
        by_hand=cost.image + (objects + unseen) * cost.draw,
    )


def _unlike(boxes: Array, others: Array, trust: Belief) -> float:
    """Return the expected number of objects among `boxes` that `others` lacks at their place and in their class."""
    right = trust.is_right(boxes[:, 4])
    if not len(boxes) or not len(others):
        return float(right.sum())
    overlap = pairwise_iou(boxes[:, :4].astype(np.float64), others[:, :4].astype(np.float64))
    same = (overlap >= SAME) & (boxes[:, None, 5] == others[None, :, 5])
    # The other side confirms a box by its own probability: with a low score it hardly does.
    confirmed = np.where(same, trust.is_right(others[:, 4])[None], 0.0).max(axis=1)
    return float(np.clip(right - confirmed, 0, None).sum())


def objects_of(boxes: Array, classes: list[int], trust: Belief) -> float:
    """Return the expected number of objects of some classes."""
    return float(trust.is_right(boxes[np.isin(boxes[:, 5], classes), 4]).sum())


def guesses(
    boxes: Array, names: tuple[str, ...], trust: Belief, threshold: float, size: tuple[int, int]
) -> list[Guess]:
    """Return the boxes to pre-draw, best first, cut at the border of the image."""
    drawn: list[Guess] = []
    right: Floats = trust.is_right(boxes[:, 4])
    for index in np.argsort(-boxes[:, 4], kind="stable").tolist():
        if boxes[index, 4] < threshold:
            break
        x, y, width, height = boxes[index, :4].tolist()
        left, top = max(x, 0.0), max(y, 0.0)
        sides = min(x + width, size[0]) - left, min(y + height, size[1]) - top
        if min(sides) < 1:  # too small for a person to grab
            continue
        drawn.append(
            {
                "bbox": [round(side, 2) for side in (left, top, *sides)],
                "label": names[int(boxes[index, 5])],
                "score": round(float(right[index]), 4),
                "kind": "sure" if right[index] >= belief.SURE else "doubtful",
            }
        )
    return drawn

"""Compare the boxes of an artefact with those of its model, pair by pair."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.config.export import Limits
from pipeline.device.runner import Detections
from pipeline.metrics.iou import from_corners, pairwise_iou
from pipeline.records.manifest import ParityFigures

WORST = 3  # number of images to name


@dataclass(slots=True)
class Parity:
    """The differences between artefact and model over all images. Shifts are artefact minus model, of paired boxes."""

    images: int = 0
    from_score: float = 0.0
    boxes: int = 0
    lost: int = 0
    extra: int = 0
    flipped: int = 0
    min_iou: float = 1.0
    max_box_px: float = 0.0
    max_score: float = 0.0
    shifts: list[float] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    badness: dict[str, float] = field(default_factory=dict)

    @property
    def changed(self) -> float:
        return (self.lost + self.extra + self.flipped) / max(self.boxes, 1)

    @property
    def mean_shift(self) -> float:
        return float(np.mean(self.shifts)) if self.shifts else 0.0

    @property
    def worst(self) -> list[str]:
        return [name for name, bad in sorted(self.badness.items(), key=lambda item: -item[1])[:WORST] if bad > 0]

    def shift_of(self, kind: int) -> float | None:
        of_class = [shift for shift, other in zip(self.shifts, self.kinds, strict=True) if other == kind]
        return round(float(np.mean(of_class)), 6) if of_class else None

    def as_json(self) -> ParityFigures:
        return {
            "images": self.images,
            "from_score": round(self.from_score, 6),
            "boxes": self.boxes,
            "lost": self.lost,
            "extra": self.extra,
            "flipped": self.flipped,
            "changed": round(self.changed, 6),
            # Without pairs these cannot be measured.
            "min_iou": round(self.min_iou, 6) if self.shifts else None,
            "max_box_px": round(self.max_box_px, 6) if self.shifts else None,
            "max_score": round(self.max_score, 8) if self.shifts else None,
            "mean_score_shift": round(self.mean_shift, 8) if self.shifts else None,
            "worst": self.worst,
        }

    def broken(self, limits: Limits) -> dict[str, str]:
        """Return a line per exceeded limit, by its key in the config."""
        lines: dict[str, str] = {}
        if limits.max_changed is not None and self.changed > limits.max_changed:
            lines["max_changed"] = (
                f"of {self.boxes} boxes, {self.lost} lost, {self.extra} invented and {self.flipped} of another class"
            )
        if limits.max_box_px is not None and self.max_box_px > limits.max_box_px:
            lines["max_box_px"] = f"boxes up to {self.max_box_px:.3g} px apart, {limits.max_box_px:g} allowed"
        if limits.max_score is not None and self.max_score > limits.max_score:
            lines["max_score"] = f"scores up to {self.max_score:.3g} apart, {limits.max_score:g} allowed"
        if limits.max_score_shift is not None and abs(self.mean_shift) > limits.max_score_shift:
            lines["max_score_shift"] = (
                f"scores shifted by {self.mean_shift:+.3g} on average, {limits.max_score_shift:g} allowed"
            )
        return lines


def compare(reference: list[Detections], found: list[Detections], conf: float, names: list[str]) -> Parity:
    """Pair the boxes of both sides, image by image.

    A box counts if its score is at least `conf`; its partner's score may be 10 % lower. Each box is paired with the
    nearest unpaired box of its class. Remaining boxes are paired across classes and count as flipped. Boxes with an IoU
    below 0.5 are never paired: no rounding explains such a difference.
    """
    parity = Parity(images=len(names), from_score=conf)
    for ours, theirs, name in zip(reference, found, names, strict=True):
        ours, theirs = (boxes.only(boxes.scores >= 0.9 * conf) for boxes in (ours, theirs))
        iou = pairwise_iou(from_corners(ours.corners), from_corners(theirs.corners))
        pairs, flips = _pairs(ours, theirs, iou)
        paired_ours = {i for i, _ in pairs + flips}
        paired_theirs = {j for _, j in pairs + flips}
        lost = sum(bool(ours.scores[i] >= conf) and i not in paired_ours for i in range(len(ours)))
        extra = sum(bool(theirs.scores[j] >= conf) and j not in paired_theirs for j in range(len(theirs)))
        flipped = sum(bool(max(ours.scores[i], theirs.scores[j]) >= conf) for i, j in flips)
        pairs = [(i, j) for i, j in pairs if max(ours.scores[i], theirs.scores[j]) >= conf]
        box_px = max((float(np.abs(ours.corners[i] - theirs.corners[j]).max()) for i, j in pairs), default=0.0)
        shifts = [float(theirs.scores[j] - ours.scores[i]) for i, j in pairs]
        score = max(map(abs, shifts), default=0.0)
        parity.boxes += int((ours.scores >= conf).sum())
        parity.lost, parity.extra, parity.flipped = parity.lost + lost, parity.extra + extra, parity.flipped + flipped
        parity.max_box_px, parity.max_score = max(parity.max_box_px, box_px), max(parity.max_score, score)
        parity.min_iou = min([parity.min_iou, *(float(iou[i, j]) for i, j in pairs)])
        parity.shifts += shifts
        parity.kinds += [int(ours.classes[i]) for i, _ in pairs]
        parity.badness[name] = 1e3 * (lost + extra + flipped) + box_px + 100 * score
    return parity


def _pairs(
    ours: Detections, theirs: Detections, iou: NDArray[np.float64]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return pairs of the same class, then pairs of different classes among the remaining boxes."""
    free = np.ones(len(theirs), bool)
    same: list[tuple[int, int]] = []
    flipped: list[tuple[int, int]] = []
    taken: set[int] = set()
    for pairs in (same, flipped):
        for i in np.argsort(-ours.scores, kind="stable"):
            if int(i) in taken:
                continue
            near = free & (iou[i] >= 0.5)
            if pairs is same:
                near &= theirs.classes == ours.classes[i]
            if near.any():
                # Corners and score decide together, because overlapping objects may be equally near.
                apart = np.abs(theirs.corners - ours.corners[i]).max(axis=1)
                apart = apart + 10 * np.abs(theirs.scores - ours.scores[i])
                j = int(np.where(near, apart, np.inf).argmin())
                pairs.append((int(i), j))
                taken.add(int(i))
                free[j] = False
    return same, flipped

"""What a person said about images: labels, the boxes that a model drew beforehand, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from pipeline.boxes import Box

Origin = Literal["kept", "moved", "relabelled", "added"]
ORIGINS: tuple[Origin, ...] = ("kept", "moved", "relabelled", "added")


@dataclass(frozen=True, slots=True, order=True)
class Label:
    """One box; `bbox` is [x, y, width, height] in pixels. `score` and `model` are those of the pre-drawn box."""

    bbox: tuple[float, float, float, float]
    label: str
    origin: Origin = "added"
    score: float | None = None
    model: str = ""

    def box(self) -> Box:
        x, y, width, height = self.bbox
        return Box(self.label, x, y, x + width, y + height)


@dataclass(frozen=True, slots=True)
class Image:
    """A labelled image; `size` is (width, height) in pixels. The `origin` of `deleted` boxes has no meaning."""

    file: str
    size: tuple[int, int]
    sha256: str
    labels: tuple[Label, ...]
    deleted: tuple[Label, ...] = ()


@dataclass(frozen=True, slots=True)
class Labels:
    """The content of one file. `models` names each model by the beginning of its SHA-256."""

    classes: tuple[str, ...] = ()
    images: tuple[Image, ...] = ()
    models: dict[str, str] = field(default_factory=dict)


def rounded(label: Label) -> Label:
    """Round to a hundredth of a pixel, scores to a thousandth, so that a diff shows only what a person did."""
    x, y, width, height = (round(float(side), 2) for side in label.bbox)
    score = None if label.score is None else round(label.score, 3)
    return replace(label, bbox=(x, y, width, height), score=score)


def boxes_of(image: Image) -> list[tuple[str, tuple[float, float, float, float]]]:
    return sorted((label.label, label.bbox) for label in map(rounded, image.labels))


def with_new(earlier: Labels, new: Labels) -> Labels:
    """Return the merged labels; for an image in both, the new ones win.

    The classes are those of the new labels, and those that other images use: a batch may be older than a class.
    """
    again = {image.file for image in new.images}
    images = [image for image in earlier.images if image.file not in again] + list(new.images)
    used = {box.label for image in images for box in (*image.labels, *image.deleted)}
    classes = dict.fromkeys([*new.classes, *(name for name in earlier.classes if name in used)])
    return Labels(tuple(classes), tuple(images), earlier.models | new.models)

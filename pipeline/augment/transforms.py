"""Build Albumentations' transforms from their names in the YAML, and apply them to images with boxes."""

from __future__ import annotations

import inspect
import os
import random
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.boxes import Box
from pipeline.config.data import Augment
from pipeline.pixels import Image

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # no network request on import
# Albumentations imports torch if it can, for a transform that `check` refuses: 4 s and 500 MB per process for nothing.
torch_is_loaded = "torch" in sys.modules
if not torch_is_loaded:
    sys.modules["torch"] = None  # type: ignore[assignment]  # makes Python report it as not installed
try:
    import albumentations as A
finally:
    if not torch_is_loaded:
        del sys.modules["torch"]

COMPOSITIONS = ("OneOf", "OneOrOther", "RandomOrder", "Sequential", "SomeOf")
# Albumentations keeps corners as float32 fractions of the image, so the area of a small box has an error of about 1e-4.
ROUNDING = 1e-3
MIN_SIDE = 1.0  # pixels; a thinner box shows nothing to learn from


class UnwritableError(ValueError):
    """A transform returned something that a JPEG file cannot hold."""


def _boxes_of_masks(masks: NDArray[Any], boxes: NDArray[Any]) -> NDArray[Any]:
    """Return the bounding boxes of objects after a distortion; `masks` is [height, width, boxes].

    Replaces Albumentations' own function, which restores the old box of an object that has left the image. Here such a
    box gets zero size, and the filter drops it.
    """
    boxes_after = boxes.copy()
    for index in range(len(boxes)):
        rows, columns = (np.flatnonzero(masks[:, :, index].any(axis=axis)) for axis in (1, 0))
        boxes_after[index, :4] = (columns[0], rows[0], columns[-1], rows[-1]) if len(rows) else 0
    return boxes_after


A.augmentations.geometric.functional.mask_to_bboxes = _boxes_of_masks


@dataclass(frozen=True, slots=True)
class Transformed:
    """A copy: its image (BGR), its boxes in pixels, and the visible share of each lost box, by index.

    A share is None if a transform removed the box itself because it hides the object.
    """

    image: Image
    boxes: list[Box]
    lost: dict[int, float | None]


def known() -> dict[str, type[A.BasicTransform]]:
    """Return the transforms of the installed Albumentations by name."""
    return {
        name: value
        for name, value in vars(A).items()
        if inspect.isclass(value)
        and issubclass(value, A.BasicTransform)
        and value.__module__.startswith("albumentations.augmentations")
    }


def arguments_of(name: str) -> list[str]:
    accepted = inspect.signature(getattr(A, name)).parameters
    # OneOrOther takes its transforms in two ways; only the list is common to all compositions.
    return [key for key in accepted if key not in ("self", "first", "second")]


def handles_boxes(transform: A.BasicTransform) -> bool:
    """Return whether boxes stay right: the transform moves them with the pixels, or moves no pixels."""
    if isinstance(transform, A.ImageOnlyTransform):
        return True
    targets = transform._targets if isinstance(transform._targets, tuple) else (transform._targets,)
    return any(target.name == "BBOXES" for target in targets)


def make(name: str, arguments: dict[str, Any]) -> A.BasicTransform | A.BaseCompose:
    """Build a transform or a composition. Raises whatever Albumentations raises for wrong arguments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about newer names
        if name in COMPOSITIONS:
            return getattr(A, name)(**{**arguments, "transforms": make_all(arguments["transforms"])})
        kind = known()[name]
        # Without `strict`, Albumentations silently uses defaults if a validator fails unexpectedly. A few constructors
        # have nothing to validate and do not accept `strict`.
        validates = "InitSchema" in vars(next(base for base in kind.__mro__ if "__init__" in vars(base)))
        return kind(**arguments, **({"strict": True} if validates else {}))


def make_all(entries: Iterable[dict[str, dict[str, Any]]]) -> list[A.BasicTransform | A.BaseCompose]:
    return [make(name, arguments) for entry in entries for name, arguments in entry.items()]


def compose(config: Augment, names: Sequence[str]) -> A.Compose:
    """Build the transforms of a checked config; `names` are the classes of the dataset."""
    return with_boxes(make_all(config.transforms), names, config.min_visibility)


def with_boxes(
    transforms: list[A.BasicTransform | A.BaseCompose], names: Sequence[str], min_visibility: float
) -> A.Compose:
    # Corners are in pixels; `min_visibility` is for transforms that hide parts of objects. ConstrainedCoarseDropout
    # reads the first label field as `bbox_labels`.
    fields = ["labels", "index", "visible"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning that no transform moves boxes, which is fine
        made = A.Compose(
            transforms, bbox_params=A.BboxParams("pascal_voc", fields, min_visibility=min_visibility, clip=True)
        )
    boxes = made.processors["bboxes"]
    boxes.filter = VisibleBoxes(min_visibility)
    boxes.check = lambda rows, shape: None  # the filter ensures it already, and the check is slower
    boxes.label_manager.process_field("bboxes", "labels", list(names))  # otherwise it knows only classes seen so far
    return made


class VisibleBoxes:
    """The box filter of a Compose: it clips boxes to the image and drops those that are hardly visible.

    Albumentations' own filter compares a box with the result of the previous transform, so two crops that each keep
    half of it would count as half visible. Rows are (xmin, ymin, xmax, ymax) as fractions of the image, then the
    label's number, the box's index, and the visible share of the original box's area.
    """

    def __init__(self, min_visibility: float) -> None:
        self.min_visibility = min_visibility
        self.lost: dict[int, float] = {}

    def __call__(self, rows: NDArray[Any], shape: dict[str, int]) -> NDArray[Any]:
        if not len(rows):
            return rows
        clipped = rows.copy()
        clipped[:, :4] = rows[:, :4].clip(0, 1)
        sides, whole = (boxes[:, 2:4] - boxes[:, :2] for boxes in (clipped, rows))
        clipped[:, 6] *= sides.prod(axis=1) / np.maximum(whole.prod(axis=1), 1e-12)
        wide = (sides * (shape["width"], shape["height"]) >= MIN_SIDE - ROUNDING).all(axis=1)
        keep = wide & (clipped[:, 6] >= self.min_visibility - ROUNDING)
        for row in clipped[~keep]:
            self.lost[int(row[5])] = float(row[6])
        kept: NDArray[Any] = clipped[keep]
        return kept


def apply(transform: A.Compose, image: Image, boxes: Sequence[Box], seed: int) -> Transformed:
    """Return one copy of an image (BGR) with its boxes in pixels; it depends only on the seed, not on earlier calls.

    Raises UnwritableError, and whatever Albumentations raises for an image that it cannot handle.
    """
    # All transforms share one random generator: `set_random_seed` would give each its own with the same start, and two
    # transforms with p: 0.5 would always happen together.
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    seen = transform.processors["bboxes"].filter
    seen.lost.clear()
    result = transform(
        image=cv2.cvtColor(image, cv2.COLOR_BGR2RGB),  # colour transforms expect RGB
        bboxes=np.array([(box.xmin, box.ymin, box.xmax, box.ymax) for box in boxes], np.float64).reshape(-1, 4),
        labels=[box.label for box in boxes],
        index=np.arange(len(boxes)),
        visible=np.ones(len(boxes)),
    )
    changed = result["image"]
    if changed.dtype != np.uint8 or changed.ndim != 3 or changed.shape[2] != 3 or not changed.size:
        channels = 1 if changed.ndim == 2 else changed.shape[-1]
        raise UnwritableError(f"makes {channels}-channel {changed.dtype} images, but copies are 8-bit colour JPEG")
    indices = [int(index) for index in result["index"]]
    kept = [
        boxes[index]._replace(xmin=corners[0], ymin=corners[1], xmax=corners[2], ymax=corners[3])
        for index, corners in zip(indices, np.asarray(result["bboxes"]).tolist(), strict=True)
    ]
    lost = {index: seen.lost.get(index) for index in range(len(boxes)) if index not in indices}
    return Transformed(cv2.cvtColor(changed, cv2.COLOR_RGB2BGR), kept, lost)


def words(error: BaseException) -> str:
    """Return an error's message in one line of up to about 240 characters."""
    text = " ".join(str(error).split())[:240]
    return text if " " in text else f"{type(error).__name__} {text}".strip()  # a KeyError holds only the key

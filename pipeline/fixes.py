"""Read, write and apply label fixes, in a small text file for people to review: `data/fixes/NAME.yaml`.

`inspect --save-fixes` writes it from the tags set in the App, and the next `convert` applies it:

    images:
      a.jpg: drop            # leave the image out
      b.jpg: relabel         # to be labelled again; convert only notes it in the receipt
    boxes:
    - {image: c.jpg, action: remove, class: RBC, bbox: [10.0, 20.0, 30.0, 40.0]}
    - {image: c.jpg, action: add, class: WBC, bbox: [50.0, 60.0, 30.0, 40.0]}

An image is identified by its path below the source. The file name alone is enough if only one image in the dataset has
it, or if none there but only one in the source does. A box is identified by its class, after `convert.classes`, and by
`[x, y, width, height]` in pixels of the upright image, not by an id, so the file stays valid after a new conversion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from pipeline import files
from pipeline.boxes import Box
from pipeline.config.loading import NoDuplicates, flow
from pipeline.errors import ConfigError, did_you_mean, in_a_line
from pipeline.run import Run

# IoU above which two boxes of a class are the same: this file has three decimals, label files have six.
SAME_BOX = 0.99
HEADER = """\
# Fixes of the labels, which `inspect --save-fixes` saved from FiftyOne. The next `convert` applies them; delete the
# lines that you disagree with.
"""


class _Checked(BaseModel):
    # Strict, because conversion to text would hide the error of a bare 123 or `no` as a file name.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class BoxFix(_Checked):
    """One box to remove or to add; `bbox` is [x, y, width, height] in pixels of the upright image."""

    image: str
    action: Literal["remove", "add"]
    label: str = Field(alias="class", min_length=1)
    bbox: tuple[float, float, float, float] = Field(strict=False)

    @field_validator("image")
    @classmethod
    def _image_inside(cls, name: str) -> str:
        return _inside(name)

    @field_validator("bbox")
    @classmethod
    def _has_sides(cls, bbox: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        if bbox[2] <= 0 or bbox[3] <= 0:
            raise ValueError(f"width and height must be above 0, got {list(bbox)}; correct them")
        return bbox

    def box(self, id: str = "") -> Box:
        x, y, width, height = self.bbox
        return Box(self.label, x, y, x + width, y + height, id)

    def is_of(self, box: Box) -> bool:
        return self.label == box.label and _iou(self.box(), box) > SAME_BOX


class Fixes(_Checked):
    """The content of a file of fixes; empty if there is no file."""

    images: dict[str, Literal["drop", "relabel"]] = {}
    boxes: tuple[BoxFix, ...] = Field(default=(), strict=False)

    @field_validator("images")
    @classmethod
    def _images_inside(cls, images: dict[str, str]) -> dict[str, str]:
        for name in images:
            _inside(name)
        return images

    def __len__(self) -> int:
        return len(self.images) + len(self.boxes)


@dataclass(frozen=True, slots=True)
class Note:
    """The outcome of one fix, for the receipt. A `stale` fix did nothing because the labels have changed since."""

    image: str
    action: Literal["remove", "add", "drop", "relabel"]
    reason: str
    box: Box | None = None
    stale: bool = False


def file_of(run: Run) -> Path:
    """Return the path of the fixes: beside the data and in git, because fixes outlive the run."""
    return run.project / "data" / "fixes" / f"{run.name}.yaml"


def load(path: Path) -> Fixes:
    """Read a file of fixes; a missing file gives no fixes. Raises ConfigError with one line per error."""
    text = files.read_edited(path)
    if text is None:
        return Fixes()
    try:
        data = yaml.load(text, Loader=NoDuplicates)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: not YAML: {in_a_line(error)}; correct it") from None
    try:
        return Fixes.model_validate({} if data is None else data)
    except ValidationError as error:
        raise ConfigError("\n".join(dict.fromkeys(f"{path}: {_in_words(item)}" for item in error.errors()))) from None


def save(path: Path, fixes: Fixes) -> None:
    """Write the file sorted, one line per fix, so that a diff shows what changed."""
    lines = [HEADER]
    if fixes.images:
        lines.append("images:\n")
        lines += [f"  {flow(name)}: {fixes.images[name]}\n" for name in sorted(fixes.images)]
    if fixes.boxes:
        lines.append("boxes:\n")
        for fix in sorted(fixes.boxes, key=lambda fix: (fix.image, fix.action, fix.label, fix.bbox)):
            lines.append(f"- {flow(fix.model_dump(mode='json', by_alias=True))}\n")
    files.write_text(path, "".join(lines))


def merge(earlier: Fixes, new: Fixes) -> Fixes:
    """Return the earlier and the new fixes together, each once.

    An earlier fix and a new one that undoes it cancel out: a box that an earlier fix added and that is now tagged
    as wrong is not in the source, so there is nothing to remove. For an image the new action wins.
    """
    boxes = list(earlier.boxes)
    for fix in new.boxes:
        same = [old for old in boxes if old.image == fix.image and old.is_of(fix.box())]
        # Two nearly equal labels may both be wrong, but one box cannot be removed twice.
        if fix not in boxes if fix.action == "remove" else all(old.action != "add" for old in same):
            # Only earlier ones: a new removal and addition may be a box that was moved by very little.
            undone = [old for old in same if old in earlier.boxes]
            boxes = [old for old in boxes if old not in undone] if undone else [*boxes, fix]
    return Fixes(images={**earlier.images, **new.images}, boxes=tuple(boxes))


def in_full(fixes: Fixes, names: Iterable[str]) -> Fixes:
    """Return the fixes with each bare file name replaced by its path, if exactly one of `names` ends in it.

    `names` are paths below the source.
    """
    known = set(names)
    paths = by_file_name(known)

    def full(name: str) -> str:
        return name if name in known or len(paths.get(name, ())) != 1 else paths[name][0]

    return Fixes(
        images={full(name): word for name, word in fixes.images.items()},
        boxes=tuple(fix.model_copy(update={"image": full(fix.image)}) for fix in fixes.boxes),
    )


def by_file_name(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the sorted paths that end in each file name."""
    paths: dict[str, list[str]] = {}
    for name in sorted(names):
        paths.setdefault(PurePosixPath(name).name, []).append(name)
    return paths


def apply(fixes: Fixes, image: str, boxes: Sequence[Box]) -> tuple[tuple[Box, ...], list[Note]]:
    """Return the boxes of one image, in pixels, after its fixes, and a note on each fix.

    `image` is its name as in `fixes`. The notes hold removed boxes unchanged; added boxes come last. A fix that has
    nothing to do is noted as stale.
    """
    kept, notes = list(boxes), []
    if fixes.images.get(image) == "relabel":
        notes.append(Note(image, "relabel", "marked for labelling again"))
    own_fixes = [(number, fix) for number, fix in enumerate(fixes.boxes, start=1) if fix.image == image]
    # All removals first: a corrected box is a removal and an addition, whose boxes may overlap.
    for number, fix in sorted(own_fixes, key=lambda item: item[1].action == "add"):
        same = [box for box in kept if fix.is_of(box)]
        if fix.action == "remove" and same:
            closest = max(same, key=lambda box: _iou(fix.box(), box))
            kept.remove(closest)
            notes.append(Note(image, "remove", "marked wrong", closest))
        elif fix.action == "remove":
            notes.append(Note(image, "remove", f"there is no such box{_nearest(fix, kept)}", fix.box(), stale=True))
        elif same and not any(note.action == "remove" and note.box and fix.is_of(note.box) for note in notes):
            notes.append(Note(image, "add", "there is such a box already", fix.box(), stale=True))
        else:
            kept.append(fix.box(id=f"fix {number}"))
            notes.append(Note(image, "add", "was missing", kept[-1]))
    return tuple(kept), notes


def _nearest(fix: BoxFix, boxes: Sequence[Box]) -> str:
    """Return a hint that names the box that overlaps the fix most, of its class if possible; empty if none does."""
    near = {(box.label == fix.label, iou): box for box in boxes if (iou := _iou(fix.box(), box))}
    box = near[max(near)] if near else None
    return f"; the nearest is {box.label} {[round(side, 2) for side in box.bbox]}" if box else ""


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    is_text = name.encode(errors="ignore").decode() == name  # YAML can hold a lone surrogate, the receipt cannot
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in name or not is_text:
        raise ValueError(f"{name[:80]!r} is not the path of an image below the source; write it as in the receipt")
    return name


def _iou(first: Box, second: Box) -> float:
    import numpy as np  # imported late: it takes longer than the work of `params`, which runs before every make

    from pipeline.metrics.iou import pairwise_iou

    return float(pairwise_iou(np.array([first.bbox]), np.array([second.bbox]))[0, 0])


def _in_words(detail: ErrorDetails) -> str:
    place = list(detail["loc"])
    if place and place[-1] == "[key]":
        place = place[:-2]
    where = ".".join(f"{part + 1}" if isinstance(part, int) else part for part in place)
    keys = ("image", "action", "class", "bbox") if len(place) > 1 else ("images", "boxes")
    prefix = f"{where}: " if where else ""
    match detail["type"]:
        case "extra_forbidden":
            known = f"; the keys are {', '.join(keys)}"
            return f"{prefix}unknown key{did_you_mean(str(place[-1]), keys) or known}"
        case "missing":
            return f"{prefix}missing; add it"
        case "value_error":
            return f"{prefix}{detail['msg'].removeprefix('Value error, ')}"
        case "string_type":
            return f"{prefix}YAML reads {detail['input']!r} here, not text; put it in quotes"
        case "dict_type" | "model_type":
            return f"{prefix}write `key: value` lines"
        case "tuple_type":
            return f"{prefix}write a list, each item beginning with `- `"
    return f"{prefix}{detail['msg'][0].lower()}{detail['msg'][1:]}, got {str(detail['input'])[:80]!r}"

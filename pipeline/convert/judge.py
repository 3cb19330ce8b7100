"""Judge each annotation: every one that was read gets exactly one verdict.

`kept`: unchanged · `clipped`: kept with changed corners · `dropped`: something is wrong with it · `ignored`: left out
on purpose, by the source (a crowd) or by `convert.classes` (mapped to null). Boxes that a person's fixes add were not
read; they are `added`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.boxes import Box, Labelled
from pipeline.config.data import Convert
from pipeline.errors import did_you_mean
from pipeline.image_files.reading import Checked

Action = Literal["kept", "clipped", "dropped", "ignored", "added"]
Unused = Literal["dropped", "in_no_split", "left_out", "linked_again", "set_aside"]
EDGE_TOLERANCE = 0.5  # pixels beyond the edge that rounding a coordinate can cause
NO_SIDE = 1e-6  # pixels: floating-point error of a side computed from corners
ROUNDING = 1.0  # pixels beyond the edge that tools cause if they count from 1 or round up


class Verdict(NamedTuple):
    """The outcome for one box. `needs_person` marks what no rule can fix: only `on_problem: drop` accepts it."""

    box: Box
    action: Action
    reason: str = ""
    needs_person: bool = False


class Judged(NamedTuple):
    """An image with a verdict on each of its boxes.

    `unused` says why an image is not used: `dropped` for a problem, `in_no_split` if the source gives it no split,
    `left_out` if it would leak in any split, `linked_again` if it is a link to the file of another image, `set_aside`
    if nobody knows whether it shows objects, or if it is a mask. `why` says it in words.
    """

    item: Labelled
    name: str  # in the source: its path below the folder, with slashes
    checked: Checked
    verdicts: list[Verdict]
    unused: Unused | Literal[""] = ""
    why: str = ""

    @property
    def boxes(self) -> list[Box]:
        return [box for box, action, _, _ in self.verdicts if action in ("kept", "clipped", "added")]


def frames(items: Sequence[Labelled], checked: Mapping[Path, Checked]) -> dict[Path, bool | None]:
    """Tell for each image that EXIF turns whether its boxes refer to the stored image, not to the turned one.

    None means that nothing decides it; images without boxes are left out. If the orientation swaps the sides, the
    declared size decides. It also decides for the other images of the same annotation file, or of the same folder if
    each file describes one image, because one tool wrote them all.
    """
    images_of = Counter(item.annotation for item in items)
    told: dict[Path, set[bool]] = {}
    turned: list[tuple[Labelled, Path, bool | None]] = []
    for item in items:
        one = checked.get(item.image)
        if one and one.orientation > 1 and item.annotation and item.boxes:
            writer = item.annotation if images_of[item.annotation] > 1 else item.annotation.parent
            own = None
            if one.stored != one.size and item.declared_size in (one.stored, one.size):
                own = item.declared_size == one.stored
                told.setdefault(writer, set()).add(own)
            turned.append((item, writer, own))
    of_all = {writer: next(iter(both)) for writer, both in told.items() if len(both) == 1}
    return {item.image: of_all.get(writer, own) for item, writer, own in turned}


def image(
    item: Labelled,
    name: str,
    checked: Checked,
    classes: Mapping[str, str | None],
    config: Convert,
    is_stored: bool | None,
) -> Judged:
    """Judge an image and its boxes; the boxes of the result are in pixels of the upright image.

    `classes` maps each class name of the source to our name, or to None to leave it out. `is_stored` tells whether the
    boxes refer to the stored image, before EXIF turns it.
    """
    if problem := _image_problem(item, checked):
        return Judged(item, name, checked, _all(item, "dropped", problem), "dropped", problem)
    return Judged(item, name, checked, _boxes(item, checked, classes, config, bool(is_stored)))


def never_used(item: Labelled, name: str, unused: Unused, why: str) -> Judged:
    """Return an image as unused without judging its boxes; `why` is the reason for each."""
    return Judged(item, name, Checked(), _all(item, "ignored", why), unused, why)


def set_aside(image: Judged, unused: Unused, why: str) -> Judged:
    """Return a judged image as unused; its dropped boxes keep their reasons."""
    verdicts = _all(image.item, "dropped" if unused == "dropped" else "ignored", why)
    if unused in ("dropped", "set_aside"):
        old = [verdict if verdict.action in ("dropped", "ignored") else None for verdict in image.verdicts]
        verdicts = [before or now for before, now in zip(old, verdicts, strict=True)]
    return Judged(image.item, image.name, Checked(), verdicts, unused, why)


def _all(item: Labelled, action: Action, why: str) -> list[Verdict]:
    """Return the same verdict for all boxes of an unused image."""
    return [
        Verdict(box, "ignored", box.ignore) if box.ignore else Verdict(box, action, box.damage or f"its image: {why}")
        for box in item.boxes
    ]


def _image_problem(item: Labelled, checked: Checked) -> str | None:
    if checked.problem:
        return checked.problem
    if item.declared_size and item.declared_size not in (checked.size, checked.stored):
        says, shows = ("x".join(map(str, pair)) for pair in (item.declared_size, checked.size))
        return (
            f"its annotation says it is {says}, but it is {shows}: the boxes may be of another image or scale; "
            "correct the size or the boxes"
        )
    return None


def _boxes(
    item: Labelled, checked: Checked, classes: Mapping[str, str | None], config: Convert, is_stored: bool
) -> list[Verdict]:
    width, height = checked.size
    smallest = config.min_side + NO_SIDE
    verdicts: list[Verdict] = []
    id_of: dict[tuple[object, ...], str] = {}
    for box in item.boxes:
        if is_stored:
            box = upright(box, checked)
        label, xmin, ymin, xmax, ymax, _, ignore, damage = box
        fits = 0 <= xmin < xmax - smallest and xmax <= width and 0 <= ymin < ymax - smallest and ymax <= height
        if fits and classes.get(label) == label and not ignore and not damage:
            verdict = Verdict(box, "kept")  # the fast path for nearly all boxes
        else:
            verdict = _judge(box, checked.size, classes, config)
        result, action, _, _ = verdict
        if action == "kept" or action == "clipped":
            before = len(id_of)
            earlier = id_of.setdefault(result[:5], box.id)  # by label and corners
            if len(id_of) == before:
                verdict = Verdict(box, "dropped", f"the same box as {earlier}")
        verdicts.append(verdict)
    return verdicts


def _judge(box: Box, size: tuple[int, int], classes: Mapping[str, str | None], config: Convert) -> Verdict:
    if box.ignore:
        return Verdict(box, "ignored", box.ignore)
    if classes.get(box.label, "") is None:  # before the damage, because a row such as `no finding` has no corners
        return Verdict(box, "ignored", "convert.classes leaves this class out")
    if box.damage:
        return Verdict(box, "dropped", box.damage, needs_person=True)
    name = classes.get(box.label)
    if name is None:
        return Verdict(box, "dropped", _unknown(box.label, tuple(classes)), needs_person=True)
    if name != box.label:
        box = box._replace(label=name)
    verdict = _fix(box, size, config)
    if verdict.action == "dropped":
        return verdict
    box, reason = verdict.box, verdict.reason
    if min(box.width, box.height) <= config.min_side + NO_SIDE:
        sides = f"{box.width:g}x{box.height:g} px"
        return Verdict(box, "dropped", f"{sides}: a side of {config.min_side:g} px or less (convert.min_side)")
    return Verdict(box, "clipped" if reason else "kept", reason)


@cache  # the search for a similar name takes a millisecond, and a missing class may occur ten thousand times
def _unknown(label: str, classes: tuple[str, ...]) -> str:
    way_out = "add it there, drop it with `{name: our name, other: null}`, or correct the label"
    return f"class is not in convert.classes{did_you_mean(label, classes)}; {way_out}"


def _fix(box: Box, size: tuple[int, int], config: Convert) -> Verdict:
    """Swap swapped corners back and clip the box to the image."""
    if not box.is_finite:
        return Verdict(box, "dropped", "coordinates are not finite numbers; correct them", needs_person=True)
    corners = f"[{box.xmin:g}, {box.ymin:g}, {box.xmax:g}, {box.ymax:g}]"
    reasons = []
    swapped = box.xmax < box.xmin or box.ymax < box.ymin
    if swapped:
        reasons.append(f"corners are swapped: {corners}")
        (xmin, xmax), (ymin, ymax) = sorted((box.xmin, box.xmax)), sorted((box.ymin, box.ymax))
        box = box._replace(xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
    width, height = size
    if box.xmin >= width or box.ymin >= height or box.xmax <= 0 or box.ymax <= 0:
        outside = f"{corners} is outside the image, which is {width}x{height}; correct or remove it"
        return Verdict(box, "dropped", outside, needs_person=True)
    if not box.width or not box.height:
        return Verdict(box, "dropped", f"zero area: {corners}")
    clipped = box.clipped(width, height)
    overhang = max(-box.xmin, -box.ymin, box.xmax - width, box.ymax - height)
    # Corners beyond the edge can be clipped, and swapped ones swapped back; with both, the box is ambiguous.
    if overhang > max(size) or (swapped and overhang > ROUNDING):
        wrong = "corners are swapped and the box extends" if swapped else f"the box extends {overhang:.3g} px"
        wrong = f"{corners}: {wrong} beyond the image, {width}x{height}; correct it"
        return Verdict(box, "dropped", wrong, needs_person=True)
    if overhang > EDGE_TOLERANCE:
        reasons.append(f"{corners} reaches {math.ceil(overhang)} px beyond the image, {width}x{height}")
    if config.on_problem == "drop" and (swapped or overhang > ROUNDING):
        return Verdict(box, "dropped", "; ".join(reasons))
    return Verdict(clipped, "clipped" if reasons else "kept", "; ".join(reasons))


def upright(box: Box, checked: Checked) -> Box:
    """Map a box from the stored image to the upright one, for the orientations 2 to 8."""
    width, height = checked.stored
    corners = {
        2: (width - box.xmax, box.ymin, width - box.xmin, box.ymax),  # mirrored left to right
        3: (width - box.xmax, height - box.ymax, width - box.xmin, height - box.ymin),  # turned upside down
        4: (box.xmin, height - box.ymax, box.xmax, height - box.ymin),  # mirrored top to bottom
        5: (box.ymin, box.xmin, box.ymax, box.xmax),  # mirrored along the main diagonal
        6: (height - box.ymax, box.xmin, height - box.ymin, box.xmax),  # rotated clockwise
        7: (height - box.ymax, width - box.xmax, height - box.ymin, width - box.xmin),  # along the other diagonal
        8: (box.ymin, width - box.xmax, box.ymax, width - box.xmin),  # rotated counter-clockwise
    }[checked.orientation]
    xmin, ymin, xmax, ymax = corners
    return box._replace(xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)

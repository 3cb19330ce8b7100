"""Apply `data/fixes/NAME.yaml`, the fixes that a person tagged in the App, to the judged images."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline import fixes
from pipeline.boxes import Labelled
from pipeline.convert import judge, receipt
from pipeline.convert.judge import ROUNDING, Judged, Verdict
from pipeline.errors import DataError
from pipeline.fixes import Fixes, Note
from pipeline.records.receipt import FixOutcome
from pipeline.run import Run


@dataclass(frozen=True, slots=True)
class Corrected:
    """The images after the fixes, and a line for the receipt on each fix."""

    judged: list[Judged]
    lines: list[FixOutcome] = field(default_factory=list)


def dropped(run: Run, loaded: Fixes, folder: Path, used: Sequence[Labelled], every: Sequence[Labelled]) -> set[Path]:
    """Return the images that fixes drop, so that nothing about them is refused: in `used`, or without annotation.

    `used` are the images that would be in the dataset, `every` are all of the source in `folder`. Raises as `correct`.
    """
    if "drop" not in loaded.images.values():
        return set()
    names = {item.image: receipt.relative(item.image, folder) for item in every}
    resolved, _ = resolve(loaded, [names[item.image] for item in used], list(names.values()), fixes.file_of(run))
    candidates = [*used, *(item for item in every if item.annotation is None)]
    return {item.image for item in candidates if resolved.images.get(names[item.image]) == "drop"}


def correct(
    judged: list[Judged], run: Run, loaded: Fixes, classes: Sequence[str], unread: Collection[Path] = ()
) -> Corrected:
    """Apply the fixes to the images in use; those in `unread` were not even read, because a fix drops them.

    Raises DataError for a file name that two images share and for an added box of an unknown class or beyond its image.
    """
    path = fixes.file_of(run)
    if not len(loaded):
        return Corrected(judged)
    for fix in loaded.boxes:
        if fix.label not in classes:
            raise DataError(f"{path}: {fix.image}: {fix.label!r} is not one of {', '.join(classes)}; correct the class")
    used = [image.name for image in judged if not image.unused or image.item.image in unread]
    resolved, notes = resolve(loaded, used, [image.name for image in judged], path)
    result: list[Judged] = []
    touched = {fix.image for fix in resolved.boxes} | set(resolved.images)
    for image in judged:
        if image.name not in touched:
            result.append(image)
            continue
        if image.unused and image.item.image not in unread:
            result.append(image)
            notes += _not_used(resolved, image.name, image.why)
            continue
        if resolved.images.get(image.name) == "drop":
            result.append(judge.never_used(image.item, image.name, "dropped", f"{path} drops it"))
            notes.append(Note(image.name, "drop", "marked to be left out"))
            continue
        _, image_notes = fixes.apply(resolved, image.name, image.boxes)
        notes += image_notes
        removed = [note.box for note in image_notes if note.action == "remove" and not note.stale]
        added = [note.box for note in image_notes if note.box and note.action == "add" and not note.stale]
        width, height = image.checked.size
        for box in added:
            if (
                box.xmin < -ROUNDING
                or box.ymin < -ROUNDING
                or box.xmax > width + ROUNDING
                or box.ymax > height + ROUNDING
            ):
                raise DataError(
                    f"{path}: {image.name}: the added box ({box.label}) extends beyond the image ({width}x{height}); "
                    "correct its bbox"
                )
        verdicts = [
            Verdict(verdict.box, "dropped", f"{path} removes it") if verdict.box in removed else verdict
            for verdict in image.verdicts
        ]
        verdicts += [Verdict(box.clipped(width, height), "added") for box in added]
        result.append(image._replace(verdicts=verdicts))
    return Corrected(result, [_line(note) for note in notes])


def resolve(loaded: Fixes, used: Sequence[str], every: Sequence[str], path: Path) -> tuple[Fixes, list[Note]]:
    """Return the fixes by the path of their image below the source, and notes on fixes whose image is missing.

    `every` has the paths of all images of the source, `used` those in the dataset. A file name without folders is
    looked up in `used` first. Raises DataError, which names the fixes file `path`, if a name fits two images.
    """
    loaded = fixes.in_full(fixes.in_full(loaded, used), every)
    known, of_used, of_all = set(every), fixes.by_file_name(used), fixes.by_file_name(every)
    notes: list[Note] = []

    def is_there(name: str, action: Literal["remove", "add", "drop", "relabel"]) -> bool:
        if name in known:
            return True
        if candidates := of_used.get(name) or of_all.get(name):
            raise DataError(f"{path}: {name!r} matches both {candidates[0]} and {candidates[1]}; give its path")
        notes.append(Note(name, action, "is not in the source", stale=True))
        return False

    images = {name: word for name, word in loaded.images.items() if is_there(name, word)}
    return Fixes(images=images, boxes=tuple(fix for fix in loaded.boxes if is_there(fix.image, fix.action))), notes


def _not_used(resolved: Fixes, image: str, why: str) -> list[Note]:
    """Return notes on the fixes of an image that is not used; `why` is the reason."""
    reason = f"the image is not used: {why}"
    notes = [Note(image, resolved.images[image], reason, stale=True)] if image in resolved.images else []
    return notes + [
        Note(image, fix.action, reason, fix.box(), stale=True) for fix in resolved.boxes if fix.image == image
    ]


def _line(note: Note) -> FixOutcome:
    line: FixOutcome = {
        "image": note.image,
        "action": note.action,
        "reason": note.reason,
        "applied": not note.stale,
    }
    if note.box:
        line["class"], line["bbox"] = note.box.label, [round(side, 3) for side in note.box.bbox]
    return line

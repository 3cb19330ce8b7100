"""`data/fixes/NAME.yaml`, what a person tagged in the App, applied to what was judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import fixes
from pipeline.convert import judge
from pipeline.convert.judge import ROUNDING, Judged, Verdict
from pipeline.errors import DataError
from pipeline.fixes import Note
from pipeline.run import Run


@dataclass(frozen=True, slots=True)
class Corrected:
    """The images after the fixes, and a line on each fix for the receipt."""

    judged: list[Judged]
    lines: Sequence[dict[str, Any]] = ()


def correct(judged: list[Judged], run: Run, classes: Sequence[str]) -> Corrected:
    """Raises ConfigError for a bad file, DataError for a box to add of no class of ours or beyond its image."""
    path = fixes.file_of(run)
    said = fixes.load(path)
    if not len(said):
        return Corrected(judged)
    for fix in said.boxes:
        if fix.label not in classes:
            raise DataError(f"{path}: {fix.image}: {fix.label!r} is not one of {', '.join(classes)}; correct the class")
    resolved, notes = fixes.resolve(said, (image.name for image in judged))
    result: list[Judged] = []
    touched = {fix.image for fix in resolved.boxes} | set(resolved.images)
    for image in judged:
        if image.name not in touched or image.unused:
            result.append(image)
            continue
        if resolved.images.get(image.name) == "drop":
            result.append(judge.set_aside(image.item, image.name, "dropped", f"{path} drops it"))
            notes.append(Note(image.name, "remove", "the whole image is dropped"))
            continue
        _, found = fixes.apply(resolved, image.name, image.boxes)
        notes += found
        removed = [note.box for note in found if note.action == "remove" and not note.stale]
        added = [note.box for note in found if note.box and note.action == "add" and not note.stale]
        width, height = image.checked.size
        for box in added:
            if (
                box.xmin < -ROUNDING
                or box.ymin < -ROUNDING
                or box.xmax > width + ROUNDING
                or box.ymax > height + ROUNDING
            ):
                raise DataError(
                    f"{path}: {image.name}: the {box.label} to add reaches beyond the image, {width}x{height}; "
                    "correct it"
                )
        verdicts = [
            Verdict(verdict.box, "dropped", f"{path} removes it") if verdict.box in removed else verdict
            for verdict in image.verdicts
        ]
        verdicts += [Verdict(box.clipped(width, height), "added") for box in added]
        result.append(image._replace(verdicts=verdicts))
    return Corrected(result, [_line(note) for note in notes])


def _line(note: Note) -> dict[str, Any]:
    line: dict[str, Any] = {
        "image": note.image,
        "action": note.action,
        "reason": note.reason,
        "applied": not note.stale,
    }
    if note.box:
        corners = (note.box.xmin, note.box.ymin, note.box.width, note.box.height)
        line |= {"class": note.box.label, "bbox": [round(side, 3) for side in corners]}
    return line

"""Annotation formats: one module each, `read(source)` gives every labelled image of a folder.

A reader keeps every annotation it can parse, bad boxes included: judging them is `convert`'s work,
and so is the receipt. What it cannot parse, it refuses by name.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import DataError
from pipeline.formats import coco, voc, yolo
from pipeline.formats.source import Source

READERS = {"voc": voc.read, "coco": coco.read, "yolo": yolo.read}
RECOGNISERS = {"voc": voc.recognises, "coco": coco.recognises, "yolo": yolo.recognises}


def recognise(folder: Path) -> str:
    found = [name for name, recognises in RECOGNISERS.items() if recognises(folder)]
    if len(found) == 1:
        return found[0]
    what = f"looks like {' and '.join(found)}" if found else "no annotations that we know"
    raise DataError(f"{folder}: {what}; name one of {', '.join(READERS)} in convert.format")


def read(folder: Path, name: str = "auto") -> tuple[str, Source]:
    """The format's name and all that the folder holds.

    Raises DataError where the folder is missing, holds nothing, or holds a file that does not parse.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; put the images and annotations there, or mend convert.source")
    if name == "auto":
        name = recognise(folder)
    source = READERS[name](folder.resolve())
    if not source.images:
        raise DataError(f"{folder}: no {name} images with annotations in it; mend convert.source or convert.format")
    return name, source

"""Annotation formats: one module each, `read(folder)` gives every labelled image of a folder.

A reader makes one box of every annotation, bad ones included, and judges none: that is `convert`'s work,
and so is the receipt. A file whose structure is broken it refuses by name.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.errors import DataError
from pipeline.formats import coco, createml, cvat, kitti, labelme, openimages, table, via_fiftyone, voc, yolo
from pipeline.formats.source import Source, files_under, linked_again
from pipeline.formats.values import read_json

READERS: dict[str, Callable[[Path], Source]] = {
    "voc": voc.read,
    "coco": coco.read,
    "yolo": yolo.read,
    "labelme": labelme.read,
    "cvat": cvat.read,
    "kitti": kitti.read,
    "openimages": openimages.read,
    "csv": table.read,
    "createml": createml.read,
}
RECOGNISERS: dict[str, Callable[[Path], bool]] = {
    "voc": voc.recognises,
    "coco": coco.recognises,
    "yolo": yolo.recognises,
    "labelme": labelme.recognises,
    "cvat": cvat.recognises,
    "kitti": kitti.recognises,
    "openimages": openimages.recognises,
    "csv": table.recognises,
    "createml": createml.recognises,
}
FIFTYONE = "fiftyone:"  # and the name of one of its types: no look at a folder tells which


def recognise(folder: Path) -> str:
    found = [name for name, recognises in RECOGNISERS.items() if recognises(folder)]
    if len(found) == 1:
        return found[0]
    if not found:
        for path in files_under(folder, {".json"}):
            read_json(path)  # a broken file is the likelier reason, and says so itself
    what = f"looks like {' and '.join(found)}" if found else "no annotations that we know"
    raise DataError(f"{folder}: {what}; name one of {', '.join(READERS)} or {FIFTYONE}TYPE in convert.format")


def read(folder: Path, name: str = "auto") -> tuple[str, Source]:
    """The format's name and all that the folder holds.

    Paths begin with `folder` as it was given, made absolute; its links are not resolved.
    Raises DataError where the folder is missing, holds nothing, or holds a file that cannot be read or parsed.
    """
    try:
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder; put the images and annotations there, or correct convert.source"
            )
        if name == "auto":
            name = recognise(folder)
        if name.startswith(FIFTYONE):
            source = via_fiftyone.read(folder.absolute(), name.removeprefix(FIFTYONE))
        else:
            with without_collection():
                source = READERS[name](folder.absolute())
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read ({error.strerror}); make it readable") from None
    if not source.images:
        raise DataError(f"{folder}: no {name} images with annotations in it; correct convert.source or convert.format")
    return name, replace(source, linked_again=linked_again(source.images))


@contextmanager
def without_collection() -> Iterator[None]:
    """For work that makes a million objects and no cycles: the collector would walk them all, again and again.

    What is there at the end it leaves alone until the next such work.
    """
    enabled = gc.isenabled()
    gc.disable()
    gc.unfreeze()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()
            gc.enable()

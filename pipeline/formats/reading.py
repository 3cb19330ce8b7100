"""Recognise and read annotation formats: one module each, whose `read(folder)` returns every image of a folder.

A reader makes one box of every annotation, even a bad one, and judges none: `convert` does that and writes the receipt.
It refuses a file with a broken structure by name.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, did_you_mean
from pipeline.formats import (
    bdd,
    coco,
    createml,
    cvat,
    datumaro,
    dota,
    huggingface,
    kitti,
    labelbox,
    labelme,
    labelstudio,
    mot,
    nearest,
    openimages,
    superannotate,
    supervisely,
    table,
    ultralytics_ndjson,
    via,
    via_fiftyone,
    visdrone,
    voc,
    vott,
    widerface,
    yolo,
)
from pipeline.formats.source import Source, linked_again, masks, strays
from pipeline.formats.tree import Tree
from pipeline.formats.values import read_json

Module = Any  # with `recognises` and `read`
MODULES: dict[str, Module] = {
    "voc": voc,
    "coco": coco,
    "yolo": yolo,
    "labelme": labelme,
    "cvat": cvat,
    "kitti": kitti,
    "openimages": openimages,
    "csv": table,
    "createml": createml,
    "labelstudio": labelstudio,
    "via": via,
    "supervisely": supervisely,
    "vott": vott,
    "datumaro": datumaro,
    "labelbox": labelbox,
    "ultralytics": ultralytics_ndjson,
    "dota": dota,
    "huggingface": huggingface,
    "visdrone": visdrone,
    "widerface": widerface,
    "mot": mot,
    "bdd": bdd,
    "superannotate": superannotate,
}
FIFTYONE = "fiftyone:"  # followed by one of FiftyOne's types, which cannot be recognised from the folder


def candidates(tree: Tree) -> list[str]:
    """Return the formats that a folder looks like."""
    return [name for name, module in MODULES.items() if module.recognises(tree)]


def recognise(folder: Path) -> str:
    """Return the one format that a folder looks like. Raises DataError if there is none or more than one."""
    tree = Tree(folder)
    names = candidates(tree)
    if len(names) == 1:
        return names[0]
    if names:
        problem = f"looks like {' and '.join(names)}"
    else:
        for path in tree.files({".json"}):
            read_json(path)  # raises for a broken file, which is the likelier reason
        problem = "no annotations in a supported format"
    choice = f"name one of {', '.join(MODULES)} or {FIFTYONE}TYPE in convert.format"
    raise DataError(f"{folder}: {problem}; {choice}{'' if names else nearest.in_words(tree)}")


def read(folder: Path, name: str = "auto", given: bool = True, orphans: bool = False) -> tuple[str, Source]:
    """Return the name of the format and the content of the folder.

    Paths begin with `folder` as given, made absolute; links are not resolved. With `given`, the source's own splits
    are used. `orphans` keeps annotations of images that a file does not list, as those of missing images, and leaves
    out lines of split lists that fit no image. Raises DataError if the folder is missing or empty, if a file in it
    cannot be read, or for a format that does not exist.
    """
    if name not in MODULES and name != "auto" and not name.startswith(FIFTYONE):
        known = [*MODULES, f"{FIFTYONE}TYPE"]
        raise DataError(f"format {name!r}: not one of {', '.join(known)}{did_you_mean(name, known)}")
    with readable(folder):
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder; put the images and annotations there, or correct convert.source"
            )
        if name == "auto":
            name = recognise(folder.absolute())
        if name.startswith(FIFTYONE):
            source = via_fiftyone.read(folder.absolute(), name.removeprefix(FIFTYONE))
        else:
            left_out = {"orphans": orphans}
            options = {"yolo": {"given": given}, "coco": left_out, "voc": left_out, "kitti": left_out}.get(name, {})
            with without_collection():
                source = MODULES[name].read(folder.absolute(), **options)
    if not source.images:
        near = nearest.in_words(Tree(folder.absolute()))
        raise DataError(
            f"{folder}: no {name} images with annotations in it; correct convert.source or convert.format{near}"
        )
    set_aside = {**masks(folder.absolute(), source.images), **source.set_aside}
    notes = (*source.notes, *strays(folder.absolute(), source.images))
    return name, replace(source, linked_again=linked_again(source.images), set_aside=set_aside, notes=notes)


@contextmanager
def without_collection() -> Iterator[None]:
    """Pause garbage collection during work that makes a million objects but no cycles, and would be walked repeatedly.

    Objects that exist at the end are exempt from collection until the next call.
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


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turn an error of the operating system into a DataError that names the file or, without one, `folder`."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read ({error.strerror}); make it readable") from None

"""Decide which images without annotation may be background: none that an annotation may be meant for."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from pipeline.boxes import SOURCE_SUFFIXES, Labelled
from pipeline.config.data import Convert
from pipeline.config.loading import flow
from pipeline.convert.judge import Judged
from pipeline.errors import DataError, and_more, counted
from pipeline.formats.matching import UPLOAD
from pipeline.formats.source import NOT_LISTED, NoBox, Source
from pipeline.formats.text import head
from pipeline.formats.yolo_data import looks_like_labels

# Files that often lie beside annotations and hold none; all others are checked.
HARMLESS = re.compile(
    r"readme|licen[cs]e|notes\.json|package(-lock)?\.json|requirements|dataset_infos?\.json", re.IGNORECASE
)


def refuse(items: Sequence[Labelled], used: Sequence[Labelled], source: Source, config: Convert, fixes: Path) -> None:
    """Raise DataError for images whose labels are lost or were never made.

    `items` are all images; only `used` can become background. `fixes` is the file that may leave images out. Missing
    images are reported first, because their names tell why others have no annotation.
    """
    unlabelled = [
        item.image for item in (used if config.unlabelled == "background" else items) if item.annotation is None
    ]
    if config.on_problem != "drop":
        missing = [item for item in items if _is_missing(item) and not item.image.name.startswith(NOT_LISTED)]
        _refuse_missing(missing, [image for image in unlabelled if image.exists()] if missing else [])
    if not unlabelled:
        return
    unread = _unread(unlabelled, source.beside)
    if config.unlabelled == "background":
        if unread:
            raise DataError(
                f"{unread[0]}: was not read, but may hold annotations of {_count(unlabelled)}{and_more(unread)}; "
                "correct it, or move it out of the source if it holds no boxes"
            )
        return
    way_out = (
        f"label it, leave it out (`images: {{{flow(unlabelled[0].name)}: drop}}` in {fixes}), or set "
        "`convert.unlabelled: background` if no image without an annotation shows an object"
    )
    if unread:
        way_out = f"label it, or correct {unread[0]}, which may hold its annotation but was not read{and_more(unread)}"
    elif lost := list(filter(_is_missing, items)):
        name = lost[0].image.name
        way_out = f"label it; if it is the missing image {name}, give both the same name{and_more(lost)}"
    raise DataError(f"{unlabelled[0]}: no annotation; {way_out}{and_more(unlabelled)}")


def _is_missing(item: Labelled) -> bool:
    return bool(item.annotation and item.boxes) and not item.image.exists()


def not_background(judged: Sequence[Judged], config: Convert) -> dict[str, str]:
    """Return, by name, why images without a box cannot be background under `on_problem: drop`.

    Either all their boxes were dropped, or they have no annotation and some annotation with boxes has no image.
    """
    reasons = {}
    for image in judged:
        if image.unused or image.boxes:
            continue
        for box, action, reason, _ in image.verdicts:
            if action == "dropped" and not min(abs(box.width), abs(box.height)) <= config.min_side:
                reasons[image.name] = f"all its boxes were dropped: {box.id}: {reason}"
    lost = [image for image in judged if image.unused == "dropped" and image.item.boxes and image.checked.missing]
    if lost:
        missing = counted(len(lost), "missing image")
        why = f"no annotation mentions it, and there are boxes for {missing}, such as {lost[0].name}"
        reasons |= {image.name: why for image in judged if image.item.annotation is None and not image.unused}
    # Boxes of images that a file does not list may belong to an image that it lists without boxes.
    files = {image.item.annotation for image in lost if image.item.image.name.startswith(NOT_LISTED)}
    for image in judged:
        if image.item.annotation in files and not image.item.boxes and not image.unused:
            reasons[image.name] = "its annotation file has no box for it, but has boxes of images that it does not list"
    return reasons


def _refuse_missing(lost: Sequence[Labelled], unlabelled: Sequence[Path]) -> None:
    if not lost or not unlabelled:  # otherwise reported with all other problems
        return
    first = lost[0]
    nearest = get_close_matches(first.image.name, [image.name for image in unlabelled], n=1, cutoff=0.0)
    candidate = next((image for image in unlabelled if nearest and image.name == nearest[0]), unlabelled[0])
    raise DataError(
        f"{first.image}: image missing; restore it (its annotation is {first.annotation}); {candidate} has "
        f"no annotation: if it is the missing image, give both the same name{and_more(lost)}"
    )


def _unread(unlabelled: Sequence[Path], beside: Sequence[Path]) -> list[Path]:
    """Return the files and folders that may hold the annotations of images without any."""
    stems = {_key(image.name) for image in unlabelled}
    return [path for path in beside if _could_be_labels(path, stems)]


def _could_be_labels(path: Path, stems: set[str]) -> bool:
    if HARMLESS.search(path.name):
        return False
    if _key(path.name) in stems or path.is_dir():
        return True
    return path.suffix.lower() != ".txt" or looks_like_labels(head(path))


def _key(name: str) -> str:
    """Return the stem of an image or annotation without the prefixes and suffixes that tools add."""
    stem, _, suffix = unicodedata.normalize("NFC", name).casefold().rpartition(".")
    inner, dot, last = stem.rpartition(".")
    stem = inner if inner and f"{dot}{last}" in SOURCE_SUFFIXES else stem
    return UPLOAD.sub("", stem or suffix)


def _count(images: Sequence[Path]) -> str:
    return images[0].name if len(images) == 1 else f"{len(images)} images that have none"


def without_boxes(judged: Sequence[Judged], classes: Mapping[str, str | None]) -> dict[str, str]:
    """Return, by name, why images cannot be background that have no box, but shapes without one, such as points.

    Shapes of a class that `classes` maps to None do not count.
    """
    reasons: dict[str, str] = {}
    for image in judged:
        if image.unused or image.boxes:
            continue
        for box in image.item.boxes:
            if isinstance(box.ignore, NoBox) and classes.get(box.label, "") is not None:
                label = f" ({box.label})" if box.label else ""
                reasons.setdefault(image.name, f"it has no box, but {box.id}{label}: {box.ignore}")
    return reasons


def by_setting(judged: Sequence[Judged]) -> list[str]:
    """Return the images that are background only because of `convert.unlabelled`."""
    return [image.name for image in judged if not image.unused and not image.item.annotation and not image.boxes]

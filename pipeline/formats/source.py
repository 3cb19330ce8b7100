"""What every reader returns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.boxes import Box, Labelled
from pipeline.errors import DataError
from pipeline.formats.paths import identity
from pipeline.formats.splits import folder_split
from pipeline.formats.tree import Tree

NAN = math.nan
NOT_LISTED = "not listed in "  # prefix of the image that stands for all images that a file does not list


@dataclass(frozen=True, slots=True)
class Source:
    """The content of a folder.

    `classes` are in the order of the format; None if it has no order (VOC). `has_splits` tells whether the source
    assigns images to train, val and test. `linked_again` maps unlabelled images that are links to the file of another
    image to that image. `matched` counts the names found at each step of `matching`. `beside` lists what may hold
    annotations but was not read; `notes` say what the user has to know about the reading.
    """

    images: tuple[Labelled, ...]
    classes: tuple[str, ...] | None
    has_splits: bool
    linked_again: Mapping[Path, Path] = field(default_factory=dict)
    matched: Mapping[str, int] = field(default_factory=dict)
    beside: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def source_of(tree: Tree, images: Sequence[Labelled], classes: Sequence[str] | None) -> Source:
    """Return what a reader found, with the notes of the tree."""
    return Source(
        tuple(images),
        None if classes is None else tuple(classes),
        has_splits=any(item.split for item in images),
        matched=dict(tree.matched),
        beside=tree.beside(item.annotation for item in images if item.annotation),
        notes=tuple(tree.notes),
    )


def with_the_rest(tree: Tree, described: Iterable[Labelled]) -> tuple[Labelled, ...]:
    """Return all images of a source sorted by path: those described, and those that no annotation mentions.

    Raises DataError if two annotations describe one image.
    """
    by_image: dict[Path, Labelled] = {}
    for item in described:
        earlier = by_image.setdefault(item.image, item)
        if earlier is not item:
            raise DataError(
                f"{item.annotation}: {item.image.name} is also in {earlier.annotation}; keep it in one of them"
            )
    for image in tree.images():
        if image not in by_image:
            by_image[image] = Labelled(image, (), None, None, folder_split(tree.folder, image))
    return tuple(sorted(by_image.values(), key=lambda item: item.image.parts))


def linked_again(images: Sequence[Labelled]) -> dict[Path, Path]:
    """Map each unlabelled image that is a link to the file of another image to that image.

    That image is a labelled one if there is any, else the first.
    """
    unlabelled = [item.image for item in images if item.annotation is None]
    if not unlabelled:
        return {}
    first = {identity(item.image): item.image for item in images if item.annotation is not None}
    first.pop(None, None)  # missing images have nothing in common
    again: dict[Path, Path] = {}
    for image in unlabelled:
        if (file := identity(image)) and (original := first.setdefault(file, image)) is not image:
            again[image] = original
    return again


def damaged(reason: str, label: str = "", id: str = "", ignore: str = "") -> Box:
    """Return the box of an annotation without valid corners, so that it is still counted."""
    return Box(label, NAN, NAN, NAN, NAN, id, ignore, reason)

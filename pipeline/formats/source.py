"""What every reader returns."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pipeline.boxes import Box, Labelled
from pipeline.errors import DataError, and_more
from pipeline.formats.paths import identity
from pipeline.formats.splits import folder_split
from pipeline.formats.tree import MASK_FOLDER, Tree

NAN = math.nan
NOT_LISTED = "not listed in "  # prefix of the image that stands for all images that a file does not list

# Folders of annotations and of their images, in the formats that keep them apart.
APART = {
    *(("annotations", "images"), ("annotations", "jpegimages"), ("labels", "images"), ("labels", "jpegimages")),
    *(("ann", "img"), ("label_2", "image_2"), ("labeltxt", "images")),
}


class NoBox(str):
    """`Box.ignore` of a shape or region that shows objects but has no box of one, such as a point or a crowd.

    An image with nothing else is not a background image.
    """


@dataclass(frozen=True, slots=True)
class Source:
    """The content of a folder.

    `classes` are in the order of the format; None if it has no order (VOC). `has_splits` tells whether the source
    assigns images to train, val and test. `linked_again` maps unlabelled images that are links to the file of another
    image to that image. `set_aside` says why an unlabelled image is not used although it exists. `matched` counts the
    names found at each step of `matching`. `beside` lists what may hold annotations but was not read; `notes` say what
    the user has to know about the reading.
    """

    images: tuple[Labelled, ...]
    classes: tuple[str, ...] | None
    has_splits: bool
    linked_again: Mapping[Path, Path] = field(default_factory=dict)
    set_aside: Mapping[Path, str] = field(default_factory=dict)
    matched: Mapping[str, int] = field(default_factory=dict)
    beside: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def to_use(self) -> list[Labelled]:
        """Return the images that are neither `linked_again` nor `set_aside`."""
        unused = {*self.linked_again, *self.set_aside}
        return [item for item in self.images if item.image not in unused]


def source_of(tree: Tree, images: Sequence[Labelled], classes: Sequence[str] | None) -> Source:
    """Return what a reader found, with the notes of the tree."""
    unlabelled = {item.image for item in images if item.annotation is None}
    return Source(
        tuple(images),
        None if classes is None else tuple(classes),
        has_splits=any(item.split for item in images),
        set_aside={image: why for image, why in tree.set_aside.items() if image in unlabelled},
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
            files = " and ".join(dict.fromkeys(str(one.annotation) for one in (earlier, item)))
            raise DataError(f"{files}: two entries describe {item.image.name}; remove one")
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


def masks(folder: Path, images: Sequence[Labelled]) -> dict[Path, str]:
    """Return the unlabelled images that are masks of labelled ones, by their stem and the name of their folder."""
    labelled = {item.image.stem: item.image for item in images if item.annotation is not None}
    return {
        item.image: f"a mask of {labelled[item.image.stem].name}, by its name and folder"
        for item in images
        if item.annotation is None
        and item.image.stem in labelled
        and item.image.parent != labelled[item.image.stem].parent
        and MASK_FOLDER.search(item.image.parent.relative_to(folder).as_posix())
    }


def strays(folder: Path, images: Sequence[Labelled]) -> list[str]:
    """Return a note on annotations whose image is in another folder, while those beside them have theirs in their own.

    Cameras count from DSC_0001 again and again, so it may be the wrong image. Only files that describe one image count.
    """
    images_of = Counter(item.annotation for item in images)
    pairs = [(item.annotation, item.image) for item in images if item.annotation and images_of[item.annotation] == 1]
    away = [pair for pair in pairs if not _belong(pair[0].parent, pair[1].parent) and pair[1].exists()]
    suspects = {annotation.parent for annotation, _ in away}
    beside = [pair for pair in pairs if pair[0].parent in suspects and _belong(pair[0].parent, pair[1].parent)]
    at_home = {annotation.parent for annotation, image in beside if image.exists()}
    found = [pair for pair in away if pair[0].parent in at_home]
    if not found:
        return []
    annotation, image = (path.relative_to(folder).as_posix() for path in found[0])
    what = f"its image was found in another folder, {image}: check that it is the right one"
    return [f"{annotation}: {what}{and_more(found)}"]


def strays_of_many(folder: Path, found: Iterable[tuple[Path, str, Sequence[str]]]) -> list[str]:
    """Return a note on images of an annotation file that are in none of its homes, although most of its images are.

    `found` has the annotation file, the place and the homes of each image whose name gives no folder.
    """
    at_home, away = Counter[Path](), dict[Path, list[str]]()
    for annotation, place, homes in found:
        if (place.rpartition("/")[0] or ".") in homes:
            at_home[annotation] += 1
        else:
            away.setdefault(annotation, []).append(place)
    what = "is in another folder than most of its images: check that it is the right one"
    return [
        f"{annotation.relative_to(folder).as_posix()}: {places[0]} {what}{and_more(places)}"
        for annotation, places in away.items()
        if len(places) <= at_home[annotation]
    ]


@cache
def _belong(annotations: Path, images: Path) -> bool:
    """Return whether images that belong to annotations in one folder are usually in the other."""
    pairs = list(zip(annotations.parts, images.parts, strict=False))
    differing = [(one.lower(), other.lower()) for one, other in pairs if one != other]
    return len(annotations.parts) == len(images.parts) and all(pair in APART for pair in differing)


def damaged(reason: str, label: str = "", id: str = "", ignore: str = "") -> Box:
    """Return the box of an annotation without valid corners, so that it is still counted."""
    return Box(label, NAN, NAN, NAN, NAN, id, ignore, reason)

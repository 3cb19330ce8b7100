"""What all readers give back, and how they find files without being led out of the source."""

from __future__ import annotations

import math
import os
import posixpath
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pipeline.boxes import IMAGE_SUFFIXES, Box, Labelled
from pipeline.errors import DataError
from pipeline.formats.paths import identity, inside, is_one_file, is_text
from pipeline.walk import broken_link, walk

NAN = math.nan
_IMAGE_ENDINGS = tuple(IMAGE_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Source:
    """All that a folder holds.

    `classes` is the order that the format itself gives, None where it has none (VOC).
    `has_splits` tells whether the source assigns images to train, val and test. `linked_again` holds the unlabelled
    images that are, through a link, the very file of another image, and which one.
    """

    images: tuple[Labelled, ...]
    classes: tuple[str, ...] | None
    has_splits: bool
    linked_again: Mapping[Path, Path] = field(default_factory=dict)


SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@cache
def split_of(name: str) -> str | None:
    """The split that a file or folder name speaks of: `instances_val2017` -> val, `boards` -> None."""
    word = "".join(char if char.isalpha() else " " for char in name.lower()).split()
    found = {SPLIT_WORDS[part] for part in word if part in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None


def folder_split(source: Path, path: Path) -> str | None:
    """The split that the nearest folder above a file speaks of; the name of the source itself says nothing."""
    return _split_of_folders(path.parent.relative_to(source).as_posix())


@cache
def _split_of_folders(folders: str) -> str | None:
    return next(filter(None, map(split_of, reversed(folders.split("/")))), None)


class Tree:
    """The files below a source, hidden ones left out, from one walk of the disk.

    Looking an image up is then a look into a dict, however many thousand an annotation file names.
    Names are relative to the source, with forward slashes and as the user sees them, before links.
    Raises DataError where something in there cannot be read; an image that is a broken link stays, to be judged
    with the images that are missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths: dict[str, Path | None] = {}  # made when asked for; in the order of the walk
        problems = []
        for name, _, problem in walk(folder):
            if problem and not (name.lower().endswith(_IMAGE_ENDINGS) and broken_link(folder / name)):
                problems.append(f"{folder / name}: {problem}")
            self._paths[name] = None
        if problems:
            more = f" (and {len(problems) - 1} more such)" if len(problems) > 1 else ""
            raise DataError(problems[0] + more)

    @cached_property
    def _by_last_part(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for name in self._paths:
            names.setdefault(name.rpartition("/")[2], []).append(name)
        return names

    def files(self, suffixes: Iterable[str]) -> list[Path]:
        """Files by suffix, in the order of their names, folder by folder.

        Raises DataError for a name that the receipt could not hold.
        """
        endings = tuple(suffixes)
        found = [name for name in self._paths if name.lower().endswith(endings)]
        for name in found:
            if not is_text(name):
                said = f"the file name {os.fsencode(name)!r} is not one line of UTF-8"
                raise DataError(f"{self.folder}: {said}; rename the file")
        return [self._path(name) for name in found]

    def images(self) -> list[Path]:
        return self.files(IMAGE_SUFFIXES)

    def homes(self, annotation: Path) -> list[str]:
        """Where the images of an annotation file mostly lie: beside it, in the source, in an `images` of either."""
        own = annotation.parent.relative_to(self.folder).as_posix()
        return [own, ".", "images", posixpath.normpath(f"{own}/../images")]

    def find(self, name: str, homes: Sequence[str], split: str | None, named_by: Path) -> Path:
        """The image that an annotation file calls `name`, which may lead through folders.

        Looked for in `homes` in their order, then anywhere: in a folder of its split, or else where no
        folder speaks of another one. What is nowhere gets its path in the first home, for whoever judges
        missing images. Raises DataError where `name` leads out of the source, or fits two files.
        """
        plain = posixpath.normpath(name.replace("\\", "/"))
        for home in homes:
            place = plain if home == "." else f"{home}/{plain}"
            if place in self._paths:
                return self._path(place)
        places = [
            place for place in self._by_last_part.get(plain.rpartition("/")[2], ()) if place.endswith(f"/{plain}")
        ]
        if split:
            splits = {place: _split_of_folders(place.rpartition("/")[0]) for place in places}
            places = [place for place in places if splits[place] == split] or [
                place for place in places if splits[place] is None
            ]
        found = [self._path(place) for place in places]
        if len(found) > 1 and not is_one_file(found):
            raise DataError(
                f"{named_by}: {show(name)} could be {places[0]} or {places[1]}; give its folder in the annotation too"
            )
        if found:
            return found[0]
        missing = inside(self.folder, plain, self.folder / homes[0], named_by)
        if missing == self.folder:
            raise DataError(f"{named_by}: names {show(name)}, which is no file; name its image")
        return missing

    def _path(self, name: str) -> Path:
        # One object per file: it is hashed and taken apart once.
        path = self._paths[name]
        if path is None:
            path = self._paths[name] = self.folder / name
        return path


def with_the_rest(tree: Tree, described: Iterable[Labelled]) -> tuple[Labelled, ...]:
    """All images of a source in the order of their paths: those described, and those no annotation mentions.

    Raises DataError where two annotations describe one image.
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


def files_under(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files by suffix anywhere below, hidden ones left out, in the order of their names."""
    return Tree(folder).files(suffixes)


def linked_again(images: Sequence[Labelled]) -> dict[Path, Path]:
    """Map unlabelled images to the image whose very file they are, through a link.

    A labelled image goes before an unlabelled one, and an earlier one before a later one.
    """
    unlabelled = [item.image for item in images if item.annotation is None]
    if not unlabelled:
        return {}
    first = {identity(item.image): item.image for item in images if item.annotation is not None}
    first.pop(None, None)  # missing images have nothing in common
    again: dict[Path, Path] = {}
    for image in unlabelled:
        if (file := identity(image)) and (other := first.setdefault(file, image)) is not image:
            again[image] = other
    return again


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}); write it again as UTF-8") from None


def head(path: Path) -> str:
    """The first 64 KiB of a file, readable whatever its encoding: enough to tell one JSON format from another.

    Broken files keep their looks this way, so that they are refused by name and not passed over.
    """
    with path.open("rb") as file:
        data = file.read(1 << 16)
    # UTF-16 is refused when it is read; here its letters are enough.
    return data.replace(b"\0", b"").decode("utf-8", errors="replace").lstrip("\ufeff\ufffd \t\r\n")


def damaged(reason: str, label: str = "", id: str = "", ignore: str = "") -> Box:
    """An annotation that gives no corners: one box all the same, so that it can be counted."""
    return Box(label, NAN, NAN, NAN, NAN, id, ignore, reason)


_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 80


def show(value: Any) -> str:
    """A value from a stranger's file as one short line, however long or deep it is."""
    return _shown.repr(value)

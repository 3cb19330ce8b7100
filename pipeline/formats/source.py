"""What all readers give back, and how they find files without being led out of the source."""

from __future__ import annotations

import math
import os
import posixpath
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pipeline.boxes import IMAGE_SUFFIXES, Box, Labelled
from pipeline.errors import DataError

NAN = math.nan
LONGEST_NAME = 255  # bytes of one part of a path, on every file system in use


@dataclass(frozen=True, slots=True)
class Source:
    """All that a folder holds.

    `classes` is the order that the format itself gives, None where it has none (VOC).
    `has_splits` tells whether the source assigns images to train, val and test.
    """

    images: tuple[Labelled, ...]
    classes: tuple[str, ...] | None
    has_splits: bool


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
    Names are relative to the source, with forward slashes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._is_link = dict(_walk(str(folder), ""))
        self._paths: dict[str, Path] = {}

    @cached_property
    def _by_last_part(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for name in self._is_link:
            names.setdefault(name.rpartition("/")[2], []).append(name)
        return names

    def files(self, suffixes: Iterable[str]) -> list[Path]:
        """Files by suffix, in the order of their names, folder by folder."""
        endings = tuple(suffixes)
        found = [name for name in self._is_link if name.lower().endswith(endings)]
        return [self._path(name) for name in sorted(found, key=lambda name: name.split("/"))]

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
            if place in self._is_link:
                return self._guarded(place, named_by)
        places = [
            place for place in self._by_last_part.get(plain.rpartition("/")[2], ()) if place.endswith(f"/{plain}")
        ]
        if split:
            splits = {place: _split_of_folders(place.rpartition("/")[0]) for place in places}
            places = [place for place in places if splits[place] == split] or [
                place for place in places if splits[place] is None
            ]
        if len(places) > 1:
            raise DataError(
                f"{named_by}: {show(name)} could be {places[0]} or {places[1]}; give its folder in the annotation too"
            )
        if places:
            return self._guarded(places[0], named_by)
        missing = inside(self.folder, plain, self.folder / homes[0], named_by)
        if missing == self.folder:
            raise DataError(f"{named_by}: names {show(name)}, which is no file; name its image")
        return missing

    def _guarded(self, name: str, named_by: Path) -> Path:
        if self._is_link[name]:  # a plain file that the walk met cannot lie elsewhere
            inside(self.folder, name, self.folder, named_by)
        return self._path(name)

    def _path(self, name: str) -> Path:
        # One object a file: it is hashed and taken apart once.
        return self._paths.get(name) or self._paths.setdefault(name, self.folder / name)


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


def _walk(folder: str, prefix: str) -> Iterator[tuple[str, bool]]:
    """Every visible file's name with its folders, and whether it is a link. Links to folders are not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path, f"{prefix}{entry.name}/")
            elif entry.is_symlink():
                if Path(entry.path).is_file():  # links that lead nowhere, or round in a circle, do not
                    yield f"{prefix}{entry.name}", True
            elif entry.is_file():
                yield f"{prefix}{entry.name}", False


def files_under(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files by suffix anywhere below, hidden ones left out, in the order of their names."""
    return Tree(folder).files(suffixes)


def inside(source: Path, name: str, relative_to: Path, named_by: Path) -> Path:
    """The file called `name`, resolved, if it lies in the source; an annotation must not lead anywhere else."""
    said = repr(name if len(name) <= 80 else f"{name[:80]}...")
    try:
        if max(map(len, os.fsencode(name).split(b"/"))) > LONGEST_NAME:
            raise ValueError
        resolved = (relative_to / name).resolve()
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, a null byte, half a letter
        raise DataError(f"{named_by}: names an impossible path, {said}; correct it") from None
    if not resolved.is_relative_to(source):
        raise DataError(f"{named_by}: names {said}, outside {source}; move the image into the source")
    return resolved


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

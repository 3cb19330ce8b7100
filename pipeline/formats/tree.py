"""Find files for the readers, with one walk of the disk and without leaving the source."""

from __future__ import annotations

import os
import posixpath
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from pipeline.boxes import SOURCE_SUFFIXES
from pipeline.errors import DataError, and_more
from pipeline.formats.paths import holds_control, inside, is_one_file, is_text
from pipeline.formats.splits import folder_split, split_of, split_of_folders
from pipeline.formats.text import head, show
from pipeline.walk import LABEL_SUFFIXES, broken_link, walk

STEPS = ("exact", "unicode", "spelling", "path")  # of `matching`
MOST_KEPT = 1 << 28  # bytes of memory for heads of files; those beyond are read again for each format
# `SegmentationClass` of VOC, `masks`, COCO's `panoptic_val2017`
MASK_FOLDER = re.compile(r"segmentation|panoptic|(?<![a-z])masks?(?![a-z])", re.IGNORECASE)
_IMAGE_ENDINGS = tuple(SOURCE_SUFFIXES)


class Tree:
    """The files below a source without hidden ones, from one walk of the disk.

    An image is then found by a dict lookup, however many thousand an annotation file names. Names are relative to the
    source, with forward slashes and as the user sees them, before links are resolved. Raises DataError if anything in
    the source cannot be read; an image that is a broken link stays, to be judged with the missing images.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.matched = dict.fromkeys(STEPS, 0)  # names of images, by the step that found them
        self.notes: list[str] = []
        self.set_aside: dict[Path, str] = {}  # images that are not to be used, with the reason
        self.taken: set[Path] = set()  # files that a reader used, besides those that describe images
        self._heads: dict[Path, str] = {}
        self._kept = 0  # bytes of `_heads`
        self._paths: dict[str, Path | None] = {}  # made on demand, in the order of the walk
        problems = []
        for name, _, problem in walk(folder):
            if problem and not (name.lower().endswith(_IMAGE_ENDINGS) and broken_link(folder / name)):
                problems.append(f"{folder / name}: {problem}")
            self._paths[name] = None
        if problems:
            raise DataError(problems[0] + and_more(problems))

    @cached_property
    def _by_last_part(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for name in self._paths:
            names.setdefault(name.rpartition("/")[2], []).append(name)
        return names

    @cached_property
    def _folders(self) -> set[str]:
        """Return each folder's path and all its endings: `a/b/c`, `b/c`, `c`."""
        return {end for name in self._every_folder for end in _ends(name)}

    @cached_property
    def _every_folder(self) -> set[str]:
        parents = {name.rpartition("/")[0] for name in self._paths}
        return {above for parent in parents for above in _above(f"{parent}/")}

    @cached_property
    def _mask_folders(self) -> set[str]:
        """Return the folders that are named after masks and share the stem of an image with a folder that is not."""
        folders_of: dict[str, set[str]] = {}
        for name in self.names_of_images():
            folders_of.setdefault(posixpath.splitext(last_part(name))[0], set()).add(posixpath.dirname(name))
        by_name = {folder for folder in self._every_folder if MASK_FOLDER.search(folder)}
        return {folder for folders in folders_of.values() if folders - by_name for folder in folders & by_name}

    def files(self, suffixes: Iterable[str]) -> list[Path]:
        """Return the files with these suffixes, sorted by name, folder by folder.

        Raises DataError for a name that the receipt cannot hold.
        """
        endings = tuple(suffixes)
        names = [name for name in self._paths if name.lower().endswith(endings)]
        for name in names:
            if not is_text(name):
                why = "holds control characters" if holds_control(name) else "is not one line of UTF-8"
                raise DataError(f"{self.folder}: the file name {os.fsencode(name)!r} {why}; rename the file")
        return [self.path(name) for name in names]

    def head(self, path: Path) -> str:
        """Return the first 64 KiB of a file, which is read once for all formats unless the source is very large."""
        text = self._heads.get(path)
        if text is None:
            text = head(path)
            if self._kept + sys.getsizeof(text) <= MOST_KEPT:
                self._heads[path] = text
                self._kept += sys.getsizeof(text)
        return text

    def heads(self, suffixes: Iterable[str]) -> Iterator[str]:
        return map(self.head, self.files(suffixes))

    def holds_json(self, start: str, *signs: re.Pattern[str]) -> bool:
        """Return whether a JSON file begins with `start` and has all of `signs` in its head."""
        return any(
            text.startswith(start) and all(sign.search(text) for sign in signs) for text in self.heads({".json"})
        )

    def images(self) -> list[Path]:
        return self.files(SOURCE_SUFFIXES)

    def names_of_images(self) -> list[str]:
        """Return what may be images: files with known suffixes or without one."""
        return [name for name in self._paths if name.lower().endswith(_IMAGE_ENDINGS) or "." not in last_part(name)]

    def has_folder(self, name: str) -> bool:
        """Return whether the path of any folder ends in `name`."""
        return name in self._folders

    def ending_in(self, end: str) -> list[str]:
        """Return the folders and files whose path ends in these parts."""
        return [place for place in (*self._every_folder, *self._paths) if f"/{place}".endswith(f"/{end}")]

    def split_of(self, place: str) -> str | None:
        return split_of_folders(place.rpartition("/")[0])

    def split_by(self, annotation: Path) -> str | None:
        """Return the split in the name of an annotation file, else that of its folders."""
        return split_of(annotation.stem) or folder_split(self.folder, annotation)

    def homes(self, annotation: Path) -> list[str]:
        """Return folders below the source where the images of an annotation file usually are, the likeliest first."""
        folder = annotation.parent.relative_to(self.folder).as_posix()
        return [folder, ".", "images", posixpath.normpath(f"{folder}/../images")]

    def place_of(self, name: str, homes: Sequence[str], split: str | None, named_by: Path) -> str | None:
        """Return the file of exactly this name, which may include folders; None if there is none.

        It searches `homes` in order, then everywhere: in a folder of its split, then in folders of no split, except
        for masks. Raises DataError if the name fits two files.
        """
        for home in homes:  # fast, and finds nearly all
            place = name if home == "." else f"{home}/{name}"
            if place in self._paths:
                return place
        plain = posixpath.normpath(name.replace("\\", "/"))
        if plain[0] == "/":
            plain = _below(self.folder, plain, named_by)
        if led := self.led_to(plain, named_by):
            return led if led in self._paths else None
        for home in homes:
            place = plain if home == "." else f"{home}/{plain}"
            if place in self._paths:
                return place
        places = [place for place in self._by_last_part.get(last_part(plain), ()) if place.endswith(f"/{plain}")]
        places = [place for place in places if not self.is_mask(place, plain, named_by)]
        places = self.nearest(self.of_split(places, split), named_by)
        if len(places) > 1 and not is_one_file(map(self.path, places)):
            raise DataError(
                f"{named_by}: {show(name)} matches both {places[0]} and {places[1]}; "
                "give its folder in the annotation too"
            )
        return places[0] if places else None

    def led_to(self, name: str, annotation: Path) -> str:
        """Return where a name that begins with `../` leads from its annotation file; "" unless a folder is there."""
        plain = posixpath.normpath(name.replace("\\", "/"))
        if not plain.startswith("../"):
            return ""
        place = posixpath.normpath(f"{annotation.parent.relative_to(self.folder).as_posix()}/{plain}")
        folder = posixpath.dirname(place)
        return place if (not folder and place != "..") or folder in self._every_folder else ""

    def nearest(self, places: list[str], annotation: Path) -> list[str]:
        """Return the files that share most folders with an annotation file, as `images/a/1.jpg` with `labels/a`."""
        if len(places) < 2:
            return places
        folders = set(annotation.parent.relative_to(self.folder).parts)
        shared = [len(folders.intersection(place.split("/")[:-1])) for place in places]
        return [place for place, number in zip(places, shared, strict=True) if number == max(shared)]

    def is_mask(self, place: str, name: str, annotation: Path) -> bool:
        """Return whether a file is a mask by its folder, and neither `name` nor the annotation's path asks for one."""
        if posixpath.dirname(place) not in self._mask_folders:
            return False
        asked = (posixpath.dirname(name), annotation.parent.relative_to(self.folder).as_posix())
        return not any(map(MASK_FOLDER.search, asked))

    def of_split(self, places: list[str], split: str | None) -> list[str]:
        """Return the files in folders of the split, or else those in folders of no split; all without a split."""
        if not split:
            return places
        splits = {place: self.split_of(place) for place in places}
        return [place for place in places if splits[place] == split] or [
            place for place in places if splits[place] is None
        ]

    def path(self, name: str) -> Path:
        # One object per file, so that it is hashed and parsed once.
        path = self._paths[name]
        if path is None:
            path = self._paths[name] = self.folder / name
        return path

    def beside(self, read: Iterable[Path]) -> tuple[Path, ...]:
        """Return what may hold annotations but was not read: files by suffix, and folders by name."""
        known = self.taken.union(read)
        files = [name for name in self._paths if name.lower().endswith(LABEL_SUFFIXES)]
        folders = {folder for folder in self._every_folder if folder.lower().endswith(LABEL_SUFFIXES)}
        paths = [path for name in files if (path := self.path(name)) not in known]
        return tuple(paths + [self.folder / name for name in sorted(folders)])


def _below(folder: Path, name: str, named_by: Path) -> str:
    """Return an absolute path into the folder as a path below it; any other path unchanged."""
    try:
        return inside(folder, name, folder, named_by).relative_to(folder).as_posix()
    except DataError:
        return name


def last_part(name: str) -> str:
    """Return what follows the last slash of a path."""
    return name.rpartition("/")[2]


def _above(name: str) -> list[str]:
    """Return the folders above a file, each as a path."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _ends(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]

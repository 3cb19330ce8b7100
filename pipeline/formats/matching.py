"""Find the image that an annotation names, even if the name differs a little from the file's; for all formats.

Each step considers only images that no earlier step assigned, and needs exactly one that fits:

    exact     the path, in the folders where a format keeps its images, else anywhere in the source
    unicode   the same in Unicode's composed form, because macOS decomposes é on disk
    spelling  without case, suffix, percent-encoding and the prefixes that tools add
    path      the last parts of the path, if its folders are not in the source

A path that begins with `..` is searched only in the folder that it leads to, if that is in the source.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple
from urllib.parse import unquote

from pipeline.boxes import SOURCE_SUFFIXES, Box, Labelled
from pipeline.errors import DataError
from pipeline.formats.paths import inside, is_one_file, is_text
from pipeline.formats.source import Source, source_of, strays_of_many, with_the_rest
from pipeline.formats.splits import folder_split
from pipeline.formats.text import show
from pipeline.formats.tree import STEPS, Tree, last_part

# Label Studio puts eight hexadecimal digits before the name of an upload, and names local files by a server query.
UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")
_LOCAL_FILE = "?d="
_URL = re.compile(r"^[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_SLASH = re.compile(r"[/\\]")
_DRIVE = re.compile(r"^[A-Za-z]:(?=[\\/])")


class Wanted(NamedTuple):
    """An image as an annotation names it. `homes` are the folders to look in first, relative to the source.

    `split` is the annotation's own: images in folders of another split do not count. `is_stem` is set if the name is
    that of the annotation file, whose suffix differs.
    """

    name: str
    homes: Sequence[str]
    split: str | None
    named_by: Path
    is_stem: bool = False


class Described(NamedTuple):
    """What an annotation file says about an image whose file is still to be found."""

    wanted: Wanted
    boxes: list[Box]
    size: tuple[int, int] | None = None


def labelled(tree: Tree, described: Sequence[Described]) -> list[Labelled]:
    """Find the image of each description. Raises DataError as `find` does."""
    images = find(tree, [item.wanted for item in described])
    return [
        Labelled(image, tuple(boxes), wanted.named_by, size, wanted.split or folder_split(tree.folder, image))
        for image, (wanted, boxes, size) in zip(images, described, strict=True)
    ]


def find(tree: Tree, wanted: Sequence[Wanted]) -> list[Path]:
    """Return the image that each name means; for a missing image, its expected path in the first of its homes.

    Raises DataError if a name fits two images, two names fit one image, or the path of a missing image leads out of
    the source.
    """
    places = [tree.place_of(item.name, item.homes, item.split, item.named_by) for item in wanted]
    unmatched = [index for index, place in enumerate(places) if place is None]
    tree.matched["exact"] += len(places) - len(unmatched)
    if unmatched:
        taken = {place for place in places if place}
        for index, place in zip(unmatched, guess(tree, [wanted[index] for index in unmatched], taken), strict=True):
            places[index] = place
    pairs = [(item, place) for item, place in zip(wanted, places, strict=True) if place]
    by_last_part = [(item.named_by, place, item.homes) for item, place in pairs if not _SLASH.search(item.name)]
    tree.notes += strays_of_many(tree.folder, by_last_part)
    return [tree.path(place) if place else _missing(tree, item) for item, place in zip(wanted, places, strict=True)]


def guess(tree: Tree, wanted: Sequence[Wanted], taken: set[str]) -> list[str | None]:
    """Return the image of each name by all steps but the first, among those not `taken`; None if there is none."""
    places: list[str | None] = [None] * len(wanted)
    for step in STEPS[1:]:
        pending = [item for item, place in zip(wanted, places, strict=True) if place is None]
        free = _Free(tree, taken, step, _apart(pending, taken) if step == "path" else set())
        named: dict[str, Wanted] = {}
        for index, item in enumerate(wanted):
            if places[index] is None and (place := free.match(item)):
                places[index] = place
                earlier = named.setdefault(place, item)
                if earlier.name != item.name:
                    raise DataError(
                        f"{item.named_by}: {show(earlier.name)} and {show(item.name)} could both be {place}; "
                        "correct one of the names"
                    )
        taken = taken | named.keys()
        tree.matched[step] += len(named)
    return places


def _apart(wanted: Iterable[Wanted], taken: Iterable[str]) -> set[tuple[str, str]]:
    """Return pairs of a folder in the names and a folder of the source that are not the same one.

    A name of the first folder has the file name of an image in the second one that already belongs to another name.
    """
    folders_of: dict[str, set[str]] = {}
    for place in taken:
        folders_of.setdefault(_plain(last_part(place), "path"), set()).add(posixpath.dirname(place))
    named = [[_plain(part, "path") for part in _parts(item.name, "path")] for item in wanted]
    return {("/".join(parts[:-1]), folder) for parts in named for folder in folders_of.get("".join(parts[-1:]), ())}


def complete(tree: Tree, described: Sequence[Described], classes: Sequence[str] | None = None) -> Source:
    """Return a source of the images that annotation files name and of those that none mentions."""
    return source_of(tree, with_the_rest(tree, labelled(tree, described)), classes)


class _Free:
    """The images that are still free at one step, by file name."""

    def __init__(self, tree: Tree, taken: Collection[str], step: str, apart: Collection[tuple[str, str]]) -> None:
        self.tree, self.step, self._apart = tree, step, apart
        self._by_last: dict[str, list[str]] = {}
        for place in tree.names_of_images():
            if place not in taken:
                for key in (*_keys(last_part(place), step), *_keys(_without_suffix(last_part(place)), step)):
                    self._by_last.setdefault(key, []).append(place)

    def match(self, wanted: Wanted) -> str | None:
        parts, led = _parts(wanted.name, self.step), self.tree.led_to(wanted.name, wanted.named_by)
        if not parts or (not led and len(parts) == 1 and wanted.name.replace("\\", "/").startswith("../")):
            return None  # `../../a.jpg` says only that the image lies elsewhere
        # The digits of an upload are unique, so only one of two names may lack them.
        candidates = list(
            dict.fromkeys(place for key in _keys(parts[-1], self.step) for place in self._by_last.get(key, ()))
        )
        last = _without_suffix if wanted.is_stem and self.step == "unicode" else str
        candidates = [place for place in candidates if _agree(parts[-1], last(last_part(place)), self.step)]
        whole = "/".join(parts)
        candidates = [place for place in candidates if not self.tree.is_mask(place, whole, wanted.named_by)]
        if led:
            candidates = [place for place in candidates if posixpath.dirname(place) == posixpath.dirname(led)]
        else:
            candidates = self._by_folders(parts, candidates, wanted)
        candidates = self.tree.nearest(self.tree.of_split(candidates, wanted.split), wanted.named_by)
        if len(candidates) > 1 and not is_one_file(map(self.tree.path, candidates)):
            raise DataError(
                f"{wanted.named_by}: {show(wanted.name)} matches both {candidates[0]} and {candidates[1]}; "
                "give its folder in the annotation too, or rename one of them"
            )
        return candidates[0] if candidates else None

    def _by_folders(self, parts: Sequence[str], candidates: list[str], wanted: Wanted) -> list[str]:
        """Return the candidates in the folders that the name gives; at the last step, those that share most of them."""
        folders = [_plain(part, self.step) for part in parts[:-1]]
        tails = {
            place: _common_tail(folders, [_plain(part, self.step) for part in place.split("/")[:-1]])
            for place in candidates
        }
        if self.step != "path":
            whole = [place for place in candidates if tails[place] == len(folders)]
            for home in wanted.homes:
                at_home = [place for place in whole if (posixpath.dirname(place) or ".") == home]
                if at_home:
                    return at_home
            return whole
        # If the source has these folders, or knows them to be others, the image is missing from them.
        if not folders or self.tree.has_folder("/".join(parts[:-1])):
            return []
        most = max(tails.values(), default=0)
        named = "/".join(folders)
        return [
            place
            for place in candidates
            if tails[place] == most and (named, posixpath.dirname(place)) not in self._apart
        ]


def has_image_suffix(name: str) -> bool:
    return PurePath(name).suffix.lower() in SOURCE_SUFFIXES


def _parts(name: str, step: str) -> list[str]:
    """Return the parts of a name without `..`, roots, drives and servers."""
    if step != "unicode":
        if _LOCAL_FILE in name:
            name = name.partition(_LOCAL_FILE)[2]
        if _URL.match(name):
            name = _URL.sub("", name).partition("?")[0]
        name = unquote(name)  # before the split, because %2F and %5C are slashes too
    name = name.replace("\\", "/")
    name = posixpath.normpath(_DRIVE.sub("", name)) if name else ""
    return [part for part in name.split("/") if part not in ("", ".", "..")]


def _without_suffix(name: str) -> str:
    return name.rpartition(".")[0] if has_image_suffix(name) else name


def _plain(part: str, step: str) -> str:
    composed = unicodedata.normalize("NFC", part)
    return composed if step == "unicode" else unicodedata.normalize("NFC", unquote(composed)).casefold().strip()


def _stem(name: str, step: str) -> str:
    plain = _plain(name, step)
    stem, dot, suffix = plain.rpartition(".")
    return stem if step != "unicode" and stem and f"{dot}{suffix}" in SOURCE_SUFFIXES else plain


def _keys(name: str, step: str) -> tuple[str, ...]:
    stem = _stem(name, step)
    return (stem,) if step == "unicode" else tuple(dict.fromkeys((stem, UPLOAD.sub("", stem))))


def _agree(name: str, file_name: str, step: str) -> bool:
    keys, file_keys = _keys(name, step), _keys(file_name, step)
    return keys[0] in file_keys or file_keys[0] in keys


def _common_tail(first: Sequence[str], second: Sequence[str]) -> int:
    count = 0
    while count < min(len(first), len(second)) and first[-1 - count] == second[-1 - count]:
        count += 1
    return count


def _missing(tree: Tree, wanted: Wanted) -> Path:
    plain = posixpath.normpath(wanted.name.replace("\\", "/"))
    try:
        missing = inside(tree.folder, plain, tree.folder / wanted.homes[0], wanted.named_by)
    except DataError as error:
        near = [place for place in tree.names_of_images() if _agree(last_part(place), last_part(plain), "spelling")]
        if "outside" not in str(error) or not near or not is_text(wanted.name):
            raise
        raise DataError(f"{str(error).partition(';')[0]}; {near[0]} exists: correct the name") from None
    if missing == tree.folder:
        raise DataError(f"{wanted.named_by}: names {show(wanted.name)}, which is not a file; give its file name")
    return missing

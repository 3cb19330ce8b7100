"""Say what a source without a recognised format holds, and what comes closest to one, for `convert` and `make new`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.formats.matching import has_image_suffix
from pipeline.formats.text import columns, show
from pipeline.formats.tree import Tree
from pipeline.formats.yolo_data import looks_like_labels
from pipeline.walk import LABEL_SUFFIXES

# The command that unpacks each kind of archive.
ARCHIVES = {
    ".zip": "python3 -m zipfile -e {file} {folder}",
    ".tar": "tar -xf {file} -C {folder}",
    ".gz": "tar -xzf {file} -C {folder}",
    ".tgz": "tar -xzf {file} -C {folder}",
    ".xz": "tar -xJf {file} -C {folder}",
    ".bz2": "tar -xjf {file} -C {folder}",
    ".7z": "7z x {file} -o{folder}",
    ".rar": "unrar x {file} {folder}",
}
# The same for one compressed file, such as `annotations.json.gz`.
COMPRESSED = {
    ".gz": "gunzip -c {file} > {target}",
    ".xz": "unxz -c {file} > {target}",
    ".bz2": "bunzip2 -c {file} > {target}",
}
FILMS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
NOT_READ = {
    ".tfrecord": "TFRecord",
    ".record": "TFRecord",
    ".parquet": "Parquet",
    ".arrow": "Arrow",
    ".mat": "MATLAB",
    ".pkl": "pickled",
}
VIA_3 = re.compile(r'"project"\s*:\s*\{.*"data_format_version"\s*:\s*"3', re.DOTALL)
OTHER_LABELS = (*LABEL_SUFFIXES, ".yaml", ".yml", ".h5", ".data")


class Near(NamedTuple):
    """What comes closest to annotations in a folder that cannot be read.

    The kinds, in order of preference: archives, YOLO labels without names, files of unsupported formats or layouts,
    videos, images alone, nothing.
    """

    kind: Literal["packed", "nameless", "not read", "unknown", "film", "images", "nothing"]
    files: list[Path]


def look(tree: Tree) -> Near:
    """Return the first kind of `Near` that the source has, with all its files."""
    if packed := tree.files(ARCHIVES):
        return Near("packed", packed)
    if labels := [path for path in tree.files({".txt"}) if looks_like_labels(tree.head(path))]:
        return Near("nameless", labels)
    if others := tree.files(NOT_READ):
        return Near("not read", others)
    if unknown := tree.files(OTHER_LABELS):
        return Near("unknown", unknown)
    if films := tree.files(FILMS):
        return Near("film", films)
    images = tree.images()
    return Near("images" if images else "nothing", images)


def names_image_and_numbers(head: str) -> bool:
    """Return whether a text begins with an image and numbers, as lists of keras-yolo3 do: `a.jpg 10,10,40,50,0`."""
    image, _, rest = head.partition("\n")[0].partition(" ")
    return has_image_suffix(image) and any(map(str.isdigit, rest))


def in_words(tree: Tree) -> str:
    """Return a hint for the end of an error message, from the semicolon on; empty if there is nothing to hint at."""
    near = look(tree)
    match near.kind:
        case "packed":
            return f"; {_some(tree, near.files)} still packed: unpack {'it' if len(near.files) == 1 else 'them'} here"
        case "nameless":
            return _nameless(tree, near.files)
        case "not read":
            return f"; {_some(tree, near.files)} in no supported layout: export the dataset as COCO or YOLO"
        case "unknown":
            return _unknown(tree, near.files)
        case "film" if len(near.files) == 1:
            return f"; {_some(tree, near.files)} a video: take images from it, and label them"
        case "film":
            return f"; {_some(tree, near.files)} videos: take images from them, and label them"
        case "images":
            name = _name(tree, near.files[0])
            there = (
                f"there are {len(near.files)} images, such as {name}," if len(near.files) > 1 else f"there is {name}"
            )
            return f"; {there} and no annotation file"
    return ""


def _nameless(tree: Tree, labels: list[Path]) -> str:
    ids = {
        int(float(line.split()[0])) for path in labels for line in tree.head(path).splitlines() if _starts_with_id(line)
    }
    text = "1 text file that looks" if len(labels) == 1 else f"{len(labels)} text files that look"
    names = "no class names" if not ids else f"no names for the classes 0 to {max(ids)}"
    return (
        f"; there are {text} like YOLO labels, such as {_name(tree, labels[0])}, and {names}: write classes.txt in "
        f"{tree.folder}, one name per line in the order of the ids, such as `cat`"
    )


def _starts_with_id(line: str) -> bool:
    try:
        return 0 <= float(line.split()[0]) < 10_000
    except (IndexError, ValueError, OverflowError):
        return False


def _unknown(tree: Tree, files: list[Path]) -> str:
    if projects := [path for path in files if path.suffix.lower() == ".json" and VIA_3.search(tree.head(path))]:
        return f"; {_some(tree, projects)} of VIA 3, which is not read: export it as COCO there, or label in VIA 2"
    if tables := [path for path in files if path.suffix.lower() in (".csv", ".tsv")]:
        first = show(", ".join(columns(tree.head(tables[0]))[0]))
        needed = "a line of column names: filename, class, xmin, ymin, xmax, ymax"
        return f"; {_name(tree, tables[0])} begins with {first}, but needs {needed}"
    return f"; {_some(tree, files)} in no supported layout"


def _name(tree: Tree, path: Path) -> str:
    return path.relative_to(tree.folder).as_posix()


def _some(tree: Tree, paths: list[Path]) -> str:
    """Return `a.zip is`, or `a.zip and 2 more are`."""
    more = f" and {len(paths) - 1} more are" if len(paths) > 1 else " is"
    return f"{_name(tree, paths[0])}{more}"

"""WIDER FACE: `wider_face_train_bbx_gt.txt`, for each image its path, the number of faces, and one line per face.

A face has left, top, width, height and six attributes; one with `invalid` 1 does not count. An image without faces is
followed by one line of zeros. Source: the dataset's readme.txt.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.boxes import Box
from pipeline.errors import DataError, counted
from pipeline.formats.matching import Described, Wanted, complete, has_image_suffix
from pipeline.formats.shapes import corners
from pipeline.formats.source import Source, damaged
from pipeline.formats.text import is_whole_number, numbered_lines, numbers, show
from pipeline.formats.tree import Tree

LABEL = "face"
COLUMNS = ("x", "y", "width", "height", "blur", "expression", "illumination", "invalid", "occlusion", "pose")
INVALID = "invalid 1: a face that does not count"


def recognises(tree: Tree) -> bool:
    return any(_looks_like_faces(tree.head(text)) for text in tree.files({".txt"}))


def read(folder: Path) -> Source:
    tree = Tree(folder)
    described: list[Described] = []
    for path in tree.files({".txt"}):
        if _looks_like_faces(tree.head(path)):
            described += _read_file(tree, path)
            tree.taken.add(path)
        elif path.name.endswith("_filelist.txt"):  # names of images only
            tree.taken.add(path)
    return complete(tree, described, (LABEL,))


def _looks_like_faces(head: str) -> bool:
    name, count, face = [*map(str.strip, head.splitlines()[:3]), "", "", ""][:3]
    return has_image_suffix(name) and count.isdecimal() and len(face.split()) == len(COLUMNS)


def _read_file(tree: Tree, path: Path) -> Iterator[Described]:
    split = tree.split_by(path)
    homes = [*([f"WIDER_{split}/images"] if split else []), *tree.homes(path)]
    lines = [(number, line.strip()) for number, line in numbered_lines(path)]
    starts = [index for index, (_, line) in enumerate(lines) if has_image_suffix(line)]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        (number, name), *rest = lines[start:end]
        count, rows = rest[0][1] if rest else "", rest[1:]
        if count == "0" and len(rows) == 1 and not any(word.strip("0.") for word in rows[0][1].split()):
            rows = []
        if not is_whole_number(count) or len(rows) != int(count):
            raise DataError(
                f"{path}: line {number}: {show(name)} is followed by {counted(len(rows), 'face')}, but its number "
                f"of faces is {show(count)}; correct one of them"
            )
        boxes = [_box(line, f"line {number}") for number, line in rows]
        yield Described(Wanted(name, homes, split, path), boxes)


def _box(line: str, identity: str) -> Box:
    words = line.split()
    if len(words) != len(COLUMNS):
        return damaged(f"{counted(len(words), 'number')}; WIDER FACE has ten", LABEL, identity)
    try:
        values = numbers(dict(zip(COLUMNS, words, strict=True)))
        ignore = INVALID if values[COLUMNS.index("invalid")] == 1 else ""
        return Box(LABEL, *corners(*values[:4]), identity, ignore)
    except ValueError as error:
        return damaged(str(error), LABEL, identity)

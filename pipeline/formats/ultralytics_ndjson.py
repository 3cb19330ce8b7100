"""Ultralytics NDJSON: a first line with the class names, then one line per image with its split and its labels.

`boxes` and `pose` are rows of class, centre and sides, with key points in `pose`; `segments` and `obb` are rows of
class and points. All numbers are relative to the image size. Source: docs.ultralytics.com/datasets, "Ultralytics NDJSON
format".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.boxes import Box, from_yolo_line
from pipeline.errors import DataError
from pipeline.formats.lines import SUFFIXES, json_lines
from pipeline.formats.matching import Described, Wanted, complete
from pipeline.formats.source import Source, damaged
from pipeline.formats.splits import folder_split, split_of
from pipeline.formats.text import show
from pipeline.formats.tree import Tree
from pipeline.formats.values import class_name, declared_size, numbers

KEYS = ("boxes", "segments", "obb", "pose")  # a dataset has those of its task
ANOTHER = "the objects of the image in another form: the first one counts"
SIGN = re.compile(r'^\{.*"(class_names|task)"\s*:')


def recognises(tree: Tree) -> bool:
    return any(SIGN.match(text.partition("\n")[0]) for text in tree.heads(SUFFIXES))


def read(folder: Path) -> Source:
    tree = Tree(folder)
    described: list[Described] = []
    classes: dict[str, None] = {}
    for path in tree.files(SUFFIXES):
        if not SIGN.match(tree.head(path).partition("\n")[0]):
            continue
        tree.taken.add(path)
        names: list[str] = []
        for line, record in json_lines(path):
            if record.get("class_names") is not None:
                names = _names(path, line, record["class_names"])
                classes.update(dict.fromkeys(names))
            elif "file" in record:
                described.append(_image(tree, path, line, record, names))
    return complete(tree, described, tuple(classes))


def _names(path: Path, line: int, value: Any) -> list[str]:
    if isinstance(value, Mapping) and all(str(key).isdecimal() and len(str(key)) < 7 for key in value):
        value = [value[key] for key in sorted(value, key=int)]
    names = [class_name(name) for name in value] if isinstance(value, list) else []
    if not names or not all(names) or len(set(names)) < len(names):
        raise DataError(
            f"{path}: line {line}: class_names are {show(value)}, not one distinct name per number; correct them"
        )
    return names


def _image(tree: Tree, path: Path, line: int, record: Mapping[str, Any], names: list[str]) -> Described:
    name, size = record["file"], declared_size(record.get("width"), record.get("height"))
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: line {line}: an image has the file {show(name)}; give its file name")
    annotations = record.get("annotations") or {}
    rows = [(key, row) for key in KEYS for row in _rows(annotations, key)]
    boxes = [
        _box(row, key, names, size, f"line {line}, row {number}")
        if key == rows[0][0]
        else damaged("", id=f"line {line}, row {number}", ignore=ANOTHER)
        for number, (key, row) in enumerate(rows, start=1)
    ]
    split_name = record.get("split")
    split = (split_of(split_name) if isinstance(split_name, str) else None) or folder_split(tree.folder, path)
    usual_homes = tree.homes(path)
    homes = [
        *(
            [f"images/{split_name}", f"{usual_homes[0]}/images/{split_name}"]
            if isinstance(split_name, str) and split_name.isalnum()
            else []
        ),
        *usual_homes,
    ]
    return Described(Wanted(name, homes, split, path), boxes, size)


def _rows(annotations: Any, key: str) -> list[Any]:
    rows = annotations.get(key) if isinstance(annotations, Mapping) else None
    return rows if isinstance(rows, list) else []


def _box(row: Any, key: str, names: list[str], size: tuple[int, int] | None, identity: str) -> Box:
    if size is None:
        return damaged("no width and height of the image", id=identity)
    flat = row if isinstance(row, list) else []
    for _ in range(2):  # points may be pairs in a list
        flat = [part for item in flat for part in (item if isinstance(item, list) else [item])]
    flat = flat[:5] if key == "pose" else flat  # without the key points
    if not numbers(flat):
        return damaged(f"{show(row)} is not a row of numbers", id=identity)
    try:
        return from_yolo_line(" ".join(map(repr, flat)), names, *size, id=identity)
    except ValueError as error:
        return damaged(str(error), id=identity)

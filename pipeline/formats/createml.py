"""CreateML JSON: a list of images with their boxes, one file per split, whose name says which.

`coordinates` are the centre and the sides in pixels from the top left, Apple's default. Apple documents the keys
`imagefilename` and `annotation`; most tools write `image` and `annotations`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.boxes import Box, check_sides
from pipeline.errors import DataError
from pipeline.formats.matching import Described, Wanted, complete
from pipeline.formats.shapes import all_boxes
from pipeline.formats.source import Source, damaged
from pipeline.formats.splits import folder_split
from pipeline.formats.text import show
from pipeline.formats.tree import Tree
from pipeline.formats.values import class_name, numbers, read_json

KEYS = {"image", "imagefilename", "annotations", "annotation"}
SIGN = re.compile(r'\[\s*\{\s*"(image|imagefilename|annotations?)"\s*:')
SIDES = ("x", "y", "width", "height")


def recognises(tree: Tree) -> bool:
    # Label Studio's JSON-MIN may begin the same way.
    heads = tree.heads({".json"})
    return any(SIGN.match(head) and '"original_width"' not in head for head in heads)


def read(folder: Path) -> Source:
    tree = Tree(folder)
    described: list[Described] = []
    for path in tree.files({".json"}):
        data = read_json(path)
        if isinstance(data, list) and any(isinstance(entry, dict) and KEYS & entry.keys() for entry in data):
            described += _read_file(tree, path, data)
            tree.taken.add(path)
    return complete(tree, described)


def _read_file(tree: Tree, path: Path, data: list[Any]) -> list[Described]:
    homes, split = tree.homes(path), tree.split_by(path)
    described = []
    for number, entry in enumerate(data, start=1):
        if not isinstance(entry, dict):
            raise DataError(f"{path}: entry {number} is {show(entry)}, so this is not CreateML; export it again")
        name = entry.get("image", entry.get("imagefilename"))
        annotations = entry.get("annotations", entry.get("annotation"))
        if not isinstance(name, str) or not name:
            raise DataError(f"{path}: entry {number} has the image {show(name)}; give its file name")
        if not isinstance(annotations, list):
            raise DataError(
                f"{path}: entry {number}: `annotations` is not a list, so this is not CreateML; export it again"
            )
        if len(data) == 1 and PurePosixPath(name).stem == path.stem:
            split = folder_split(tree.folder, path)  # one file per image: `test_0001.json` names no split
        boxes = all_boxes(annotations, name, "an annotation", _box)
        described.append(Described(Wanted(name, homes, split, path), boxes))
    return described


def _box(annotation: Mapping[str, Any], identity: str) -> Box:
    label, coordinates = class_name(annotation.get("label")), annotation.get("coordinates")
    if not label:
        return damaged(f"label is {show(annotation.get('label'))}; name its class", id=identity)
    sides = numbers([coordinates.get(side) for side in SIDES]) if isinstance(coordinates, dict) else None
    if not sides:
        shown = show(coordinates)
        return damaged(f"coordinates {shown} are not the numbers x, y, width, height; correct them", label, identity)
    x, y, width, height = sides
    try:
        check_sides(width, height)
    except ValueError as error:
        return damaged(str(error), label, identity)
    return Box(label, x - width / 2, y - height / 2, x + width / 2, y + height / 2, identity)

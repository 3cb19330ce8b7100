"""Labelbox export: one data row per line, with labels that hold objects. Only boxes and polygons are read.

If a row has several labels, the first with an object counts, without those that were skipped; a row that has only
skipped ones is unlabelled. Source: docs.labelbox.com, "Export data".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.boxes import Box
from pipeline.errors import DataError
from pipeline.formats.lines import SUFFIXES, json_lines
from pipeline.formats.matching import Described, Wanted, complete
from pipeline.formats.outlines import Corners
from pipeline.formats.shapes import all_boxes, around_points, box_of, from_sides
from pipeline.formats.source import NoBox, Source
from pipeline.formats.splits import split_of
from pipeline.formats.tree import Tree
from pipeline.formats.values import declared_size, mapping

SIGN = re.compile(r'^\{.*"data_row"\s*:')
ANOTHER = "another label of the row: the first with an object counts"


def recognises(tree: Tree) -> bool:
    return any(SIGN.match(text.partition("\n")[0]) for text in tree.heads(SUFFIXES))


def read(folder: Path) -> Source:
    tree = Tree(folder)
    described: list[Described] = []
    for path in tree.files(SUFFIXES):
        if SIGN.match(tree.head(path).partition("\n")[0]):
            tree.taken.add(path)
            described += [image for line, row in json_lines(path) if (image := _image(tree, path, line, row))]
    return complete(tree, described)


def _image(tree: Tree, path: Path, line: int, row: Mapping[str, Any]) -> Described | None:
    data = mapping(row.get("data_row"))
    names = [data.get(key) for key in ("external_id", "row_data", "global_key")]
    name = next((text for text in names if isinstance(text, str) and text), "")
    if not name:
        raise DataError(f"{path}: line {line}: the data row has neither external_id nor row_data; give its file name")
    labels = _labels(row)
    if not labels:
        return None
    boxes: list[Box] = []
    for label in labels:
        objects = mapping(label.get("annotations")).get("objects")
        make = partial(_box, ignore=ANOTHER if boxes else "")
        boxes += all_boxes(objects if isinstance(objects, list) else (), f"line {line}, object", "an object", make)
    size = mapping(row.get("media_attributes"))
    split = _split(row) or tree.split_by(path)
    declared = declared_size(size.get("width"), size.get("height"))
    return Described(Wanted(name, tree.homes(path), split, path), boxes, declared)


def _labels(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the labels that nobody skipped."""
    label_lists = [mapping(project).get("labels") for project in mapping(row.get("projects")).values()]
    labels = [label for labels in label_lists if isinstance(labels, list) for label in labels]
    return [
        label
        for label in labels
        if isinstance(label, Mapping) and not mapping(label.get("performance_details")).get("skipped")
    ]


def _split(row: Mapping[str, Any]) -> str | None:
    split = mapping(row.get("data_row_details")).get("split")
    return split_of(split) if isinstance(split, str) else None


def _box(value: Mapping[str, Any], identity: str, ignore: str) -> Box:
    has_area = any(key in value for key in ("bounding_box", "polygon"))
    kind = next((key for key in ("mask", "composite_mask", "point", "line") if key in value), "")
    ignore = ignore or ("" if has_area or not kind else NoBox(f"a {kind}, not a box"))
    return box_of(value.get("name"), partial(_corners, value), identity, ignore)


def _corners(value: Mapping[str, Any]) -> Corners:
    if "bounding_box" in value:
        return from_sides(value["bounding_box"], "left", "top", "width", "height")
    if "polygon" in value:
        return around_points(value["polygon"])
    raise ValueError("it has neither bounding_box nor polygon")

"""VGG Image Annotator (VIA 1 and 2): JSON of images and their regions or of a whole project, or CSV.

The class is a region's only attribute, or of several the first of class, label, name, type, category and object. If no
region has an attribute, every box gets the class `object`.
Source: the code of VIA 1 and 2, www.robots.ox.ac.uk/~vgg/software/via.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.boxes import Box
from pipeline.errors import DataError, counted
from pipeline.formats.matching import Described, Wanted, complete
from pipeline.formats.outlines import Corners
from pipeline.formats.shapes import (
    all_boxes,
    around_ellipse,
    around_points,
    box_of,
    check_rotation,
    from_sides,
    sides_of,
)
from pipeline.formats.source import NoBox, Source, damaged
from pipeline.formats.table import NO_CLASS
from pipeline.formats.text import RAGGED, columns, read_text, records, show
from pipeline.formats.tree import Tree
from pipeline.formats.values import read_json

SIGNS = re.compile(
    r'"_via_img_metadata"|"regions"\s*:\s*[\[{].*"shape_attributes"|"filename"\s*:.*"regions"\s*:', re.DOTALL
)
SHAPE, ATTRIBUTES = "region_shape_attributes", "region_attributes"
CLASS_KEYS = ("class", "label", "name", "type", "category", "object")
BARE = "\n"  # stands for the class of regions without attributes; no class has this name
NO_NAME = "class is None; name it"
A_LINE = NoBox("a line: it has no area")
NO_AREA = {"point": NoBox("a point: it has no area"), "polyline": A_LINE, "line": A_LINE}


def recognises(tree: Tree) -> bool:
    tables = (columns(text)[0] for text in tree.heads({".csv"}))
    return tree.holds_json("{", SIGNS) or any(SHAPE in names for names in tables)


def read(folder: Path) -> Source:
    tree = Tree(folder)
    described: list[Described] = []
    for path in tree.files({".json"}):
        data = read_json(path)
        data = data.get("_via_img_metadata", data) if isinstance(data, dict) else None
        if isinstance(data, dict) and any(isinstance(image, dict) and "regions" in image for image in data.values()):
            described += [_image(tree, path, image) for image in data.values()]
            tree.taken.add(path)
    for path in tree.files({".csv"}):
        text = read_text(path)
        if SHAPE in columns(text)[0]:
            described += _read_table(tree, path, text)
            tree.taken.add(path)
    return complete(tree, _with_classes(tree, described))


def _with_classes(tree: Tree, described: list[Described]) -> list[Described]:
    """Name the class of the regions without attributes: `object` if no region has any; else they are damaged."""
    labels = {box.label for image in described for box in image.boxes}
    if BARE not in labels:
        return described
    if is_bare := labels == {BARE}:
        tree.notes.append(f"no region has an attribute for its class, so every box gets the class {NO_CLASS!r}")

    def named(box: Box) -> Box:
        if box.label != BARE:
            return box
        return box._replace(label=NO_CLASS) if is_bare else damaged(box.damage or NO_NAME, "", box.id, box.ignore)

    return [image._replace(boxes=list(map(named, image.boxes))) for image in described]


def _wanted(tree: Tree, path: Path, name: str) -> Wanted:
    return Wanted(name, tree.homes(path), tree.split_by(path), path)


def _image(tree: Tree, path: Path, image: Any) -> Described:
    name = image.get("filename") if isinstance(image, dict) else None
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: an image has the filename {show(name)}; give its file name")
    regions = image.get("regions")
    regions = list(regions.values()) if isinstance(regions, dict) else regions
    if not isinstance(regions, list):
        raise DataError(f"{path}: the regions of {show(name)} are not a list, so this is not VIA; export it again")
    return Described(_wanted(tree, path, name), all_boxes(regions, f"{name}, region", "a region", _region))


def _region(region: Mapping[str, Any], identity: str) -> Box:
    shape = region.get("shape_attributes")
    kind = str(shape.get("name", "")) if isinstance(shape, dict) else ""
    attributes = region.get("region_attributes")
    if not attributes:
        return box_of(NO_CLASS, partial(_corners, kind, shape), identity, NO_AREA.get(kind, ""))._replace(label=BARE)
    try:
        label = _class(attributes)
    except ValueError as error:
        return damaged(str(error), id=identity, ignore=NO_AREA.get(kind, ""))
    return box_of(label, partial(_corners, kind, shape), identity, NO_AREA.get(kind, ""))


def _class(attributes: Any) -> Any:
    """Return the class of a region. Raises ValueError if its attributes do not tell which one it is."""
    if not isinstance(attributes, Mapping):
        return None
    by_name = {str(key).lower(): value for key, value in attributes.items()}
    known = [key for key in CLASS_KEYS if key in by_name] or list(by_name)
    if len(known) > 1 and known[0] not in CLASS_KEYS:
        raise ValueError(f"class could be {show(', '.join(map(str, attributes)))}; name the attribute `class`")
    value = by_name[known[0]] if known else None
    if isinstance(value, Mapping):  # one checkbox per class
        ticked = [key for key, is_ticked in value.items() if is_ticked]
        if len(ticked) > 1:
            raise ValueError(f"{counted(len(ticked), 'class', 'classes')} are ticked; keep one")
        return ticked[0] if ticked else None
    return value


def _corners(kind: str, shape: Any) -> Corners:
    if kind == "rect":
        return from_sides(shape, "x", "y", "width", "height")
    if kind == "circle":
        cx, cy, radius = sides_of(shape, "cx", "cy", "r")
        return around_ellipse(cx, cy, radius, radius)
    if kind == "ellipse":
        cx, cy, rx, ry, theta = sides_of({"theta": 0, **shape}, "cx", "cy", "rx", "ry", "theta")
        return around_ellipse(cx, cy, rx, ry, check_rotation(math.degrees(theta)))
    if kind == "polygon":
        xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            raise ValueError(f"a polygon of {show(xs)} and {show(ys)}")
        return around_points([[x, y] for x, y in zip(xs, ys, strict=True)])
    raise ValueError(f"{show(kind)} is not a supported shape")


def _read_table(tree: Tree, path: Path, text: str) -> list[Described]:
    names, delimiter = columns(text)
    first = next((name for name in names if name.lstrip("#") == "filename"), "")
    if not first or ATTRIBUTES not in names:
        raise DataError(f"{path}: no column for filename or {ATTRIBUTES}, so this is not VIA; export it again")
    boxes_of: dict[str, list[Box]] = {}
    for number, record in records(path, text, names, delimiter):
        if not record[first]:
            raise DataError(f"{path}: line {number}: no image; give its file name")
        boxes = boxes_of.setdefault(record[first], [])
        if RAGGED in record:
            boxes.append(damaged(record[RAGGED], BARE, f"line {number}"))
            continue
        try:
            shape, attributes = (json.loads(record[column] or "{}") for column in (SHAPE, ATTRIBUTES))
        except (ValueError, RecursionError):
            boxes.append(damaged("a region that is not JSON; correct it", BARE, f"line {number}"))
            continue
        if shape or attributes:  # else the row of an image without regions
            boxes.append(_region({"shape_attributes": shape, "region_attributes": attributes}, f"line {number}"))
    return [Described(_wanted(tree, path, name), boxes) for name, boxes in boxes_of.items()]

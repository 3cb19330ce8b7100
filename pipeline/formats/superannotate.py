"""SuperAnnotate: one `IMAGE.json` or `IMAGE___objects.json` per image, with `metadata` and `instances`.

An image without instances whose status is NotStarted or Skipped counts as unlabelled. Source: SuperAnnotate's
documentation, "Vector JSON".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.boxes import Box
from pipeline.errors import DataError
from pipeline.formats.matching import Described, Wanted, complete
from pipeline.formats.outlines import Corners
from pipeline.formats.shapes import all_boxes, around_ellipse, around_points, box_of, sides_of
from pipeline.formats.source import NoBox, Source
from pipeline.formats.splits import folder_split
from pipeline.formats.text import show
from pipeline.formats.tree import Tree
from pipeline.formats.values import declared_size, mapping, read_json

SIGNS = (re.compile(r'"metadata"\s*:\s*\{'), re.compile(r'"instances"\s*:\s*\['))
ENDS = ("___objects", "___pixel")
NO_BOXES = {
    **{kind: NoBox(f"a {kind}, not a box") for kind in ("point", "polyline", "template", "cuboid")},
    **{kind: f"a {kind}, not a box" for kind in ("comment", "tag")},
}


def recognises(tree: Tree) -> bool:
    return tree.holds_json("{", *SIGNS)


def read(folder: Path) -> Source:
    tree = Tree(folder)
    described: list[Described] = []
    for path in tree.files({".json"}):
        data = read_json(path)
        if isinstance(data, dict) and {"metadata", "instances"} <= data.keys() and (image := _image(tree, path, data)):
            described.append(image)
        if path.parent.name == "classes":
            tree.taken.add(path)
    return complete(tree, described)


def _image(tree: Tree, path: Path, data: Mapping[str, Any]) -> Described | None:
    metadata, instances = mapping(data["metadata"]), data["instances"]
    if not isinstance(instances, list):
        raise DataError(f"{path}: `instances` is not a list, so this is not SuperAnnotate; export it again")
    if not instances and metadata.get("status") in ("NotStarted", "Skipped"):
        return None
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        name = next((path.stem.removesuffix(end) for end in ENDS if path.stem.endswith(end)), path.stem)
    boxes = all_boxes(instances, "instance", "an instance", _box)
    size = declared_size(metadata.get("width"), metadata.get("height"))
    return Described(Wanted(name, tree.homes(path), folder_split(tree.folder, path), path), boxes, size)


def _box(value: Mapping[str, Any], identity: str) -> Box:
    kind = value.get("type")
    ignore = NO_BOXES.get(kind, "") if isinstance(kind, str) else ""
    return box_of(value.get("className"), partial(_corners, kind, value), identity, ignore)


def _corners(kind: Any, value: Mapping[str, Any]) -> Corners:
    points = value.get("points")
    if kind == "bbox":
        xmin, ymin, xmax, ymax = sides_of(points, "x1", "y1", "x2", "y2")
        return xmin, ymin, xmax, ymax
    if kind == "rbbox":
        return around_points(sides_of(points, "x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4"), 4)
    if kind == "polygon":
        return around_points(points)
    if kind == "ellipse":
        return around_ellipse(*sides_of(value, "cx", "cy", "rx", "ry", "angle"))
    raise ValueError(f"type {show(kind)} is not supported")

"""LabelMe JSON: one file per image, usually beside it; folder names give the splits.

Each shape gives the box around it. Shapes that share a label and `group_id` are parts of one object, as in LabelMe's
own converters: the first one gets the box around all of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.boxes import Box
from pipeline.errors import DataError, counted
from pipeline.formats.matching import Described, Wanted, labelled
from pipeline.formats.shapes import all_boxes
from pipeline.formats.source import NoBox, Source, damaged, source_of, with_the_rest
from pipeline.formats.splits import folder_split
from pipeline.formats.text import show
from pipeline.formats.tree import Tree
from pipeline.formats.values import class_name, declared_size, numbers, read_json

# `imageData` may come first and be megabytes of Base64.
SIGNS = re.compile(r'"(shapes|imageData|imagePath)"\s*:')
NOT_AN_AREA = {"point", "points", "line", "linestrip"}
# Shapes whose points lie on their outline. X-AnyLabeling writes "rotation" and "quadrilateral".
FEWEST_POINTS = {
    **dict.fromkeys(NOT_AN_AREA, 1),
    **dict.fromkeys(("rectangle", "mask"), 2),
    **dict.fromkeys(("polygon", "quadrilateral", "rotation", "oriented_rectangle"), 3),
}


def recognises(tree: Tree) -> bool:
    return tree.holds_json("{", SIGNS)


def read(folder: Path) -> Source:
    tree = Tree(folder)
    beside: dict[Path, list[Path]] = {}
    for image in tree.images():
        beside.setdefault(image.with_suffix(""), []).append(image)
    described, with_image = [], set()
    for path in tree.files({".json"}):
        data = read_json(path)
        if not isinstance(data, dict) or not ("shapes" in data or "imagePath" in data):
            continue  # some other JSON
        shapes = data.get("shapes")
        if not isinstance(shapes, list):
            raise DataError(f"{path}: `shapes` is not a list, so this is not LabelMe; export it again")
        image_path = path.name if _has_image(data) and not data.get("imagePath") else data.get("imagePath")
        name = _name(path, image_path, beside.get(path.with_suffix(""), []))
        boxes = all_boxes(shapes, "shape", "a shape", _box)
        _join_groups(shapes, boxes)
        size = declared_size(data.get("imageWidth"), data.get("imageHeight"))
        if _has_image(data):
            with_image.add(path)
        described.append(Described(Wanted(name, tree.homes(path), folder_split(folder, path), path), boxes, size))
    items = labelled(tree, described)
    # If the image exists only inside the JSON, `convert` extracts it from there.
    items = [
        item._replace(image=item.annotation)
        if item.annotation and item.annotation in with_image and not item.image.exists()
        else item
        for item in items
    ]
    return source_of(tree, with_the_rest(tree, items), None)


def _has_image(data: dict[str, Any]) -> bool:
    return isinstance(data.get("imageData"), str) and bool(data["imageData"])


def _name(path: Path, image_path: Any, beside: list[Path]) -> str:
    """Return the image beside the file with the same stem, else `imagePath`: people rename and move files."""
    name = image_path.replace("\\", "/") if isinstance(image_path, str) else ""
    beside = [image for image in beside if image.name == name.rpartition("/")[2]] or beside
    if len(beside) > 1:
        raise DataError(f"{path}: matches both {beside[0].name} and {beside[1].name}; correct its imagePath")
    if beside:
        return beside[0].name
    if not name:
        raise DataError(
            f"{path}: no image of the same name beside it, and imagePath is {show(image_path)}; correct imagePath"
        )
    return name


def _box(shape: Mapping[str, Any], identity: str) -> Box:
    label, kind = class_name(shape.get("label")), shape.get("shape_type")
    if kind is None:
        kind = "polygon"  # LabelMe's default
    ignore = NoBox(f"{kind}: it has no area") if isinstance(kind, str) and kind in NOT_AN_AREA else ""
    if not label:
        return damaged(f"label is {show(shape.get('label'))}; name its class", "", identity, ignore)
    try:
        return Box(label, *_corners(shape.get("points"), kind), identity, ignore)
    except ValueError as error:
        return damaged(f"{error}; correct it", label, identity, ignore)


def _join_groups(shapes: list[Any], boxes: list[Box]) -> None:
    first: dict[tuple[str, int], int] = {}
    for index, (shape, box) in enumerate(zip(shapes, boxes, strict=True)):
        if box.damage or box.ignore or type(shape.get("group_id")) is not int:
            continue
        whole = first.setdefault((box.label, shape["group_id"]), index)
        if whole != index:
            boxes[index] = box._replace(ignore=f"part of {boxes[whole].id}, by its group_id")
            boxes[whole] = boxes[whole]._replace(
                xmin=min(boxes[whole].xmin, box.xmin),
                ymin=min(boxes[whole].ymin, box.ymin),
                xmax=max(boxes[whole].xmax, box.xmax),
                ymax=max(boxes[whole].ymax, box.ymax),
            )


def _corners(points: Any, kind: Any) -> tuple[float, float, float, float]:
    """Return the corners of the box around a shape. Raises ValueError with what is wrong with it."""
    pairs = isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points)
    sides = numbers([side for point in points for side in point]) if pairs else None
    if not sides or any(map(math.isnan, sides)):
        raise ValueError(f"points {show(points)} are not [[x, y], ...]")
    xs, ys = sides[0::2], sides[1::2]
    if kind == "circle":
        if len(points) != 2:
            raise ValueError(f"a circle with {counted(len(points), 'point')} instead of its centre and one on its edge")
        radius = math.hypot(xs[1] - xs[0], ys[1] - ys[0])
        return xs[0] - radius, ys[0] - radius, xs[0] + radius, ys[0] + radius
    if not isinstance(kind, str) or kind not in FEWEST_POINTS:
        raise ValueError(f"shape_type {show(kind)} is not supported")
    if len(points) < FEWEST_POINTS[kind]:
        raise ValueError(f"a {kind} with {counted(len(points), 'point')} instead of {FEWEST_POINTS[kind]} or more")
    return min(xs), min(ys), max(xs), max(ys)

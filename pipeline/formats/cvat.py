"""CVAT for images 1.1: one XML for many images, `<image name= width= height= subset=>` with shapes inside.

The export of a project has a `subset` for each image; elsewhere folders and file names give the splits.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree.ElementTree import Element

from pipeline.boxes import Box, Labelled
from pipeline.errors import DataError
from pipeline.formats.source import NAN, Source, Tree, damaged, files_under, folder_split, split_of, with_the_rest
from pipeline.formats.text import numbers, parse_xml, root_tag, size

Corners = tuple[float, float, float, float]

NO_BOXES = {
    "polyline": "a polyline: it encloses nothing",
    "points": "points: they enclose nothing",
    "tag": "a tag of the whole image",
    "skeleton": "a skeleton, not a box",
    "cuboid": "a cuboid, not a box",
}


def recognises(folder: Path) -> bool:
    return any(root_tag(xml) == "annotations" for xml in files_under(folder, {".xml"}))


def read(folder: Path) -> Source:
    tree = Tree(folder)
    labelled: list[Labelled] = []
    classes: dict[str, None] = {}  # an ordered set
    for xml in tree.files({".xml"}):
        root = parse_xml(xml)
        if root.tag != "annotations":
            raise DataError(f"{xml}: <{root.tag}> instead of <annotations>: not CVAT's; remove it from the source")
        if root.find("track") is not None:
            raise DataError(f'{xml}: holds a <track>: a video; export the task from CVAT as "CVAT for images 1.1"')
        classes.update(dict.fromkeys(_classes(root)))
        labelled += [_image(item, number, xml, tree) for number, item in enumerate(root.findall("image"), start=1)]
    used = {box.label for item in labelled for box in item.boxes if not box.ignore and not box.damage}
    classes.update(dict.fromkeys(sorted(used)))
    has_splits = any(item.split for item in labelled)
    return Source(with_the_rest(tree, labelled), tuple(classes), has_splits)


def _classes(root: Element) -> list[str]:
    """The labels of the task in its order, but for those that name no boxes: parts of skeletons, tags, lines."""
    labels = root.iterfind("meta//label")
    names = [label.findtext("name", "").strip() for label in labels if label.findtext("type", "") not in NO_BOXES]
    return [name for name in names if name]


def _image(item: Element, number: int, xml: Path, tree: Tree) -> Labelled:
    name = item.get("name", "")
    if not name:
        raise DataError(f"{xml}: image {number} has no name; name its file")
    subset = item.get("subset", "")
    own, *others = tree.homes(xml)
    folders = name.replace("\\", "/").split("/")[:-1]
    said = [split_of(subset), *map(split_of, reversed(folders)), split_of(xml.stem), folder_split(tree.folder, xml)]
    split = next(filter(None, said), None)
    homes = [posixpath.normpath(f"{own}/images"), posixpath.normpath(f"{own}/images/{subset}")]
    image = tree.find(name, [own, *homes, *others], split, xml)
    boxes = tuple(_box(shape, f"{name}, shape {index}") for index, shape in enumerate(item, start=1))
    declared = size(item.get("width"), item.get("height"))
    return Labelled(image, boxes, xml, declared, split or folder_split(tree.folder, image))


def _box(shape: Element, identity: str) -> Box:
    label = shape.get("label", "").strip()
    if shape.tag in NO_BOXES:
        return Box(label, NAN, NAN, NAN, NAN, identity, ignore=NO_BOXES[shape.tag])
    if shape.tag not in CORNERS_OF:
        return damaged(f"<{shape.tag[:40]}> is not a shape of CVAT 1.1", label, identity)
    if not label:
        return damaged(f"a {shape.tag} without a label", id=identity)
    try:
        xmin, ymin, xmax, ymax = CORNERS_OF[shape.tag](shape)
    except ValueError as error:
        return damaged(str(error), label, identity)
    return Box(label, xmin, ymin, xmax, ymax, identity)


def _attributes(shape: Element, *names: str) -> list[float]:
    return numbers({name: shape.get(name) for name in names})


def _of_box(shape: Element) -> Corners:
    xmin, ymin, xmax, ymax = _attributes(shape, "xtl", "ytl", "xbr", "ybr")
    turn = _rotation(shape)
    if not turn:
        return xmin, ymin, xmax, ymax
    cos, sin, width, height = abs(math.cos(turn)), abs(math.sin(turn)), xmax - xmin, ymax - ymin
    return _around(
        (xmin + xmax) / 2, (ymin + ymax) / 2, (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    )


def _of_ellipse(shape: Element) -> Corners:
    cx, cy, rx, ry = _attributes(shape, "cx", "cy", "rx", "ry")
    cos, sin = math.cos(_rotation(shape)), math.sin(_rotation(shape))
    # Where x(t) = rx cos t cos a - ry sin t sin a is largest; y(t) likewise.
    return _around(cx, cy, math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos))


def _rotation(shape: Element) -> float:
    (degrees,) = numbers({"rotation": shape.get("rotation", "0")})
    if not math.isfinite(degrees):
        raise ValueError(f"rotation is {degrees}")
    return math.radians(degrees)


def _around(cx: float, cy: float, half_width: float, half_height: float) -> Corners:
    return cx - half_width, cy - half_height, cx + half_width, cy + half_height


def _of_polygon(shape: Element) -> Corners:
    points = [point.split(",") for point in shape.get("points", "").split(";")]
    if len(points) < 3 or any(len(point) != 2 for point in points):
        raise ValueError("points are not three or more x,y")
    xs = [numbers({"a point's x": x})[0] for x, _ in points]
    ys = [numbers({"a point's y": y})[0] for _, y in points]
    if not all(map(math.isfinite, [*xs, *ys])):
        raise ValueError("points are not finite numbers")
    return min(xs), min(ys), max(xs), max(ys)


def _of_mask(shape: Element) -> Corners:
    left, top, width, height = _attributes(shape, "left", "top", "width", "height")
    return left, top, left + width, top + height


CORNERS_OF: Mapping[str, Callable[[Element], Corners]] = {
    "box": _of_box,
    "polygon": _of_polygon,
    "ellipse": _of_ellipse,
    "mask": _of_mask,
}

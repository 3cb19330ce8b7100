"""Datumaro JSON: items in `annotations/SUBSET.json`, each with its image and annotations; images in `images/SUBSET/`.

Source: the exporter's code, datumaro/plugins/data_formats/datumaro.
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
from pipeline.formats.outlines import Corners, around
from pipeline.formats.shapes import all_boxes, around_points, box_of, from_list, turned
from pipeline.formats.source import NoBox, Source
from pipeline.formats.text import show
from pipeline.formats.tree import Tree
from pipeline.formats.values import class_name, declared_size, mapping, read_json

SIGN = re.compile(r'"(items|categories)"\s*:.*"(label|labels|items|label_cat)"\s*:', re.DOTALL)
ITEMS = re.compile(r'"items"\s*:\s*\[|"dm_format_version"|"categories"\s*:\s*\{\s*"label"')
OF_IMAGE = ("label", "caption", "feature_vector")
NO_BOXES = ("points", "polyline", "cuboid_3d", "cuboid_2d", "skeleton")
CROWD = NoBox("is_crowd: a region of many objects")


def recognises(tree: Tree) -> bool:
    return tree.holds_json("{", SIGN, ITEMS)


def read(folder: Path) -> Source:
    tree = Tree(folder)
    described: list[Described] = []
    classes: dict[str, None] = {}
    for path in tree.files({".json"}):
        data = read_json(path)
        if not isinstance(data, dict) or not {"items", "categories"} <= data.keys():
            continue
        tree.taken.add(path)
        if not isinstance(data["items"], list):
            raise DataError(f"{path}: `items` is not a list, so this is not Datumaro; export it again")
        names = _classes(path, data["categories"])
        classes.update(dict.fromkeys(names))
        described += [_image(tree, path, item, names) for item in data["items"]]
    return complete(tree, described, tuple(classes))


def _classes(path: Path, categories: Any) -> list[str]:
    labels = mapping(mapping(categories).get("label")).get("labels")
    names = [class_name(mapping(label).get("name", label)) for label in labels] if isinstance(labels, list) else []
    if not names or not all(names):
        raise DataError(
            f"{path}: `categories` has no label with a list of names, so this is not Datumaro; export it again"
        )
    return names


def _image(tree: Tree, path: Path, item: Any, names: list[str]) -> Described:
    identity = item.get("id") if isinstance(item, Mapping) else None
    if not isinstance(item, Mapping) or not isinstance(identity, str) or not isinstance(item.get("annotations"), list):
        raise DataError(
            f"{path}: the item with the id {show(identity)} needs a text id and a list of annotations; correct it"
        )
    image = mapping(item.get("image"))
    image_path, size = image.get("path"), image.get("size")
    name = image_path if isinstance(image_path, str) and image_path else identity
    height, width = size if isinstance(size, list) and len(size) == 2 else (None, None)
    boxes = all_boxes(item["annotations"], f"{identity},", "an annotation", partial(_box, names))
    homes = [f"images/{path.stem}", *tree.homes(path)]
    split = tree.split_by(path)
    return Described(Wanted(name, homes, split, path), boxes, declared_size(width, height))


def _box(names: list[str], value: Mapping[str, Any], identity: str) -> Box:
    kind, number = value.get("type"), value.get("label_id")
    label = names[number] if type(number) is int and 0 <= number < len(names) else None
    crowd = mapping(value.get("attributes")).get("is_crowd") is True
    if kind in OF_IMAGE:
        ignore = f"a {kind} of the whole image"
    else:
        ignore = NoBox(f"a {kind}, not a box") if kind in NO_BOXES else CROWD if crowd else ""
    return box_of(label, partial(_corners, kind, value), identity, ignore)


def _corners(kind: Any, value: Mapping[str, Any]) -> Corners:
    if kind == "bbox":
        return turned(from_list(value.get("bbox")), mapping(value.get("attributes")).get("rotation"))
    if kind == "polygon":
        return around_points(value.get("points"))
    if kind == "mask":
        return around(value.get("rle"), None)
    raise ValueError(f"type {show(kind)} is not supported")

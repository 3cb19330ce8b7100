"""Supervisely: `ann/IMAGE.json` beside `img/IMAGE`, one folder per dataset; `meta.json` has the classes.

Source: the documentation of the annotation format, docs.supervisely.com.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.boxes import Box
from pipeline.errors import DataError
from pipeline.formats.matching import Described, Wanted, complete
from pipeline.formats.outlines import Corners
from pipeline.formats.shapes import all_boxes, around_points, box_of
from pipeline.formats.source import NoBox, Source
from pipeline.formats.splits import folder_split
from pipeline.formats.text import show
from pipeline.formats.tree import Tree
from pipeline.formats.values import class_name, declared_size, mapping, numbers, read_json

SIGN = re.compile(r'"objects"\s*:\s*\[')
SIZE = re.compile(r'"size"\s*:\s*\{')
NO_BOXES = {kind: NoBox(f"a {kind}, not a box") for kind in ("point", "line", "graph", "cuboid", "any")}
MOST_BYTES = 1 << 28  # to decompress of a mask, as a limit for zip bombs


def recognises(tree: Tree) -> bool:
    return tree.holds_json("{", SIGN, SIZE)


def read(folder: Path) -> Source:
    tree = Tree(folder)
    described: list[Described] = []
    classes: dict[str, None] = {}
    for path in tree.files({".json"}):
        data = read_json(path)
        if path.name == "meta.json" and isinstance(data, dict) and isinstance(data.get("classes"), list):
            titles = (class_name(item.get("title")) for item in data["classes"] if isinstance(item, dict))
            classes.update(dict.fromkeys(filter(None, titles)))
            tree.taken.add(path)
        if not isinstance(data, dict) or not {"size", "objects"} <= data.keys():
            continue
        if not isinstance(data["objects"], list):
            raise DataError(f"{path}: `objects` is not a list, so this is not Supervisely; export it again")
        boxes = all_boxes(data["objects"], "object", "an object", _box)
        home = path.parent.relative_to(folder).as_posix()
        homes = [f"{home.removesuffix('ann')}img", home]
        wanted = Wanted(path.stem, homes, folder_split(folder, path), path)
        size = mapping(data["size"])
        described.append(Described(wanted, boxes, declared_size(size.get("width"), size.get("height"))))
    used = sorted({box.label for image in described for box in image.boxes if box.label and not box.ignore})
    return complete(tree, described, tuple(dict.fromkeys([*classes, *used])))


def _box(value: Mapping[str, Any], identity: str) -> Box:
    kind = value.get("geometryType")
    ignore = NO_BOXES.get(kind, "") if isinstance(kind, str) else ""
    return box_of(value.get("classTitle"), partial(_corners, kind, value), identity, ignore)


def _corners(kind: Any, value: Mapping[str, Any]) -> Corners:
    if kind == "bitmap":
        return _of_mask(value.get("bitmap"))
    points = value.get("points")
    exterior = points.get("exterior") if isinstance(points, Mapping) else None
    if kind not in ("rectangle", "polygon"):
        raise ValueError(f"geometryType {show(kind)} is not supported")
    return around_points(exterior, 2 if kind == "rectangle" else 3)


def _of_mask(bitmap: Any) -> Corners:
    """Return the box around a mask: a zlib-compressed PNG in Base64 whose upper left corner is at `origin`."""
    origin = numbers(corner) if isinstance(corner := mapping(bitmap).get("origin"), list) else None
    try:
        if origin is None or len(origin) != 2:
            raise ValueError
        packed = base64.b64decode(bitmap["data"], validate=True)
        data = zlib.decompressobj().decompress(packed, MOST_BYTES)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            frame = (image.getchannel("A") if image.mode == "RGBA" else image.convert("L")).getbbox()
    except (KeyError, TypeError, ValueError, OSError, zlib.error, binascii.Error, Image.DecompressionBombError):
        raise ValueError("a bitmap that cannot be read") from None
    if frame is None:
        raise ValueError("its bitmap has no pixel")
    x, y = origin
    return x + frame[0], y + frame[1], x + frame[2], y + frame[3]

"""The box of each COCO annotation, and the keys by which annotations refer to images and categories.

CVAT writes `iscrowd` 1 for every mask, and an unturned `bbox` with `attributes.rotation` for a turned rectangle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.boxes import Box
from pipeline.formats.outlines import Corners, Size, around
from pipeline.formats.shapes import from_list, turned
from pipeline.formats.source import NoBox, damaged
from pipeline.formats.text import show
from pipeline.formats.values import NUMBERS, mapping

CROWD = NoBox("iscrowd: a region of many objects, not a box of one")
LEFT_OUT = "ignore: marked so in the source"
FAR = 1e9  # pixels; smaller coordinates cannot overflow


def key(value: Any) -> int | str | None:
    """Return the key of an id: 7, 7.0 and "7" are the same. None for a value that cannot be an id."""
    kind = type(value)
    if kind is int:
        return int(value)
    if kind is float:
        return int(value) if value.is_integer() else None
    if kind is not str or not value or not value.isprintable():
        return None
    plain = value.isascii() and value.isdigit() and len(value) < 20 and (value[0] != "0" or value == "0")
    return int(value) if plain else str(value)


def box_of(record: Mapping[str, Any], identity: str, names: Mapping[int | str, str], size: Size | None) -> Box:
    """Return the box of an annotation; `names` has the categories, `size` is the declared size of the image."""
    return _plain(record, identity, names) or _any(record, identity, names, size)


def orphan(record: Mapping[str, Any], identity: str, names: Mapping[int | str, str]) -> Box:
    """Return the box of an annotation whose image is not listed."""
    reason = f"belongs to image {show(record.get('image_id'))}, which is not in `images`"
    return damaged(reason, _label(record, names), identity)


def masks_of_cvat(annotations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all annotations with a mask if the file is CVAT's, whose masks are single objects; else none."""
    masks = [record for record in annotations if isinstance(record.get("segmentation"), dict)]
    is_cvats = all(
        record.get("iscrowd") == 1
        and "occluded" in mapping(record.get("attributes"))  # CVAT always says so; crowds of COCO have no attributes
        and isinstance(record["segmentation"].get("counts"), list)
        for record in masks
    )
    return masks if is_cvats else []


def _label(record: Mapping[str, Any], names: Mapping[int | str, str]) -> str:
    category = key(record.get("category_id"))
    return "" if category is None else names.get(category, "")


def _any(record: Mapping[str, Any], identity: str, names: Mapping[int | str, str], size: Size | None) -> Box:
    ignore = CROWD if record.get("iscrowd") in (1, "1") else LEFT_OUT if record.get("ignore") in (1, "1") else ""
    label = _label(record, names)
    try:
        if not label:
            raise ValueError(f"category {show(record.get('category_id'))} is not in `categories`")
        return Box(label, *_corners(record, size), identity, ignore)
    except ValueError as error:
        return damaged(f"{error}; correct it", label, identity, ignore)


def _plain(record: Mapping[str, Any], identity: str, names: Mapping[int | str, str]) -> Box | None:
    """Return the box of an ordinary annotation: a known category and four numbers. None for all others."""
    try:
        category, (x, y, width, height) = record["category_id"], record["bbox"]
        is_plain = (
            type(category) is int  # not a bool: as a key, True equals 1
            and (type(x) in NUMBERS and type(y) in NUMBERS and type(width) in NUMBERS and type(height) in NUMBERS)
            and (-FAR < x < FAR and -FAR < y < FAR and 0 <= width < FAR and 0 <= height < FAR)
            and not record.get("iscrowd")
            and not record.get("ignore")
            and not record.get("attributes")
        )
        if is_plain:
            return Box(names[category], float(x), float(y), float(x + width), float(y + height), identity)
    except (KeyError, TypeError, ValueError):
        pass
    return None


def _corners(record: Mapping[str, Any], size: Size | None) -> Corners:
    """Return the corners of an annotation. Raises ValueError with what is wrong with it."""
    bbox, outline = record.get("bbox"), record.get("segmentation")
    if not bbox:
        return around(outline, size)
    # An outline is turned already.
    return from_list(bbox) if outline else turned(from_list(bbox), mapping(record.get("attributes")).get("rotation"))

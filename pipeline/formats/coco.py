"""COCO JSON: one file a split, told apart by name (`instances_val2017.json`, `valid/_annotations.coco.json`).

Boxes are `[x, y, width, height]` in pixels. Ids may be sparse, start at 0, or be text: they are looked
up, never computed with. Where an annotation has an outline and no box, the box is the one around it.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.boxes import Box, Labelled
from pipeline.errors import DataError
from pipeline.formats.source import Source, Tree, damaged, folder_split, head, show, split_of, with_the_rest
from pipeline.formats.values import NUMBERS, class_name, declared_size, numbers, read_json

CROWD = "iscrowd: a region of many objects, not a box of one"
LEFT_OUT = "ignore: marked so in the source"
# What no other JSON format has. `"categories": [` may lie beyond megabytes of annotations.
SIGNS = re.compile(r'"images"\s*:\s*\[|"categories"\s*:\s*\[\s*\{|"category_id"\s*:')

FAR = 1e9  # pixels: below, nothing overflows

Corners = tuple[float, float, float, float]
Size = tuple[int, int]


def recognises(folder: Path) -> bool:
    return any(text.startswith("{") and SIGNS.search(text) for text in map(head, Tree(folder).files({".json"})))


def read(folder: Path) -> Source:
    tree = Tree(folder)
    described: list[Labelled] = []
    classes: dict[str, None] = {}  # an ordered set
    parents: set[str] = set()
    for path in tree.files({".json"}):
        data = read_json(path)
        if not isinstance(data, dict) or not ("images" in data or {"annotations", "categories"} <= data.keys()):
            continue  # some other JSON: a licence list, a notebook's state
        names, of_others = _categories(path, data)
        classes.update(dict.fromkeys(names.values()))
        parents |= of_others
        described += _read_file(tree, path, data, names)
    parents -= {box.label for item in described for box in item.boxes}
    has_splits = any(item.split for item in described)
    return Source(with_the_rest(tree, described), tuple(name for name in classes if name not in parents), has_splits)


def _read_file(tree: Tree, path: Path, data: dict[str, Any], names: dict[int | str, str]) -> list[Labelled]:
    images, annotations = _records(path, data, "images"), _records(path, data, "annotations")
    sizes: dict[int | str, Size | None] = {}
    for record in images:
        identity = _key(record.get("id"))
        if identity is None:
            raise DataError(f"{path}: image with the id {show(record.get('id'))}; give every image a number")
        if identity in sizes:
            raise DataError(f"{path}: image id {identity} twice; give every image its own id")
        sizes[identity] = declared_size(record.get("width"), record.get("height"))
    boxes: dict[int | str, list[Box]] = {identity: [] for identity in sizes}
    for number, record in enumerate(annotations, start=1):
        image_id, known = record.get("image_id"), record.get("id")
        if type(image_id) is not int:
            image_id = _key(image_id)
        if type(known) is not int:
            known = _key(known)
        identity = f"number {number}" if known is None else str(known)
        if image_id is None or image_id not in boxes:
            raise DataError(
                f"{path}: annotation {identity} is of image {show(record.get('image_id'))}, "
                "which is not in `images`; remove it"
            )
        box = _plain_box(record, identity, names) or _box(record, identity, names, sizes[image_id])
        boxes[image_id].append(box)
    split, homes = split_of(path.stem) or folder_split(tree.folder, path), tree.homes(path)
    labelled = []
    for record, (identity, size) in zip(images, sizes.items(), strict=True):
        name = record.get("file_name")
        if not isinstance(name, str) or not name:
            raise DataError(f"{path}: image {identity} has the file_name {show(name)}; name its file")
        image = tree.find(name, homes, split, path)
        labelled.append(Labelled(image, tuple(boxes[identity]), path, size, split or folder_split(tree.folder, image)))
    return labelled


def _records(path: Path, data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    records = data.get(key)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{path}: `{key}` is not a list of objects; it is not COCO as it stands")
    return records


def _key(value: Any) -> int | str | None:
    """An id as it is looked up: 7, 7.0 and "7" are one. None for what can be no id."""
    kind = type(value)
    if kind is int:
        return int(value)
    if kind is float:
        return int(value) if value.is_integer() else None
    if kind is not str or not value or not value.isprintable():
        return None
    plain = value.isascii() and value.isdigit() and len(value) < 20 and (value[0] != "0" or value == "0")
    return int(value) if plain else str(value)


def _categories(path: Path, data: dict[str, Any]) -> tuple[dict[int | str, str], set[str]]:
    """Category names by id in the order of the ids, which is the order of the class ids that we give.

    Roboflow puts a parent of all categories before them, of which there are no objects: it comes second,
    for whoever knows all annotations. It may bear the name of its only child.
    """
    records = _records(path, data, "categories")
    above = Counter(class_name(record.get("supercategory")) for record in records)
    names: dict[int | str, str] = {}
    parents: dict[int | str, str] = {}
    known: set[str] = set()
    for record in records:
        identity, name = _key(record.get("id")), class_name(record.get("name"))
        if identity is None:
            raise DataError(f"{path}: category with the id {show(record.get('id'))}; give every category a number")
        if not name:
            raise DataError(f"{path}: category {identity} has the name {show(record.get('name'))}; names are text")
        if identity in names or identity in parents:
            raise DataError(f"{path}: category {name!r} (id {identity}) twice; keep one")
        if len(records) > 1 and above[name] - (class_name(record.get("supercategory")) == name) == len(records) - 1:
            parents[identity] = name
            continue
        if name in known:
            raise DataError(f"{path}: category {name!r} (id {identity}) twice; keep one")
        names[identity] = name
        known.add(name)
    ordered = sorted((names | parents).items(), key=lambda pair: (isinstance(pair[0], str), pair[0]))
    return dict(ordered), set(parents.values()) - known


def _box(record: dict[str, Any], identity: str, names: dict[int | str, str], size: Size | None) -> Box:
    ignore = CROWD if record.get("iscrowd") in (1, "1") else LEFT_OUT if record.get("ignore") in (1, "1") else ""
    category = _key(record.get("category_id"))
    label = "" if category is None else names.get(category, "")
    try:
        if not label:
            raise ValueError(f"category {show(record.get('category_id'))} is not in `categories`")
        return Box(label, *_corners(record, size), identity, ignore)
    except ValueError as error:
        return damaged(f"{error}; correct it", label, identity, ignore)


def _plain_box(record: dict[str, Any], identity: str, names: dict[int | str, str]) -> Box | None:
    """The box of an annotation as nearly all are: a known category, four ordinary numbers, nothing special."""
    try:
        category, (x, y, width, height) = record["category_id"], record["bbox"]
        is_plain = (
            type(category) is int  # true is 1 to a dict
            and (type(x) in NUMBERS and type(y) in NUMBERS and type(width) in NUMBERS and type(height) in NUMBERS)
            and (-FAR < x < FAR and -FAR < y < FAR and -FAR < width < FAR and -FAR < height < FAR)
            and not record.get("iscrowd")
            and not record.get("ignore")
        )
        if is_plain:
            return Box(names[category], float(x), float(y), float(x + width), float(y + height), identity)
    except (KeyError, TypeError, ValueError):
        pass
    return None


def _corners(record: dict[str, Any], size: Size | None) -> Corners:
    """Raises ValueError that says what is wrong with the annotation."""
    bbox = record.get("bbox")
    if not bbox:
        return _around(record.get("segmentation"), size)
    sides = numbers(bbox) if isinstance(bbox, list) and len(bbox) == 4 else None
    if not sides:
        raise ValueError(f"bbox {show(bbox)} is not [x, y, width, height]")
    x, y, width, height = sides
    return x, y, x + width, y + height


def _around(outline: Any, size: Size | None) -> Corners:
    """The corners of the box around a segmentation: polygons `[[x, y, x, y, ...], ...]`, or runs of a mask."""
    if isinstance(outline, dict):
        return _around_runs(outline, size)
    if not isinstance(outline, list) or not outline:
        raise ValueError(f"no bbox, and the segmentation is {show(outline)}")
    polygons = outline if isinstance(outline[0], list) else [outline]
    xs: list[float] = []
    ys: list[float] = []
    for polygon in polygons:
        sides = numbers(polygon) if isinstance(polygon, list) else None
        if not sides or any(map(math.isnan, sides)):
            raise ValueError(f"no bbox, and a polygon is not a list of numbers: {show(polygon)}")
        if len(sides) < 6 or len(sides) % 2:
            raise ValueError(f"no bbox, and a polygon has {len(sides)} numbers; three points have 6")
        xs += sides[0::2]
        ys += sides[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _around_runs(rle: dict[str, Any], size: Size | None) -> Corners:
    """The corners of the box around a mask as COCO's run lengths, a list or compressed text.

    The library that reads them is only given what adds up: some of its versions crash on anything else.
    """
    from faster_coco_eval import mask_api_new_cpp as masks  # late: it brings OpenCV

    sides, counts = rle.get("size"), rle.get("counts")
    height, width = sides if isinstance(sides, list) and len(sides) == 2 else (None, None)
    mask_size = declared_size(width, height)
    if mask_size is None:
        raise ValueError(f"no bbox, and the size of its mask is {show(sides)}")
    width, height = mask_size
    if size not in (None, mask_size):
        raise ValueError(f"no bbox, and its mask is {width}x{height}, the image is not")
    if isinstance(counts, str):
        try:
            counts = masks.toUncompressedRLE([{"size": [height, width], "counts": counts}])[0]["counts"]
        except (RuntimeError, TypeError, ValueError):
            raise ValueError("no bbox, and its mask is not COCO's compressed text") from None
    if not isinstance(counts, list) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("no bbox, and the counts of its mask are not whole numbers")
    if sum(counts) != width * height:
        raise ValueError(f"no bbox, and the counts of its mask add up to {show(sum(counts))}, not to {width}x{height}")
    (packed,) = masks.frUncompressedRLE([{"size": [height, width], "counts": counts}])
    ((x, y, across, down),) = masks.toBbox([packed])
    return float(x), float(y), float(x + across), float(y + down)


def write(path: Path, items: Iterable[tuple[str, Size, Sequence[Box]]], names: Sequence[str]) -> None:
    """COCO JSON of images given as (file name, (width, height), boxes). Category ids count from 1, as COCO's do."""
    category = {name: number for number, name in enumerate(names, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (file_name, (width, height), boxes) in enumerate(items, start=1):
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for box in boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category[box.label],
                    "bbox": [box.xmin, box.ymin, box.width, box.height],
                    "area": box.width * box.height,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name, "supercategory": ""} for name, number in category.items()]
    data = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")

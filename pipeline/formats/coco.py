"""COCO JSON: one file per split, whose name says which (`instances_val2017.json`, `valid/_annotations.coco.json`).

Boxes are `[x, y, width, height]` in pixels. Ids may be sparse, start at 0 or be text, so they are only looked up.
An annotation with an outline but no box gets the box around the outline.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.boxes import Box
from pipeline.errors import DataError
from pipeline.formats.matching import Described, Wanted, complete
from pipeline.formats.outlines import Corners, Size, around
from pipeline.formats.shapes import from_list
from pipeline.formats.source import NOT_LISTED, Source, damaged
from pipeline.formats.splits import folder_split, split_of
from pipeline.formats.text import show
from pipeline.formats.tree import Tree
from pipeline.formats.values import NUMBERS, class_name, declared_size, read_json

CROWD = "iscrowd: a region of many objects, not a box of one"
LEFT_OUT = "ignore: marked so in the source"
# Keys that no other JSON format has. `"categories": [` may follow megabytes of annotations.
SIGNS = re.compile(r'"images"\s*:\s*\[|"categories"\s*:\s*\[\s*\{|"category_id"\s*:')

FAR = 1e9  # pixels; smaller coordinates cannot overflow

OFFER = "`convert.on_problem: drop`"


def recognises(tree: Tree) -> bool:
    return any(text.startswith("{") and _is_coco(text) for text in tree.heads({".json"}))


def _is_coco(head: str) -> bool:
    sign = SIGNS.search(head)
    # Label Studio's `notes.json` has categories, but neither images nor annotations.
    return bool(sign) and not (head.rstrip().endswith("}") and '"images"' not in head and '"annotations"' not in head)


class _File(NamedTuple):
    path: Path
    classes: list[str]
    parents: set[str]  # categories that only group the others, as in Roboflow's exports
    images: list[Described]
    has_keypoints: bool


def read(folder: Path, orphans: bool = False) -> Source:
    """Read every COCO file; with `orphans`, annotations of unlisted images are kept as those of a missing image."""
    tree = Tree(folder)
    files = []
    for path in tree.files({".json"}):
        data = read_json(path)
        if not isinstance(data, dict) or not ("images" in data or {"annotations", "categories"} <= data.keys()):
            continue  # some other JSON: a licence list, a notebook's state
        if why := _no_boxes(path, data):
            tree.notes.append(f"{path.relative_to(folder).as_posix()}: skipped, it {why}")
        else:
            files.append(_read_file(tree, path, data, orphans))
        tree.taken.add(path)
    files = _without_keypoints_again(tree, files)
    described = [image for file in files for image in file.images]
    classes = dict.fromkeys(name for file in files for name in file.classes)
    parents = {name for file in files for name in file.parents} - {
        box.label for image in described for box in image.boxes
    }
    return complete(tree, described, [name for name in classes if name not in parents])


def _no_boxes(path: Path, data: dict[str, Any]) -> str:
    """Return what a file from COCO's own `annotations` folder holds instead of boxes; empty if it holds boxes."""
    if "annotations" not in data:
        return "lists images without annotations" if path.stem.startswith("image_info") else ""
    first = data["annotations"][0] if isinstance(data["annotations"], list) and data["annotations"] else None
    if not isinstance(first, dict) or "bbox" in first:
        return ""
    return "holds captions" if "caption" in first else "holds panoptic segments" if "segments_info" in first else ""


def _without_keypoints_again(tree: Tree, files: list[_File]) -> list[_File]:
    """Leave out keypoint files whose images another file describes too, as COCO's `instances_*.json` does."""
    described_in = {image.wanted.name: file.path for file in files if not file.has_keypoints for image in file.images}
    kept = []
    for file in files:
        first = file.images[0].wanted.name if file.images else ""
        if file.has_keypoints and first and all(image.wanted.name in described_in for image in file.images):
            name = file.path.relative_to(tree.folder).as_posix()
            tree.notes.append(f"{name}: skipped, {described_in[first].name} describes the same images")
        else:
            kept.append(file)
    return kept


def _read_file(tree: Tree, path: Path, data: dict[str, Any], orphans: bool) -> _File:
    names, parents = _categories(path, data)
    images, annotations = _records(path, data, "images"), _records(path, data, "annotations")
    sizes: dict[int | str, Size | None] = {}
    for record in images:
        identity = _key(record.get("id"))
        if identity is None:
            raise DataError(f"{path}: an image has the id {show(record.get('id'))}; give every image a number")
        if identity in sizes:
            raise DataError(f"{path}: image id {identity} appears twice; give every image its own id")
        sizes[identity] = declared_size(record.get("width"), record.get("height"))
    boxes: dict[int | str, list[Box]] = {identity: [] for identity in sizes}
    lost: list[Box] = []
    for number, record in enumerate(annotations, start=1):
        image_id, annotation_id = record.get("image_id"), record.get("id")
        if type(image_id) is not int:
            image_id = _key(image_id)
        if type(annotation_id) is not int:
            annotation_id = _key(annotation_id)
        identity = f"number {number}" if annotation_id is None else str(annotation_id)
        if image_id is None or image_id not in boxes:
            lost.append(_orphan(record, identity, names))
            continue
        box = _plain_box(record, identity, names) or _box(record, identity, names, sizes[image_id])
        boxes[image_id].append(box)
    if lost and not orphans:
        more = f" (and {len(lost) - 1} more such; {OFFER} leaves them out and lists them)" if len(lost) > 1 else ""
        raise DataError(f"{path}: annotation {lost[0].id} {lost[0].damage}; remove it{more}")
    split, homes = split_of(path.stem) or folder_split(tree.folder, path), tree.homes(path)
    described: dict[str, Described] = {}
    for record, (identity, size) in zip(images, sizes.items(), strict=True):
        name = _file_name(record)
        if not name:
            raise DataError(
                f"{path}: image {identity} has the file_name {show(record.get('file_name'))}; give its file name"
            )
        image = Described(Wanted(name, homes, split, path), boxes[identity], size)
        if (earlier := described.setdefault(name, image)) is not image:  # one image under two ids
            if earlier.size and size and earlier.size != size:
                raise DataError(f"{path}: {show(name)} appears twice, with different sizes; keep one (id {identity})")
            earlier.boxes.extend(image.boxes)
    if lost:
        described["\0"] = Described(Wanted(f"{NOT_LISTED}{path.name}", homes, split, path), lost)
    has_keypoints = any("keypoints" in record for record in annotations[:100])
    return _File(path, list(names.values()), parents, list(described.values()), has_keypoints)


def _orphan(record: dict[str, Any], identity: str, names: dict[int | str, str]) -> Box:
    category = _key(record.get("category_id"))
    label = "" if category is None else names.get(category, "")
    return damaged(f"belongs to image {show(record.get('image_id'))}, which is not in `images`", label, identity)


def _file_name(record: dict[str, Any]) -> str:
    name = record.get("file_name")
    if name is None and isinstance(url := record.get("coco_url"), str):  # LVIS
        name = "/".join(url.split("/")[-2:])
    return name if isinstance(name, str) else ""


def _records(path: Path, data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    records = data.get(key)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{path}: `{key}` is not a list of objects, so this is not COCO; export it again")
    return records


def _key(value: Any) -> int | str | None:
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


def _categories(path: Path, data: dict[str, Any]) -> tuple[dict[int | str, str], set[str]]:
    """Return the category names by id, in the order of our class ids, and the names of parent categories.

    Roboflow puts a parent of all categories first, which has no objects. `read` leaves it out unless an annotation uses
    it. It may have the name of its only child.
    """
    records = _records(path, data, "categories")
    children = Counter(class_name(record.get("supercategory")) for record in records)
    names: dict[int | str, str] = {}
    parents: dict[int | str, str] = {}
    known: set[str] = set()
    for record in records:
        identity, name = _key(record.get("id")), class_name(record.get("name"))
        if identity is None:
            raise DataError(f"{path}: a category has the id {show(record.get('id'))}; give every category a number")
        if not name:
            raise DataError(f"{path}: category {identity} has the name {show(record.get('name'))}; names are text")
        if identity in names or identity in parents:
            raise DataError(f"{path}: category {name!r} (id {identity}) appears twice; keep one")
        if len(records) > 1 and children[name] - (class_name(record.get("supercategory")) == name) == len(records) - 1:
            parents[identity] = name
            continue
        if name in known:
            raise DataError(f"{path}: category {name!r} (id {identity}) appears twice; keep one")
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
    """Return the box of an ordinary annotation: a known category and four numbers. None for all others."""
    try:
        category, (x, y, width, height) = record["category_id"], record["bbox"]
        is_plain = (
            type(category) is int  # not a bool: as a key, True equals 1
            and (type(x) in NUMBERS and type(y) in NUMBERS and type(width) in NUMBERS and type(height) in NUMBERS)
            and (-FAR < x < FAR and -FAR < y < FAR and 0 <= width < FAR and 0 <= height < FAR)
            and not record.get("iscrowd")
            and not record.get("ignore")
        )
        if is_plain:
            return Box(names[category], float(x), float(y), float(x + width), float(y + height), identity)
    except (KeyError, TypeError, ValueError):
        pass
    return None


def _corners(record: dict[str, Any], size: Size | None) -> Corners:
    """Return the corners of an annotation. Raises ValueError with what is wrong with it."""
    bbox = record.get("bbox")
    return from_list(bbox) if bbox else around(record.get("segmentation"), size)

"""COCO JSON: one file per split, whose name says which (`instances_val2017.json`, `valid/_annotations.coco.json`).

Boxes are `[x, y, width, height]` in pixels. Ids may be sparse, start at 0 or be text, so they are only looked up.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.boxes import Box
from pipeline.errors import DataError
from pipeline.formats.coco_boxes import box_of, key, masks_of_cvat, orphan
from pipeline.formats.matching import Described, Wanted, complete
from pipeline.formats.outlines import Size
from pipeline.formats.source import NOT_LISTED, Source
from pipeline.formats.text import show
from pipeline.formats.tree import Tree
from pipeline.formats.values import class_name, declared_size, read_json

# Keys that no other JSON format has. `"categories": [` may follow megabytes of annotations.
SIGNS = re.compile(r'"images"\s*:\s*\[|"categories"\s*:\s*\[\s*\{|"category_id"\s*:')

OFFER = "`convert.on_problem: drop`"
NO_ANNOTATIONS = "lists images without annotations"


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
    files: list[_File] = []
    unlabelled: dict[Path, dict[str, Any]] = {}
    for path in tree.files({".json"}):
        data = read_json(path)
        if not isinstance(data, dict) or not ("images" in data or {"annotations", "categories"} <= data.keys()):
            continue  # some other JSON: a licence list, a notebook's state
        if _no_boxes(data):
            unlabelled[path] = data
        else:
            files.append(_read_file(tree, path, data, orphans))
        tree.taken.add(path)
    if not any(file.images for file in files):
        for path, data in unlabelled.items():
            _records(path, data, "annotations")  # raises if there are none
        empty = [path for path, data in unlabelled.items() if _no_boxes(data) == NO_ANNOTATIONS]
        files += [_read_file(tree, path, unlabelled.pop(path), orphans) for path in empty]
    for path, data in unlabelled.items():
        tree.notes.append(f"{path.relative_to(folder).as_posix()}: skipped, it {_no_boxes(data)}")
        _set_aside(tree, path, data)
    files = _without_keypoints_again(tree, files)
    described = [image for file in files for image in file.images]
    classes = dict.fromkeys(name for file in files for name in file.classes)
    parents = {name for file in files for name in file.parents} - {
        box.label for image in described for box in image.boxes
    }
    return complete(tree, described, [name for name in classes if name not in parents])


def _no_boxes(data: dict[str, Any]) -> str:
    """Return what a file holds instead of boxes, such as some of COCO's own; empty if it holds boxes.

    The images of a test set are often listed with an empty list of annotations.
    """
    if "annotations" not in data or (data["annotations"] == [] and data.get("images")):
        return NO_ANNOTATIONS
    first = data["annotations"][0] if isinstance(data["annotations"], list) and data["annotations"] else None
    if not isinstance(first, dict) or "bbox" in first:
        return ""
    return "holds captions" if "caption" in first else "holds panoptic segments" if "segments_info" in first else ""


def _set_aside(tree: Tree, path: Path, data: dict[str, Any]) -> None:
    """Set aside the images of a file that says nothing about their objects, unless another file describes them."""
    records = data["images"] if isinstance(data.get("images"), list) else []
    names = [name for record in records if isinstance(record, dict) and (name := _file_name(record))]
    split, homes = tree.split_by(path), tree.homes(path)
    why = f"{path.name} {_no_boxes(data)}"
    places = (tree.place_of(name, homes, split, path) for name in names)
    tree.set_aside |= {tree.path(place): why for place in places if place}


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
    names, parents = _categories(tree, path, data)
    images, annotations = _records(path, data, "images"), _records(path, data, "annotations")
    for record in (masks := masks_of_cvat(annotations)):
        record["iscrowd"] = 0
    if masks:
        name = path.relative_to(tree.folder).as_posix()
        tree.notes.append(f"{name}: each mask counts as one object, although CVAT wrote iscrowd 1")
    sizes: dict[int | str, Size | None] = {}
    for record in images:
        identity = key(record.get("id"))
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
            image_id = key(image_id)
        if type(annotation_id) is not int:
            annotation_id = key(annotation_id)
        identity = f"number {number}" if annotation_id is None else str(annotation_id)
        if image_id is None or image_id not in boxes:
            lost.append(orphan(record, identity, names))
            continue
        boxes[image_id].append(box_of(record, identity, names, sizes[image_id]))
    if lost and not orphans:
        more = f" (and {len(lost) - 1} more such; {OFFER} leaves them out and lists them)" if len(lost) > 1 else ""
        raise DataError(f"{path}: annotation {lost[0].id} {lost[0].damage}; remove it{more}")
    split, homes = tree.split_by(path), tree.homes(path)
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


def _file_name(record: dict[str, Any]) -> str:
    name = record.get("file_name")
    if name is None and isinstance(url := record.get("coco_url"), str):  # LVIS
        name = "/".join(url.split("/")[-2:])
    return name if isinstance(name, str) else ""


def _records(path: Path, data: dict[str, Any], name: str) -> list[dict[str, Any]]:
    records = data.get(name)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{path}: needs a list `{name}` of objects; export it again as COCO")
    return records


def _categories(tree: Tree, path: Path, data: dict[str, Any]) -> tuple[dict[int | str, str], set[str]]:
    """Return the category names by id, in the order of our class ids, and the names of parent categories.

    Roboflow puts a parent of all categories first, which has no objects. `read` leaves it out unless an annotation uses
    it. It may have the name of its only child. Merged files may have a category under several ids.
    """
    records = _records(path, data, "categories")
    children = Counter(class_name(record.get("supercategory")) for record in records)
    names: dict[int | str, str] = {}
    parents: dict[int | str, str] = {}
    known: set[str] = set()
    for record in records:
        identity, name = key(record.get("id")), class_name(record.get("name"))
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
            file = path.relative_to(tree.folder).as_posix()
            tree.notes.append(f"{file}: category {name!r} (id {identity}) appears twice, and counts as one class")
        names[identity] = name
        known.add(name)
    ordered = sorted((names | parents).items(), key=lambda pair: (isinstance(pair[0], str), pair[0]))
    return dict(ordered), set(parents.values()) - known

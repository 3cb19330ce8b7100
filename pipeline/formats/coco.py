"""COCO JSON: one file a split, told apart by name (`instances_val2017.json`, `valid/_annotations.coco.json`).

Boxes are `[x, y, width, height]` in pixels. Category ids may be sparse or start at 0: they are looked
up, never computed with.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.boxes import Box, Labelled
from pipeline.errors import DataError
from pipeline.formats.source import Source, files_under, images_under, inside, read_text, split_of

CROWD = "iscrowd: a region of many objects, not a box of one"


def recognises(folder: Path) -> bool:
    for path in files_under(folder, {".json"}):
        data = _load(path)
        if isinstance(data, dict) and {"images", "categories"} <= data.keys():
            return True
    return False


def read(folder: Path) -> Source:
    labelled: list[Labelled] = []
    classes: dict[str, None] = {}  # an ordered set
    file_of: dict[Path, Path] = {}
    splits = set()
    for path in files_under(folder, {".json"}):
        data = _load(path)
        if not isinstance(data, dict) or "images" not in data:
            continue  # some other JSON: a licence list, a notebook's state
        split = split_of(path.stem) or split_of(path.parent.name)
        splits.add(split)
        names = _categories(path, data)
        classes.update(dict.fromkeys(names.values()))
        for item in _read_file(folder, path, data, names, split):
            if item.image in file_of:
                raise DataError(f"{path}: {item.image.name} is also in {file_of[item.image]}; keep it in one of them")
            file_of[item.image] = path
            labelled.append(item)
    for image in images_under(folder):
        if image not in file_of:
            labelled.append(Labelled(image, (), None, None, split_of(image.parent.name)))
    labelled.sort(key=lambda item: item.image)
    return Source(tuple(labelled), tuple(classes), has_splits=bool(splits - {None}))


def _read_file(
    folder: Path, path: Path, data: dict[str, Any], names: dict[Any, str], split: str | None
) -> list[Labelled]:
    boxes: dict[Any, list[Box]] = {}
    for record in _records(path, data, "images"):
        identity = _key(path, "image", record)
        if identity in boxes:
            raise DataError(f"{path}: image id {identity} twice; give every image its own id")
        boxes[identity] = []
    for record in _records(path, data, "annotations"):
        box = _box(path, record, names)
        image_id = record.get("image_id")
        if not isinstance(image_id, (int, str)) or image_id not in boxes:
            raise DataError(
                f"{path}: annotation {box.id} is of image {image_id!r}, which is not in `images`; remove it"
            )
        boxes[image_id].append(box)
    labelled = []
    for record in data["images"]:
        image = _find(folder, path, record, split)
        size = (record.get("width"), record.get("height"))
        declared = size if all(isinstance(side, int) and side > 0 for side in size) else None
        labelled.append(Labelled(image, tuple(boxes[record["id"]]), path, declared, split))
    return labelled


def _load(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON ({error}); write it again") from None
    except (RecursionError, ValueError):  # nesting or a number beyond all reason
        raise DataError(f"{path}: nested or numbered beyond reason; write it again") from None


def _records(path: Path, data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    records = data.get(key)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{path}: `{key}` is not a list of objects; it is not COCO as it stands")
    return records


def _key(path: Path, what: str, record: dict[str, Any]) -> int | str:
    identity = record.get("id")
    if isinstance(identity, bool) or not isinstance(identity, (int, str)):
        raise DataError(f"{path}: {what} with the id {identity!r}; ids are numbers")
    return identity


def _categories(path: Path, data: dict[str, Any]) -> dict[Any, str]:
    """Category names by id, in the order of the ids, which is the order of the class ids we give."""
    names: dict[Any, str] = {}
    for record in _records(path, data, "categories"):
        identity, name = _key(path, "category", record), record.get("name")
        if not isinstance(name, str) or not name.strip():
            raise DataError(f"{path}: category {identity} has the name {name!r}; names are text")
        if identity in names or name in names.values():
            raise DataError(f"{path}: category {name!r} (id {identity}) twice; keep one")
        names[identity] = name
    return dict(sorted(names.items(), key=lambda pair: (isinstance(pair[0], str), pair[0])))


def _box(path: Path, record: dict[str, Any], names: dict[Any, str]) -> Box:
    identity = str(_key(path, "annotation", record))
    category = record.get("category_id")
    if not isinstance(category, (int, str)) or category not in names:
        raise DataError(
            f"{path}: annotation {identity} has category {category!r}, which is not in `categories`; correct it"
        )
    bbox = record.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(side) for side in bbox):
        raise DataError(f"{path}: annotation {identity} has bbox {bbox!r}, not [x, y, width, height]; correct it")
    x, y, width, height = (float(side) for side in bbox)
    return Box(
        names[category],
        x,
        y,
        x + width,
        y + height,
        identity,
        ignore=CROWD if record.get("iscrowd") in (1, True) else "",
    )


def _is_number(value: Any) -> bool:
    return (isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300) or value != value


def _find(folder: Path, path: Path, record: dict[str, Any], split: str | None) -> Path:
    name = record.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: image {record['id']} has the file_name {name!r}; name its file")
    homes = [path.parent, folder, folder / "images", path.parent.parent / "images"]
    if split is not None:
        homes += [home for home in sorted(folder.glob("*/")) if split_of(home.name) == split]
        homes += [home for home in sorted(folder.glob("images/*/")) if split_of(home.name) == split]
    found = [home for home in homes if (home / name).is_file()]
    if not found:
        inside(folder, name, path.parent, path)
        raise DataError(
            f"{path}: {name}: image missing (looked beside it, in images/ and in folders of the split); restore it"
        )
    return inside(folder, name, found[0], path)

"""Hugging Face ImageFolder: `metadata.jsonl` beside the images, with `file_name` and `objects`.

`bbox` is x, y, width, height in pixels. A class is text, or a number that becomes its own name. Source:
huggingface.co/docs/datasets, "Create an image dataset".
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.boxes import Box
from pipeline.errors import DataError
from pipeline.formats.lines import json_lines
from pipeline.formats.matching import Described, Wanted, complete
from pipeline.formats.shapes import box_of, from_list
from pipeline.formats.source import Source
from pipeline.formats.splits import folder_split
from pipeline.formats.text import show
from pipeline.formats.tree import Tree
from pipeline.formats.values import declared_size

NAME = "metadata.jsonl"
CLASS_KEYS = ("categories", "category", "label", "labels", "class", "classes")


def recognises(tree: Tree) -> bool:
    return any(path.name == NAME for path in tree.files({".jsonl"}))


def read(folder: Path) -> Source:
    tree = Tree(folder)
    described: list[Described] = []
    for path in tree.files({".jsonl"}):
        if path.name == NAME:
            tree.taken.add(path)
            described += [_image(tree, path, line, record) for line, record in json_lines(path)]
    return complete(tree, described)


def _image(tree: Tree, path: Path, line: int, record: Mapping[str, Any]) -> Described:
    name, objects = record.get("file_name"), record.get("objects")
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: line {line}: file_name is {show(name)}; give its file name")
    labelled_boxes = _objects(objects)
    if labelled_boxes is None:
        raise DataError(
            f"{path}: line {line}: objects {show(objects)} are not lists of bbox and category of the same length; "
            "correct them"
        )
    boxes = [
        _box(label, bbox, f"line {line}, object {number}")
        for number, (label, bbox) in enumerate(labelled_boxes, start=1)
    ]
    size = declared_size(record.get("width"), record.get("height"))
    return Described(Wanted(name, tree.homes(path), folder_split(tree.folder, path), path), boxes, size)


def _objects(objects: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(objects, list) and all(isinstance(entry, Mapping) for entry in objects):
        return [
            (next((entry[key] for key in CLASS_KEYS if key in entry), None), entry.get("bbox")) for entry in objects
        ]
    if not isinstance(objects, Mapping):
        return None
    boxes = objects.get("bbox")
    labels = next((objects[key] for key in CLASS_KEYS if key in objects), None)
    if not isinstance(boxes, list) or not isinstance(labels, list) or len(boxes) != len(labels):
        return None
    return list(zip(labels, boxes, strict=True))


def _box(label: Any, bbox: Any, identity: str) -> Box:
    return box_of(str(label) if type(label) is int else label, partial(from_list, bbox), identity)

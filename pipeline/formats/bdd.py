"""BDD100K and Scalabel JSON: a list of frames with their labels, or an object with that list under `frames`.

A box is `box2d`: x1, y1, x2, y2 in pixels. Source: doc.scalabel.ai/format.html.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.boxes import Box
from pipeline.errors import DataError
from pipeline.formats.matching import Described, Wanted, complete
from pipeline.formats.shapes import all_boxes, box_of, sides_of
from pipeline.formats.source import NoBox, Source
from pipeline.formats.text import show
from pipeline.formats.tree import Tree
from pipeline.formats.values import declared_size, mapping, read_json

START = re.compile(r'\s*(\[|\{\s*"(frames|config|groups)")')
SIGN = re.compile(r'"box2d"\s*:')
CORNERS = ("x1", "y1", "x2", "y2")
CROWD = NoBox("crowd: one box around many objects")
NO_OBJECTS = ("area", "drivable", "lane")  # beginnings of categories of the road itself


def recognises(tree: Tree) -> bool:
    return any(START.match(head) and SIGN.search(head) for head in tree.heads({".json"}))


def read(folder: Path) -> Source:
    tree = Tree(folder)
    described: list[Described] = []
    for path in tree.files({".json"}):
        data = read_json(path)
        frames = data.get("frames") if isinstance(data, dict) else data
        if isinstance(frames, list) and any(isinstance(frame, dict) and "name" in frame for frame in frames):
            split = tree.split_by(path)
            described += [entry for frame in frames if (entry := _frame(tree, path, split, frame))]
            tree.taken.add(path)
    return complete(tree, described)


def _frame(tree: Tree, path: Path, split: str | None, frame: Any) -> Described | None:
    """Return the content of a frame; None if it has no list of labels and so counts as unlabelled."""
    name = mapping(frame).get("name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: a frame has the name {show(name)}; give its file name")
    labels = frame.get("labels")
    if labels is None:
        return None
    if not isinstance(labels, list):
        raise DataError(f"{path}: the labels of {show(name)} are not a list, so this is not Scalabel; export it again")
    video, homes = frame.get("videoName"), tree.homes(path)
    if isinstance(video, str) and video:
        homes = [*(f"{home}/{video}" for home in homes), *homes]
    size = mapping(frame.get("size"))
    boxes = all_boxes(labels, f"{name}, label", "a label", _box)
    return Described(Wanted(name, homes, split, path), boxes, declared_size(size.get("width"), size.get("height")))


def _box(value: Mapping[str, Any], identity: str) -> Box:
    others = [key for key in ("poly2d", "rle", "box3d", "graph") if value.get(key) is not None]
    ignore = f"a {others[0]}, not a box" if others and value.get("box2d") is None else ""
    if ignore and not str(value.get("category")).startswith(NO_OBJECTS):
        ignore = NoBox(ignore)
    if mapping(value.get("attributes")).get("crowd") is True:
        ignore = CROWD
    return box_of(value.get("category"), lambda: _corners(value), identity, ignore)


def _corners(value: Mapping[str, Any]) -> tuple[float, float, float, float]:
    xmin, ymin, xmax, ymax = sides_of(value.get("box2d"), *CORNERS)
    return xmin, ymin, xmax, ymax

"""Label Studio's own JSON and JSON-MIN: a list of tasks, each with an image and the results on it.

Coordinates are percentages of the image size. If a task has several annotations, the one marked as ground truth
counts, else the first; a task without annotations is unlabelled. Source: labelstud.io/guide/export.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pipeline.boxes import Box
from pipeline.errors import DataError
from pipeline.formats.matching import Described, Wanted, complete, has_image_suffix
from pipeline.formats.outlines import Corners
from pipeline.formats.shapes import around_ellipse, around_points, box_of, check_rotation, corners, scaled, sides_of
from pipeline.formats.source import NoBox, Source
from pipeline.formats.text import show
from pipeline.formats.tree import Tree
from pipeline.formats.values import declared_size, read_json

SIGNS = re.compile(r'"(original_width|completions|annotations)"\s*:')
TASK = re.compile(r'"data"\s*:\s*\{|"original_width"\s*:')
NO_BOXES = {
    "keypoint": NoBox("a point: it has no area"),
    "brush": NoBox("a brush mask: draw rectangles or polygons"),
    "bitmask": NoBox("a mask: draw rectangles or polygons"),
    "vector": NoBox("a line"),
}
SHAPES = ("rectangle", "polygon", "ellipse", *NO_BOXES)
LOCAL_FILE = "/data/local-files/?d="  # followed by a percent-encoded path
ANOTHER = "another annotation of the task: one counts"


def recognises(tree: Tree) -> bool:
    return tree.holds_json("[", SIGNS, TASK)


def read(folder: Path) -> Source:
    tree = Tree(folder)
    described: list[Described] = []
    for path in tree.files({".json"}):
        data = read_json(path)
        if not isinstance(data, list) or not any(map(_is_task, data)):
            continue
        tree.taken.add(path)
        split, homes = tree.split_by(path), tree.homes(path)
        for number, task in enumerate(data, start=1):
            if not isinstance(task, Mapping):
                raise DataError(f"{path}: task {number} is {show(task)}, so this is not Label Studio; export it again")
            name = _image(task)
            if not name:
                raise DataError(f"{path}: task {number} names no image; give its file name")
            results = _results(task)
            if results is not None:
                described.append(Described(Wanted(name, homes, split, path), *_boxes(results, f"task {number}")))
    return complete(tree, described)


def _is_task(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return isinstance(value.get("data"), Mapping) or "annotator" in value or any(map(_is_result, _lists(value)))


def _lists(task: Mapping[str, Any]) -> list[Any]:
    """Return the results of JSON-MIN, which are listed under the names of the controls that made them."""
    return [result for value in task.values() if isinstance(value, list) for result in value]


def _is_result(value: Any) -> bool:
    return isinstance(value, Mapping) and "original_width" in value


def _image(task: Mapping[str, Any]) -> str:
    data = task["data"] if isinstance(task.get("data"), Mapping) else task
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    named = [texts[key] for key in ("image", "img", "photo", "picture") if texts.get(key)]
    others = (text for text in texts.values() if has_image_suffix(text.partition("&")[0]))
    name: str = next(iter([*named, *others]), "")
    address, found, path = name.partition(LOCAL_FILE)
    return unquote(path) if found else address


def _results(task: Mapping[str, Any]) -> list[tuple[Any, str]] | None:
    """Return each result with the reason why it does not count; None for a task that nobody has labelled."""
    if not isinstance(task.get("data"), Mapping):
        results = [(result, "") for result in _lists(task) if _is_result(result)]
        return results if results or "annotator" in task else None
    annotations = task.get("annotations", task.get("completions"))
    submitted = [entry for entry in annotations if isinstance(entry, Mapping)] if isinstance(annotations, list) else []
    submitted = [
        entry for entry in submitted if not entry.get("was_cancelled") and isinstance(entry.get("result"), list)
    ]
    if not submitted:
        return None
    chosen = next((entry for entry in submitted if entry.get("ground_truth")), submitted[0])
    return [(result, "" if entry is chosen else ANOTHER) for entry in submitted for result in entry["result"]]


def _boxes(results: list[tuple[Any, str]], task: str) -> tuple[list[Box], tuple[int, int] | None]:
    """Return a box for each label of each shape, and the size of the image."""
    boxes, sizes = [], []
    labels = {
        result.get("id"): labels for result, _ in results if isinstance(result, Mapping) and (labels := _labels(result))
    }
    for number, (result, ignore) in enumerate(results, start=1):
        identity = f"{task}, result {number}"
        value = result.get("value", result) if isinstance(result, Mapping) else None
        kind = _kind(result, value)
        if not kind:
            continue  # a choice, a text, a relation, or the label of a shape that has a result of its own
        sizes.append(declared_size(result.get("original_width"), result.get("original_height")))
        corners = partial(_corners, kind, value, sizes[-1])
        unknown = NoBox(f"a {show(kind)}: it is not supported")
        ignore = ignore or NO_BOXES.get(kind, "" if kind in SHAPES else unknown)
        named = _labels(result) or labels.get(result.get("id"), [None])
        boxes += [box_of(label, corners, identity, ignore) for label in named]
    return boxes, next(filter(None, sizes), None)


def _kind(result: Any, value: Any) -> str:
    """Return the kind of shape; empty for what is no shape."""
    if not isinstance(value, Mapping):
        return ""
    named = str(result.get("type", "")).removesuffix("labels")
    if named in SHAPES:
        return named
    # A shape of another kind has labels of its own, such as `videorectanglelabels`.
    keys = (str(key).removesuffix("labels") for key in value if str(key).endswith("labels"))
    return next(filter(None, keys), "rectangle" if {"x", "width"} <= value.keys() and not named else "")


def _labels(result: Mapping[str, Any]) -> list[Any]:
    value = result.get("value", result)
    found = [value[key] for key in value if str(key).endswith("labels")] if isinstance(value, Mapping) else []
    return next((labels for labels in found if isinstance(labels, list) and labels), [])


def _corners(kind: str, value: Any, size: tuple[int, int] | None) -> Corners:
    if size is None:
        raise ValueError("original_width and original_height are not the size of an image")
    width, height = size[0] / 100, size[1] / 100
    if kind == "polygon":
        return scaled(around_points(value.get("points")), width, height)
    if kind == "ellipse":
        cx, cy, rx, ry = sides_of(value, "x", "y", "radiusX", "radiusY")
        return around_ellipse(cx * width, cy * height, rx * width, ry * height, _rotation(value))
    x, y, across, down = sides_of(value, "x", "y", "width", "height")
    angle = math.radians(_rotation(value))
    cos, sin = math.cos(angle), math.sin(angle)
    x, y, across, down = x * width, y * height, across * width, down * height
    if not angle:
        return corners(x, y, across, down)
    # Label Studio rotates a rectangle about its upper left corner.
    xs = [x, x + across * cos, x - down * sin, x + across * cos - down * sin]
    ys = [y, y + across * sin, y + down * cos, y + across * sin + down * cos]
    return min(xs), min(ys), max(xs), max(ys)


def _rotation(value: Mapping[str, Any]) -> float:
    return check_rotation(sides_of({"rotation": value.get("rotation") or 0}, "rotation")[0])

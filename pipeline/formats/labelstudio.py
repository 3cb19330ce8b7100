"""Label Studio's own JSON and JSON-MIN: a list of tasks, each with an image and the results on it.

Coordinates are percentages of the image size. If a task has several annotations, the one marked as ground truth
counts, else the first with a shape; a task without annotations is unlabelled. Source: labelstud.io/guide/export.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pipeline.boxes import Box
from pipeline.errors import DataError
from pipeline.formats.labelstudio_regions import KINDS, NO_BOXES, Result, Shape, shapes
from pipeline.formats.matching import Described, Wanted, complete, has_image_suffix
from pipeline.formats.outlines import Corners
from pipeline.formats.shapes import around_ellipse, around_points, box_of, check_rotation, corners, scaled, sides_of
from pipeline.formats.source import NoBox, Source
from pipeline.formats.text import show
from pipeline.formats.tree import Tree
from pipeline.formats.values import declared_size, read_json

SIGNS = re.compile(r'"(original_width|completions|annotations)"\s*:')
TASK = re.compile(r'"data"\s*:\s*\{|"original_width"\s*:')
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
        shown: dict[str, int] = {}  # images of a task with shapes on them, and the number of such a task
        for number, task in enumerate(data, start=1):
            if not isinstance(task, Mapping):
                raise DataError(f"{path}: task {number} is {show(task)}, so this is not Label Studio; export it again")
            results = _results(task)
            found = shapes(results or [])
            elements = [result.fields.get("to_name") for kind, _, result in found if kind in KINDS]
            on = [str(element) for element in elements if element]
            shown |= dict.fromkeys(on, number)
            name = _image(task, on[0] if on else "", f"{path}: task {number}")
            if results is not None:
                described.append(Described(Wanted(name, homes, split, path), *_boxes(found, f"task {number}")))
        if len(shown) > 1:
            first, second, *_ = shown
            raise DataError(
                f"{path}: a task has several images, with shapes on {show(first)} and on {show(second)} "
                f"(task {shown[second]}); make one task of each image, and export again"
            )
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


def _image(task: Mapping[str, Any], shown: str, where: str) -> str:
    """Return the name of the image; `shown` is the name of the element that shows it, which JSON-MIN does not give."""
    data = task["data"] if isinstance(task.get("data"), Mapping) else task
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    named = [texts[key] for key in (shown, "image", "img", "photo", "picture") if texts.get(key)]
    others = [text for text in texts.values() if has_image_suffix(text.partition("&")[0])]
    if not named and data is task and len({unquote(text).rpartition("/")[2] for text in others}) > 1:
        both = f"{show(others[0])} and {show(others[1])}"
        raise DataError(f"{where} names {both}, and JSON-MIN does not say which one has the shapes; export JSON")
    name: str = next(iter([*named, *others]), "")
    if not name:
        raise DataError(f"{where} names no image; give its file name")
    address, found, path = name.partition(LOCAL_FILE)
    return unquote(path) if found else address


def _results(task: Mapping[str, Any]) -> list[Result] | None:
    """Return all results of a task; None for a task that nobody has labelled."""
    if not isinstance(task.get("data"), Mapping):
        lists = {control: value for control, value in task.items() if isinstance(value, list)}
        found = [(result, control) for control, value in lists.items() for result in value if _is_result(result)]
        results = [Result(result, number, 0, control, "") for number, (result, control) in enumerate(found, start=1)]
        return results if results or "annotator" in task else None
    annotations = task.get("annotations", task.get("completions"))
    submitted = [entry for entry in annotations if isinstance(entry, Mapping)] if isinstance(annotations, list) else []
    submitted = [
        entry for entry in submitted if not entry.get("was_cancelled") and isinstance(entry.get("result"), list)
    ]
    if not submitted:
        return None
    true = [entry for entry in submitted if entry.get("ground_truth")]
    chosen = next(
        (entry for entry in true or submitted if any(map(_is_result, entry["result"]))), (true or submitted)[0]
    )
    every = [(entry, index, result) for index, entry in enumerate(submitted) for result in entry["result"]]
    return [
        Result(result, number, index, str(result.get("from_name")), "" if entry is chosen else ANOTHER)
        for number, (entry, index, result) in enumerate(every, start=1)
        if isinstance(result, Mapping)
    ]


def _boxes(found: Iterable[Shape], task: str) -> tuple[list[Box], tuple[int, int] | None]:
    """Return a box for each label of each shape, and the size of the image."""
    boxes, sizes = [], []
    for kind, labels, result in found:
        sizes.append(declared_size(result.fields.get("original_width"), result.fields.get("original_height")))
        corners = partial(_corners, kind, result.value, sizes[-1])
        unknown = NoBox(f"a {show(kind)}: it is not supported")
        ignore = result.ignore or NO_BOXES.get(kind, "" if kind in KINDS else unknown)
        boxes += [box_of(label, corners, f"{task}, result {result.number}", ignore) for label in labels]
    return boxes, next(filter(None, sizes), None)


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

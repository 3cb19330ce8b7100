"""The shapes of a Label Studio task: which of its results belong to one region, and what labels the region has.

A region has a result for each control that says something about it. `RectangleLabels` gives shape and labels at once;
`Rectangle` and `Labels` give two results, and a rating or a choice for each region gives one more. All of them repeat
the coordinates. In JSON they have the id of the region and a type; JSON-MIN has neither.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, NamedTuple

from pipeline.formats.source import NoBox
from pipeline.formats.text import show

NO_BOXES = {
    "keypoint": NoBox("a point: it has no area"),
    "brush": NoBox("a brush mask: draw rectangles or polygons"),
    "bitmask": NoBox("a mask: draw rectangles or polygons"),
    "vector": NoBox("a line"),
}
KINDS = ("rectangle", "polygon", "ellipse", *NO_BOXES)
# The keys by which coordinates tell the kind of shape, in the order to try.
COORDINATES: dict[str, set[str]] = {
    "ellipse": {"x", "y", "radiusX", "radiusY"},
    "rectangle": {"x", "y", "width", "height"},
    "keypoint": {"x", "y", "width"},
    "polygon": {"points"},
    "brush": {"rle"},
    "bitmask": {"imageDataURL"},
    "vector": {"vertices"},
}
PLACE = sorted({"rotation"}.union(*COORDINATES.values()))


class Result(NamedTuple):
    """A result, its number in the task, the annotation and the control that it is of, and why it does not count."""

    fields: Mapping[str, Any]
    number: int
    annotation: int
    control: str
    ignore: str

    @property
    def value(self) -> Mapping[str, Any]:
        """Return the coordinates and labels, which JSON-MIN puts beside the other fields."""
        value = self.fields.get("value", self.fields)
        return value if isinstance(value, Mapping) else {}


class Shape(NamedTuple):
    """The shape of a region; `labels` are [None] for a region that has none."""

    kind: str
    labels: list[Any]
    result: Result


def shapes(results: Iterable[Result]) -> list[Shape]:
    """Return the shape of each region, in the order of the results."""
    found: list[Shape] = []
    for region in _regions(results):
        # In JSON-MIN, `Rectangle` and its labels differ only in the labels, so the first will do.
        own = [result for result in region if _name(result)] or [result for result in region if _kind(result)][:1]
        numbers = {result.number for result in own}
        others = [label for result in region if result.number not in numbers for label in _labels(result)]
        found += [Shape(_kind(result), [*_labels(result), *others] or [None], result) for result in own]
    return sorted(found, key=lambda shape: shape.result.number)


def _regions(results: Iterable[Result]) -> Iterable[list[Result]]:
    """Return the results of each region: by its id or, without ids, by its coordinates.

    Two regions with the same coordinates have two results of each control.
    """
    regions: dict[Hashable, list[Result]] = {}
    count: Counter[Hashable] = Counter()
    for result in results:
        region: Hashable = result.fields.get("id")
        if not isinstance(region, (str, int)):
            place = _place(result)
            count[place, result.control, result.annotation] += 1
            region = (place, count[place, result.control, result.annotation])
        regions.setdefault((region, result.annotation), []).append(result)
    return regions.values()


def _place(result: Result) -> str:
    coordinates = [result.value.get(key) for key in PLACE]
    try:
        return json.dumps(coordinates)
    except RecursionError:  # nested too deeply to be coordinates
        return show(coordinates)


def _name(result: Result) -> str:
    """Return the kind of shape that the type or the labels name; empty if they name none."""
    named = str(result.fields.get("type", "")).removesuffix("labels")
    if named in KINDS:
        return named
    # A shape of another kind has labels of its own, such as `videorectanglelabels`.
    return next(filter(None, (key.removesuffix("labels") for key in result.value if key.endswith("labels"))), "")


def _kind(result: Result) -> str:
    """Return the kind of shape by its name, else by its coordinates; empty for what is no shape."""
    return _name(result) or next((kind for kind, keys in COORDINATES.items() if keys <= result.value.keys()), "")


def _labels(result: Result) -> list[Any]:
    found = (value for key, value in result.value.items() if key.endswith("labels"))
    return next((labels for labels in found if isinstance(labels, list) and labels), [])

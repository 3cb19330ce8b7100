"""Boxes around the shapes of JSON formats: one box per annotation, even a damaged one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.boxes import Box, check_sides
from pipeline.formats.outlines import Corners
from pipeline.formats.source import damaged
from pipeline.formats.text import show
from pipeline.formats.values import NUMBERS, class_name, numbers

MOST_DEGREES = 720  # some tools write more than one full turn; beyond two turns the number is no angle


def all_boxes(values: Sequence[Any], name: str, noun: str, make: Callable[[Mapping[str, Any], str], Box]) -> list[Box]:
    """Return the box of each annotation, identified by `name` and its number; what is not a JSON object is damaged."""
    return [
        make(value, f"{name} {number}")
        if isinstance(value, Mapping)
        else damaged(f"{show(value)} instead of {noun}; correct it", id=f"{name} {number}")
        for number, value in enumerate(values, start=1)
    ]


def box_of(label: Any, corners: Callable[[], Corners], identity: str, ignore: str = "") -> Box:
    """Return the box of one annotation; `corners` raises ValueError with what is wrong with it."""
    name = class_name(label)
    if ignore:
        return damaged("", name, identity, ignore)
    if not name:
        return damaged(f"class is {show(label)}; name it", id=identity)
    try:
        return Box(name, *corners(), identity)
    except ValueError as error:
        return damaged(f"{error}; correct it", name, identity)


def sides_of(value: Any, *keys: str) -> list[float]:
    """Return the numbers under these keys. Raises ValueError if a value is not a number."""
    sides = numbers([value.get(key) for key in keys]) if isinstance(value, Mapping) else None
    if not sides:
        raise ValueError(f"{show(value)} lacks one of the numbers {', '.join(keys)}")
    return sides


def from_sides(value: Any, *keys: str) -> Corners:
    return corners(*sides_of(value, *keys))


def corners(x: float, y: float, width: float, height: float) -> Corners:
    """Return the corners of a box from its upper left corner and its sides. Raises ValueError for a negative side."""
    check_sides(width, height)
    return x, y, x + width, y + height


def from_list(value: Any) -> Corners:
    """Return the corners of a box given as [x, y, width, height]. Raises ValueError if `value` is not such a list."""
    sides = numbers(value) if isinstance(value, list) and len(value) == 4 else None
    if not sides:
        raise ValueError(f"bbox {show(value)} is not [x, y, width, height]")
    return corners(*sides)


def around_points(points: Any, fewest: int = 3) -> Corners:
    """Return the box around `[[x, y], ...]`, `[{x: , y: }, ...]` or `[x, y, x, y, ...]`. Raises ValueError."""
    flat: list[Any] = []
    for point in points if isinstance(points, list) else ():
        if isinstance(point, Mapping):
            flat += [point.get("x"), point.get("y")]
        else:
            flat += point if isinstance(point, list) and len(point) == 2 else [point]
    sides = numbers(flat)
    if not sides or len(sides) % 2 or len(sides) < 2 * fewest or any(map(math.isnan, sides)):
        raise ValueError(f"points {show(points)} are not {fewest} or more pairs of numbers")
    return min(sides[0::2]), min(sides[1::2]), max(sides[0::2]), max(sides[1::2])


def around_ellipse(cx: float, cy: float, rx: float, ry: float, degrees: float = 0.0) -> Corners:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # The maximum of x(t) = rx cos t cos a - ry sin t sin a over t; y(t) likewise.
    across, down = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    return cx - across, cy - down, cx + across, cy + down


def around_turned(cx: float, cy: float, width: float, height: float, radians: float) -> Corners:
    """Return the box around a rectangle that is turned about its centre."""
    cos, sin = abs(math.cos(radians)), abs(math.sin(radians))
    across, down = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    return cx - across, cy - down, cx + across, cy + down


def turned(box: Corners, degrees: Any) -> Corners:
    """Return the box around a box that is turned about its centre; what is not a number turns nothing."""
    if type(degrees) not in NUMBERS or not degrees:
        return box
    xmin, ymin, xmax, ymax = box
    radians = math.radians(check_rotation(degrees))
    return around_turned((xmin + xmax) / 2, (ymin + ymax) / 2, xmax - xmin, ymax - ymin, radians)


def check_rotation(degrees: float) -> float:
    if not abs(degrees) <= MOST_DEGREES:
        raise ValueError(f"rotation is {degrees} degrees, more than two turns")
    return degrees


def scaled(corners: Sequence[float], width: float, height: float) -> Corners:
    xmin, ymin, xmax, ymax = corners
    return xmin * width, ymin * height, xmax * width, ymax * height

"""Boxes around the shapes of JSON formats: one box per annotation, even a damaged one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.boxes import Box, check_sides
from pipeline.formats.outlines import Corners
from pipeline.formats.source import damaged
from pipeline.formats.text import show
from pipeline.formats.values import class_name, numbers


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


def from_list(value: Any, what: str = "[x, y, width, height]") -> list[float]:
    """Return the four numbers of a list. Raises ValueError if `value` is not such a list."""
    sides = numbers(value) if isinstance(value, list) and len(value) == 4 else None
    if not sides:
        raise ValueError(f"bbox {show(value)} is not {what}")
    return sides


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
    across, down = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    return cx - across, cy - down, cx + across, cy + down


def scaled(corners: Sequence[float], width: float, height: float) -> Corners:
    xmin, ymin, xmax, ymax = corners
    return xmin * width, ymin * height, xmax * width, ymax * height

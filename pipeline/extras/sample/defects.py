"""Draw defects: each function returns a changed copper mask, or None if its random place is unsuitable."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.extras.sample.layout import Layout, Mask, Point, Random, whole


def _on_trace(rng: Random, layout: Layout) -> tuple[Point, Point, Point, int] | None:
    """Choose a random place on a trace: return its centre, direction, a normal to a random side, and the width."""
    long_enough = [trace for trace in layout.traces if np.linalg.norm(trace[1] - trace[0]) > 60]
    if not long_enough:
        return None
    start, end, width = long_enough[int(rng.integers(len(long_enough)))]
    direction = (end - start) / np.linalg.norm(end - start)
    normal = np.array([-direction[1], direction[0]]) * (1 if rng.random() < 0.5 else -1)
    centre = start + (end - start) * float(rng.uniform(0.15, 0.85))
    if _at(layout.copper, centre) == 0 or _at(layout.pads, centre):
        return None
    return centre, direction, normal, width


def _at(mask: Mask, point: Point) -> int:
    x, y = whole(point)
    return int(mask[y, x]) if 0 <= x < mask.shape[1] and 0 <= y < mask.shape[0] else 0


def _gap(copper: Mask, edge: Point, normal: Point, limit: int) -> int | None:
    """Return the distance in pixels from `edge` outwards to the next copper; None if it is beyond `limit`."""
    for distance in range(3, limit):
        if _at(copper, edge + normal * distance):
            return distance
    return None


def _blob(rng: Random, shape: tuple[int, ...], centre: Point, radius: float, stretch: Point | None = None) -> Mask:
    """Draw a round blob with an uneven rim, stretched by up to 1.8 times along `stretch`."""
    angles = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    rim = radius * (1 + 0.22 * np.convolve(rng.normal(size=20), np.ones(3) / 3, "valid"))
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * rim[:, None]
    if stretch is not None:
        points += np.outer(points @ stretch, stretch) * float(rng.uniform(0.2, 0.8))
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(points + centre).astype(np.int32)], 255)
    return mask


def _open(rng: Random, layout: Layout) -> Mask | None:
    place = _on_trace(rng, layout)
    if place is None:
        return None
    centre, direction, normal, width = place
    half = float(rng.uniform(8, 16))
    reach = normal * (width / 2 + 2)
    corners = [
        centre + sign * direction * (half + float(rng.normal(0, 2.0))) + side * reach
        for sign, side in ((-1, -1), (1, -1), (1, 1), (-1, 1))
    ]
    copper = layout.copper.copy()
    cv2.fillPoly(copper, [np.round(corners).astype(np.int32)], 0)
    return copper


def _short(rng: Random, layout: Layout) -> Mask | None:
    place = _on_trace(rng, layout)
    if place is None:
        return None
    centre, direction, normal, width = place
    edge = centre + normal * (width / 2)
    gap = _gap(layout.copper, edge, normal, 52)
    if gap is None or gap < 8:
        return None
    copper = layout.copper.copy()
    slant = direction * float(rng.normal(0, 5))
    points = [edge - normal * 3, edge + normal * gap / 2 + slant, edge + normal * (gap + 4) + slant]
    for start, end in pairwise(points):
        cv2.line(copper, whole(start), whole(end), 255, int(rng.integers(9, 17)))
    return copper


def _mousebite(rng: Random, layout: Layout) -> Mask | None:
    place = _on_trace(rng, layout)
    if place is None:
        return None
    centre, direction, normal, width = place
    blob = _blob(
        rng, layout.copper.shape, centre + normal * (width / 2), width * float(rng.uniform(0.45, 0.65)), direction
    )
    return layout.copper & ~blob


def _spur(rng: Random, layout: Layout) -> Mask | None:
    place = _on_trace(rng, layout)
    if place is None:
        return None
    centre, _, normal, width = place
    radius = float(rng.uniform(8, 12))
    edge = centre + normal * (width / 2)
    if (gap := _gap(layout.copper, edge, normal, 70)) is not None and gap < radius * 2.6 + 6:
        return None
    return layout.copper | _blob(rng, layout.copper.shape, edge + normal * radius * 0.7, radius, normal)


def _pin_hole(rng: Random, layout: Layout) -> Mask | None:
    radius = float(rng.uniform(6, 9))
    solid = layout.copper & ~layout.holes & ~layout.pads
    centre = _pixel(rng, cv2.distanceTransform(solid, cv2.DIST_L2, 3) > radius * 1.35 + 1)
    return None if centre is None else layout.copper & ~_blob(rng, layout.copper.shape, centre, radius)


def _spurious_copper(rng: Random, layout: Layout) -> Mask | None:
    radius = float(rng.uniform(9, 17))
    centre = _pixel(rng, cv2.distanceTransform(255 - layout.copper, cv2.DIST_L2, 3) > radius * 1.5 + 6)
    if centre is None:
        return None
    angle = float(rng.uniform(0, np.pi))
    return layout.copper | _blob(rng, layout.copper.shape, centre, radius, np.array([np.cos(angle), np.sin(angle)]))


# In the order of their class ids, which count from 1.
DRAW: dict[str, Callable[[Random, Layout], Mask | None]] = {
    "open": _open,
    "short": _short,
    "mousebite": _mousebite,
    "spur": _spur,
    "pin hole": _pin_hole,
    "spurious copper": _spurious_copper,
}


def _pixel(rng: Random, allowed: NDArray[np.bool_]) -> Point | None:
    rows, columns = np.nonzero(allowed)
    if not len(rows):
        return None
    index = int(rng.integers(len(rows)))
    return np.array([columns[index], rows[index]], float)

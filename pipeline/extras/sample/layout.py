"""Lay out a tile: split it into rectangles and fill each with a structure found on boards."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
Point = NDArray[np.float64]
Random = np.random.Generator
Region = tuple[int, int, int, int]  # x, y, width, height


@dataclass(slots=True)
class Layout:
    """One tile. All masks have the same size; their values are 0 or 255."""

    copper: Mask
    pads: Mask  # copper that the solder mask leaves bare
    holes: Mask
    legend: Mask
    traces: list[tuple[Point, Point, int]] = field(default_factory=list)  # straight pieces: from, to, width


def lay_out(rng: Random, big: int) -> Layout:
    """Lay out a tile without defects, `big` pixels per side."""
    blank = np.zeros((big, big), np.uint8)
    layout = Layout(blank, blank.copy(), blank.copy(), blank.copy())
    for number, region in enumerate(_split(rng, (0, 0, big, big), depth=2)):
        filling = _bundle if number == 0 else (_bundle, _chip, _through_holes, _pour)[int(rng.integers(4))]
        filling(rng, layout, region)
    return layout


def _split(rng: Random, region: Region, depth: int) -> list[Region]:
    x, y, w, h = region
    if depth == 0 or min(w, h) < 200:
        return [region]
    cut = float(rng.uniform(0.4, 0.6))
    if w > h or (w == h and rng.random() < 0.5):
        halves = [(x, y, int(w * cut), h), (x + int(w * cut), y, w - int(w * cut), h)]
    else:
        halves = [(x, y, w, int(h * cut)), (x, y + int(h * cut), w, h - int(h * cut))]
    return [part for half in halves for part in _split(rng, half, depth - (rng.random() < 0.8))]


def trace(layout: Layout, points: list[tuple[float, float]], width: int) -> None:
    for start, end in pairwise(points):
        cv2.line(layout.copper, whole(start), whole(end), 255, width, cv2.LINE_8)
        layout.traces.append((np.array(start, float), np.array(end, float), width))
    for point in points:
        cv2.circle(layout.copper, whole(point), width // 2, 255, -1)


def _pad(layout: Layout, centre: tuple[float, float] | Point, radius: int, hole: int = 0) -> None:
    cv2.circle(layout.copper, whole(centre), radius, 255, -1)
    cv2.circle(layout.pads, whole(centre), radius - 2, 255, -1)
    if hole:
        cv2.circle(layout.holes, whole(centre), hole, 255, -1)


def _bundle(rng: Random, layout: Layout, region: Region) -> None:
    """Draw parallel traces with a 45-degree jog; some end in a via, some have a neck."""
    x, y, w, h = region
    width = int(rng.integers(16, 25))
    pitch = width + int(rng.integers(20, 36))
    along, across = (w, h) if w >= h else (h, w)
    jog = float(rng.uniform(-0.25, 0.25)) * across
    low, high = pitch * 0.6 + max(0.0, -jog), across - pitch * 0.6 - max(0.0, jog)
    start = float(rng.uniform(0.3, 0.5)) * along
    for offset in np.arange(low, high, pitch):
        if rng.random() < 0.08:
            continue
        end = along - 8 if rng.random() < 0.75 else float(rng.uniform(0.75, 0.92)) * along
        # Each trace turns a little after its neighbour (tan 22.5 degrees), so that the diagonals keep their distance.
        bend = start - np.sign(jog) * (offset - across / 2) * 0.414
        path = [(8.0, offset), (bend, offset), (bend + abs(jog), offset + jog), (end, offset + jog)]
        path = [(u, v) for u, v in path if 8 <= u <= end]
        points = [(x + u, y + v) if w >= h else (x + v, y + u) for u, v in path]
        trace(layout, points, width)
        if end < along - 8:
            _pad(layout, points[-1], width // 2 + 7, hole=width // 2 - 1)
        if rng.random() < 0.15 and len(points) > 1:  # a neck: narrower on both sides, by design
            centre = (np.array(points[0]) * 0.6 + np.array(points[1]) * 0.4).astype(int)
            step = np.array([28, 0] if w >= h else [0, 28])
            side = np.array([0, width // 2] if w >= h else [width // 2, 0])
            for sign in (-1, 1):
                edge = centre + sign * side
                cv2.line(layout.copper, whole(edge - step), whole(edge + step), 0, 5)


def _chip(rng: Random, layout: Layout, region: Region) -> None:
    """Draw two rows of pads with short traces, and an outline in the legend."""
    x, y, w, h = region
    pitch, length = int(rng.integers(34, 48)), int(rng.integers(46, 62))
    width = int(pitch * rng.uniform(0.45, 0.6))
    left, right = x + 0.26 * w, x + 0.74 * w
    for row in np.arange(y + pitch, y + h - pitch * 0.7, pitch):
        for column, sign in ((left, -1), (right, 1)):
            corner = (int(column - length / 2), int(row - width / 2))
            opposite = (int(column + length / 2), int(row + width / 2))
            cv2.rectangle(layout.copper, corner, opposite, 255, -1)
            cv2.rectangle(layout.pads, (corner[0] + 2, corner[1] + 2), (opposite[0] - 2, opposite[1] - 2), 255, -1)
            if rng.random() < 0.8:
                edge = x + 8 if sign < 0 else x + w - 8
                trace(layout, [(column, row), (edge, row)], max(14, width // 2))
    inner = int(left + length / 2 + 6), int(right - length / 2 - 6)
    if inner[1] - inner[0] > 70:
        cv2.rectangle(layout.legend, (inner[0], y + 12), (inner[1], y + h - 12), 255, 3)
        _write(rng, layout, ((inner[0] + inner[1]) // 2 - 28, y + h // 2), "U")


def _through_holes(rng: Random, layout: Layout, region: Region) -> None:
    """Draw a grid of drilled pads, some connected, with a few solid test points among them."""
    x, y, w, h = region
    pitch = int(rng.integers(70, 96))
    radius = int(rng.integers(19, 26))
    for v in np.arange(y + pitch * 0.6, y + h - radius - 6, pitch):
        previous = None
        for u in np.arange(x + pitch * 0.6, x + w - radius - 6, pitch):
            if rng.random() < 0.2:
                previous = None
                continue
            if previous is not None and rng.random() < 0.6:
                trace(layout, [previous, (u, v)], int(rng.integers(15, 22)))
            previous = (float(u), float(v))
            if rng.random() < 0.15:
                _pad(layout, previous, radius - 8)
            else:
                _pad(layout, previous, radius, hole=radius // 2)
    _write(rng, layout, (x + 16, y + 26), "J")


def _pour(rng: Random, layout: Layout, region: Region) -> None:
    """Draw a copper plane with clearances around drilled pads."""
    x, y, w, h = region
    cv2.rectangle(layout.copper, (x + 14, y + 14), (x + w - 14, y + h - 14), 255, -1)
    drilled: list[Point] = []
    for _ in range(int(rng.integers(3, 9))):
        if min(w, h) < 105:
            break  # no room for a hole
        centre = rng.uniform((x + 52, y + 52), (x + w - 52, y + h - 52))
        radius = int(rng.integers(14, 22))
        if any(np.linalg.norm(centre - other) < 80 for other in drilled):
            continue
        drilled.append(centre)
        cv2.circle(layout.copper, whole(centre), radius + 14, 0, -1)
        _pad(layout, centre, radius, hole=radius // 2)
    if rng.random() < 0.5:
        _write(rng, layout, (x + 30, y + h - 30), "TP")


def _write(rng: Random, layout: Layout, at: tuple[int, int], letter: str) -> None:
    text = f"{letter}{int(rng.integers(1, 99))}"
    cv2.putText(layout.legend, text, at, cv2.FONT_HERSHEY_SIMPLEX, float(rng.uniform(0.8, 1.1)), 255, 3, cv2.LINE_AA)


def whole(point: Any) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))

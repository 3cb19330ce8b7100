"""Draw the objects of the source data: families of shapes with random parameters, one class per family.

Radial contours are nested polygons whose radius varies with the angle; their class is the number of corners (RCDB:
Kataoka et al., "Replacing Labeled Real-image Datasets with Auto-generated Contours", CVPR 2022). Objects that overlap,
each with a known mask, follow SegRCDB (Shinoda et al., ICCV 2023). `fractals.py` draws the fractals.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from pipeline.extras.sample.layout import Random
from pipeline.extras.starter import fractals
from pipeline.extras.starter.raster import Layer, Points, Shape


def _circle(radius: float = 1.0, centre: tuple[float, float] = (0, 0), count: int = 40) -> Points:
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * radius + centre


def _polygon(corners: int, rng: Random) -> Shape:
    wobble = rng.normal(0, 0.06, (corners, 2)) if rng.random() < 0.5 else 0
    return [Layer(_circle(count=corners) + wobble)]


def _star(corners: int, rng: Random) -> Shape:
    points = _circle(count=2 * corners)
    points[1::2] *= float(rng.uniform(0.3, 0.6))
    return [Layer(points)]


def _disc(rng: Random) -> Shape:
    return [Layer(_circle())]


def _ellipse(rng: Random) -> Shape:
    return [Layer(_circle() * (1, float(rng.uniform(0.3, 0.6))))]


def _ring(rng: Random) -> Shape:
    return [Layer(_circle()), Layer(_circle(float(rng.uniform(0.4, 0.75))), tone=-1)]


def _crescent(rng: Random) -> Shape:
    return [Layer(_circle()), Layer(_circle(float(rng.uniform(0.75, 0.95)), (float(rng.uniform(0.35, 0.6)), 0)), -1)]


def _sector(rng: Random) -> Shape:
    angles = np.linspace(0, float(rng.uniform(1.2, 5.3)), 30)
    return [Layer(np.concatenate([np.stack([np.cos(angles), np.sin(angles)], 1), [(0.0, 0.0)]]))]


def _cored_disc(rng: Random) -> Shape:
    """Draw a disc with an off-centre core of uneven rim and another tone."""
    core = _radial(rng, 12, 0.25) * float(rng.uniform(0.35, 0.65)) + rng.uniform(-0.2, 0.2, 2)
    return [Layer(_radial(rng, 24, 0.05)), Layer(core, 1)]


def _dented_disc(rng: Random) -> Shape:
    """Draw a disc with a round inner part of similar tone, like a ring without a hole."""
    return [Layer(_radial(rng, 24, 0.05)), Layer(_circle(float(rng.uniform(0.3, 0.55))), 3)]


def _speckled_disc(rng: Random) -> Shape:
    specks = [
        Layer(_circle(float(rng.uniform(0.06, 0.16)), tuple(rng.uniform(-0.6, 0.6, 2)), 8), 1)
        for _ in range(int(rng.integers(4, 12)))
    ]
    return [Layer(_radial(rng, 24, 0.1)), *specks]


def _marked_oval(rng: Random) -> Shape:
    """Draw an oval with two spots and a bar."""
    spots = [
        Layer(_circle(float(rng.uniform(0.08, 0.2)), (side * float(rng.uniform(0.25, 0.45)), -0.25), 10), 2)
        for side in (-1, 1)
    ]
    bar = Layer(np.array([(-0.3, 0.45), (0.3, 0.45)]), 2, float(rng.uniform(0.08, 0.2)), closed=False)
    return [Layer(_circle() * (float(rng.uniform(0.65, 0.95)), 1)), *spots, bar]


def _parted_oval(rng: Random) -> Shape:
    """Draw an oval of two colours with a straight border."""
    oval = _circle() * (float(rng.uniform(0.65, 0.95)), 1)
    below = oval.copy()
    below[:, 1] = np.maximum(below[:, 1], float(rng.uniform(-0.5, 0.5)))
    return [Layer(oval), Layer(below, 1)]


def _radial(rng: Random, corners: int, change: float) -> Points:
    return _circle(count=corners) * (1 + change * rng.normal(size=(corners, 1)))


def _contour(corners: int, rng: Random) -> Shape:
    """Draw nested polygons of the same varying radius, as in RCDB."""
    outline = _radial(rng, corners, 0.3)
    rings = int(rng.integers(3, 7))
    return [Layer(outline * (ring + 1) / rings, 0, float(rng.uniform(0.03, 0.09))) for ring in range(rings)]


def _smooth(points: Points) -> Points:
    """Return a smooth closed curve through the points, by upsampling their discrete Fourier series."""
    count = 48
    series = np.fft.fft(points[:, 0] + 1j * points[:, 1])
    half = len(series) // 2
    padded = np.concatenate([series[:half], np.zeros(count - len(series)), series[half:]])
    curve = np.fft.ifft(padded) * count / len(series)
    return np.stack([curve.real, curve.imag], 1)


def _blob(change: float, rng: Random) -> Shape:
    return [Layer(_smooth(_radial(rng, 9, change)))]


def _cross(rng: Random) -> Shape:
    arm = float(rng.uniform(0.15, 0.4))
    return [Layer(np.array(box) * 1.0) for box in (_box(1, arm), _box(arm, 1))]


def _box(x: float, y: float) -> list[tuple[float, float]]:
    return [(-x, -y), (x, -y), (x, y), (-x, y)]


def _bar(rng: Random) -> Shape:
    return [Layer(np.array(_box(1, float(rng.uniform(0.08, 0.3)))))]


def _arrow(rng: Random) -> Shape:
    shaft, head = float(rng.uniform(0.1, 0.25)), float(rng.uniform(-0.1, 0.5))
    return [
        Layer(
            np.array(
                [(-1, -shaft), (head, -shaft), (head, -0.6), (1, 0), (head, 0.6), (head, shaft), (-1, shaft)], float
            )
        )
    ]


def _angle(rng: Random) -> Shape:
    return [
        Layer(np.array([(-1, -1), (0, float(rng.uniform(-1, 1)) * 0.3), (1, -1)], float), 0, 0.3, closed=False),
    ]


def _gear(rng: Random) -> Shape:
    teeth = int(rng.integers(6, 13))
    points = _circle(count=4 * teeth)
    points[(np.arange(4 * teeth) % 4) < 2] *= float(rng.uniform(0.7, 0.85))
    return [Layer(points), Layer(_circle(float(rng.uniform(0.15, 0.4))), -1)]


def _spiral(rng: Random) -> Shape:
    turns = float(rng.uniform(1.5, 3.5))
    t = np.linspace(0.08, 1, 70)
    angles = 2 * np.pi * turns * t
    return [Layer(np.stack([np.cos(angles), np.sin(angles)], 1) * t[:, None], 0, 0.1, closed=False)]


def _wave(rng: Random) -> Shape:
    t = np.linspace(-1, 1, 60)
    swing = np.sin(np.pi * float(rng.uniform(1.5, 4)) * t)
    return [Layer(np.stack([t, float(rng.uniform(0.2, 0.5)) * swing], 1), 0, 0.12, closed=False)]


def _zigzag(rng: Random) -> Shape:
    count = int(rng.integers(4, 9))
    height = np.where(np.arange(count) % 2, 1, -1) * float(rng.uniform(0.2, 0.5))
    return [Layer(np.stack([np.linspace(-1, 1, count), height], 1), 0, 0.12, closed=False)]


def _tree(rng: Random) -> Shape:
    """Draw branches that fork four times (a Lindenmayer system)."""
    spread, shorter = float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.6, 0.8))
    layers: list[Layer] = []
    tips = [((0.0, 1.0), -np.pi / 2, 0.75)]
    for depth in range(4):
        grown = []
        for (x, y), angle, length in tips:
            end = (x + length * np.cos(angle), y + length * np.sin(angle))
            layers.append(Layer(np.array([(x, y), end]), 0, 0.16 / (depth + 1), closed=False))
            grown += [(end, angle + side * spread * float(rng.uniform(0.7, 1.3)), length * shorter) for side in (-1, 1)]
        tips = grown
    return layers


def _cluster(rng: Random) -> Shape:
    return [
        Layer(_circle(float(rng.uniform(0.3, 0.5)), tuple(rng.uniform(-0.6, 0.6, 2)), 16))
        for _ in range(int(rng.integers(3, 7)))
    ]


def _grid(rng: Random) -> Shape:
    count = int(rng.integers(2, 5))
    places = (np.arange(count) + 0.5) / count * 2 - 1
    arm = float(rng.uniform(0.5, 0.8)) / count
    return [Layer(np.array(_box(arm, arm)) + np.array([x, y])) for x in places for y in places]


def _glyph(rng: Random) -> Shape:
    """Draw a letter or digit in one of OpenCV's stroke fonts."""
    side = fractals.SIDE
    mask = np.zeros((side, side), np.uint8)
    text = "ABCDEFGHKLMNPRSTXYZ23456789"[int(rng.integers(27))]
    font = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX)[int(rng.integers(2))]
    cv2.putText(mask, text, (12, 82), font, 3.0, 255, int(rng.integers(4, 12)), cv2.LINE_AA)
    return mask


FAMILIES: dict[str, Callable[[Random], Shape]] = {
    **{f"polygon {corners}": partial(_polygon, corners) for corners in (3, 4, 5, 6, 8)},
    **{f"star {corners}": partial(_star, corners) for corners in (4, 5, 7)},
    "disc": _disc,
    "ellipse": _ellipse,
    "ring": _ring,
    "crescent": _crescent,
    "sector": _sector,
    "cored disc": _cored_disc,
    "dented disc": _dented_disc,
    "speckled disc": _speckled_disc,
    "marked oval": _marked_oval,
    "parted oval": _parted_oval,
    **{f"contour {corners}": partial(_contour, corners) for corners in (5, 12, 30)},
    "blob": partial(_blob, 0.15),
    "amoeba": partial(_blob, 0.4),
    "cross": _cross,
    "bar": _bar,
    "arrow": _arrow,
    "angle": _angle,
    "gear": _gear,
    "spiral": _spiral,
    "wave": _wave,
    "zigzag": _zigzag,
    "tree": _tree,
    "cluster": _cluster,
    "grid": _grid,
    "glyph": _glyph,
    **{f"fractal {number}": partial(fractals.draw, number) for number in range(1, 7)},
}

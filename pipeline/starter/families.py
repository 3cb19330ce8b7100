"""What the source data shows: families of shapes, each a formula with random parameters, and its class by family.

Fractals are iterated function systems, a class being one system and its members slight changes of it (FractalDB:
Kataoka et al., "Pre-training without Natural Images", ACCV 2020). Radial contours are nested polygons whose radius
wanders with the angle, a class being the number of corners (RCDB: Kataoka et al., "Replacing Labeled Real-image
Datasets with Auto-generated Contours", CVPR 2022). Objects over objects, with the mask of each known: SegRCDB
(Shinoda et al., ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.sample.layout import Mask, Random

Points = NDArray[np.float64]  # N x 2; a body reaches from -1 to 1

FRACTAL_SIDE = 96
FRACTAL_FILL = (0.12, 0.6)  # share of pixels that a system has to reach: thinner ones are dust, fuller ones blobs
FRACTAL_CHANGE = 0.2  # members of a class: each number of the system times 0.8 to 1.2, as in FractalDB
FRACTAL_MEMBERS = 16
SUBPIXEL = 4  # binary digits behind the point in OpenCV's drawing


@dataclass(frozen=True, slots=True)
class Layer:
    """One thing to draw: a filled outline, a stroke, or a picture of its own.

    `tone` counts the colours of an object: 0 is its body, 1 and 2 are parts on it, 3 is a part of nearly the body's
    colour, -1 takes away.
    """

    points: Points
    tone: int = 0
    stroke: float = 0.0  # width, in halves of the object's side; 0 fills
    closed: bool = True


Shape = list[Layer] | Mask  # a fractal comes as a picture


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
    """A disc with a darker or lighter core of uneven rim, off its centre."""
    core = _radial(rng, 12, 0.25) * float(rng.uniform(0.35, 0.65)) + rng.uniform(-0.2, 0.2, 2)
    return [Layer(_radial(rng, 24, 0.05)), Layer(core, 1)]


def _dented_disc(rng: Random) -> Shape:
    """A disc with a round inner part of a near tone: a ring that is not open."""
    return [Layer(_radial(rng, 24, 0.05)), Layer(_circle(float(rng.uniform(0.3, 0.55))), 3)]


def _speckled_disc(rng: Random) -> Shape:
    specks = [
        Layer(_circle(float(rng.uniform(0.06, 0.16)), tuple(rng.uniform(-0.6, 0.6, 2)), 8), 1)
        for _ in range(int(rng.integers(4, 12)))
    ]
    return [Layer(_radial(rng, 24, 0.1)), *specks]


def _marked_oval(rng: Random) -> Shape:
    """An oval with two spots and a bar."""
    spots = [
        Layer(_circle(float(rng.uniform(0.08, 0.2)), (side * float(rng.uniform(0.25, 0.45)), -0.25), 10), 2)
        for side in (-1, 1)
    ]
    bar = Layer(np.array([(-0.3, 0.45), (0.3, 0.45)]), 2, float(rng.uniform(0.08, 0.2)), closed=False)
    return [Layer(_circle() * (float(rng.uniform(0.65, 0.95)), 1)), *spots, bar]


def _parted_oval(rng: Random) -> Shape:
    """An oval of two colours with a straight border."""
    oval = _circle() * (float(rng.uniform(0.65, 0.95)), 1)
    below = oval.copy()
    below[:, 1] = np.maximum(below[:, 1], float(rng.uniform(-0.5, 0.5)))
    return [Layer(oval), Layer(below, 1)]


def _radial(rng: Random, corners: int, change: float) -> Points:
    return _circle(count=corners) * (1 + change * rng.normal(size=(corners, 1)))


def _contour(corners: int, rng: Random) -> Shape:
    """RCDB: one polygon in another, the radius of all wandering alike."""
    outline = _radial(rng, corners, 0.3)
    rings = int(rng.integers(3, 7))
    return [Layer(outline * (ring + 1) / rings, 0, float(rng.uniform(0.03, 0.09))) for ring in range(rings)]


def _smooth(rng: Random, points: Points, count: int = 48) -> Points:
    """A closed curve through the points: their discrete Fourier series, read more finely."""
    series = np.fft.fft(points[:, 0] + 1j * points[:, 1])
    half = len(series) // 2
    padded = np.concatenate([series[:half], np.zeros(count - len(series)), series[half:]])
    curve = np.fft.ifft(padded) * count / len(series)
    return np.stack([curve.real, curve.imag], 1)


def _blob(change: float, rng: Random) -> Shape:
    return [Layer(_smooth(rng, _radial(rng, 9, change)))]


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
    """Branches that fork four times (a Lindenmayer system)."""
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
    """A letter or digit of one of OpenCV's stroke fonts."""
    side = FRACTAL_SIDE
    mask = np.zeros((side, side), np.uint8)
    text = "ABCDEFGHKLMNPRSTXYZ23456789"[int(rng.integers(27))]
    font = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX)[int(rng.integers(2))]
    cv2.putText(mask, text, (12, 82), font, 3.0, 255, int(rng.integers(4, 12)), cv2.LINE_AA)
    return mask


def _fractal(number: int, rng: Random) -> Shape:
    return _members(number)[int(rng.integers(FRACTAL_MEMBERS))]


@cache
def _members(number: int) -> list[Mask]:
    """Pictures of one class of fractals, the same in every process."""
    rng = np.random.default_rng([2020, number])
    while True:
        system = _system(rng)
        if FRACTAL_FILL[0] < _attractor(rng, system).mean() / 255 < FRACTAL_FILL[1]:
            break
    changes = rng.uniform(1 - FRACTAL_CHANGE, 1 + FRACTAL_CHANGE, (FRACTAL_MEMBERS, *system.shape))
    return [_attractor(rng, np.clip(system * change, -1, 1)) for change in changes]


def _system(rng: Random) -> NDArray[np.float64]:
    """Two to four affine maps as rows a, b, c, d, e, f, each a contraction."""
    maps = rng.uniform(-1, 1, (int(rng.integers(2, 5)), 6))
    for row in maps:
        row[:4] *= float(rng.uniform(0.4, 0.85)) / np.linalg.norm(row[:4].reshape(2, 2), 2)
    return maps


def _attractor(rng: Random, maps: NDArray[np.float64]) -> Mask:
    """The chaos game, played by 300 points at once; a map's share of the moves goes by its area."""
    maps = maps.copy()
    for row in maps:  # a change may have made one an expansion
        row[:4] *= min(1.0, 0.9 / max(float(np.linalg.norm(row[:4].reshape(2, 2), 2)), 1e-9))
    area = np.abs(maps[:, 0] * maps[:, 3] - maps[:, 1] * maps[:, 2]) + 0.02
    points = np.zeros((300, 2))
    seen = []
    for step in range(100):
        chosen = maps[rng.choice(len(maps), 300, p=area / area.sum())]
        points = np.einsum("nij,nj->ni", chosen[:, :4].reshape(-1, 2, 2), points) + chosen[:, 4:]
        if step >= 20:
            seen.append(points)
    places = np.concatenate(seen)
    low, high = np.percentile(places, 0.5, axis=0), np.percentile(places, 99.5, axis=0)
    places = (places - low) / max(float((high - low).max()), 1e-9) * (FRACTAL_SIDE - 1)
    columns, rows = places[np.all((places >= 0) & (places < FRACTAL_SIDE), axis=1)].astype(int).T
    mask = np.zeros((FRACTAL_SIDE, FRACTAL_SIDE), np.uint8)
    mask[rows, columns] = 255
    return np.asarray(cv2.dilate(mask, np.ones((2, 2), np.uint8)), np.uint8)


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
    **{f"fractal {number}": partial(_fractal, number) for number in range(1, 7)},
}


def raster(shape: Shape, side: int, matrix: NDArray[np.float64]) -> list[tuple[int, Mask]]:
    """Masks of an object, body first, as (tone, mask of `side` pixels); `matrix` turns and stretches it before.

    Scaled so that the longer side of the body fills the frame but for a pixel.
    """
    if isinstance(shape, np.ndarray):
        half = FRACTAL_SIDE / 2
        affine = np.zeros((2, 3))
        affine[:, :2] = matrix / np.linalg.norm(matrix, 2) * side / FRACTAL_SIDE / 1.1
        affine[:, 2] = side / 2 - affine[:, :2] @ (half, half)
        return [(0, np.asarray(cv2.warpAffine(shape, affine, (side, side), flags=cv2.INTER_AREA), np.uint8))]
    outlines = [layer.points @ matrix.T for layer in shape]
    reach = [
        np.stack([points.min(0) - layer.stroke / 2, points.max(0) + layer.stroke / 2])
        for layer, points in zip(shape, outlines, strict=True)
        if layer.tone == 0
    ]
    low, high = np.min([r[0] for r in reach], axis=0), np.max([r[1] for r in reach], axis=0)
    scale = (side - 2) / float((high - low).max())
    offset = side / 2 - (low + high) / 2 * scale
    masks: dict[int, Mask] = {}
    for layer, points in zip(shape, outlines, strict=True):
        places = [np.round((points * scale + offset - 0.5) * 2**SUBPIXEL).astype(np.int32)]
        erase = layer.tone < 0
        mask = masks.setdefault(0 if erase else layer.tone, np.zeros((side, side), np.uint8))
        shade = 0 if erase else 255
        if layer.stroke:
            width = max(1, round(layer.stroke * scale))
            cv2.polylines(mask, places, layer.closed, shade, width, cv2.LINE_AA, SUBPIXEL)
        else:
            cv2.fillPoly(mask, places, shade, cv2.LINE_AA, SUBPIXEL)
    return sorted(masks.items())

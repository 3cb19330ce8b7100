"""Draw fractals from iterated function systems: each class is one system, and its members are slight variations.

This follows FractalDB (Kataoka et al., "Pre-training without Natural Images", ACCV 2020).
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.extras.sample.layout import Mask, Random

SIDE = 96  # pixels of an image
FILL = (0.12, 0.6)  # share of pixels that a system must cover: sparser ones are dust, denser ones blobs
CHANGE = 0.2  # each number of a member's system is multiplied by 0.8 to 1.2, as in FractalDB
MEMBERS = 16


def draw(number: int, rng: Random) -> Mask:
    """Draw a random member of a class, as an image of SIDE pixels per side."""
    return _members(number)[int(rng.integers(MEMBERS))]


@cache
def _members(number: int) -> list[Mask]:
    """Draw all members of one class, the same in every process."""
    rng = np.random.default_rng([2020, number])
    while True:
        system = _system(rng)
        if FILL[0] < _attractor(rng, system).mean() / 255 < FILL[1]:
            break
    changes = rng.uniform(1 - CHANGE, 1 + CHANGE, (MEMBERS, *system.shape))
    return [_attractor(rng, np.clip(system * change, -1, 1)) for change in changes]


def _system(rng: Random) -> NDArray[np.float64]:
    """Return two to four random affine contractions as rows a, b, c, d, e, f."""
    maps = rng.uniform(-1, 1, (int(rng.integers(2, 5)), 6))
    for row in maps:
        row[:4] *= float(rng.uniform(0.4, 0.85)) / np.linalg.norm(row[:4].reshape(2, 2), 2)
    return maps


def _attractor(rng: Random, maps: NDArray[np.float64]) -> Mask:
    """Draw the attractor by the chaos game with 300 points; a map is chosen in proportion to its area."""
    maps = maps.copy()
    for row in maps:  # a change may have turned a contraction into an expansion
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
    places = (places - low) / max(float((high - low).max()), 1e-9) * (SIDE - 1)
    columns, rows = places[np.all((places >= 0) & (places < SIDE), axis=1)].astype(int).T
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[rows, columns] = 255
    return np.asarray(cv2.dilate(mask, np.ones((2, 2), np.uint8)), np.uint8)

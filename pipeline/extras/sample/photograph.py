"""Render a layout as a photograph: solder mask, bare pads, legend, dust, light, blur and noise."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.extras.sample.layout import Layout, Mask, Random, whole

Image = NDArray[Any]  # float32, 0..255, BGR

BOARDS = (  # BGR of bare board and of copper under the solder mask
    ((38, 72, 22), (66, 122, 42)),  # green
    ((38, 72, 22), (66, 122, 42)),
    ((92, 48, 14), (150, 92, 34)),  # blue
    ((24, 20, 96), (48, 44, 160)),  # red
    ((34, 32, 30), (66, 64, 58)),  # black
)
FINISHES = ((120, 190, 218), (190, 196, 196))  # BGR of gold and of tin


def render(rng: Random, layout: Layout, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Render a layout as an image of `size`, which is (width, height) in pixels."""
    board, covered = (_colour(colour, rng.uniform(0.85, 1.15)) for colour in BOARDS[int(rng.integers(len(BOARDS)))])
    finish = _colour(FINISHES[int(rng.integers(len(FINISHES)))], rng.uniform(0.9, 1.05))

    def shrink(mask: Mask, blur: float = 0.5) -> Image:
        small = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
        soft: Image = cv2.GaussianBlur(small, (0, 0), blur).astype(np.float32)[..., None] / 255
        return soft

    copper = shrink(layout.copper)
    image: Image = board * (1 - copper) + covered * copper
    # Etched copper rises above the board, so light from one side shows its edges.
    relief = shrink(layout.copper, 0.9)
    angle = float(rng.uniform(0, 2 * np.pi))
    slope = cv2.Sobel(relief, cv2.CV_32F, 1, 0) * np.cos(angle) + cv2.Sobel(relief, cv2.CV_32F, 0, 1) * np.sin(angle)
    image += slope[..., None].astype(np.float32) * np.float32(rng.uniform(9, 19))
    for mask, colour, opacity in (
        (layout.pads & layout.copper, finish, 1.0),
        (layout.holes, _colour((16, 18, 20)), 1.0),
        (layout.legend & ~layout.pads, _colour((225, 230, 230)), 0.85),
    ):
        weight = shrink(mask) * np.float32(opacity)
        image = image * (1 - weight) + colour * weight
    image = light(rng, _dirt(rng, image))
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 0.9)))
    image = image + rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(2, 6))
    return np.clip(image, 0, 255).astype(np.uint8)


def _colour(bgr: tuple[int, int, int], gain: float = 1.0) -> Image:
    return np.array(bgr, np.float32) * np.float32(gain)


def _dirt(rng: Random, image: Image) -> Image:
    """Add dust and scratches, which lie on top and are not defects."""
    size = image.shape[1], image.shape[0]
    veil = np.zeros(image.shape[:2], np.uint8)
    for _ in range(int(rng.integers(2, 12))):
        cv2.circle(
            veil, whole(rng.uniform((0, 0), size)), int(rng.integers(1, 3)), int(rng.integers(60, 160)), -1, cv2.LINE_AA
        )
    for _ in range(int(rng.integers(0, 3))):
        start = rng.uniform((0, 0), size)
        cv2.line(veil, whole(start), whole(start + rng.normal(0, 40, 2)), int(rng.integers(30, 90)), 1, cv2.LINE_AA)
    weight: Image = veil.astype(np.float32)[..., None] / 255
    shade = np.float32(210 if rng.random() < 0.6 else 20)
    soiled: Image = image * (1 - weight) + shade * weight
    return soiled


def light(rng: Random, image: Image) -> Image:
    """Add uneven light: a gradient, a soft highlight, and a random exposure."""
    v, u = (np.arange(side, dtype=np.float32) / side - 0.5 for side in image.shape[:2])
    u, v = u[None, :], v[:, None]
    angle = float(rng.uniform(0, 2 * np.pi))
    gain = 1 + float(rng.uniform(0, 0.5)) * (u * np.cos(angle) + v * np.sin(angle))
    centre = rng.uniform(-0.5, 0.5, 2)
    highlight = np.exp(-((u - centre[0]) ** 2 + (v - centre[1]) ** 2) / float(rng.uniform(0.02, 0.12)))
    lit = image * (gain * rng.uniform(0.75, 1.3))[..., None] + (highlight * rng.uniform(0, 45))[..., None]
    return np.asarray(lit, np.float32)

"""Draw scenes: a background with overlapping shapes, light, blur and noise; boxes are exact by construction."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline import pixels
from pipeline.boxes import Box
from pipeline.extras.sample.dataset import CLASSES as DEFECTS
from pipeline.extras.sample.dataset import draw_tile
from pipeline.extras.sample.layout import Mask, Random
from pipeline.extras.sample.photograph import light
from pipeline.extras.starter.families import FAMILIES
from pipeline.extras.starter.raster import raster

Image = NDArray[Any]  # float32, 0..255, BGR
Window = tuple[slice, slice]  # rows, columns

CLASSES = (*FAMILIES, *DEFECTS)
BOARDS = 0.2  # share of scenes that are boards with defects, as in the sample dataset
MOST = 16  # objects per scene
SMALLEST = 9.0  # longer side of an object in pixels
LARGEST = 0.6  # longer side of an object as a share of the scene's side
VISIBLE = 0.4  # share of an object that must be visible; objects that would hide more of another are not drawn
CONTRAST = 40.0  # minimum contrast between object and background: the largest difference in a channel


def draw_scene(rng: Random, side: int) -> tuple[pixels.Image, list[tuple[int, list[float]]]]:
    """Draw a BGR image of `side` pixels per side; return it with its objects as (class, [x, y, width, height])."""
    if rng.random() < BOARDS:
        return _board(rng, side)
    image = _background(rng, side)
    owner = np.zeros((side, side), np.int16)  # the object visible at each pixel; 0 is the background
    whole: list[int] = []  # number of pixels of each object
    labels: list[int] = []
    for family, size, centre in _plan(rng, side):
        masks = raster(FAMILIES[CLASSES[family]](rng), size, _matrix(rng))
        place = _place(image, centre, size)
        solid = masks[0][1] > 127
        if place is None or not solid.any():
            continue
        window, cut = place
        body = solid[cut]
        in_sight, hidden = (
            np.bincount(part, minlength=len(whole) + 1)[1:] for part in (owner.ravel(), owner[window][body])
        )
        if np.any((hidden > 0) & (in_sight - hidden < VISIBLE * np.array(whole))):
            continue  # it would hide too much of another object
        if np.count_nonzero(body) < VISIBLE * np.count_nonzero(solid):
            continue  # most of it would lie outside
        _paint(rng, image, window, [(tone, mask[cut]) for tone, mask in masks])
        owner[window][body] = len(whole) + 1
        whole.append(int(np.count_nonzero(solid)))
        labels.append(family)
    objects = [(label, box) for number, label in enumerate(labels, 1) if (box := _box_of(owner == number)) is not None]
    return _photograph(rng, image), objects


def _board(rng: Random, side: int) -> tuple[pixels.Image, list[tuple[int, list[float]]]]:
    """Draw a full tile and crop a random window, because smaller tiles have no room for the layouts."""
    image, defects = draw_tile(rng)
    left, top = (int(corner) for corner in rng.integers(0, len(image) - side + 1, 2))
    objects = []
    for name, (x, y, width, height) in defects:
        box = Box(name, x - left, y - top, x - left + width, y - top + height).clipped(side, side)
        if min(box.width, box.height) >= 3 and box.width * box.height >= VISIBLE * width * height:
            objects.append((CLASSES.index(name), list(box.bbox)))
    return image[top : top + side, left : left + side], objects


def _plan(rng: Random, side: int) -> list[tuple[int, int, tuple[float, float]]]:
    """Choose family, size and centre of each object; some scenes are a crowd of one or two families of similar size."""
    crowd = rng.random() < 0.4
    count = int(rng.integers(5, MOST)) if crowd else int(rng.integers(1, 8))
    families = rng.integers(len(FAMILIES), size=2 if crowd else count)
    largest = side * LARGEST * (0.4 if crowd else 1)
    usual = float(np.exp(rng.uniform(np.log(SMALLEST * 1.5), np.log(largest))))
    plan = []
    for _ in range(count):
        family = int(families[int(rng.integers(len(families)))])
        size = usual * rng.uniform(0.75, 1.3) if crowd else np.exp(rng.uniform(np.log(SMALLEST), np.log(largest)))
        centre = (float(rng.uniform(0, side)), float(rng.uniform(0, side)))
        plan.append((family, max(int(size), int(SMALLEST)), centre))
    return plan


def _matrix(rng: Random) -> NDArray[np.float64]:
    """Return a random matrix that rotates and mirrors; half of them also stretch and shear a little."""
    turn = float(rng.uniform(-np.pi, np.pi)) if rng.random() < 0.5 else float(rng.normal(0, 0.2))
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    if rng.random() < 0.5:
        matrix = matrix @ np.array([[float(rng.uniform(0.75, 1.25)), float(rng.normal(0, 0.15))], [0, 1]])
    return matrix if rng.random() < 0.5 else matrix @ np.diag([-1.0, 1.0])


def _place(image: Image, centre: tuple[float, float], size: int) -> tuple[Window, Window] | None:
    """Return the part of the image that an object covers, and the part of the object inside the image; None if tiny."""
    side = image.shape[0]
    left, top = (round(c - size / 2) for c in centre)
    x, y, right, bottom = max(left, 0), max(top, 0), min(left + size, side), min(top + size, side)
    if right - x < 3 or bottom - y < 3:
        return None
    return (slice(y, bottom), slice(x, right)), (slice(y - top, bottom - top), slice(x - left, right - left))


def _paint(rng: Random, image: Image, window: Window, masks: list[tuple[int, Mask]]) -> None:
    ground = image[window]
    under = ground.reshape(-1, 3).mean(0)
    tones = [_apart_from(rng, under)]
    tones += [_apart_from(rng, tones[0]), _apart_from(rng, tones[0])]
    tones.append(np.clip(tones[0] * float(rng.uniform(0.6, 0.85)), 0, 255))
    opacity = float(rng.uniform(0.6, 1)) if rng.random() < 0.3 else 1.0
    outlined, filled = rng.random() < 0.3, rng.random() < 0.85
    if rng.random() < 0.15:  # with a shadow beside it
        shift = np.array([[1, 0, rng.uniform(-4, 4)], [0, 1, rng.uniform(-4, 4)]], np.float32)
        shadow = cv2.warpAffine(cv2.GaussianBlur(masks[0][1], (0, 0), 1.5), shift, masks[0][1].shape[::-1])
        ground *= 1 - shadow[..., None].astype(np.float32) / 255 * np.float32(0.5)
    for tone, mask in masks:
        weight = mask.astype(np.float32)[..., None] / 255 * np.float32(opacity)
        fill = _fill(rng, tones[tone], mask.shape) if tone == 0 else tones[tone]
        if filled or tone != 0:
            ground[:] = ground * (1 - weight) + fill * weight
        if tone == 0 and (outlined or not filled):
            rim = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
            line = rim.astype(np.float32)[..., None] / 255
            ground[:] = ground * (1 - line) + tones[1 if filled else 0] * line


def _apart_from(rng: Random, colour: Image) -> Image:
    while True:
        drawn = _colour(rng)
        if np.abs(drawn - colour).max() >= CONTRAST:
            return drawn


def _colour(rng: Random) -> Image:
    """Return a random BGR colour; half of them are near grey, like most real objects."""
    colour = rng.uniform(0, 255, 3).astype(np.float32)
    if rng.random() < 0.5:
        colour = colour.mean() + (colour - colour.mean()) * np.float32(0.3)
    return np.asarray(colour, np.float32)


def _fill(rng: Random, colour: Image, shape: tuple[int, ...]) -> Image:
    """Return a fill: one colour, or shaded like a ball, striped, or rough."""
    kind = rng.random()
    if kind < 0.4:
        return colour
    height, width = shape[:2]
    v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    if kind < 0.65:
        a, b = rng.uniform(-0.4, 0.4, 2)
        pattern = 1.15 - 0.55 * ((u - a) ** 2 + (v - b) ** 2)
    elif kind < 0.8:
        angle, often = rng.uniform(0, np.pi), rng.uniform(4, 14)
        pattern = 1 + 0.3 * np.sin((u * np.cos(angle) + v * np.sin(angle)) * often)
    else:
        pattern = 1 + 0.35 * (_noise(rng, max(height, width), int(rng.integers(3, 9)))[:height, :width] - 0.5) * 2
    return np.asarray(colour * pattern[..., None], np.float32)


def _noise(rng: Random, side: int, cells: int) -> Image:
    """Return smooth value noise with `cells` cells per side, about 0 to 1."""
    small = rng.random((min(cells, side), min(cells, side)), np.float32)
    return np.asarray(cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC), np.float32)


def _background(rng: Random, side: int) -> Image:
    """Draw a smooth, cloudy, striped or tiled background of two colours, sometimes with lines, dots and patches."""
    first, second = _colour(rng), _colour(rng)
    if rng.random() < 0.6:
        second = first + (second - first) * np.float32(0.3)
    kind = rng.random()
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    u, v = axis[None, :], axis[:, None]
    angle, often = rng.uniform(0, 2 * np.pi), rng.uniform(2, 30)
    if kind < 0.3:
        weight = 0.5 + 0.35 * (u * np.cos(angle) + v * np.sin(angle))
    elif kind < 0.7:
        weight = sum(_noise(rng, side, 3 * 2**octave) * 0.5**octave for octave in range(5)) / 1.94
    elif kind < 0.85:
        weight = 0.5 + 0.5 * np.sin((u * np.cos(angle) + v * np.sin(angle)) * often)
    else:
        weight = 0.5 + 0.5 * np.sign(np.sin(u * often)) * np.sign(np.sin(v * often))
    image = first + (second - first) * np.broadcast_to(weight, (side, side))[..., None].astype(np.float32)
    if rng.random() < 0.4:
        _clutter(rng, image)
    return np.asarray(np.clip(image, 0, 255), np.float32)


def _clutter(rng: Random, image: Image) -> None:
    side = image.shape[0]
    for _ in range(int(rng.integers(3, 30))):
        colour = rng.uniform(0, 255, 3).tolist()
        start = rng.integers(0, side, 2)
        end = start + rng.normal(0, 30, 2).astype(int)
        kind = rng.random()
        if kind < 0.5:
            cv2.line(image, start.tolist(), end.tolist(), colour, 1, cv2.LINE_AA)
        elif kind < 0.8:
            cv2.circle(image, start.tolist(), int(rng.integers(1, 3)), colour, -1, cv2.LINE_AA)
        else:  # a veil with soft edges, which is not an object
            spot = np.zeros((side, side), np.float32)
            cv2.circle(spot, start.tolist(), int(rng.integers(8, 30)), 0.6, -1)
            veil = np.asarray(cv2.GaussianBlur(spot, (0, 0), 8), np.float32)[..., None]
            image[:] = image * (1 - veil) + np.array(colour, np.float32) * veil


def _photograph(rng: Random, image: Image) -> pixels.Image:
    if rng.random() < 0.7:
        image = light(rng, image)
    if rng.random() < 0.1:
        image = np.repeat(image.mean(-1, keepdims=True), 3, axis=-1)
    if rng.random() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 1.2)))
    if rng.random() < 0.05:  # motion blur
        kernel = np.eye(5, dtype=np.float32) / 5 if rng.random() < 0.5 else np.full((1, 5), 0.2, np.float32)
        image = cv2.filter2D(image, -1, kernel)
    if rng.random() < 0.6:
        image = image + rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(1, 10))
    return np.clip(image, 0, 255).astype(np.uint8)


def _box_of(seen: NDArray[np.bool_]) -> list[float] | None:
    columns, rows = np.flatnonzero(seen.any(0)), np.flatnonzero(seen.any(1))
    if not len(columns) or min(len(columns), len(rows)) < 3:
        return None
    x, y = float(columns[0]), float(rows[0])
    return [x, y, float(columns[-1] + 1) - x, float(rows[-1] + 1) - y]

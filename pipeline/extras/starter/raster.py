"""Rasterise objects to pixel masks, from outlines or from images."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.extras.sample.layout import Mask

Points = NDArray[np.float64]  # N x 2; a body extends from -1 to 1

SUBPIXEL = 4  # fractional bits of coordinates in OpenCV's drawing functions


@dataclass(frozen=True, slots=True)
class Layer:
    """One part of an object: a filled outline or a stroke.

    `tone` selects its colour: 0 is the body, 1 and 2 are parts on it, 3 is a part of nearly the body's colour, and -1
    cuts a hole.
    """

    points: Points
    tone: int = 0
    stroke: float = 0.0  # width, in halves of the object's side; 0 fills
    closed: bool = True


Shape = list[Layer] | Mask  # a fractal is an image


def raster(shape: Shape, side: int, matrix: NDArray[np.float64]) -> list[tuple[int, Mask]]:
    """Return masks of an object, body first, as (tone, mask of `side` pixels per side), transformed by `matrix`.

    The longer side of the body fills the frame, less one pixel per border.
    """
    if isinstance(shape, np.ndarray):
        return [(0, _warped(shape, side, matrix))]
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


def _warped(image: Mask, side: int, matrix: NDArray[np.float64]) -> Mask:
    size = len(image)
    affine = np.zeros((2, 3))
    affine[:, :2] = matrix / np.linalg.norm(matrix, 2) * side / size / 1.1
    affine[:, 2] = side / 2 - affine[:, :2] @ (size / 2, size / 2)
    return np.asarray(cv2.warpAffine(image, affine, (side, side), flags=cv2.INTER_AREA), np.uint8)

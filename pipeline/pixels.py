"""Read, draw and encode images in memory: BGR, uint8, height × width × 3, as in OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError

Image = NDArray[Any]
Colour = tuple[int, int, int]
DARK = (0, 0, 0)
# Colours of classes, far from one another and from common backgrounds.
PALETTE: tuple[Colour, ...] = (
    (60, 60, 255),  # red
    (255, 130, 0),  # blue
    (60, 230, 60),  # green
    (0, 220, 255),  # yellow
    (255, 60, 230),  # magenta
    (255, 255, 60),  # cyan
    (0, 130, 255),  # orange
    (255, 255, 255),
)
FONT, TEXT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.5


def read(path: Path) -> Image:
    """Decode an image file. Raises DataError if OpenCV cannot."""
    # From bytes, because OpenCV cannot open every path that Python can.
    data = np.frombuffer(path.read_bytes(), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise DataError(f"{path}: OpenCV cannot decode it; convert it to JPEG or PNG")
    return image


def fit(image: Image, side: int, enlarge: float = 1.0) -> tuple[Image, float]:
    """Return the image with its longer side scaled to `side`, enlarged at most `enlarge` times, and the scale."""
    height, width = image.shape[:2]
    scale = min(enlarge, side / max(height, width))
    size = max(round(width * scale), 1), max(round(height * scale), 1)  # a narrow strip keeps at least one pixel
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def draw_box(
    image: Image,
    corners: tuple[float, float, float, float],
    colour: Colour,
    text: str = "",
    thickness: int = 1,
) -> None:
    """Draw one box, (xmin, ymin, xmax, ymax) in pixels of this image, with text above it."""
    xmin, ymin, xmax, ymax = (round(side) for side in corners)
    cv2.rectangle(image, (xmin, ymin), (xmax, ymax), colour, thickness)
    write(image, text, (xmin + 1, max(ymin - 3, 10)), colour, scale=0.38)


def write(image: Image, text: str, at: tuple[int, int], colour: Colour, scale: float = TEXT_SCALE) -> None:
    """Draw ASCII text; `at` is the left end of its baseline."""
    for ink, thickness in ((DARK, 3), (colour, 1)):  # a dark outline keeps it readable on any background
        cv2.putText(image, text, at, FONT, scale, ink, thickness, cv2.LINE_AA)


def text_width(text: str) -> int:
    width: int = cv2.getTextSize(text, FONT, TEXT_SCALE, 1)[0][0]
    return width


def jpeg(image: Image, quality: int) -> bytes:
    """Encode as JPEG in memory, because `cv2.imwrite` and Pillow's `save` do not notice a full disk."""
    return _encoded(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def png(image: Image) -> bytes:
    """Encode as PNG in memory. Level 1 compresses nearly as well as higher ones in a third of the time."""
    return _encoded(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def _encoded(suffix: str, image: Image, settings: list[int]) -> bytes:
    done, encoded = cv2.imencode(suffix, image, settings)
    if not done:
        height, width = image.shape[:2]
        raise DataError(f"an image of {width}x{height} pixels cannot be written as {suffix}; cut it into pieces")
    data: bytes = encoded.tobytes()
    return data

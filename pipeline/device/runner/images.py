# SPDX-License-Identifier: AGPL-3.0-only
"""Read images, draw boxes on them, and write them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from .base import BROKEN_OPENCV, Detections, RunnerError, cv2
from .headers import (
    BITS,
    HEIC,
    MOST_PIXELS,
    is_16_bit_png,
    is_cut_short,
    is_deep_in_planes,
    is_jpeg,
    is_multiplied,
    is_turned_avif,
    opaque,
    orientation,
)

COLOURS = ((60, 60, 235), (90, 200, 90), (255, 140, 0), (0, 200, 230), (200, 80, 200), (200, 200, 60))  # BGR
TOO_LARGE = f"more than {MOST_PIXELS / 1e6:,.0f} million pixels; cut it into pieces"


def read_image(path: str | Path, bits: int | None = None) -> Any:
    """Return an image as uint8 (height, width, 3), BGR, upright. Raises RunnerError.

    `bits` is the number of bits that 16-bit training images used: `spec["input"]["bits"]`.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise RunnerError(f"{path}: {error.strerror}") from None
    if not data:
        raise RunnerError(f"{path}: not an image: the file is empty")
    if is_cut_short(data):
        raise RunnerError(f"{path}: not a complete image: the end of the file is missing")
    if is_deep_in_planes(data):
        raise RunnerError(f"{path}: 16 bits in separate planes, which decoders mix up; save it as PNG")
    try:
        image = _by_opencv(data) if cv2 is not None else _by_pillow(data)
    except RunnerError as error:
        raise RunnerError(f"{path}: {error}") from None
    except Exception as error:  # a damaged file can raise almost any error
        if "CV_IO_MAX_IMAGE" in str(error):
            raise RunnerError(f"{path}: {TOO_LARGE}") from None
        image = None
    if image is None:
        reader = "OpenCV" if cv2 is not None else "Pillow"
        heic = " (HEIC, a format of telephones: save it as JPEG)" if data[4:12] in HEIC else ""
        raise RunnerError(f"{path}: not an image that {reader} can read{heic}")
    if image.dtype == np.uint8:
        return image
    if image.dtype != np.uint16:
        raise RunnerError(f"{path}: its pixels have neither 8 nor 16 bits; save it with 8")
    if bits is None:
        raise RunnerError(f"{path}: 16 bits, but the model was trained on 8-bit images; save it with 8")
    return np.minimum(image >> (bits - 8), 255).astype(np.uint8)


def _by_opencv(data: bytes) -> Any:
    if is_turned_avif(data):
        raise RunnerError("an AVIF that has to be turned, which OpenCV does not do; save it as JPEG or PNG")
    if is_multiplied(data):
        raise RunnerError("a TIFF of colours multiplied by their transparency; save it without transparency")
    data = opaque(data)
    turn = orientation(data)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    if turn == 1 or is_jpeg(data):
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return _turned(cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION), turn)


def _turned(image: Any, turn: int) -> Any:
    """Return the image turned upright, given its EXIF orientation."""
    if image is None:
        return None
    if turn >= 5:
        image = image.transpose(1, 0, 2)
    if turn in (2, 3, 6, 7):
        image = image[:, ::-1]
    if turn in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _by_pillow(data: bytes) -> Any:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise RunnerError(
            f"no package to read images{BROKEN_OPENCV}; pip install opencv-python-headless, or pillow"
        ) from None
    Image.MAX_IMAGE_PIXELS = None  # it would only warn, up to twice as many as OpenCV decodes
    with Image.open(io.BytesIO(data)) as opened:
        if opened.width * opened.height > MOST_PIXELS:
            raise RunnerError(TOO_LARGE)
        if opened.mode == "F" or (_is_deep_tiff(opened) and not opened.mode.startswith("I")):
            raise RunnerError("more than 8 bits in a form that Pillow cannot read; save it with 8")
        # Turned by hand, because Pillow also obeys XMP and values of the wrong type, which OpenCV ignores.
        by_hand = opened.format in ("JPEG", "MPO", "PNG", "WEBP")
        image: Any = opened if by_hand else ImageOps.exif_transpose(opened)
        turn = orientation(data) if by_hand else 1
        if image.mode.startswith("I"):
            values = np.asarray(image)
            if values.min() >= 0 and values.max() < 1 << 16:
                return _turned(np.stack([values.astype(np.uint16)] * 3, axis=2), turn)
        if is_16_bit_png(data):  # Pillow has dropped the lower 8 bits
            raise RunnerError("16 bits in colour, which Pillow cannot read; pip install opencv-python-headless")
        return _turned(np.asarray(image.convert("RGB"))[:, :, ::-1], turn)


def _is_deep_tiff(opened: Any) -> bool:
    """Return whether a TIFF has more than 8 bits; those of colours Pillow silently opens as 8."""
    return opened.format == "TIFF" and bool((np.array(opened.tag_v2.get(BITS, 8)) > 8).any())


def label(classes: list[str], index: int) -> str:
    """Return the text beside a box: the class name, or its number if the name is not ASCII, as the fonts are."""
    name = classes[index]
    return name if name.isascii() and name.isprintable() else f"#{index}"


def draw(image: Any, found: Detections, classes: list[str]) -> Any:
    """Return a copy of the image with boxes, names and scores."""
    texts = [f"{label(classes, index)} {score:.2f}" for index, score in zip(found.classes, found.scores)]
    corners = [tuple(round(float(side)) for side in box) for box in found.corners]
    colours = [COLOURS[index % len(COLOURS)] for index in found.classes]
    if cv2 is not None:
        drawn = image.copy()
        for (x1, y1, x2, y2), text, colour in zip(corners, texts, colours):
            cv2.rectangle(drawn, (x1, y1), (x2, y2), colour, 2)
            cv2.putText(drawn, text, (x1, max(y1 - 4, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
        return drawn
    from PIL import Image, ImageDraw

    canvas = Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))
    pencil = ImageDraw.Draw(canvas)
    for (x1, y1, x2, y2), text, colour in zip(corners, texts, colours):
        pencil.rectangle((x1, y1, x2, y2), outline=colour[::-1], width=2)
        pencil.text((x1, max(y1 - 12, 0)), text, fill=colour[::-1])
    return np.asarray(canvas)[:, :, ::-1]


def write_jpeg(path: Path, image: Any) -> None:
    """Write a JPEG atomically. Raises RunnerError."""
    try:
        if cv2 is not None:
            data = cv2.imencode(".jpg", image)[1].tobytes()
        else:
            from PIL import Image

            encoded = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(image[:, :, ::-1])).save(encoded, "JPEG", quality=95)
            data = encoded.getvalue()
    except Exception:  # cv2.error, or an error of Pillow
        raise RunnerError(f"{path}: a JPEG cannot hold {image.shape[1]}x{image.shape[0]} pixels") from None
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        if partial.exists():
            partial.unlink()
        raise RunnerError(f"{path}: {error.strerror}") from None

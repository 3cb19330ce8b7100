"""Convert images with more than 8 bits per channel to 8."""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.device.runner.headers import BITS, EXIF_ORIENTATION, PLANES, SEPARATE, is_16_bit_png

SAMPLES = 277  # a tag of TIFF 6.0: SamplesPerPixel
# Tags that are the same for one plane as for all: sizes, compression, fill order, rows per strip, predictor, tiles.
_OF_ONE_PLANE = (256, 257, 259, 266, 278, 317, 322, 323)
_OFFSETS, _LENGTHS = (273, 324), (279, 325)  # of strips, of tiles


def is_deep(image: Image.Image, data: bytes) -> bool:
    # Pillow's mode does not tell: it silently opens 16-bit colour as 8-bit.
    if image.format == "PNG":
        return is_16_bit_png(data)
    if image.format == "TIFF":
        return image.mode != "F" and max(np.atleast_1d(_tags(image).get(BITS, (8,)))) > 8
    return image.mode.startswith("I")


def values_of(image: Image.Image, data: bytes) -> NDArray[Any]:
    """Return the pixels as non-negative integers, grey or BGR. Raises ValueError if they are anything else."""
    if image.format == "TIFF" and _tags(image).get(PLANES) == SEPARATE and _tags(image).get(SAMPLES, 1) > 1:
        values: Any = _separate_planes(image, data)
    elif image.mode == "I":
        values = np.asarray(image)
    else:
        flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
        values = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if values is None and image.mode.startswith("I"):
            values = np.asarray(image)
    if values is None or values.dtype.kind not in "iu" or values.dtype.itemsize == 1:
        raise ValueError("its pixels are neither 8 nor 16 bits")
    if values.min() < 0:
        raise ValueError("its pixels are negative numbers; brightness starts at 0")
    return np.asarray(values, np.uint32) if values.dtype.itemsize > 2 else values.astype(np.uint16)


def eight_bits(values: NDArray[Any], bits: int, orientation: int) -> Image.Image:
    """Return grey or BGR values as an 8-bit Pillow image with its EXIF orientation."""
    values = (values >> (bits - 8)).astype(np.uint8)
    if values.ndim == 3:
        values = values[:, :, 0] if values.shape[2] < 3 else np.ascontiguousarray(values[:, :, 2::-1])
    image = Image.fromarray(values)
    image.getexif()[EXIF_ORIENTATION] = orientation
    return image


def significant_bits(peak: int) -> int:
    """Return how many bits the 16-bit images of a source really use: cameras store 10, 12 or 14 in 16."""
    return max(8, peak.bit_length())


def _tags(image: Image.Image) -> Any:
    return image.tag_v2  # type: ignore[attr-defined]


def _separate_planes(image: Image.Image, data: bytes) -> NDArray[Any]:
    """Return the first three planes of a TIFF, each decoded as a grey image: OpenCV garbles 16-bit planes."""
    tags = _tags(image)
    samples = tags[SAMPLES]
    kind = next((number for number, tag in enumerate(_OFFSETS) if tag in tags), None)
    if kind is None:
        raise ValueError("neither strips nor tiles")
    offsets, lengths = tags[_OFFSETS[kind]], tags[_LENGTHS[kind]]
    per_plane = len(offsets) // samples
    planes = []
    for plane in range(3 if samples >= 3 else 1):
        parts = slice(plane * per_plane, (plane + 1) * per_plane)
        pieces = [data[start : start + length] for start, length in zip(offsets[parts], lengths[parts], strict=True)]
        grey = _grey_tiff(
            data[:2], {tag: tags[tag] for tag in _OF_ONE_PLANE if tag in tags}, pieces, kind, tags[BITS][0]
        )
        decoded = cv2.imdecode(np.frombuffer(grey, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        if decoded is None:
            raise ValueError("its separate planes cannot be decoded; save it with interleaved colours")
        planes.append(decoded)
    return planes[0] if len(planes) == 1 else np.dstack(planes[::-1])


def _grey_tiff(order: bytes, tags: dict[int, int], pieces: list[bytes], kind: int, bits: int) -> bytes:
    """Return a TIFF of one channel from encoded strips or tiles; `order` is its byte order, `II` or `MM`."""
    endian = "<" if order == b"II" else ">"
    starts, body = [], bytearray(8)
    for piece in pieces:
        starts.append(len(body))
        body += piece + b"\0" * (len(piece) % 2)
    many = {_OFFSETS[kind]: starts, _LENGTHS[kind]: list(map(len, pieces))}
    entries = {tag: [int(value)] for tag, value in tags.items()} | {BITS: [bits], 262: [1], SAMPLES: [1]} | many
    directory = len(body)
    after = directory + 2 + 12 * len(entries) + 4
    packed, beyond = b"", b""
    for tag, numbers in sorted(entries.items()):  # all as LONG; a single one fits into the entry itself
        value = numbers[0] if len(numbers) == 1 else after + len(beyond)
        packed += struct.pack(f"{endian}HHII", tag, 4, len(numbers), value)
        beyond += b"" if len(numbers) == 1 else struct.pack(f"{endian}{len(numbers)}I", *numbers)
    body[:8] = order + struct.pack(f"{endian}HI", 42, directory)
    return bytes(body) + struct.pack(f"{endian}H", len(entries)) + packed + b"\0\0\0\0" + beyond

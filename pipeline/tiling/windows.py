"""Read windows of an image file: BGR, 8 bits.

A TIFF without compression, or with Deflate, is decoded a band of rows at a time. Any other file is decoded as a whole,
which takes three bytes per pixel.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

from pipeline import pixels
from pipeline.errors import DataError
from pipeline.pixels import Image

# Compressions of TIFF 6.0 and its supplement that need no further package: none, and both codes of Deflate.
READABLE = (1, 8, 32946)
BAND = 1024  # rows of an image that may be in memory at once


class Windows:
    """An image in memory."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self.height, self.width = image.shape[:2]

    def read(self, x: int, y: int, width: int, height: int) -> Image:
        """Return a copy of a window."""
        return self._image[y : y + height, x : x + width].copy()

    def fitted(self, size: tuple[int, int]) -> Image:
        """Return the whole image, resized to (width, height) as Ultralytics does."""
        return cv2.resize(self._image, size, interpolation=cv2.INTER_LINEAR)


class TiffWindows(Windows):
    """A TIFF on disk. One band of rows is in memory at a time; windows are best read row by row."""

    def __init__(self, page: Any) -> None:
        self._page = page
        self.height, self.width = page.shape[:2]
        self._mapped = page.asarray(out="memmap") if page.is_memmappable else None
        self._rows, self._band = (0, 0), np.empty(0, np.uint8)

    def read(self, x: int, y: int, width: int, height: int) -> Image:
        if self._rows != (y, y + height):
            self._rows, self._band = (y, y + height), self._decode(y, y + height)
        return self._band[:, x : x + width].copy()

    def fitted(self, size: tuple[int, int]) -> Image:
        """Interpolate each new row between the two closest ones, as OpenCV does, then resize the rows."""
        width, height = size
        at = np.clip((np.arange(height) + 0.5) * (self.height / height) - 0.5, 0, self.height - 1)
        first = at.astype(int)
        second, share = np.minimum(first + 1, self.height - 1), (at - first)[:, None, None].astype(np.float32)
        rows = np.empty((height, self.width, 3), np.float32)
        step = max(1, BAND * height // self.height)
        for begin in range(0, height, step):
            part = slice(begin, begin + step)
            low = int(first[part][0])
            band = self._decode(low, int(second[part][-1]) + 1)
            rows[part] = band[first[part] - low] * (1 - share[part]) + band[second[part] - low] * share[part]
        return np.rint(cv2.resize(rows, (width, height), interpolation=cv2.INTER_LINEAR)).astype(np.uint8)

    def _decode(self, top: int, bottom: int) -> Image:
        """Return all columns of some rows."""
        band = np.empty((bottom - top, self.width, 3), np.uint8)
        if self._mapped is not None:
            band[:] = self._mapped[top:bottom].reshape(*band.shape[:2], -1)[:, :, ::-1]
            return band
        depth, wide = self._page.chunks[:2]
        across = -(-self.width // wide)
        for row in range(top // depth, (bottom - 1) // depth + 1):
            low, high = max(top, row * depth), min(bottom, (row + 1) * depth)
            for column in range(across):
                left, right = column * wide, min((column + 1) * wide, self.width)
                segment = self._segment(row * across + column)
                part = segment[low - row * depth : high - row * depth, : right - left]
                band[low - top : high - top, left:right] = part[
                    :, :, ::-1
                ]  # the one channel of a grey image fills all three
        return band

    def _segment(self, index: int) -> Image:
        """Return one tile or strip of the file. A tile that was never written is black."""
        file = self._page.parent.filehandle
        file.seek(self._page.dataoffsets[index])
        try:
            segment = self._page.decode(file.read(self._page.databytecounts[index]), index)[0]
        except Exception as error:  # zlib.error, or whatever tifffile's decoders raise
            raise DataError(f"{file.path}: damaged ({error}); replace it") from None
        if segment is None:
            return np.zeros((*self._page.chunks[:2], self._page.samplesperpixel), np.uint8)
        decoded: Image = segment[0]
        return decoded


@contextmanager
def open_image(path: Path) -> Iterator[Windows]:
    """Open an image of a data set that `convert` wrote. Raises DataError if it cannot be decoded."""
    file = _tiff_in_parts(path) if path.suffix.lower() in (".tif", ".tiff") else None
    if file is None:
        yield Windows(pixels.read(path))
        return
    with file:
        yield TiffWindows(file.pages[0])


def _tiff_in_parts(path: Path) -> Any:
    """Return the open file if it can be decoded in parts, else None: OpenCV may read files that tifffile cannot."""
    file = None
    try:
        file = tifffile.TiffFile(path)
        if _in_parts(file.pages[0]):
            return file
    except Exception as error:  # the errors for a damaged directory are not documented
        warnings.warn(f"{path}: {error}; read as a whole", stacklevel=1)
    if file is not None:
        file.close()
    return None


def _in_parts(page: Any) -> bool:
    """Return whether a page can be decoded in parts: RGB or grey, 8 bits, interleaved, in segments of a few rows."""
    return (
        page.compression in READABLE
        and page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
        and page.dtype == np.uint8
        and page.bitspersample == 8
        and page.samplesperpixel in (1, 3)
        and page.planarconfig == tifffile.PLANARCONFIG.CONTIG
        and (page.is_memmappable or page.chunks[0] <= BAND)
    )

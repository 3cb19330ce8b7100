"""Read windows of an image file: BGR, 8 bits.

Of a TIFF without compression, or with Deflate, only the parts that a window shows are decoded. Any other file is
decoded as a whole, which takes three bytes per pixel.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
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
    """A TIFF on disk. Its segments, tiles or strips, are decoded when a window shows them.

    Those of the latest windows stay in memory, one band as high as the highest window: read windows row by row.
    """

    def __init__(self, page: Any) -> None:
        self._page = page
        self.height, self.width = page.shape[:2]
        self._mapped = page.asarray(out="memmap") if page.is_memmappable else None
        self._decoded: OrderedDict[int, Image] = OrderedDict()
        self._most = 0  # segments in memory

    def read(self, x: int, y: int, width: int, height: int) -> Image:
        window = np.empty((height, width, 3), np.uint8)
        if self._mapped is not None:
            part = self._mapped[y : y + height, x : x + width]
            window[:] = part.reshape(height, width, -1)[:, :, ::-1]
            return window
        depth, wide = self._page.chunks[:2]
        across = -(-self.width // wide)
        rows, columns = range(y // depth, (y + height - 1) // depth + 1), range(x // wide, (x + width - 1) // wide + 1)
        self._most = max(self._most, len(rows) * across)
        for row, column in product(rows, columns):
            top, left = row * depth, column * wide
            low, high = max(y, top), min(y + height, top + depth)
            first, last = max(x, left), min(x + width, left + wide)
            part = self._segment(row * across + column)[low - top : high - top, first - left : last - left]
            window[low - y : high - y, first - x : last - x] = part[:, :, ::-1]  # grey: one channel fills all three
        return window

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
            band = self.read(0, low, self.width, int(second[part][-1]) + 1 - low)
            rows[part] = band[first[part] - low] * (1 - share[part]) + band[second[part] - low] * share[part]
        return np.rint(cv2.resize(rows, (width, height), interpolation=cv2.INTER_LINEAR)).astype(np.uint8)

    def _segment(self, index: int) -> Image:
        """Return one tile or strip of the file. A tile that was never written is black."""
        if index in self._decoded:
            self._decoded.move_to_end(index)
            return self._decoded[index]
        file = self._page.parent.filehandle
        file.seek(self._page.dataoffsets[index])
        length = self._page.databytecounts[index]
        try:
            decoded = self._page.decode(file.read(length) if length else None, index)[0]
        except Exception as error:  # zlib.error, or whatever tifffile's decoders raise
            raise DataError(f"{file.path}: damaged ({error}); replace it") from None
        empty = (*self._page.chunks[:2], self._page.samplesperpixel)
        self._decoded[index] = np.zeros(empty, np.uint8) if decoded is None else decoded[0]
        if len(self._decoded) > self._most:
            self._decoded.popitem(last=False)
        return self._decoded[index]


@contextmanager
def open_image(path: Path) -> Iterator[Windows]:
    """Open an image of a dataset that `convert` wrote. Raises DataError if it cannot be decoded."""
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

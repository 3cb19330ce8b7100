"""Decode images as `convert` would write them, and copy those that the App and labelling tools show differently.

Cameras that store 10 to 16 bits are the usual case: without scaling, their images look nearly black.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from pipeline import files, pixels
from pipeline.errors import DataError
from pipeline.image_files import deep, reading
from pipeline.label.store import File
from pipeline.records.label import Candidate

NOT_IN_BROWSERS = (".tif", ".tiff")


def bits_of(file: File, of_dataset: int | None) -> int | None:
    """Return the bits by which an image with more than 8 is scaled to 8; None for an image with 8.

    They are those of the dataset, as in `convert`, or the image's own if these are more: one bright image must not
    darken all others.
    """
    return max(deep.significant_bits(file.peak), of_dataset or 0) if file.peak else None


def decode(file: File, bits: int | None) -> pixels.Image | None:
    """Return the pixels of an image, upright, 8 bits; None if it has disappeared or OpenCV cannot decode it.

    `bits` are those of the dataset.
    """
    try:
        if not _is_rewritten(file):
            return pixels.read(file.path)
        encoded = reading.upright(file.path, file.orientation, bits_of(file, bits))
    except (OSError, DataError):
        return None
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)


def copy(file: File, bits: int | None, folder: Path) -> Path | None:
    """Write a PNG to show instead of an image into `folder`; return None if the image itself will do."""
    if not _is_rewritten(file) and file.path.suffix.lower() not in NOT_IN_BROWSERS:
        return None
    if (image := decode(file, bits)) is None:
        return None
    path = folder / f"{file.sha256[:16]}.png"
    files.write_bytes(path, pixels.png(image))
    return path


def path_of(candidate: Candidate) -> Path:
    """Return the file that shows an image of a batch."""
    return Path(candidate.get("shown", candidate["path"]))


def _is_rewritten(file: File) -> bool:
    """Return whether `convert` changes the pixels, or the format because OpenCV may not read it."""
    return file.rewrite not in (None, reading.NO_JPEG_END)

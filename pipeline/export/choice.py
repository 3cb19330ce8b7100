"""Choose the validation images on which an artefact is compared with the model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline import orientation
from pipeline.boxes import YoloDataset
from pipeline.export.settings import DEFAULT
from pipeline.records import receipt
from pipeline.run import Run

READ_DIFFERENTLY = ("EXIF", "16 bits")  # beginnings of the receipt's reasons for rewriting an image


def images(dataset: YoloDataset, run: Run, number: int) -> list[Path]:
    """Return up to `number` validation images, evenly spread, and those that a device could read differently.

    These are one image of each EXIF orientation, one with 16 bits, and the image with the most objects if it has more
    than the default `max_det`. The bundle's self-test uses such images.
    """
    paths = dataset.files("val")
    chosen = {*spread(paths, number), *_read_differently(run, paths), *_crowd(dataset, paths)}
    return [path for path in paths if path in chosen]


def spread(found: list[Path], number: int) -> list[Path]:
    """Return up to `number` of the images, evenly spread over the list."""
    if len(found) <= number:
        return found
    return [found[int(index)] for index in np.linspace(0, len(found) - 1, number)]


def _read_differently(run: Run, paths: list[Path]) -> Iterator[Path]:
    reasons = receipt.read(run)["rewritten"] if run.receipt.is_file() else {}
    seen = {"EXIF orientation 1"}
    for path in paths:
        reason = reasons.get(path.name, "")
        if not reason.startswith(READ_DIFFERENTLY):  # a JPEG may be rewritten for its end, and keep its orientation
            with Image.open(path) as image:
                reason = f"EXIF orientation {orientation.in_dataset(image)}"
        if reason.startswith(READ_DIFFERENTLY) and reason not in seen:
            seen.add(reason)
            yield path


def _crowd(dataset: YoloDataset, paths: list[Path]) -> Iterator[Path]:
    def objects(path: Path) -> int:
        return len(dataset.label_file(path).read_bytes().splitlines())

    most = max(paths, key=objects, default=None)
    if most and objects(most) > DEFAULT.max_det:
        yield most

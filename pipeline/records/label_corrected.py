"""The batches of which labels were saved: `label/corrected.json`. Progress is computed from them and the labels."""

from __future__ import annotations

from typing import Literal

from pipeline.records.base import Number, Record, read_record
from pipeline.records.label import Guess
from pipeline.run import Run


class Chosen(Record):
    """An image of a batch, labelled since or not."""

    sha256: str
    """Of the image file."""
    by: Literal["uncertain", "different", "rare", "random"]
    """The rule that chose it."""
    minutes: Number
    """Minutes of work that were expected."""
    boxes: list[Guess]
    """The boxes as the model drew them."""


class Batch(Record):
    model: str
    """SHA-256 of the model that drew the boxes."""
    images: list[Chosen]
    """In the order of `next.json`."""


class Corrected(Record):
    batches: list[Batch]
    """In the order in which they were saved."""


def read(run: Run) -> list[Batch]:
    if not run.label_corrected.is_file():
        return []
    return read_record(run.label_corrected, Corrected, "delete it, and progress starts anew")["batches"]

"""What was decided about tiles: `augmented/tiles.json`. A run without `tiles` in its config has none."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.records.base import Number, Record, read_record
from pipeline.run import Run


class Tiling(Record):
    """The config's `tiles`, with numbers in place of `auto`."""

    size: Annotated[int, Field(ge=32)]
    """Side of the tiles, in pixels of the image."""
    overlap: Annotated[Number, Field(gt=0, lt=1)]
    """Share of the side that neighbours have in common, at least."""
    whole: bool
    """Whether the whole image is also a view."""
    reason: str
    """How `size` and `overlap` were chosen."""


def read(run: Run) -> Tiling | None:
    """Return the run's tiling; None if it has no tiles."""
    if not run.tiles.is_file():
        return None
    return read_record(run.tiles, Tiling, f"delete {run.augmented} and run `{run.make('augment')}`")

"""What became of every box when images were cut into tiles: `augmented/tile_account.json`.

Boxes are named by the line of their label file in `dataset/labels/`; the first is 1.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.records.base import Record, read_record
from pipeline.run import Run

Window = Annotated[list[int], Field(min_length=4, max_length=4)]
Lines = list[int]


class CutTile(Record):
    file: str
    window: Window
    """x, y, width and height in pixels of the image."""
    boxes: Lines
    """Whole in this tile, and labels of it."""
    hidden: Lines
    """Cut by its edges: their pixels are grey, as far as no whole box covers them."""


class TiledImage(Record):
    file: str
    boxes: int
    tiles: list[CutTile]
    """Those that are kept. An image no larger than a tile is one."""
    whole: str | None
    """File with the whole image, fitted into `train.imgsz`. All boxes are labels of it."""
    only_whole: Lines
    """Too large for a tile, so that only the whole image shows them."""
    lost: Lines
    """Too large for a tile, and there is no view of the whole image."""


class TiledBoxes(Record):
    """read = in_tiles + only_whole + lost."""

    read: int
    in_tiles: int
    """Whole in a tile or in more than one."""
    only_whole: int
    lost: int
    labels: int
    """Written in all, as tiles overlap."""


class TileCounts(Record):
    """placed = with_objects + empty_kept + empty_left_out + parts_left_out."""

    placed: int
    with_objects: int
    empty_kept: int
    empty_left_out: int
    parts_left_out: int
    """No object is whole in them, and an edge cuts one."""
    whole_images: int
    """Views of whole images, which come on top."""


class TiledSplit(Record):
    boxes: TiledBoxes
    tiles: TileCounts
    images: list[TiledImage]


class TileAccount(Record):
    splits: dict[str, TiledSplit]


def read(run: Run) -> TileAccount | None:
    """Return the account; None if the run has no tiles."""
    if not run.tile_account.is_file():
        return None
    return read_record(run.tile_account, TileAccount, f"delete {run.augmented} and run `make` again")

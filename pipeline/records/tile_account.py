"""What happened to every box when images were cut into tiles: `augmented/tile_account.json`.

Boxes are identified by their line in the label file in `dataset/labels/`; the first is 1.
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
    """Name in `augmented/images/SPLIT/`."""
    window: Window
    """x, y, width and height in pixels of the upright image."""
    boxes: Lines
    """Boxes that are whole in this tile, and are its labels."""
    hidden: Lines
    """Boxes cut by its edges: their pixels are grey, unless a whole box covers them."""


class TiledImage(Record):
    file: str
    """Name in `dataset/images/SPLIT/`."""
    boxes: int
    """Number of boxes of the image."""
    tiles: list[CutTile]
    """The tiles that are kept. An image no larger than a tile is a single one."""
    whole: str | None
    """File with the whole image, fitted into `train.imgsz`, with all boxes; null if there is no such view."""
    only_whole: Lines
    """Boxes too large for a tile, so that only the whole image shows them."""
    lost: Lines
    """Boxes too large for a tile, without a view of the whole image."""


class TiledBoxes(Record):
    """Boxes of a split: read = in_tiles + only_whole + lost."""

    read: int
    """Number of boxes in the dataset."""
    in_tiles: int
    """Boxes that are whole in at least one tile."""
    only_whole: int
    """Boxes too large for a tile, so that only the view of the whole image shows them."""
    lost: int
    """Boxes too large for a tile, without a view of the whole image."""
    labels: int
    """Number of labels written; larger, because tiles overlap and whole images repeat their boxes."""


class TileCounts(Record):
    """Tiles of a split: placed = with_objects + empty_kept + empty_left_out + parts_left_out."""

    placed: int
    """Number of tiles before any is left out."""
    with_objects: int
    """Tiles in which at least one object is whole; all are kept."""
    empty_kept: int
    """Tiles without objects that are kept, by `tiles.empty` or because they are a whole small image."""
    empty_left_out: int
    """The other tiles without objects."""
    parts_left_out: int
    """Tiles in which no object is whole and an edge cuts one."""
    whole_images: int
    """Views of whole images, which are not counted in `placed`."""


class TiledSplit(Record):
    boxes: TiledBoxes
    tiles: TileCounts
    images: list[TiledImage]


class TileAccount(Record):
    splits: dict[str, TiledSplit]
    """`train` and `val`; test stays whole."""


def read(run: Run) -> TileAccount | None:
    """Return the account; None if the run has no tiles."""
    if not run.tile_account.is_file():
        return None
    return read_record(run.tile_account, TileAccount, f"delete {run.augmented} and run `{run.make('augment')}`")

"""The account of a conversion: `dataset/receipt.json`."""

from __future__ import annotations

from typing import Any

from pipeline.records.base import Record, read_record
from pipeline.run import Run


class BoxCounts(Record):
    """read = kept + clipped + dropped + ignored."""

    read: int
    kept: int
    clipped: int
    """Cut at the border of the image."""
    dropped: int
    ignored: int
    """Labels that COCO's or KITTI's own rules exclude, such as crowds."""


class ImageCounts(Record):
    read: int
    used: int
    dropped: dict[str, str]
    """File name -> reason, as in the next three."""
    in_no_split: dict[str, str]
    left_out: dict[str, str]
    linked_again: dict[str, str]


class SplitCounts(Record):
    images: int
    background_images: int
    boxes: int
    boxes_per_class: dict[str, int]


class Leaks(Record):
    exact: list[Any]
    """Groups of identical images in more than one split."""
    near: list[Any]
    """Groups of near-duplicates in more than one split."""
    group: list[Any]
    """Groups by `convert.group_by` in more than one split."""
    moved: dict[str, Any]
    """Images that were moved to another split to prevent leaks."""


class Inputs(Record):
    fixes: str | None
    """SHA-256 of the corrections that were applied."""
    splits: str | None
    """SHA-256 of the drawn splits that were used."""
    labels: str | None
    """SHA-256 of the files in `data/labels/` and of the state of their images."""


class Receipt(Record):
    source: str
    format: str
    classes: list[str]
    images: ImageCounts
    boxes: BoxCounts
    files: dict[str, BoxCounts]
    """The same counts by annotation file."""
    problems: list[dict[str, str]]
    """Every box that was not kept as it was, with `file`, `image`, `id`, `class`, `action` and `reason`."""
    names_matched: dict[str, int]
    """Number of annotations by the step of name matching that found their image."""
    background_by_setting: list[str]
    """Images without labels that are background only because of `unlabelled: background`."""
    notes: list[str]
    splits: dict[str, SplitCounts]
    splits_by: str
    """What decided the splits: the source, ratios, or the file in `data/splits/`."""
    leaks: Leaks
    fixes: list[dict[str, Any]]
    """Every correction, and whether it was applied."""
    labels: list[dict[str, Any]]
    """Every image of `data/labels/`, whether it is used, and how many of its boxes were drawn by a model and kept,
    moved, relabelled or deleted, or added by hand."""
    rewritten: dict[str, Any]
    """Images that were not copied byte by byte, with the reason."""
    bits: int | None
    """Number of bits that the source's 16-bit images use, which were scaled to 8; null if all have 8."""
    sources: dict[str, str]
    """Image of the data set -> image of the source."""
    inputs: Inputs


def read(run: Run) -> Receipt:
    return read_record(run.receipt, Receipt, f"delete {run.dataset} and run `make convert` again")


def val_has_objects(run: Run) -> bool:
    """Return whether val has objects, so that average precision could be measured during training."""
    return not run.receipt.is_file() or read(run)["splits"]["val"]["boxes"] > 0

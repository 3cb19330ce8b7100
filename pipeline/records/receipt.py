"""The account of a conversion: `dataset/receipt.json`."""

from __future__ import annotations

from typing import Literal

from typing_extensions import NotRequired, TypedDict

from pipeline.records.base import Bbox, Record, read_record
from pipeline.run import Run


class BoxCounts(Record):
    """read = kept + clipped + dropped + ignored."""

    read: int
    kept: int
    clipped: int
    """Cut at the border of the image."""
    dropped: int
    ignored: int
    """Left out on purpose: by the source, as crowds, by `convert.classes`, or because the shape has no box."""


class ImageCounts(Record):
    read: int
    used: int
    dropped: dict[str, str]
    """File name -> reason, as in the next four."""
    in_no_split: dict[str, str]
    left_out: dict[str, str]
    linked_again: dict[str, str]
    set_aside: dict[str, str]
    """Images that may show objects but have no box, for example because they have only masks, and mask files."""


class SplitCounts(Record):
    images: int
    background_images: int
    boxes: int
    boxes_per_class: dict[str, int]


class Leaks(Record):
    exact: list[list[str]]
    """Groups of identical images in more than one split; each image is `SPLIT/NAME`, as in the next two."""
    near: list[list[str]]
    """Groups of near-duplicates in more than one split."""
    group: list[list[str]]
    """Groups by `convert.group_by` in more than one split."""
    moved: dict[str, str]
    """Images that were moved to another split to prevent leaks, with both splits, such as `test -> train`."""


_Class = TypedDict("_Class", {"class": str}, total=False)  # a reserved word


class FixOutcome(Record, _Class):
    """A correction. `class` and `bbox` are missing if it is about a whole image, or if its image is gone."""

    image: str
    action: Literal["remove", "add", "drop", "relabel"]
    reason: str
    """Why it was made, or why it was not applied."""
    applied: bool
    bbox: NotRequired[Bbox]
    """x, y, width and height in pixels of the upright image."""


class LabelledImage(Record):
    """A person kept, moved, relabelled or deleted boxes that models had drawn, and added others."""

    image: str
    file: str
    """The file in `data/labels/` that labels it."""
    used: bool
    reason: str
    """Why it is not used; empty if it is."""
    split: str | None
    kept: int
    moved: int
    relabelled: int
    deleted: int
    added: int
    models: list[str]
    """Beginnings of the SHA-256 of the models that drew boxes."""


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
    fixes: list[FixOutcome]
    """Every correction."""
    labels: list[LabelledImage]
    """Every image of `data/labels/`."""
    rewritten: dict[str, str]
    """Images that were not copied byte by byte, with the reason."""
    bits: int | None
    """Number of bits that the source's 16-bit images use, which were scaled to 8; null if all have 8."""
    sources: dict[str, str]
    """Image of the dataset -> image of the source."""
    inputs: Inputs


def read(run: Run) -> Receipt:
    return read_record(run.receipt, Receipt, f"delete {run.dataset} and run `make convert` again")


def val_has_objects(run: Run) -> bool:
    """Return whether val has objects, so that average precision could be measured during training."""
    if not run.receipt.is_file():
        return True
    val = read(run)["splits"].get("val")
    return val is not None and val["boxes"] > 0

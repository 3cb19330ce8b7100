"""The account of a conversion: `dataset/receipt.json`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from pipeline.records.base import Bbox, Record, read_record
from pipeline.run import Run


class BoxCounts(Record):
    """Boxes of annotations: read = kept + clipped + dropped + ignored."""

    read: int
    """Number of boxes in the source and in `data/labels/`; boxes that fixes add are not counted."""
    kept: int
    """Written as they were; renamed by `convert.classes` counts too."""
    clipped: int
    """Written after they were cut at the border of the image, or after swapped corners were put right."""
    dropped: int
    """Left out because something is wrong with the box or its image, or because a fix removes it."""
    ignored: int
    """Left out on purpose: crowds, shapes without a box, classes that `convert.classes` omits, unused images."""


class ImageCounts(Record):
    """Images of the source, by their path in it, and of `data/labels/`, by their path from where `make` runs."""

    read: int
    """Number of images found."""
    used: int
    """Number of images written to the dataset."""
    dropped: dict[str, str]
    """Path -> reason, as in the next four: images with a problem, and those that a fix drops."""
    in_no_split: dict[str, str]
    """Images that the source puts into neither train nor val nor test."""
    left_out: dict[str, str]
    """Images that would leak between splits."""
    linked_again: dict[str, str]
    """Links to an image that is in the source already."""
    set_aside: dict[str, str]
    """Images that may show objects but have no box, for example because they have only masks, and mask files."""


class SplitCounts(Record):
    """What was written to a split."""

    images: int
    background_images: int
    """Number of images without a box."""
    boxes: int
    """Number of boxes, with those that fixes add."""
    boxes_per_class: dict[str, int]


class Leaks(Record):
    """Groups of images in more than one split of the dataset. An image is `SPLIT/` and its path in the source."""

    exact: list[list[str]]
    """Groups of byte-identical images."""
    near: list[list[str]]
    """Groups of near-duplicates, also those that only a third image connects."""
    group: list[list[str]]
    """Groups by `convert.group_by`."""
    moved: dict[str, str]
    """Path of an image that was moved to prevent leaks -> both splits, such as `test -> train`."""


_Name = Annotated[str, Field(description="Class of the box, by the name in the dataset.")]
_Class = TypedDict("_Class", {"class": _Name}, total=False)  # a reserved word


class FixOutcome(Record, _Class):
    """A correction. `class` and `bbox` are missing if it is about a whole image, or if its image is gone."""

    image: str
    """Path of the image in the source; as the fix names it if the image is gone."""
    action: Literal["remove", "add", "drop", "relabel"]
    """Remove or add a box, drop the image, or note that it is to be labelled again."""
    reason: str
    """Why it was made, or why it was not applied."""
    applied: bool
    """False if there was nothing to do, because image or labels have changed since."""
    bbox: NotRequired[Bbox]
    """x, y, width and height in pixels of the upright image."""


class LabelledImage(Record):
    """A person kept, moved, relabelled or deleted boxes that models had drawn, and added others."""

    image: str
    """Path of the image, relative to the folder where `make` runs; absolute if it lies elsewhere."""
    file: str
    """The file in `data/labels/` that labels it."""
    used: bool
    """Whether the image is in the dataset."""
    reason: str
    """Why it is not used; empty if it is."""
    split: str | None
    """Null if it is not used."""
    kept: int
    """Number of pre-drawn boxes that the person left as they were."""
    moved: int
    """Number of pre-drawn boxes with other corners and the same class."""
    relabelled: int
    """Number of pre-drawn boxes with another class, moved or not."""
    deleted: int
    """Number of pre-drawn boxes that the person removed."""
    added: int
    """Number of boxes that the person drew."""
    models: list[str]
    """Beginnings of the SHA-256 of the models that drew boxes."""


class Inputs(Record):
    """What was read beside the source. Null for what does not exist."""

    fixes: str | None
    """SHA-256 of `data/fixes/NAME.yaml`."""
    splits: str | None
    """SHA-256 of `data/splits/NAME.json`, as written by this conversion; null if the source gives the splits."""
    labels: str | None
    """SHA-256 of the files in `data/labels/`, and of the sizes and dates of their images."""


class Receipt(Record):
    source: str
    """The folder that `convert.source` names."""
    format: str
    """The annotation format that was read: the one that was recognised, or `convert.format`."""
    classes: list[str]
    """Class names of the dataset, in the order of their ids from 0."""
    images: ImageCounts
    boxes: BoxCounts
    files: dict[str, BoxCounts]
    """The same counts by annotation file, or by image for images without one."""
    problems: list[dict[str, str]]
    """Every box that was not kept as it was, with `file`, `image`, `id`, `class`, `action` and `reason`."""
    names_matched: dict[str, int]
    """Number of image names in annotations by the step that found the file: `exact`, `unicode`, `spelling`, `path`."""
    background_by_setting: list[str]
    """Images without labels that are background only because of `unlabelled: background`."""
    notes: list[str]
    """Remarks on the reading of the source, and on splits that may leak."""
    splits: dict[str, SplitCounts]
    splits_by: str
    """What decided the splits: `source`, or the file in `data/splits/` with the drawn ones."""
    leaks: Leaks
    """What is in more than one split after `convert.leaks` was applied."""
    fixes: list[FixOutcome]
    """Every correction in `data/fixes/NAME.yaml`."""
    labels: list[LabelledImage]
    """Every image of `data/labels/`."""
    rewritten: dict[str, str]
    """File name in the dataset -> reason, for images that were not copied byte by byte."""
    bits: int | None
    """Number of bits that the source's 16-bit images use, which were scaled to 8; null if all have 8."""
    sources: dict[str, str]
    """`SPLIT/NAME` of an image of the dataset -> its path in the source."""
    inputs: Inputs


def read(run: Run) -> Receipt:
    return read_record(run.receipt, Receipt, f"delete {run.dataset} and run `make convert` again")


def val_has_objects(run: Run) -> bool:
    """Return whether val has objects, so that average precision could be measured during training."""
    if not run.receipt.is_file():
        return True
    val = read(run)["splits"].get("val")
    return val is not None and val["boxes"] > 0

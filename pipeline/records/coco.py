"""Labels and predictions of a split, in COCO's format: `predictions/SPLIT_ground_truth.json`, `predictions/SPLIT.json`.

Boxes are `[x, y, width, height]` in pixels of the upright image, from its upper left corner. The tables describe the
labels. `predictions/SPLIT.json` and `predictions/SPLIT_single_label.json` are lists of COCO's results, each with
`image_id`, `category_id`, `bbox` and `score`, from 0 to 1. The first has one for each box and class that reaches
`validate.conf`; average precision is computed from it. The second has each box once, with its best class, as a device
shows it; thresholds, errors and calibration are computed from it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import NotRequired

from pipeline.records.base import Bbox, Number, Record

Pixels = Annotated[int, Field(gt=0)]


class Image(Record):
    id: int
    """From 1, in the order of the file names."""
    file_name: str
    """Name in `dataset/images/SPLIT/`."""
    width: Pixels
    """Pixels of the upright image."""
    height: Pixels
    """Pixels of the upright image."""


class Annotation(Record):
    id: int
    """From 1, in the order of the images and of the lines of their label files."""
    image_id: int
    category_id: int
    bbox: Bbox
    area: NotRequired[Number]
    """In square pixels; decides whether the object is small, medium or large for COCO."""
    iscrowd: NotRequired[int]
    """Always 0, because conversion leaves out crowds."""


class Category(Record):
    id: int
    """From 0, in the order of the dataset's classes."""
    name: str


class GroundTruth(Record):
    """All images of a split and their labels."""

    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]


class Prediction(Record):
    """One box of the model. `predictions/SPLIT_single_label.json` has each box once, with its best class."""

    image_id: int
    category_id: int
    bbox: Bbox
    score: Number

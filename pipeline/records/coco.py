"""Labels and predictions of a split, in COCO's format: `predictions/SPLIT_ground_truth.json`, `predictions/SPLIT.json`.

Boxes are `[x, y, width, height]` in pixels of the image, from its upper left corner.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import NotRequired

from pipeline.records.base import Bbox, Number, Record

Pixels = Annotated[int, Field(gt=0)]


class Image(Record):
    id: int
    file_name: str
    width: Pixels
    height: Pixels


class Annotation(Record):
    id: int
    image_id: int
    category_id: int
    bbox: Bbox
    area: NotRequired[Number]
    """In square pixels; decides whether the object is small, medium or large for COCO."""
    iscrowd: NotRequired[int]


class Category(Record):
    id: int
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

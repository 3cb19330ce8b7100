"""What to label next: `label/next.json`. The first image is the one to label first.

Boxes are `[x, y, width, height]` in pixels of the upright image, from its upper left corner. Scores are calibrated on
val: of boxes with `0.7`, about seven in ten show an object of that class.
"""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import NotRequired

from pipeline.errors import DataError
from pipeline.records.base import Bbox, Number, Point, Record, read_record
from pipeline.records.coco import Pixels
from pipeline.run import Run


class LabelModel(Record):
    """The model that looked at the pool."""

    file: str
    """Path of the file: that of the run, or of `label.weights`."""
    sha256: str
    imgsz: int
    """Side in pixels of the square that images, or their tiles, are fitted into."""
    classes: list[str]
    """Classes of the dataset that the model knows. If there are none, it draws no boxes."""


class Guess(Record):
    """A pre-drawn box."""

    bbox: Bbox
    label: str
    """Class of the box."""
    score: Number
    """Calibrated: the probability that the box finds an object of its class, from 0 to 1."""
    kind: Literal["sure", "doubtful"]
    """`sure` if the score is at least `sure` in `next.json`."""


class Candidate(Record):
    path: str
    """Path of the image, relative to the folder where `make` runs, or absolute as `label.pool`."""
    shown: NotRequired[str]
    """PNG of 8 bits that the App and labelling tools show instead of the image, which they would show differently or
    not at all."""
    sha256: str
    """Of the image file."""
    width: Pixels
    """Pixels of the upright image."""
    height: Pixels
    """Pixels of the upright image."""
    by: Literal["uncertain", "different", "rare", "random"]
    """The rule that chose the image, by `label.by`, `label.rare` and `label.random`."""
    reasons: list[str]
    """Why it was chosen, in words."""
    expected_boxes: Number
    """Number of objects to expect."""
    expected_wrong: Number
    """Number of wrong boxes to expect among the pre-drawn ones."""
    expected_missed: Number
    """Number of boxes to expect that a person has to draw."""
    minutes: Number
    """Expected minutes of work, by `label.cost`."""
    boxes: list[Guess]
    """The pre-drawn boxes, highest score first."""


class Calibration(Record):
    """What the model's scores are worth on val. Curves are points of a score and a share, with lines between them."""

    right: list[Point]
    """The share of boxes that find an object, at an IoU of `0.5`."""
    exact: list[Point]
    """The share of boxes that can stay as they are, at an IoU of `0.75`."""
    unseen: Number
    """Number of objects without a box, per object with one."""
    images: int
    """Number of val images compared."""
    boxes: int
    """Number of boxes compared, of scores from `0.01`; 0 if val has no objects or the model knows no class."""


class Next(Record):
    pool: str
    """The folder that `label.pool` names."""
    model: LabelModel
    calibration: Calibration
    threshold: Number
    """The model's own score from which boxes are pre-drawn; calibrated scores rise with it. 1 if none is worth it."""
    sure: Number
    """Calibrated score from which a box is sure."""
    classes: list[str]
    """Classes of the dataset, in the order of their ids."""
    images: list[Candidate]
    """The batch."""
    minutes: Number
    """Expected minutes of work on the batch."""
    minutes_by_hand: Number
    """Minutes for the same images without pre-drawn boxes."""
    pool_images: int
    """Number of images in the pool, including those left out."""
    left_out: dict[str, int]
    """Number of images that were not candidates, by reason."""
    problems: dict[str, str]
    """Path in the pool -> reason, for images that cannot be used."""
    settings: dict[str, Any]
    """The `label` section of the config, with its defaults, and the seed."""


def read(run: Run) -> Next:
    if not run.label_next.is_file():
        raise DataError(f"{run.label_next}: does not exist; run `make label`")
    return read_record(run.label_next, Next, "run `make label` again")

"""Progress of the labelling: `label/rounds.json`, what was known when each batch was chosen."""

from __future__ import annotations

from pipeline.records.base import Interval, Number, Record, read_record
from pipeline.run import Run


class OnPool(Record):
    """How good the pre-drawn boxes were, on the images of a batch that were drawn at random."""

    images: int
    """Number of images drawn at random."""
    right: int
    """Boxes that found an object of their class, at an IoU of `0.5`."""
    wrong: int
    """The other boxes."""
    missed: int
    """Objects that no box found."""
    f1: Number | None
    """F1 of the boxes, from 0 to 1; null without boxes and objects."""
    interval: Interval | None
    """95 % interval [low, high] of F1, from resampling the images; null with fewer than five."""
    untouched: Number | None
    """Share of the boxes that a person left as they were, at an IoU of `0.75`; null without boxes."""


class Round(Record):
    """What was known when a batch was chosen."""

    model: str
    """SHA-256 of the model."""
    images: int
    """Number of images in the training split."""
    boxes: int
    """Number of boxes in the training split."""
    minutes: Number
    """Expected minutes of work on all images labelled so far."""
    map50_95: Number | None
    """On val, from 0 to 1; null without a `metrics.json` of this model."""
    interval: Interval | None
    """95 % interval [low, high] of `map50_95`; null as that, and with fewer than five val images."""
    on_pool: OnPool | None
    """For the last batch saved; null until all of its images drawn at random are saved, because a choice of them is
    biased."""
    batch: int
    """Number of images chosen."""
    gain: Number | None
    """What they may add to `map50_95`, from a line through the last three rounds over the logarithm of their images;
    null until two rounds have different numbers of images."""


class Rounds(Record):
    rounds: list[Round]
    """The first one first."""


def read(run: Run) -> list[Round]:
    """Return what was known at each batch so far, the first one first."""
    if not run.label_rounds.is_file():
        return []
    return read_record(run.label_rounds, Rounds, "delete it and run `make label` again")["rounds"]

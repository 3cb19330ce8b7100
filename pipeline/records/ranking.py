"""Source weights, ranked before training: `rank.json`."""

from __future__ import annotations

from pipeline.records.base import Number, Record, read_record
from pipeline.records.training import SourceWeights
from pipeline.run import Run


class Depth(Record):
    """How well the outputs of a model's layers separate the classes."""

    accuracy: dict[str, Number]
    """Layer number -> balanced accuracy of a linear probe on the layer's output, from 0 to 1."""
    freeze: int
    """Layers that may be frozen by this measure: up to the last backbone layer before the accuracy falls."""


class Source(Record):
    weights: SourceWeights
    place: Number
    """Mean of the places by LogME, by H-score and by the probe; 1 is best in all three."""
    log_me: Number
    """LogME: log evidence per box of a Bayesian linear model."""
    h_score: Number
    """H-score with shrunk covariance: variance between the classes relative to the total variance."""
    probe: Number
    """Balanced accuracy of a ridge classifier on the boxes of other images, from 0 to 1."""
    per_class: dict[str, Number | None]
    """The same by class. Null for a class that only one image shows. `background` is places without an object."""
    layers: list[int]
    """The layers whose outputs are scored: those that the neck takes from the backbone."""
    depth: Depth | None
    """Null with `layers: false`."""
    seconds: Number


class Ranking(Record):
    sources: list[Source]
    """Best first."""
    images: int
    boxes: dict[str, int]
    """Number of boxes used, by class."""
    imgsz: int
    seed: int


def read(run: Run) -> Ranking:
    return read_record(run.ranking, Ranking, f"delete {run.ranking} and run `make rank` again")

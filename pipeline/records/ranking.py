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
    """Number of first layers that may be frozen: up to the last backbone layer before the accuracy falls."""


class Source(Record):
    weights: SourceWeights
    place: Number
    """Mean of the places by LogME, by H-score and by the probe; 1 is best in all three."""
    log_me: Number
    """LogME: log evidence per box of a Bayesian linear model; higher is better."""
    h_score: Number
    """H-score with shrunk covariance: variance between classes in units of the total variance; higher is better."""
    probe: Number
    """Balanced accuracy of a ridge classifier on the boxes of other images, from 0 to 1."""
    per_class: dict[str, Number | None]
    """The same by class. Null for a class that only one image shows. `background` is places without an object."""
    layers: list[int]
    """The layers whose outputs are scored: those that the neck takes from the backbone."""
    depth: Depth | None
    """Null with `layers: false`."""
    seconds: Number
    """Time to load and score the model."""


class Ranking(Record):
    sources: list[Source]
    """Best first."""
    images: int
    """Number of training images used, at most 200; tiles if the run has tiles."""
    boxes: dict[str, int]
    """Number of boxes used, by class; `background` is places without an object."""
    imgsz: int
    """Side in pixels that images are fitted into: `train.imgsz`."""
    seed: int
    """The `seed` of the config, by which images and places were drawn."""


def read(run: Run) -> Ranking:
    return read_record(run.ranking, Ranking, f"delete {run.ranking} and run `make rank` again")

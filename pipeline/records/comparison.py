"""Two runs on the same images: `comparison.json`, written by `make validate AGAINST=runs/OTHER`.

Both runs are evaluated on the same resamples of the images. The other run is called `against`.
"""

from __future__ import annotations

from typing import Literal

from pipeline.records.base import Interval, Number, Record, read_record
from pipeline.run import Run

Verdict = Literal["better", "worse", "inside noise", "not measured"]


class Difference(Record):
    """A figure of both runs, from 0 to 1; null without labelled objects."""

    run: Number | None
    against: Number | None
    difference: Number | None
    """`run` minus `against`: `0.01` is one point."""
    interval: Interval | None
    """Interval [low, high] of the difference; null with fewer than five images."""
    verdict: Verdict
    """What this run is; `inside noise` if the interval contains 0, or is null."""


class SplitDifferences(Record):
    images: int
    figures: dict[str, Difference]
    """`map50_95`, `map50`, `map75` and `ar100`, as in `metrics.json`."""
    per_class: dict[str, dict[str, Difference]]
    """`map50_95`, `map50` and `ar100` of each class; intervals are null if fewer than five images show it."""


class Comparison(Record):
    run: str
    """Folder of this run."""
    against: str
    """Folder of the other run."""
    level: Number
    """Share of the resampled differences that an interval holds: `0.95`."""
    resamples: int
    """Number of times that the images were resampled."""
    limits: str
    """What the intervals do not cover."""
    splits: dict[str, SplitDifferences]


def read(run: Run, other: Run) -> Comparison:
    """Return the run's comparison, which should be with `other`."""
    again = f"delete it and run `{run.make('report')} AGAINST={other.root}` again"
    return read_record(run.comparison, Comparison, again)

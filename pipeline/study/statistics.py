"""Separate luck from real differences: resample seeds and test images together, with the same draws for every row.

A trial's `drawn` holds its figure on each of many samples of the test images. One replicate takes one of these samples
for all trials, and draws seeds for each row with replacement, as many as there are. Two corrections make that valid for
few seeds. First, deviations between n seeds are scaled by sqrt(n / (n - 1)), because those of a sample are too small.
Second, all deviations are widened from a normal distribution to Student's t, with Satterthwaite's degrees of freedom
for the contributions of seeds and images. The seeds' share is pooled over sizes: from two or three seeds of one size it
is often too small by luck, which made a row look different from itself in up to 30 % of simulated studies.

Trials of one seed share their training images, so differences are taken seed by seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from pipeline.study.results import Line
from pipeline.study.subsets import Size

Floats = NDArray[np.float64]
LEVEL = 0.95
REPLICATES = 3000
NORMAL = 1.959964  # half-width of the central LEVEL of a normal distribution, in standard deviations


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds. `low`, `high` and `p` (two-sided, of no difference from 0) are None with a single seed."""

    value: float
    seeds: int
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def interval(self) -> list[float] | None:
        return None if self.low is None or self.high is None else [self.low, self.high]


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two rows at one size; `p` is that after Holm over the sizes."""

    estimate: Estimate | None
    p: float | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Table:
    """The figures of a study: `figure` [rows, sizes, seeds], NaN without a trial, `drawn` [..., draws]."""

    rows: list[str]
    sizes: list[Size]
    figure: Floats
    drawn: Floats
    images: Floats  # [sizes]: training images, the mean over seeds

    @classmethod
    def of(cls, lines: Iterable[Line], rows: Sequence[str], sizes: Sequence[Size], seeds: int) -> Table:
        """Collect the lines of `results.jsonl`, with the samples that have a figure in all of them."""
        known = {(line["row"], size, line["seed"]): line for line in lines for size in [size_of(line)]}
        draws = max((len(line["drawn"]) for line in known.values()), default=1)
        figure = np.full((len(rows), len(sizes), seeds), np.nan)
        drawn = np.full((*figure.shape, draws), np.nan)
        images: list[list[int]] = [[] for _ in sizes]
        for place in np.ndindex(*figure.shape):
            line = known.get((rows[place[0]], sizes[place[1]], place[2]))
            if line and line["map50_95"] is not None:
                figure[place] = line["map50_95"]
                drawn[place] = line["drawn"]  # None becomes NaN
                images[place[1]].append(line["images"])
        means = [float(np.mean(counts)) if counts else np.nan for counts in images]
        usable = ~np.isnan(drawn[~np.isnan(figure)]).any(axis=0)
        if usable.sum() < 2:  # every sample lacks a class, so nothing is known about other images
            drawn, usable = np.repeat(figure[..., None], 2, axis=-1), np.ones(2, dtype=bool)
        return cls(list(rows), list(sizes), figure, drawn[..., usable], np.array(means))

    def cell(self, row: str, size: Size) -> tuple[Floats, Floats]:
        """Return the figures [seeds] of the finished trials, and their drawn figures [seeds, draws]."""
        place = self.rows.index(row), self.sizes.index(size)
        finished = ~np.isnan(self.figure[place])
        return self.figure[place][finished], self.drawn[place][finished]

    def difference(self, row: str, other: str, size: Size) -> tuple[Floats, Floats]:
        """Return the differences of two rows [seeds] and of their draws [seeds, draws], for seeds that both have."""
        ours, theirs = ((self.rows.index(name), self.sizes.index(size)) for name in (row, other))
        both = ~np.isnan(self.figure[ours]) & ~np.isnan(self.figure[theirs])
        return self.figure[ours][both] - self.figure[theirs][both], self.drawn[ours][both] - self.drawn[theirs][both]


def size_of(line: Line) -> Size:
    return ("share", line["share"]) if "share" in line else ("shots", line["shots"])


def replicates(figure: Floats, drawn: Floats, share: float) -> Floats | None:
    """Return the mean over seeds in each replicate, around that of the figures: [REPLICATES]. None with one seed.

    `share` is the seeds' share of the variance of the mean.
    """
    seeds, draws = drawn.shape
    if seeds < 2:
        return None
    generator = np.random.default_rng(seeds)  # the same draws for all rows with as many seeds
    picks = generator.integers(seeds, size=(REPLICATES, seeds))
    sample = np.arange(REPLICATES) % draws
    mean = drawn.mean(axis=0)
    deviations = (drawn - mean) * np.sqrt(seeds / (seeds - 1))
    drawn_again = mean[sample] + deviations[picks, sample[:, None]].mean(axis=1)
    wider = stdtrit(freedom(seeds, share), (1 + LEVEL) / 2) / NORMAL
    return np.asarray(figure.mean() + wider * (drawn_again - drawn_again.mean()))


def freedom(seeds: int, share: float) -> float:
    """Return the degrees of freedom of a mean over seeds: n - 1 if only seeds vary, many if only images do."""
    return float((seeds - 1) / max(share, 1e-3) ** 2)


def share_of_seeds(cells: Iterable[tuple[Floats, Floats]]) -> float:
    """Return the seeds' share of the variance of means, pooled over cells; 1, the widest, with a single cell."""
    variances = [parts(figure, drawn) for figure, drawn in cells if len(figure) > 1]
    total = sum(map(sum, variances))
    return sum(by_seeds for by_seeds, _ in variances) / total if len(variances) > 1 and total else 1.0


def parts(figure: Floats, drawn: Floats) -> tuple[float, float]:
    """Return the variance of the mean that comes from the choice of seeds, and that from the choice of images."""
    return float(figure.var(ddof=1) / len(figure)), float(drawn.mean(axis=0).var(ddof=1))


def estimate(figure: Floats, drawn: Floats, share: float) -> Estimate | None:
    """Return the mean with its interval; None without a trial. `share` is that of `share_of_seeds`."""
    if not len(figure):
        return None
    value = float(figure.mean())
    again = replicates(figure, drawn, share)
    if again is None:
        return Estimate(value, len(figure))
    error = float(np.sqrt(sum(parts(figure, drawn))))
    if value and not error:  # without any spread nothing is known about chance
        return Estimate(value, len(figure))
    low, high = np.percentile(again, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    p = float(2 * stdtr(freedom(len(figure), share), -abs(value) / error)) if error else 1.0
    return Estimate(value, len(figure), float(low), float(high), p)


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple comparisons (Holm 1979)."""
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, worst = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = worst
    return adjusted


def levels(table: Table, row: str) -> dict[Size, Estimate | None]:
    """Return the figure of a row at each size, with an interval inside 0 and 1."""
    cells = {size: table.cell(row, size) for size in table.sizes}
    share = share_of_seeds(cells.values())
    return {size: _inside(estimate(*cell, share)) for size, cell in cells.items()}


def _inside(level: Estimate | None) -> Estimate | None:
    if level is None or level.low is None or level.high is None:
        return level
    return replace(level, low=max(0.0, level.low), high=min(1.0, level.high))


def compare(table: Table, row: str, other: str) -> dict[Size, Difference]:
    """Return the difference `row - other` at each size: value, interval, `p` after Holm over sizes, and a verdict."""
    cells = {size: table.difference(row, other, size) for size in table.sizes}
    share = share_of_seeds(cells.values())
    estimates = {size: estimate(*cell, share) for size, cell in cells.items()}
    p_values = {size: gap.p for size, gap in estimates.items() if gap and gap.p is not None}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    result: dict[Size, Difference] = {}
    for size, gap in estimates.items():
        p = adjusted.get(size)
        verdict = "not known" if p is None else "inside noise"
        if gap and p is not None and p < 1 - LEVEL:
            verdict = "better" if gap.value > 0 else "worse"
        result[size] = Difference(gap, p, verdict)
    return result


def beyond_luck(figure: Floats) -> float:
    """Return how far apart two single runs are in 5 % of cases if they differ only in the seed.

    `figure` [seeds], at least two, estimates the spread; with few seeds Student's t allows for that.
    """
    spread = float(figure.std(ddof=1))
    return float(stdtrit(len(figure) - 1, (1 + LEVEL) / 2)) * 2**0.5 * spread


def smallest_difference(table: Table, seeds: int) -> float | None:
    """Return the difference of two rows that `seeds` seeds detect at one size in half of all studies.

    A larger one counts as real after Holm's first step, the strictest. Twice this difference is detected nearly always.
    It is estimated from the trials of the first two rows, with the variance between seeds pooled over sizes. With one
    row, its variance counts twice, as for two rows without common seeds. None until a size has two seeds.
    """
    pair = len(table.rows) > 1
    spread, images, degrees = 0.0, [], 0
    for size in table.sizes:
        figure, drawn = (
            table.difference(table.rows[1], table.rows[0], size) if pair else table.cell(table.rows[0], size)
        )
        if len(figure) > 1:
            spread += (1 if pair else 2) * float(figure.var(ddof=1)) * (len(figure) - 1)
            degrees += len(figure) - 1
            images.append(parts(figure, drawn)[1] if pair else 0.0)
    if not degrees or seeds < 2:
        return None
    by_seeds, by_images = spread / degrees / seeds, float(np.median(images))
    share = by_seeds / (by_seeds + by_images) if by_seeds else 1.0
    level = 1 - (1 - LEVEL) / (2 * len(table.sizes))
    return float(stdtrit(freedom(seeds, share), level) * np.sqrt(by_seeds + by_images))

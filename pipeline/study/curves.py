"""Evaluate the curves of a study: how many labels a row saves, and what more labels would add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.study.statistics import LEVEL, REPLICATES, Table, replicates, share_of_seeds

Floats = NDArray[np.float64]
EXPONENTS: Floats = np.geomspace(0.1, 2.0, 25)  # of the power law; a few sizes hardly distinguish them
FACTORS = (1.5, 2.0, 4.0)
FEWEST_SIZES = 3  # for a curve with three parameters


@dataclass(frozen=True, slots=True)
class Curve:
    """A row's points with at least two seeds: images and figures [sizes], replicates [sizes, REPLICATES]."""

    images: Floats
    figures: Floats
    again: Floats

    @classmethod
    def of(cls, table: Table, row: str) -> Curve:
        """Return the curve of a row over its shares of the images, the smallest first.

        Of shares with the same number of images, as a few large groups give, the largest counts.
        """
        sizes = [size for size in table.sizes if size[0] == "share"]
        cells = [table.cell(row, size) for size in sizes]
        share = share_of_seeds(cells)
        images = [float(table.images[table.sizes.index(size)]) for size in sizes]
        last = {count: index for index, count in enumerate(images) if len(cells[index][0]) > 1}
        known = sorted(last.values())
        again = [replicates(*cells[index], share) for index in known]
        return cls(
            np.array([images[index] for index in known]),
            np.array([cells[index][0].mean() for index in known]),
            np.array([one for one in again if one is not None]).reshape(len(known), REPLICATES),
        )


@dataclass(frozen=True, slots=True)
class Multiple:
    """With `images`, the row is as good as the other one with `value` times as many.

    None means that the other row never is as good, 0 that it is better from its first point on.
    """

    images: float
    value: float | None
    low: float | None
    high: float | None
    least: float
    """The multiple at the first point of the other row's curve."""
    most: float
    """The multiple at its last point."""


def multiples(ours: Curve, theirs: Curve) -> list[Multiple]:
    """Return for each size of `ours` how many times as many labels `theirs` needs for the same figure.

    The other row's curve is interpolated on a logarithmic scale of images, and made non-decreasing.
    """
    result = []
    for images, figure, again in zip(ours.images, ours.figures, ours.again, strict=True):
        value = _crossing(theirs.images, theirs.figures[:, None], np.array([figure]))[0] / images
        drawn = _crossing(theirs.images, theirs.again, again) / images
        low, high = np.percentile(drawn, _ENDS, method="nearest")  # infinite ones cannot be averaged
        times, least, most = (None if x == np.inf else float(x) for x in (value, low, high))
        ends = theirs.images[[0, -1]] / images
        result.append(Multiple(float(images), times, least, most, float(ends[0]), float(ends[1])))
    return result


def _crossing(images: Floats, curve: Floats, wanted: Floats) -> Floats:
    """Return how many images each column of `curve` [sizes, n] needs for `wanted` [n].

    It is inf if the curve never reaches the figure, and 0 if its first point is above it.
    """
    rising = np.maximum.accumulate(curve, axis=0)
    reached = (rising >= wanted).argmax(axis=0)
    column = np.arange(curve.shape[1])
    below = np.maximum(reached - 1, 0)
    low, high = rising[below, column], rising[reached, column]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(reached > below, (wanted - low) / (high - low), 0)
    x = np.log(images)
    result = np.exp(x[below] + np.nan_to_num(part) * (x[reached] - x[below]))
    result = np.where(rising[-1] >= wanted, result, np.inf)
    return np.where(rising[0] > wanted, 0, result)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The figure that a row would reach with `images`, its interval, and the gain over the largest measured size."""

    images: float
    value: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float


def forecast(curve: Curve, images: Sequence[float]) -> list[Forecast]:
    """Fit `a - b n^-c` to each replicate and extrapolate it to more images; empty with fewer than three sizes.

    Each replicate draws an exponent in proportion to how well it fits, so that the interval includes what a few sizes
    cannot show: whether the curve flattens soon or late.
    """
    if len(curve.images) < FEWEST_SIZES:
        return []
    predicted = extrapolated(curve, np.array(images, dtype=np.float64))
    result = []
    for count, again in zip(images, predicted, strict=True):
        gains = again - curve.again[-1]
        low, high = np.percentile(again, _ENDS)
        gain_low, gain_high = np.percentile(gains, _ENDS)
        result.append(
            Forecast(
                float(count),
                float(np.median(again)),
                float(low),
                float(high),
                float(np.median(gains)),
                float(gain_low),
                float(gain_high),
            )
        )
    return result


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A forecast of the largest size from the smaller ones, and the figure measured there.

    `low` and `high` are the interval of the measured figure minus the forecast.
    """

    images: float
    forecast: Forecast
    measured: float
    low: float
    high: float

    @property
    def within(self) -> bool:
        """Return whether the forecast was right within the noise of both."""
        return self.low <= 0 <= self.high


def held_back(curve: Curve) -> HeldBack | None:
    """Check the forecast on the largest size; None if too few sizes remain without it.

    Both use the same test images, so their difference is less uncertain than each of them.
    """
    if len(curve.images) <= FEWEST_SIZES:
        return None
    smaller = Curve(curve.images[:-1], curve.figures[:-1], curve.again[:-1])
    most = float(curve.images[-1])
    [ahead] = forecast(smaller, [most])
    low, high = np.percentile(curve.again[-1] - extrapolated(smaller, np.array([most]))[0], _ENDS)
    return HeldBack(most, ahead, float(curve.figures[-1]), float(low), float(high))


def extrapolated(curve: Curve, images: Floats) -> Floats:
    """Return the power law of each replicate at `images`: [images, REPLICATES]."""
    # Easier or harder test images shift all sizes equally, which says nothing about the shape.
    apart = (curve.again - curve.again.mean(axis=0)).var(axis=1) * len(curve.images) / (len(curve.images) - 1)
    weights = 1 / np.maximum(apart, 1e-8)  # [sizes]
    fits, costs = [], []
    for exponent in EXPONENTS:
        x = -(curve.images**-exponent)
        centre = np.average(x, weights=weights)
        spread = np.average((x - centre) ** 2, weights=weights)
        mean = np.average(curve.again, axis=0, weights=weights)
        slope = np.maximum(
            0, np.average((x - centre)[:, None] * (curve.again - mean), axis=0, weights=weights) / spread
        )
        level = np.minimum(mean - slope * centre, 1)  # more images never make it worse, and none make it better than 1
        costs.append((weights[:, None] * (level + slope * x[:, None] - curve.again) ** 2).sum(axis=0))
        fits.append(np.minimum(level - slope * (images**-exponent)[:, None], 1))
    generator = np.random.default_rng(len(curve.images))
    luck = generator.gumbel(size=(len(EXPONENTS), curve.again.shape[1]))  # so that argmax draws by probability
    chosen = (luck - np.array(costs) / 2).argmax(axis=0)
    return np.array(fits)[chosen, :, np.arange(len(chosen))].T


_ENDS = (50 * (1 - LEVEL), 50 * (1 + LEVEL))

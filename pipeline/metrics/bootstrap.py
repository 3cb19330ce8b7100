"""Estimate how much figures vary by chance, by an image-level bootstrap.

Images are resampled with replacement a thousand times, and every figure is computed for each resample. Matching happens
within an image, so it is done once; an image counts as often as it was drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.matching import IOU_THRESHOLDS, ClassMatches
from pipeline.metrics.precision_recall import average_precision
from pipeline.records.figures import ClassIntervals, Intervals

LEVEL = 0.95
RESAMPLES = 1000
# Every run on the same images gets the same draws, so that differences between runs come from the runs.
SEED = 0
# Resampling fewer images than this says little about other images.
MIN_IMAGES = 5
# Share of the resamples that must hold every class for an interval of a mean over classes: of 1,000, five lie beyond
# each end then.
MIN_COMPLETE = 0.2
BLOCK_BYTES = 4e6  # the size of one array [predictions, resamples]
AT_75 = int(np.flatnonzero(np.isclose(IOU_THRESHOLDS, 0.75))[0])


@dataclass(frozen=True, slots=True)
class Figures:
    """Average precision and recall per resample, class and IoU threshold; NaN if a resample lacks the class."""

    precision: NDArray[np.float64]  # [resamples, classes, thresholds]
    recall: NDArray[np.float64]  # the same

    def overall(self) -> dict[str, NDArray[np.float64]]:
        """Return COCO's means over classes: [resamples] each."""
        return {
            "map50_95": _mean(self.precision, (1, 2)),
            "map50": _mean(self.precision[:, :, 0], 1),
            "map75": _mean(self.precision[:, :, AT_75], 1),
            "ar100": _mean(self.recall, (1, 2)),
        }

    def complete(self) -> NDArray[np.bool_]:
        """Return which resamples have objects of every class that any of them has: [resamples]."""
        present = ~np.isnan(self.precision[:, :, 0])
        return np.asarray(present[:, present.any(axis=0)].all(axis=1))

    def usable(self) -> NDArray[np.bool_]:
        """Return which resamples say something about means over classes: `complete` ones, or none if they are rare."""
        complete = self.complete()
        return complete if complete.mean() >= MIN_COMPLETE else np.zeros_like(complete)

    def of_class(self, index: int) -> dict[str, NDArray[np.float64]]:
        return {
            "map50_95": self.precision[:, index].mean(axis=1),
            "map50": self.precision[:, index, 0],
            "ar100": self.recall[:, index].mean(axis=1),
        }


def figures(classes: list[ClassMatches], draws: NDArray[np.int64]) -> Figures:
    """Compute the figures of every resample; `draws` [resamples, images] says how often each image is in it."""
    shape = (len(draws), len(classes), len(IOU_THRESHOLDS))
    precision, recall = np.full(shape, np.nan), np.full(shape, np.nan)
    for column, matches in enumerate(classes):
        # Recall rises only at a hit, so only the number of predictions between two hits matters.
        hits = np.flatnonzero(matches.hits.any(axis=0))
        images = matches.images[: hits[-1] + 1 if len(hits) else 0]
        after_last_hit = np.append(0, hits + 1)[:-1]
        step = max(1, int(BLOCK_BYTES / (8 * max(len(images), 1))))
        for first in range(0, len(draws), step):
            block = slice(first, first + step)
            objects = draws[block] @ matches.objects
            weights = draws[block].T[images]  # [predictions, resamples]
            ranks = np.cumsum(np.add.reduceat(weights, after_last_hit, axis=0), axis=0)
            for row, of_row in enumerate(matches.hits[:, hits]):
                hit_weights = np.ascontiguousarray(weights[hits[of_row]].T)
                precision[block, column, row] = average_precision(
                    np.ascontiguousarray(ranks[of_row].T), hit_weights, objects
                )
                with np.errstate(invalid="ignore"):
                    recall[block, column, row] = hit_weights.sum(axis=1) / objects
    return Figures(precision, recall)


def draws(images: int, resamples: int = RESAMPLES, seed: int = SEED) -> NDArray[np.int64]:
    """Draw `images` images with replacement per resample: return how often each was drawn, [resamples, images]."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)


def once(images: int) -> NDArray[np.int64]:
    """Return the draw that contains each image once: [1, images]."""
    return np.ones((1, images), dtype=np.int64)


def with_draws(classes: list[ClassMatches]) -> Figures:
    """Compute the figures of the images themselves (first row) and of every resample."""
    images = len(classes[0].objects)
    return figures(classes, np.concatenate([once(images), draws(images)]))


def intervals(classes: list[ClassMatches], names: list[str]) -> Intervals:
    """Return 95 % intervals [low, high] of all figures; None for those based on fewer than MIN_IMAGES labelled images.

    They are plain percentiles: in simulations of 50 to 200 images these covered the true figure in 92 to 95 % of cases,
    and neither basic nor bias-corrected intervals did better. Resamples without any object of a class are left out of
    the means over classes, which would otherwise jump to the mean of the other classes. If most lack one, these means
    have no interval.
    """
    resampled, labelled = figures(classes, draws(len(classes[0].objects))), images_with_objects(classes)
    usable = resampled.usable()
    overall = {name: values[usable] for name, values in resampled.overall().items()}
    return {
        "level": LEVEL,
        "resamples": int(usable.sum()),
        **_three(overall, labelled),
        "map75": interval(overall["map75"], labelled),
        "per_class": {
            name: _three(resampled.of_class(index), int((classes[index].objects > 0).sum()))
            for index, name in enumerate(names)
        },
    }


def images_with_objects(classes: list[ClassMatches]) -> int:
    return int((np.sum([matches.objects for matches in classes], axis=0) > 0).sum())


def _three(figures: dict[str, NDArray[np.float64]], images: int) -> ClassIntervals:
    """Return the intervals of the figures that a class has too, based on `images` images with objects."""
    map50_95, map50, ar100 = (interval(figures[name], images) for name in ("map50_95", "map50", "ar100"))
    return {"map50_95": map50_95, "map50": map50, "ar100": ar100}


def interval(values: NDArray[np.float64], images: int) -> list[float] | None:
    """Return the interval [low, high] of a resampled figure; None if fewer than MIN_IMAGES `images` have objects."""
    ends = percentiles(values)
    return None if images < MIN_IMAGES or ends is None else [round(end, 6) for end in ends]


def percentiles(values: NDArray[np.float64]) -> list[float] | None:
    """Return the ends [low, high] of the middle LEVEL of resampled values; None if all are NaN."""
    values = values[~np.isnan(values)]
    tail = 50 * (1 - LEVEL)
    return [float(end) for end in np.percentile(values, (tail, 100 - tail))] if len(values) else None


def _mean(values: NDArray[np.float64], axes: int | tuple[int, ...]) -> NDArray[np.float64]:
    """Return the mean over all values that are not NaN; NaN if there are none."""
    valid = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(valid, values, 0).sum(axis=axes) / valid.sum(axis=axes))

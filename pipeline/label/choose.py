"""Choose images from numbers alone. The choice is deterministic for a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.label.store import Array

By = Literal["uncertain", "different", "rare", "random"]
Floats = NDArray[np.float64]
REFERENCES = 2000  # images that represent the pool in counting what a choice covers: 80 MB for a pool of 10,000
PRESENT = 0.5  # expected objects of rare classes from which an image counts as showing one


@dataclass(frozen=True, slots=True)
class Candidates:
    vectors: Array  # [images, channels], of length 1
    unsure: Floats  # [images], expected errors of the model
    rare: Floats  # [images], expected objects of rare classes
    minutes: Floats  # [images], of work


class Pick(NamedTuple):
    image: int
    by: By
    covers: int  # estimated number of pool images to which no earlier choice is more similar; 0 if random


def choose(
    candidates: Candidates,
    labelled: Array,
    number: int,
    by: tuple[str, ...],
    random: float,
    use_rare: bool,
    seed: int,
) -> list[Pick]:
    """Return the images to label, the first one first. `labelled` are vectors like those of the candidates.

    The random ones are drawn first, from all images, so that they represent the whole pool. They are spread over the
    batch, so that somebody who stops half-way has labelled a share of them too.
    """
    count = len(candidates.unsure)
    number = min(number, count)
    share = random if by else 1.0
    at_random = np.random.default_rng(seed).permutation(count)[: round(number * share)].tolist()
    coverage = _Coverage(candidates.vectors, labelled, seed)
    for index in at_random:
        coverage.add(index)
    free = np.ones(count, bool)
    free[at_random] = False
    rest: list[Pick] = []
    for _ in range(number - len(at_random)):
        pick = _next(candidates, coverage, free, by, use_rare)
        free[pick.image] = False
        coverage.add(pick.image)
        rest.append(pick)
    return _spread(rest, [Pick(index, "random", 0) for index in at_random])


def _next(
    candidates: Candidates, coverage: _Coverage, free: NDArray[np.bool_], by: tuple[str, ...], use_rare: bool
) -> Pick:
    kind: By = "different"
    if use_rare and (shows := free & (candidates.rare >= PRESENT)).any():
        value, kind, free = candidates.rare, "rare", shows
    elif by == ("uncertain",):
        value, kind = candidates.unsure, "uncertain"
    else:
        weights = np.ones(len(candidates.unsure))
        if "uncertain" in by and candidates.unsure.any():
            weights = candidates.unsure / candidates.unsure.mean()
        value = coverage.gains(weights)
    index = int(np.argmax(np.where(free, value / candidates.minutes, -1.0)))
    if kind == "different" and "uncertain" in by and candidates.unsure[index] > np.median(candidates.unsure):
        kind = "uncertain"
    return Pick(index, kind, coverage.covers(index))


class _Coverage:
    """Coverage of the pool: the similarity of each image to the nearest labelled or chosen one.

    Choosing what adds most to the sum solves facility location greedily, at most 37 % below the optimum (Nemhauser,
    Wolsey, Fisher 1978). An outlier covers only itself; images that represent many others come first.
    """

    def __init__(self, vectors: Array, labelled: Array, seed: int) -> None:
        count = len(vectors)
        self.references = np.sort(np.random.default_rng(seed).permutation(count)[:REFERENCES])
        self.similarity = np.clip(vectors @ vectors[self.references].T, 0, None)  # [images, references]
        self.reached = np.zeros(len(self.references), np.float32)
        for first in range(0, len(labelled), REFERENCES):
            near = labelled[first : first + REFERENCES] @ vectors[self.references].T
            self.reached = np.maximum(self.reached, near.max(axis=0))

    def gains(self, weights: Floats) -> Floats:
        """Return the coverage that each image adds, with the images of the pool counted by `weights`."""
        more = np.clip(self.similarity - self.reached, 0, None)
        return np.asarray(more @ weights[self.references].astype(np.float32), np.float64)

    def covers(self, index: int) -> int:
        share = (self.similarity[index] > self.reached).mean()
        return round(float(share) * len(self.similarity))

    def add(self, index: int) -> None:
        self.reached = np.maximum(self.reached, self.similarity[index])


def _spread(rest: list[Pick], at_random: list[Pick]) -> list[Pick]:
    """Interleave two lists evenly, keeping the order of each."""
    places = [
        ((place + 0.5) / len(picks), group, pick)
        for group, picks in enumerate((rest, at_random))
        for place, pick in enumerate(picks)
    ]
    return [pick for _, _, pick in sorted(places)]

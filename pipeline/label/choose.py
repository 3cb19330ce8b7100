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
BLOCK = 4096  # images whose similarities are computed at a time
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
    Wolsey, Fisher 1978). An outlier covers only itself; images that represent many others come first. What a candidate
    adds to itself is exact; what it adds to others is estimated from the references among them.
    """

    def __init__(self, vectors: Array, labelled: Array, seed: int) -> None:
        count = len(vectors)
        self.vectors = vectors
        self.own = np.zeros(count, np.float32)  # similarity of each image to the nearest labelled or chosen one
        if len(labelled):
            for rows in _blocks(count):
                self.own[rows] = (vectors[rows] @ labelled.T).max(axis=1, initial=0)
        self.references = np.sort(np.random.default_rng(seed).permutation(count)[:REFERENCES])
        self.similarity = vectors @ vectors[self.references].T  # [images, references], 0 of an image to itself
        np.clip(self.similarity, 0, None, out=self.similarity)
        self.similarity[self.references, np.arange(len(self.references))] = 0
        others = len(self.references) - np.isin(np.arange(count), self.references)
        self.scale = (count - 1) / np.maximum(others, 1)  # from the references that are other images to all others

    def gains(self, weights: Floats) -> Floats:
        """Return the coverage that each image adds, with the images of the pool counted by `weights`."""
        reached, counted_by = self.own[self.references], weights[self.references].astype(np.float32)
        gains = np.empty(len(self.own))
        for rows in _blocks(len(gains)):  # a copy of all similarities would take 800 MB for 100,000 images
            more = self.similarity[rows] - reached
            gains[rows] = np.clip(more, 0, None, out=more) @ counted_by
        return np.asarray(self.scale * gains + weights * np.clip(1 - self.own, 0, None))

    def covers(self, index: int) -> int:
        """Return the estimated number of images that the given one represents better than any so far, with itself."""
        others = np.count_nonzero(self.similarity[index] > self.own[self.references])
        return 1 + round(float(others * self.scale[index]))

    def add(self, index: int) -> None:
        np.maximum(self.own, self.vectors @ self.vectors[index], out=self.own)


def _blocks(count: int) -> list[slice]:
    return [slice(first, first + BLOCK) for first in range(0, count, BLOCK)]


def _spread(rest: list[Pick], at_random: list[Pick]) -> list[Pick]:
    """Interleave two lists evenly, keeping the order of each."""
    places = [
        ((place + 0.5) / len(picks), group, pick)
        for group, picks in enumerate((rest, at_random))
        for place, pick in enumerate(picks)
    ]
    return [pick for _, _, pick in sorted(places)]

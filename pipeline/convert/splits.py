"""Train, val and test that do not leak, keep every class's share, and stay as they are when images are added.

Images that belong together, be it as near-duplicates or by `group_by`, are a cluster, and only whole clusters are
placed. The order is that of iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011, "On the
stratification of multi-label data"): whoever has the rarest class first, as it leaves the fewest choices,
and into the split that wants that class most. Two things are ours: large clusters come before small ones, which
can even out what those leave; and a split that is full takes no more, so that sizes come out right, too.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import DataError
from pipeline.run import SPLITS

LONGEST_NAME = 255  # characters, what file systems allow a name


@dataclass(frozen=True, slots=True)
class Item:
    """An image: its name, the classes it shows, and the cluster whose images it must stay with."""

    name: str
    classes: frozenset[str]
    cluster: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """The split of every image but those in `left_out`, which says why none will do."""

    split_of: dict[str, str]
    left_out: dict[str, str]


class _Split:
    """What a split has, and what it still wants: images, and images of each class. Below 0 if it has too many."""

    def __init__(self, share: float, items: int, classes: Mapping[str, int]) -> None:
        self.room = max(1.0, share * items)
        self.wants = {name: share * count for name, count in classes.items()}
        self.has: set[str] = set()
        self.is_empty = True

    def add(self, block: Sequence[Item]) -> None:
        self.is_empty = False
        self.room -= len(block)
        for item in block:
            self.has |= item.classes
            for name in item.classes:
                self.wants[name] -= 1


def assign(items: Sequence[Item], ratios: Mapping[str, float], seed: int, earlier: Mapping[str, str]) -> Assignment:
    """Give every image a split; `ratios` are shares that add up to 1, `earlier` the splits of a run before.

    Images in `earlier` keep their split, and new ones of their cluster join them. A new image whose cluster
    lies in several splits already would leak from any of them, and is left out. The order of `items` does not matter.

    Raises DataError where a split that is asked for would stay empty.
    """
    clusters: dict[int, list[Item]] = defaultdict(list)
    for item in sorted(items, key=lambda item: item.name):
        clusters[item.cluster].append(item)
    result = Assignment({}, {})
    free = []
    for block in clusters.values():
        known = sorted({earlier[item.name] for item in block if item.name in earlier})
        if not known:
            free.append(block)
        for item in block:
            if item.name in earlier or len(known) == 1:
                result.split_of[item.name] = earlier.get(item.name, known[0])
            elif known:
                result.left_out[item.name] = f"belongs with images of {' and '.join(known)}; in either it would leak"

    used = [item for item in items if item.name not in result.left_out]
    count_of = Counter(name for item in used for name in item.classes)
    splits = {split: _Split(share, len(used), count_of) for split, share in ratios.items() if share > 0}
    for item in used:
        if result.split_of.get(item.name) in splits:  # an earlier split may be one that is no longer asked for
            splits[result.split_of[item.name]].add([item])
    empty = [name for name, split in splits.items() if split.is_empty]
    if len(free) < len(empty):
        raise _too_few(list(clusters.values()), empty[len(free) :], earlier)

    draw = random.Random(seed)
    draw.shuffle(free)
    rank = {name: number for number, name in enumerate(sorted(count_of, key=lambda name: (count_of[name], name)))}
    rarest = [
        min((name for item in block for name in item.classes), key=rank.__getitem__, default="") for block in free
    ]
    # Sizes by the power of two, or no two clusters of a video data set would be compared by what they show.
    order = sorted(range(len(free)), key=lambda i: (-len(free[i]).bit_length(), rank.get(rarest[i], len(rank))))
    for number, index in enumerate(order):
        name = _choose(splits, len(free[index]), rarest[index], len(free) - number, draw)
        splits[name].add(free[index])
        result.split_of.update((item.name, name) for item in free[index])
    return result


def _choose(splits: Mapping[str, _Split], size: int, rare: str, left: int, draw: random.Random) -> str:
    """The split for a cluster of `size` images whose rarest class is `rare`, with `left` clusters yet to place."""
    options = [name for name, split in splits.items() if split.is_empty]
    if left > len(options):
        most = max(split.room for split in splits.values())
        options = [name for name, split in splits.items() if split.room >= min(size, most) - 1e-9]
    if len(options) == 1:
        return options[0]

    def need(name: str) -> tuple[bool, float, float, float]:
        split = splits[name]
        # One for every split first: a class that val lacks cannot be measured at all.
        return bool(rare) and rare not in split.has, split.wants.get(rare, 0.0), split.room, draw.random()

    return max(options, key=need)


def _too_few(clusters: Sequence[Sequence[Item]], empty: Sequence[str], earlier: Mapping[str, str]) -> DataError:
    images, largest = sum(map(len, clusters)), max(map(len, clusters), default=0)
    none_left = f"which leaves none for {' and '.join(empty)}"
    if largest > 1:
        return DataError(
            f"convert.split: near-duplicates or group_by tie {largest} of {images} images together, {none_left}; "
            "set `convert.near_duplicates: false` or another `group_by`, or add images"
        )
    if earlier:
        return DataError(
            f"convert.split: {images} images keep the splits of an earlier run, {none_left}; "
            "add images, or delete the file that keeps those splits"
        )
    return DataError(f"convert.split: there are {images} images, {none_left}; add images, or ask for fewer splits")


def groups(names: Sequence[str], pattern: str) -> list[str | None]:
    """What `convert.group_by` finds in each name: the text of its one group, or of all of it where it has none.

    None where nothing is found, or only the empty text: such an image is a group of its own.

    Raises DataError where no name holds the pattern, which is then a mistake, and for a name of more than 255
    characters. `re` has no time limit, and that keeps most slow patterns bearable (an exponential one is slow on
    any name); to search a part of the name instead could take one group for another.
    """
    compiled = re.compile(pattern)
    assert compiled.groups <= 1
    found = []
    for name in names:
        if len(name) > LONGEST_NAME:
            raise DataError(
                f"{name}: {len(name)} characters, and convert.group_by searches {LONGEST_NAME}; shorten its path"
            )
        match = compiled.search(name)
        found.append(match[compiled.groups] or None if match else None)
    if names and not any(found):
        raise DataError(f"convert.group_by: {pattern!r} is found in no image name, such as {names[0]!r}; correct it")
    return found


def leaks(split_of: Sequence[str], clusters: Sequence[int]) -> list[list[int]]:
    """Of images with these splits and clusters, the indices of each cluster that lies in more than one split."""
    members: dict[int, list[int]] = defaultdict(list)
    for index, cluster in enumerate(clusters):
        members[cluster].append(index)
    return [group for group in members.values() if len({split_of[index] for index in group}) > 1]


def move(split_of: Sequence[str], clusters: Sequence[int]) -> dict[int, str]:
    """Which images have to move where so that no cluster straddles: to the split that holds most of theirs.

    Of equals, to the first of train, val, test.
    """
    moved: dict[int, str] = {}
    for group in leaks(split_of, clusters):
        holds = Counter(split_of[index] for index in group)
        home = max(SPLITS, key=lambda split: holds[split])  # the first of equals
        moved |= {index: home for index in group if split_of[index] != home}
    return moved

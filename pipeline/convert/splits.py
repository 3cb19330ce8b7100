"""Draw train, val and test so that they do not leak, keep every class's share and do not change when images are added.

Images that belong together, as near-duplicates or by `group_by`, form a cluster, and only whole clusters are placed.
Clusters with scarce classes go first, because they leave the fewest choices. This is iterative stratification
(Sechidis, Tsoumakas, Vlahavas 2011, "On the stratification of multi-label data") applied to clusters. Each goes into
the split that it brings closest to its share of every class, by least squares as in scikit-learn's
StratifiedGroupKFold. The sizes come out right too, because a full split takes no more.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import DataError, counted
from pipeline.formats.splits import without_split_folders
from pipeline.run import SPLITS

EVERY = ""  # a pseudo-class that all images have, so that each split also gets its share of images
LONGEST_NAME = 255  # characters, the limit of file systems


@dataclass(frozen=True, slots=True)
class Item:
    """An image: its name, the classes it shows, and the cluster whose images it must stay with."""

    name: str
    classes: frozenset[str]
    cluster: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """The split of every image except those in `left_out`, which says why no split will do."""

    split_of: dict[str, str]
    left_out: dict[str, str]


class _Split:
    """What a split has, and how many images of each class it still wants; negative if it has too many."""

    def __init__(self, share: float, count_of: Counter[str]) -> None:
        self.share = share
        self.wants = {name: share * count for name, count in count_of.items()}
        self.wants[EVERY] = max(1.0, share * count_of[EVERY])
        self.has: set[str] = set()

    @property
    def room(self) -> float:
        return self.wants[EVERY]

    def add(self, counts: Mapping[str, int]) -> None:
        self.has.update(counts)
        for name, count in counts.items():
            self.wants[name] -= count


def assign(items: Sequence[Item], ratios: Mapping[str, float], seed: int, earlier: Mapping[str, str]) -> Assignment:
    """Give every image a split; `ratios` are shares that add up to 1, `earlier` the splits of an earlier run.

    Images in `earlier` keep their split, and new images of their cluster join them. A new image whose cluster is in
    several splits already would leak in any of them, and is left out. The order of `items` does not matter.

    Raises DataError if a requested split would stay empty.
    """
    assert len({item.name for item in items}) == len(items)
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
                result.left_out[item.name] = (
                    f"belongs with images in {' and '.join(known)}; in any of them it would leak"
                )

    used = [item for item in items if item.name not in result.left_out]
    count_of = _counts(used)
    splits = {split: _Split(share, count_of) for split, share in ratios.items() if share > 0}
    for item in used:
        if result.split_of.get(item.name) in splits:  # an earlier split may no longer be requested
            splits[result.split_of[item.name]].add(_counts([item]))
    empty = [name for name, split in splits.items() if not split.has]
    if len(free) < len(empty):
        raise _too_few(list(clusters.values()), empty[len(free) :], earlier)

    draw = random.Random(seed)
    draw.shuffle(free)
    smallest = min(split.room for split in splits.values())

    def priority(block_and_counts: tuple[list[Item], Counter[str]]) -> tuple[int, int]:
        # First the clusters that fill a split, which leave no choice; then by how scarce their classes are. Scarcity
        # counts only in powers of two, so that the seed decides between similar clusters.
        block, counts = block_and_counts
        scarce = sum(count / count_of[name] for name, count in counts.items())
        return -len(block) if len(block) > smallest else 0, -math.frexp(scarce)[1]

    waiting = sorted(((block, _counts(block)) for block in free), key=priority)
    for number, (block, counts) in enumerate(waiting):
        name = _choose(splits, counts, count_of, len(waiting) - number, draw)
        splits[name].add(counts)
        result.split_of.update((item.name, name) for item in block)
    return result


def _counts(items: Iterable[Item]) -> Counter[str]:
    """Count the images that show each class; EVERY counts all images."""
    # Sorted, because sums of fractions depend on the order, and that of a set differs between processes.
    return Counter(name for item in items for name in (EVERY, *sorted(item.classes)))


def _choose(
    splits: Mapping[str, _Split], counts: Mapping[str, int], count_of: Mapping[str, int], left: int, draw: random.Random
) -> str:
    """Return the split for a cluster that holds `counts`; `left` clusters remain to be placed."""
    options = [name for name, split in splits.items() if not split.has]
    if left > len(options):
        most = max(split.room for split in splits.values())
        options = [name for name, split in splits.items() if split.room >= min(counts[EVERY], most) - 1e-9]
    if len(options) == 1:
        return options[0]
    rarest = min(counts, key=lambda name: (count_of[name], name))

    def need(name: str) -> tuple[float, float, float]:
        split = splits[name]
        # Every split first gets one of the rarest class, the largest split first: otherwise the class could be neither
        # learnt nor measured.
        missing = 0.0 if rarest in split.has else split.share
        # The decrease of the sum over all classes of (wanted / total)^2 / share.
        gain = sum(n * (2 * split.wants[name] - n) / count_of[name] ** 2 for name, n in counts.items()) / split.share
        return missing, gain, draw.random()

    return max(options, key=need)


def _too_few(clusters: Sequence[Sequence[Item]], empty: Sequence[str], earlier: Mapping[str, str]) -> DataError:
    images, largest = sum(map(len, clusters)), max(map(len, clusters), default=0)
    none_left = f"which leaves none for {' and '.join(empty)}"
    if largest > 1:
        return DataError(
            f"convert.split: near-duplicates or group_by keep {largest} of {images} images together, {none_left}; "
            "set `convert.near_duplicates: false` or another `group_by`, or add images"
        )
    if earlier:
        return DataError(
            f"convert.split: all images ({images}) keep the splits of an earlier run, {none_left}; "
            "add images, or delete the file that keeps those splits"
        )
    return DataError(f"convert.split: too few images ({images}), {none_left}; add images, or ask for fewer splits")


def groups(names: Sequence[str], pattern: str) -> list[str | None]:
    """Return what `convert.group_by` matches in each name: its capture group, or the whole match if it has none.

    The pattern is searched in the file name and, if it does not match there, in the path below the split folders. None
    means no match or an empty one: such an image is a group of its own.

    Raises DataError if no name matches, which is an error in the pattern, and for names of more than 255 characters:
    `re` has no time limit, and this keeps most slow patterns bearable. Searching only a part of a longer name could
    confuse two groups.
    """
    compiled = re.compile(pattern)
    assert compiled.groups <= 1
    for name in names:
        if len(name) > LONGEST_NAME:
            raise DataError(
                f"{name}: {len(name)} characters, but convert.group_by allows {LONGEST_NAME}; shorten its path"
            )

    def found(text: str) -> str | None:
        match = compiled.search(text)
        return match[compiled.groups] or None if match else None

    # For each image, because one file name that happens to match says nothing about the others.
    matched = [found(name.rpartition("/")[2]) or found(without_split_folders(name)) for name in names]
    if names and not any(matched):
        raise DataError(f"convert.group_by: {pattern!r} matches no image name, such as {names[0]!r}; correct it")
    return matched


def alone(found: Sequence[str | None]) -> str:
    """Say how many images the result of `groups` leaves without a group; empty if none."""
    count = found.count(None)
    match, group = ("matches", "is a group of its own") if count == 1 else ("match", "are groups of their own")
    return f"{count} of {counted(len(found), 'image')} {match} no convert.group_by and {group}" if count else ""


# Names that number frames or tiles: the part before the number identifies the video or image.
_SERIES = (
    (re.compile(r"^(.+)\.rf\.[0-9a-f]{8,}"), r"^(.+)\.rf\."),  # Roboflow's copies of one image
    (re.compile(r"^(.*[a-zA-Z]+[_-]?\d+)[_-]\d+[_-]\d+\.\w+$"), r"^(.+)[_-]\d+[_-]\d+\."),  # tiles, x and y
    (re.compile(r"^(.*[a-zA-Z]+[_-]?\d+)[_-][a-zA-Z]*\d+\.\w+$"), r"^(.+)[_-][a-zA-Z]*\d+\."),  # frames
)


def suggestion(split_of: Mapping[str, str]) -> str:
    """Suggest a `group_by` for names that the drawn splits separate; empty if names suggest none."""
    for series, pattern in _SERIES:
        members: dict[str, list[str]] = defaultdict(list)
        for name in sorted(split_of):
            if match := series.search(name.rpartition("/")[2]):
                members[match[1]].append(name)
        groups = [names for names in members.values() if len(names) > 1]
        straddling = [names for names in groups if len({split_of[name] for name in names}) > 1]
        if len(groups) > 1 and straddling and sum(map(len, groups)) >= 0.5 * len(split_of):
            first, other = straddling[0][0], next(n for n in straddling[0] if split_of[n] != split_of[straddling[0][0]])
            return (
                f"{first} ({split_of[first]}) and {other} ({split_of[other]}) look like parts of one video or image; "
                f"if so, `convert.group_by: '{pattern}'` keeps such images together"
            )
    return ""


def leaks(split_of: Sequence[str], clusters: Sequence[int]) -> list[list[int]]:
    """Return the indices of the images of each cluster that is in more than one split."""
    members: dict[int, list[int]] = defaultdict(list)
    for index, cluster in enumerate(clusters):
        members[cluster].append(index)
    return [group for group in members.values() if len({split_of[index] for index in group}) > 1]


def move(split_of: Sequence[str], clusters: Sequence[int]) -> dict[int, str]:
    """Return which images must move to which split so that each cluster is in one: the split that holds most of it.

    The first of train, val, test wins a tie.
    """
    moved: dict[int, str] = {}
    for group in leaks(split_of, clusters):
        holds = Counter(split_of[index] for index in group)
        home = max(SPLITS, key=lambda split: holds[split])  # the first if equal
        moved |= {index: home for index in group if split_of[index] != home}
    return moved

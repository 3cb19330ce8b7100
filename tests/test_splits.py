"""Splits that do not leak, keep every class's share, and stay unchanged when images are added."""

from __future__ import annotations

import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold
from test_duplicates import CHANGES, fingerprints, grey_images

from pipeline.convert.splits import Item, assign, groups, leaks, move
from pipeline.errors import DataError
from pipeline.image_files.duplicates import clusters, fingerprint, near_duplicates, same

RATIOS = {"train": 0.7, "val": 0.15, "test": 0.15}
NOTHING: dict[str, str] = {}


def instance(seed: int, largest: int | None = None, images: int | None = None) -> list[Item]:
    """A random set: classes from common to rare, some images without any, clusters of up to `largest`."""
    draw = random.Random(seed)
    images = images or draw.randint(20, 200)
    largest = largest or draw.choice([1, 2, 5])
    classes = draw.randint(1, 12)
    items: list[Item] = []
    while len(items) < images:
        cluster = len(items)
        shared = {f"class {int(classes * draw.random() ** 3)}" for _ in range(draw.randint(0, 3))}
        for _ in range(min(draw.randint(1, largest), images - len(items))):
            own = {f"class {int(classes * draw.random() ** 3)}"} if draw.random() < 0.3 else set()
            items.append(Item(f"{draw.randrange(10**9)}/{len(items):03}.jpg", frozenset(shared | own), cluster))
    return items


def straddling(items: Sequence[Item], split_of: Mapping[str, str]) -> list[int]:
    splits: dict[int, set[str]] = defaultdict(set)
    for item in items:
        if item.name in split_of:
            splits[item.cluster].add(split_of[item.name])
    return [cluster for cluster, found in splits.items() if len(found) > 1]


def clusters_of(items: Sequence[Item], name: str) -> int:
    return len({item.cluster for item in items if name in item.classes})


def holders(items: Sequence[Item], split_of: Mapping[str, str], name: str) -> set[str]:
    return {split_of[item.name] for item in items if name in item.classes}


def class_names(items: Sequence[Item]) -> list[str]:
    return sorted({name for item in items for name in item.classes})


# --- Invariants -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(100))
def test_splits_keep_clusters_whole_use_every_image_and_meet_the_ratios(seed: int) -> None:
    items = instance(seed)
    ratios = random.Random(seed).choice([RATIOS, {"train": 0.8, "val": 0.2}, {"train": 0.5, "val": 0.25, "test": 0.25}])
    assignment = assign(items, ratios, seed, NOTHING)
    assert assignment.left_out == {}
    assert sorted(assignment.split_of) == sorted(item.name for item in items)
    assert straddling(items, assignment.split_of) == []
    largest = max(Counter(item.cluster for item in items).values())
    sizes = Counter(assignment.split_of.values())
    for split, share in ratios.items():
        # A split whose share is less than one image still gets one.
        assert abs(sizes[split] - max(1, share * len(items))) <= largest + 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_cluster_order_and_numbering_do_not_matter_but_the_seed_does(seed: int) -> None:
    items = instance(seed)
    first = assign(items, RATIOS, 1, NOTHING)
    shuffled = [Item(item.name, item.classes, -7 * item.cluster) for item in items]
    random.Random(seed).shuffle(shuffled)
    assert assign(shuffled, RATIOS, 1, NOTHING) == first
    assert assign(items, RATIOS, 2, NOTHING) != first


class Backwards(frozenset[str]):
    """A set of strings has another order in every process; this one is reversed."""

    def __iter__(self) -> Iterator[str]:
        return reversed(sorted(super().__iter__()))


@pytest.mark.parametrize("seed", range(8))
def test_the_order_of_an_images_classes_does_not_matter(seed: int) -> None:
    """Sums of fractions depend on it. Here ties are common: equal ratios, and equally frequent classes."""
    draw = random.Random(seed)
    classes = [f"class {index % 20}" for index in range(1200)]
    draw.shuffle(classes)
    ratios = {f"part {number}": 0.2 for number in range(5)}
    items = [Item(f"{index}", frozenset(classes[3 * index : 3 * index + 3]), index) for index in range(400)]
    backwards = [Item(item.name, Backwards(item.classes), item.cluster) for item in items]
    assert assign(backwards, ratios, seed, NOTHING) == assign(items, ratios, seed, NOTHING)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (90, 1, 1), (30, 30, 30), (5, 40, 3, 2), (50, 50, 1), (200, 199, 198)])
@pytest.mark.parametrize("seed", range(5))
def test_no_split_is_empty_if_there_are_enough_clusters(sizes: Sequence[int], seed: int) -> None:
    items = [
        Item(f"{cluster}-{index}.jpg", frozenset({f"class {cluster % 2}"}), cluster)
        for cluster, size in enumerate(sizes)
        for index in range(size)
    ]
    split_of = assign(items, RATIOS, seed, NOTHING).split_of
    assert set(split_of.values()) == set(RATIOS)
    # The largest goes to the split with the largest share.
    in_train = [size for cluster, size in enumerate(sizes) if split_of[f"{cluster}-0.jpg"] == "train"]
    assert max(in_train) == max(sizes)


def test_splits_of_share_zero_get_nothing() -> None:
    split_of = assign(instance(0), {"train": 0.8, "val": 0.2, "test": 0.0}, 0, NOTHING).split_of
    assert set(split_of.values()) == {"train", "val"}


def test_the_work_grows_linearly_with_the_images() -> None:
    """Counted in calls of Python and built-in functions."""
    calls = []
    for images in (1000, 4000):
        items = instance(0, 5, images)
        earlier: dict[str, str] = {}
        for _ in range(2):  # from scratch, and on top of half of the images
            count = 0

            def counted(frame: Any, event: str, argument: Any) -> None:
                nonlocal count
                count += event in ("call", "c_call")

            sys.setprofile(counted)
            split_of = assign(items, RATIOS, 0, earlier).split_of
            sys.setprofile(None)
            calls.append(count)
            earlier = {item.name: split_of[item.name] for item in items if item.cluster % 2}
    assert calls[0] > 1000
    # A tenth for chance; proportional to pairs, it would be 16 times.
    assert calls[2] <= 4.4 * calls[0] and calls[3] <= 4.4 * calls[1]


# --- Planted copies ---------------------------------------------------------------------------------


@cache
def planted(name: str) -> tuple[list[Item], list[tuple[str, str]]]:
    """Images and an altered copy of each as items, and the pairs of names that must stay together."""
    chosen = list(grey_images(name).items())[:: 1 if name == "tiles" else 6]
    prints = fingerprints(name)[:: 1 if name == "tiles" else 6]
    changes = list(CHANGES)
    copies = {
        f"{stem} {changes[index % len(changes)]}": fingerprint(CHANGES[changes[index % len(changes)]](image))
        for index, (stem, image) in enumerate(chosen)
    }
    names = [stem for stem, _ in chosen] + list(copies)
    labels = clusters(len(names), near_duplicates(prints + list(copies.values())))
    items = [
        Item(name, frozenset({f"class {index % 3}"}), label)
        for index, (name, label) in enumerate(zip(names, labels, strict=True))
    ]
    return items, list(zip((stem for stem, _ in chosen), copies, strict=True))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", ["tiles", "bccd", "facemask"])
def test_planted_copies_never_straddle(name: str, seed: int) -> None:
    items, pairs = planted(name)
    split_of = assign(items, RATIOS, seed, NOTHING).split_of
    assert [pair for pair in pairs if split_of[pair[0]] != split_of[pair[1]]] == []
    assert set(split_of.values()) == set(RATIOS)


@pytest.mark.parametrize("seed", range(20))
def test_images_of_one_group_never_straddle(seed: int) -> None:
    """Together with near-duplicates: a copy in another video ties both videos together."""
    names = [f"day{index % 2}/video{index % 12:02}_{index:03}.jpg" for index in range(120)]
    keys = groups(names, r"(video\d+)_")
    labels = clusters(len(names), [*same(keys), (0, 1)])
    items = [Item(name, frozenset(), label) for name, label in zip(names, labels, strict=True)]
    split_of = assign(items, RATIOS, seed, NOTHING).split_of
    assert len(set(labels)) == 11
    for video in set(keys):
        assert len({split_of[name] for name, key in zip(names, keys, strict=True) if key == video}) == 1
    assert split_of[names[0]] == split_of[names[1]]


# --- Growth -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_adding_images_never_moves_an_earlier_one(seed: int) -> None:
    """Ten rounds in which images are added, some are removed, and new ones join separate clusters."""
    draw = random.Random(seed)
    waiting = instance(seed, largest=3, images=240)
    draw.shuffle(waiting)
    present: list[Item] = []
    remembered: dict[str, str] = {}
    for round_ in range(10):
        present += [waiting.pop() for _ in range(24)]
        if round_:
            present = draw.sample(present, len(present) - 2)
            ours, theirs = draw.sample(sorted({item.cluster for item in present}), 2)
            present = [Item(i.name, i.classes, ours if i.cluster == theirs else i.cluster) for i in present]
        assignment = assign(present, RATIOS, seed, remembered)
        for item in present:
            known = {remembered[i.name] for i in present if i.cluster == item.cluster and i.name in remembered}
            if item.name in remembered:
                assert assignment.split_of[item.name] == remembered[item.name]
            elif len(known) > 1:
                assert assignment.left_out[item.name] == (
                    f"belongs with images in {' and '.join(sorted(known))}; in any of them it would leak"
                )
            elif known:
                assert {assignment.split_of[item.name]} == known
        assert set(assignment.split_of) | set(assignment.left_out) == {item.name for item in present}
        assert not set(assignment.split_of) & set(assignment.left_out)
        # Whatever straddles did so before: the new image only revealed it.
        before = set(straddling(present, {k: v for k, v in remembered.items() if k in assignment.split_of}))
        assert set(straddling(present, assignment.split_of)) == before
        remembered |= assignment.split_of


def test_growth_restores_the_ratios() -> None:
    items = instance(3, largest=2, images=600)
    # A first batch split by hand, far from the ratios.
    by_name = sorted(items, key=lambda item: item.cluster)
    earlier = {item.name: "val" for item in by_name[:60]}
    sizes = Counter(assign(items, RATIOS, 0, earlier).split_of.values())
    largest = 2
    for split, share in RATIOS.items():
        assert abs(sizes[split] - share * len(items)) <= largest


def test_a_split_no_longer_requested_keeps_its_images() -> None:
    items = instance(1)
    earlier = assign(items[:-10], RATIOS, 0, NOTHING).split_of
    later = assign(items, {"train": 0.8, "val": 0.2}, 0, earlier).split_of
    assert earlier.items() <= later.items()
    tests = {item.cluster for item in items if earlier.get(item.name) == "test"}
    assert all(item.cluster in tests for item in items if later[item.name] == "test")


# --- Classes ----------------------------------------------------------------------------------------


def distance(items: Sequence[Item], split_of: Mapping[str, str], ratios: Mapping[str, float]) -> float:
    """How far, on average, the share of each class in a split is from the requested one.

    The label distribution distance of Sechidis et al. compares odds, which a class in every image makes infinite.
    """
    away = []
    for name in class_names(items):
        held = Counter(split_of[item.name] for item in items if name in item.classes)
        away += [abs(held[split] / held.total() - share) for split, share in ratios.items()]
    return float(np.mean(away))


def at_random(items: Sequence[Item], ratios: Mapping[str, float], seed: int) -> dict[str, str]:
    """A random split with whole clusters and the right sizes, ignoring classes."""
    members: dict[int, list[str]] = defaultdict(list)
    for item in items:
        members[item.cluster].append(item.name)
    blocks = list(members.values())
    random.Random(seed).shuffle(blocks)
    room = {split: share * len(items) for split, share in ratios.items()}
    split_of: dict[str, str] = {}
    for block in blocks:
        split = max(room, key=lambda split: room[split] / ratios[split])
        room[split] -= len(block)
        split_of |= dict.fromkeys(block, split)
    return split_of


@pytest.mark.parametrize("largest", [1, 2, 5])
def test_stratified_splits_are_closer_than_random_ones(largest: int) -> None:
    ours, theirs = [], []
    for seed in range(20):
        items = instance(seed, largest, images=300)
        ours.append(distance(items, assign(items, RATIOS, seed, NOTHING).split_of, RATIOS))
        theirs.append(distance(items, at_random(items, RATIOS, seed), RATIOS))
    # With clusters, a single set may be worse; on the whole it is clearly better.
    assert sum(a < b for a, b in zip(ours, theirs, strict=True)) >= 18
    assert np.mean(ours) < 0.7 * np.mean(theirs)


@pytest.mark.parametrize("largest", [1, 4])
def test_splits_are_as_good_as_scikit_learns_stratified_group_folds(largest: int) -> None:
    """One class per image, five equal parts: what StratifiedGroupKFold is made for."""
    ratios = {f"part {number}": 0.2 for number in range(5)}
    ours, theirs = [], []
    for seed in range(10):
        draw = random.Random(seed)
        items = [
            Item(item.name, frozenset({f"class {int(6 * draw.random() ** 2)}"}), item.cluster)
            for item in instance(seed, largest, images=250)
        ]
        ours.append(distance(items, assign(items, ratios, seed, NOTHING).split_of, ratios))
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        split_of: dict[str, str] = {}
        labels = [next(iter(item.classes)) for item in items]
        for number, (_, chosen) in enumerate(folds.split(items, labels, [item.cluster for item in items])):
            split_of |= {items[index].name: f"part {number}" for index in chosen}
        theirs.append(distance(items, split_of, ratios))
    # 0.001 is half an image in a class of 500: without clusters both are as close as whole images allow.
    assert np.mean(ours) <= np.mean(theirs) + 0.001


@pytest.mark.parametrize("seed", range(40))
def test_a_rare_class_is_in_every_split_if_possible(seed: int) -> None:
    draw = random.Random(seed)
    rare = {f"rare {number}": draw.randint(1, 5) for number in range(6)}
    items = [Item(f"common {index}", frozenset({"common"}), index) for index in range(200)]
    for name, count in rare.items():
        items += [Item(f"{name} {index}", frozenset({name, "common"}), len(items) + index) for index in range(count)]
    split_of = assign(items, RATIOS, seed, NOTHING).split_of
    for name, count in rare.items():
        found = holders(items, split_of, name)
        assert len(found) == min(count, 3)
        assert "train" in found  # a class only in val or test could not be learnt


@pytest.mark.parametrize("seed", range(40))
def test_classes_of_random_sets_are_in_every_split(seed: int) -> None:
    items = instance(seed, largest=1, images=200)
    split_of = assign(items, RATIOS, seed, NOTHING).split_of
    for name in class_names(items):
        assert len(holders(items, split_of, name)) == min(3, clusters_of(items, name))


# --- Refusals ---------------------------------------------------------------------------------------


def fails(items: Sequence[Item], earlier: Mapping[str, str] = NOTHING) -> str:
    with pytest.raises(DataError) as error:
        assign(items, RATIOS, 0, earlier)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_cluster_of_nearly_all_images_is_refused() -> None:
    items = [Item(f"{index}.jpg", frozenset(), index == 0) for index in range(500)]
    assert fails(items) == (
        "convert.split: near-duplicates or group_by keep 499 of 500 images together, which leaves none for test; "
        "set `convert.near_duplicates: false` or another `group_by`, or add images"
    )


def test_too_few_images_are_refused() -> None:
    assert fails([Item("a.jpg", frozenset(), 0)]) == (
        "convert.split: too few images (1), which leaves none for val and test; add images, or ask for fewer splits"
    )
    assert "(0), which leaves none for train and val and test" in fails([])


def test_a_split_that_lost_its_images_is_refused() -> None:
    items = [Item(f"{index}.jpg", frozenset(), index) for index in range(9)]
    earlier = {f"{index}.jpg": "train" if index % 2 else "test" for index in range(9)} | {"gone.jpg": "val"}
    assert re.match(
        r"convert\.split: all images \(9\) keep the splits of .* none for val; add images, or delete",
        fails(items, earlier),
    )


# --- Groups -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"(\w+)_\d+\.jpg$", ["clip1", "clip1", "clip2", None]),
        (r"^[^/]+/", ["a/", "a/", "b/", None]),
        (r"clip\d", ["clip1", "clip1", "clip2", None]),
        (r"clip(\d)?", ["1", "1", "2", None]),
        (r"^(a)?.", ["a", "a", None, None]),  # the pattern matches, but its group does not
        (r"^b?", [None, None, "b", None]),  # the empty string would tie all the rest together
    ],
)  # fmt: skip
def test_groups_follow_the_pattern(pattern: str, expected: list[str | None]) -> None:
    assert groups(["a/clip1_001.jpg", "a/clip1_002.jpg", "b/clip2_001.jpg", "poster.jpg"], pattern) == expected


def test_each_image_is_searched_in_its_name_first_and_then_in_its_folders() -> None:
    names = ["patient1/a.jpg", "train/patient1/b.jpg", "patient2/patient2_overview.jpg", "extra/patient2.jpg", "c.jpg"]
    found = groups(names, r"(patient\d+)")
    assert found == ["patient1", "patient1", "patient2", "patient2", None]


def test_a_pattern_that_never_matches_is_an_error() -> None:
    with pytest.raises(DataError, match=r"^convert\.group_by: 'vid\(\.\)' matches no image name, such as 'a\.jpg'; "):
        groups(["a.jpg", "b.jpg"], "vid(.)")
    with pytest.raises(DataError, match="no image name"):
        groups(["a.jpg"], "x*")
    assert groups([], "x") == []


def test_names_too_long_to_search_are_refused() -> None:
    name = "a" * 251 + ".jpg"
    assert groups([name], r"^(a+)\.jpg$") == ["a" * 251]
    with pytest.raises(
        DataError, match=r"aa\.jpg: 256 characters, but convert\.group_by allows 255; shorten its path$"
    ):
        groups([f"a{name}"], r"^(a+)\.jpg$")


# --- Given splits -----------------------------------------------------------------------------------


def test_leaks_are_clusters_in_several_splits() -> None:
    split_of = ["train", "val", "train", "test", "val", "val", "train"]
    assert leaks(split_of, [0, 0, 1, 2, 3, 3, 0]) == [[0, 1, 6]]
    assert leaks(split_of, range(7)) == []


@pytest.mark.parametrize(
    ("splits", "home"),
    [
        (["train", "val"], "train"),
        (["val", "test"], "val"),
        (["val", "val", "train"], "val"),
        (["test", "test", "train", "val"], "test"),
        (["test", "test", "train", "train", "val"], "train"),
    ],
)  # fmt: skip
def test_a_straddling_cluster_moves_to_where_most_of_it_is(splits: list[str], home: str) -> None:
    alone = ["test", "val"]
    moved = move([*splits, *alone], [5] * len(splits) + [6, 7])
    assert moved == {index: home for index, split in enumerate(splits) if split != home}


@pytest.mark.parametrize("seed", range(20))
def test_moving_leaks_moves_no_more_than_needed(seed: int) -> None:
    draw = random.Random(seed)
    split_of = [draw.choice(list(RATIOS)) for _ in range(100)]
    labels = [draw.randrange(40) for _ in range(100)]
    moved = move(split_of, labels)
    after = [moved.get(index, split) for index, split in enumerate(split_of)]
    assert leaks(split_of, labels) and leaks(after, labels) == []
    kept = sum(max(Counter(s for s, la in zip(split_of, labels, strict=True) if la == x).values()) for x in set(labels))
    assert len(moved) == 100 - kept
    assert all(split_of[index] != split for index, split in moved.items())

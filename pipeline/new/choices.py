"""Choose what a config starts with, given what a folder holds: split, groups, image size, classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config.tiles import Tiles
from pipeline.new.contents import Seen
from pipeline.records.tiles import Tiling
from pipeline.tiling import choice
from pipeline.tiling.choice import CLEAR_SIDE, SHARE_CLEAR

SIZES = (320, 640, 960, 1280)
TILED_SIZE = 640  # imgsz for tiles, if no size makes the objects of whole images CLEAR_SIDE large
RATIOS = {"train": 0.7, "val": 0.15, "test": 0.15}
FEWEST_FOR_TEST = 3  # images, one per split
# What names of one video, board or patient have in common, as convert.group_by; the more reliable ones first.
PATTERNS = {
    r"([^/]+)\.rf\.[0-9a-f]{8,}": "copies that Roboflow made of one image",
    r"([^/]+?)[-_. ]?(?:frame|frm)[-_ ]?\d+\.[^./]+$": "frames of one video",
    r"(?<![^/])([^/]*[^/\d\W_][^/]*)[-_ ]\d+\.[^./]+$": "numbered images of one name",
}
FEWEST_GROUPS = 5  # fewer are hard to place in three splits
LARGEST_GROUP = 1 / 3  # of the images
COMMON_CLASS = 10  # boxes; a class with so many must be in FEWEST_GROUPS groups, else groups follow the classes


@dataclass(frozen=True)
class Chosen:
    """The choices for a config. `split` is None for the source's own; `group` says in words what `group_by` groups.

    `imgsz` is for whole images. If objects are too small at any size, `tiles` has what `auto` decides.
    """

    split: dict[str, float] | None
    group_by: str | None
    group: str
    groups: int
    imgsz: int
    classes: tuple[str, ...]
    tiles: Tiling | None


def choose(seen: Seen) -> Chosen:
    """Choose what the config says."""
    split = None
    if not {"train", "val"} <= seen.images_per_split.keys():
        split = RATIOS if len(seen.usable) >= FEWEST_FOR_TEST else {"train": 0.5, "val": 0.5}
    pattern, groups = _group_by(seen)
    classes = tuple(name for name in seen.boxes_per_class if name in seen.labels)  # convert refuses others
    return Chosen(split, pattern, PATTERNS.get(pattern or "", ""), groups, _imgsz(seen), classes, _tiles(seen))


def _imgsz(seen: Seen) -> int:
    """Return the smallest size that shows SHARE_CLEAR of the objects CLEAR_SIDE large, or that the images fit into."""
    small = quantile(seen.relative_sides, 1 - SHARE_CLEAR)
    longest = max(max(image.checked.size) for image in seen.usable)
    return next((size for size in SIZES if size >= longest or size * small >= CLEAR_SIDE), SIZES[-1])


def _tiles(seen: Seen) -> Tiling | None:
    """Return tiles if no size of whole images shows SHARE_CLEAR of the objects CLEAR_SIDE large, else None."""
    longest = max(max(image.checked.size) for image in seen.usable)
    if longest <= SIZES[-1] or SIZES[-1] * quantile(seen.relative_sides, 1 - SHARE_CLEAR) >= CLEAR_SIDE:
        return None
    sides = [(box.width, box.height) for image in seen.usable for box in image.boxes]
    tiles = choice.decide(Tiles(size="auto", overlap="auto"), TILED_SIZE, sides, longest)
    return tiles if tiles["size"] < longest else None


def quantile(ascending: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie."""
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]


def _group_by(seen: Seen) -> tuple[str | None, int]:
    """Return the first pattern that makes sense of the names, and how many groups it makes."""
    names = [image.name for image in seen.usable]
    for pattern in PATTERNS:
        matches = [re.search(pattern, name) for name in names]
        keys = [match[1] if match else f"/{name}" for match, name in zip(matches, names, strict=True)]
        images_per_group = Counter(keys)
        groups = sum(number > 1 for number in images_per_group.values())
        is_usual = sum(map(bool, matches)) > len(names) / 2
        is_fine = len(images_per_group) >= FEWEST_GROUPS and max(images_per_group.values()) <= max(
            2, len(names) * LARGEST_GROUP
        )
        if groups and is_usual and is_fine and not _follow_classes(seen, keys):
            return pattern, len(images_per_group)
    return None, 0


def _follow_classes(seen: Seen, groups: Sequence[str]) -> bool:
    """Return whether a common class is in only a few groups, as with `cat_001.jpg`: not every split could get it."""
    groups_of: dict[str, set[str]] = {}
    for image, group in zip(seen.usable, groups, strict=True):
        for box in image.boxes:
            groups_of.setdefault(box.label, set()).add(group)
    return any(
        count >= COMMON_CLASS and len(groups_of[name]) < FEWEST_GROUPS for name, count in seen.boxes_per_class.items()
    )

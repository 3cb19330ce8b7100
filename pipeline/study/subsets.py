"""Draw the training images of each trial: nested, stratified by class, and without splitting related images."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import files
from pipeline.boxes import YoloDataset, read_labels
from pipeline.config.experiment import Config
from pipeline.convert import splits
from pipeline.errors import DataError
from pipeline.image_files import duplicates, reading
from pipeline.records import receipt as receipt_record
from pipeline.records.base import Record
from pipeline.run import Run

Size = tuple[str, float]


@dataclass(frozen=True, slots=True)
class Pool:
    """The training images to draw from: boxes of each class, cluster, and digest of image and labels, by file name."""

    boxes: dict[str, Counter[str]]
    cluster: dict[str, int]
    digest: dict[str, str]
    judged: str  # digest of the val and test images and labels
    classes: tuple[str, ...]

    @property
    def items(self) -> list[splits.Item]:
        return [splits.Item(name, frozenset(counts), self.cluster[name]) for name, counts in self.boxes.items()]


def pool(run: Run, config: Config) -> Pool:
    """Read the dataset that convert wrote. Raises DataError without a test split, on which a study evaluates."""
    dataset = YoloDataset.read(run.dataset / "data.yaml")
    paths = {split: dataset.files(split) for split in ("train", "val", "test")}
    if not paths["test"]:
        raise DataError(
            f"{run.dataset}: has no test split, but a study evaluates on test; set ratios in convert.split of the base"
        )
    names = [path.name for path in paths["train"]]
    ties = []
    checked = [reading.check(path) for path in paths["train"]]
    if config.convert.near_duplicates:
        ties += duplicates.near_duplicates([one.fingerprint for one in checked if one.fingerprint])
    if config.convert.group_by:
        sources = receipt_record.read(run)["sources"]
        groups = splits.groups([sources[f"train/{name}"] for name in names], config.convert.group_by)
        ties += duplicates.same(groups)
    clusters = duplicates.clusters(len(names), ties)
    labelled = {
        path.name: Counter(box.label for box in read_labels(dataset.label_file(path), dataset.names, 1, 1))
        for path in paths["train"]
    }
    digest = {path.name: _digest([path]) for path in paths["train"]}
    judged = _digest([*paths["val"], *paths["test"]])
    return Pool(labelled, dict(zip(names, clusters, strict=True)), digest, judged, dataset.names)


def _digest(paths: Sequence[Path]) -> str:
    """Return a digest of names, images and labels."""
    lines = [
        f"{path.name} {files.sha256(path)} {files.sha256(YoloDataset.label_file(path))}\n" for path in sorted(paths)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def draw(pool: Pool, sizes: Sequence[Size], seed: int) -> dict[Size, list[str]]:
    """Return the sorted file names of each size. Smaller sizes are subsets of larger ones, for shares and for shots."""
    drawn = {}
    inside = pool.items
    left = 1.0
    for size in sorted((size for size in sizes if size[0] == "share"), reverse=True):
        if size[1] < left:
            inside = _part(inside, size[1] / left, seed)
        left = size[1]
        drawn[size] = sorted(item.name for item in inside)
    taken: list[str] = []
    for size in sorted(size for size in sizes if size[0] == "shots"):
        taken = _shots(pool, int(size[1]), taken, seed)
        drawn[size] = sorted(taken)
    return drawn


def _part(items: list[splits.Item], share: float, seed: int) -> list[splits.Item]:
    """Return a share of the images, drawn as convert draws a split: by class, cluster by cluster."""
    if len({item.cluster for item in items}) < 2:
        return items
    chosen = splits.assign(items, {"train": share, "val": 1 - share}, seed, {}).split_of
    return [item for item in items if chosen[item.name] == "train"]


def _shots(pool: Pool, wanted: int, taken: Sequence[str], seed: int) -> list[str]:
    """Add images until each class has `wanted` boxes, or no image with it is left; the rarest class first.

    An image brings all its boxes, so frequent classes have more. Each cluster gives one image before any gives two.
    """
    names = sorted(pool.boxes)
    random.Random(seed).shuffle(names)
    turn: Counter[int] = Counter()
    order = {}
    for name in names:
        order[name] = turn[pool.cluster[name]]
        turn[pool.cluster[name]] += 1
    names.sort(key=order.__getitem__)
    result = list(taken)
    total = sum((pool.boxes[name] for name in names), Counter[str]())
    for label in sorted(total, key=lambda label: (total[label], label)):
        for name in names:
            if sum(pool.boxes[chosen][label] for chosen in result) >= wanted:
                break
            if label in pool.boxes[name] and name not in result:
                result.append(name)
    return result


class Subset(Record):
    images: int
    boxes: dict[str, int]
    sha256: str
    """Digest of the images with their labels."""
    files: list[str]


def account(pool: Pool, drawn: Mapping[Size, Sequence[str]]) -> dict[str, Subset]:
    """Return the record of the images drawn for one seed, for `subsets/seedN.json`."""
    return {label(size): counted(pool, names) for size, names in drawn.items()}


def counted(pool: Pool, names: Sequence[str]) -> Subset:
    boxes = sum((pool.boxes[name] for name in names), Counter[str]())
    digest = hashlib.sha256("".join(pool.digest[name] for name in sorted(names)).encode()).hexdigest()
    counts = {name: boxes[name] for name in pool.classes}
    return {"images": len(names), "boxes": counts, "sha256": digest, "files": list(names)}


def label(size: Size) -> str:
    """Return the name of a size in files and folders: `share0.05` or `shots3`."""
    return f"{size[0]}{size[1]:g}"

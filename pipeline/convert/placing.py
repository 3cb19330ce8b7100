"""Give each image its split, the source's own or a drawn one, and check the splits for leaks.

A new drawing has no leaks. But images keep the split of an earlier one, and their file may have been merged or edited
by hand, or an image replaced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict

from pipeline import files
from pipeline.config.data import Convert, Ratios
from pipeline.convert import splits
from pipeline.convert.judge import Judged
from pipeline.errors import DataError, counted
from pipeline.formats.source import Source
from pipeline.image_files import duplicates
from pipeline.records.receipt import Leaks
from pipeline.run import SPLITS, Run

Ties = dict[str, list[tuple[int, int]]]  # pairs of images that belong together, by the kinds of leaks
WAY_OUT = "set ratios in convert.split, such as {train: 0.7, val: 0.15, test: 0.15}"


class Drawing(TypedDict):
    """The content of `data/splits/NAME.json`: the rules, and the split of each image that they placed."""

    seed: int
    split: dict[str, float]
    group_by: str | None
    near_duplicates: bool
    images: dict[str, str]


@dataclass(frozen=True, slots=True)
class Placed:
    """The split of each image by name; `left_out` says why an image is in none.

    `leaks` lists images that are in more than one split, as `split/name`: byte-identical ones (`exact`),
    near-duplicates and images connected through them (`near`), and images of one `group_by` (`group`); and those
    `moved` to prevent it. `drawing` is None for splits that the source gives. `hint` says what may still leak.
    """

    split_of: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    leaks: Leaks = field(default_factory=lambda: Leaks(exact=[], near=[], group=[], moved={}))
    drawing: Drawing | None = None
    hint: str = ""


def check_given(source: Source, config: Convert) -> None:
    """Raise DataError if the source should give splits but gives none, before its images are read."""
    if config.split != "given":
        return
    if not source.has_splits:
        raise DataError(
            f"{config.source}: assigns no image to train, val or test; let convert draw the splits: "
            "`convert.split: {train: 0.7, val: 0.15, test: 0.15}`"
        )
    hint = ""
    if source.set_aside:
        image, why = next(iter(source.set_aside.items()))
        hint = f"; {counted(len(source.set_aside), 'image')} cannot be used, such as {image.name}: {why}"
    _refuse_empty({item.split for item in source.to_use}, config, hint)


def place(images: Sequence[Judged], config: Convert, run: Run, seed: int, trained_on: Collection[str] = ()) -> Placed:
    """Give every usable image its split. Those whose names are in `trained_on` go into train and move no other image.

    Raises DataError if `leaks: error` finds leaks, or if no split without leaks is possible.
    """
    if trained_on:
        images = sorted(images, key=lambda image: image.name in trained_on)
    names = [image.name for image in images]
    groups = _groups(images, config)
    ties = _ties(images, config, groups)
    all_ties = [pair for pairs in ties.values() for pair in pairs]
    own_count = len(names) - sum(name in trained_on for name in names)
    ties = {kind: [pair for pair in pairs if max(pair) < own_count] for kind, pairs in ties.items()}
    placed = _place(images[:own_count], ties, config, run, seed)
    if groups:
        placed = replace(placed, hint=splits.alone(groups))
    return _add(placed, names, own_count, duplicates.clusters(len(names), all_ties)) if trained_on else placed


def _groups(images: Sequence[Judged], config: Convert) -> list[str | None]:
    return splits.groups([image.name for image in images], config.group_by) if config.group_by else []


def _ties(images: Sequence[Judged], config: Convert, groups: Sequence[str | None]) -> Ties:
    exact = duplicates.same([image.checked.sha256 for image in images])
    ties: Ties = {"exact": exact, "near": [], "group": duplicates.same(groups)}
    if config.near_duplicates:
        prints = [image.checked.fingerprint for image in images if image.checked.fingerprint]
        assert len(prints) == len(images)  # a usable image has one
        ties["near"] = duplicates.near_duplicates(prints)
    return ties


def _add(placed: Placed, names: Sequence[str], own_count: int, cluster: Sequence[int]) -> Placed:
    """Put all images after the first `own_count` into train, except those that belong with an image of val or test."""
    members: dict[int, list[str]] = defaultdict(list)
    for name, number in zip(names[:own_count], cluster, strict=False):
        members[number].append(name)
    split_of, left_out = dict(placed.split_of), dict(placed.left_out)
    for name, number in zip(names[own_count:], cluster[own_count:], strict=True):
        elsewhere = [(other, split) for other in members[number] if (split := split_of.get(other, "train")) != "train"]
        if elsewhere:
            other, split = elsewhere[0]
            left_out[name] = f"belongs with {other} in {split}; in train it would leak"
        else:
            split_of[name] = "train"
    return replace(placed, split_of=split_of, left_out=left_out)


def _place(images: Sequence[Judged], ties: Ties, config: Convert, run: Run, seed: int) -> Placed:
    if isinstance(config.split, Ratios):
        cluster = duplicates.clusters(len(images), [pair for pairs in ties.values() for pair in pairs])
        placed = _drawn(images, cluster, config.split, config, run, seed)
        if placed.left_out:  # they may tie images together that do not resemble each other
            images = [image for image in images if image.name in placed.split_of]
            ties = _ties(images, config, _groups(images, config))
    else:
        placed = Placed({image.name: str(image.item.split) for image in images})
    placed = _checked(placed, [image.name for image in images], ties, config)
    _refuse_empty(set(placed.split_of.values()), config)
    return placed


def _drawn(
    images: Sequence[Judged], cluster: list[int], ratios: Ratios, config: Convert, run: Run, seed: int
) -> Placed:
    items = [
        splits.Item(image.name, frozenset(box.label for box in image.boxes), number)
        for image, number in zip(images, cluster, strict=True)
    ]
    drawing: Drawing = {
        "seed": seed,
        "split": ratios.model_dump(mode="json"),
        "group_by": config.group_by,
        "near_duplicates": config.near_duplicates,
        "images": {},
    }
    earlier = _earlier(run, drawing)
    shares = {split: share for split in SPLITS if (share := getattr(ratios, split))}
    assignment = splits.assign(items, shares, seed, earlier)
    drawing["images"] = {**earlier, **assignment.split_of}
    hint = "" if config.group_by else splits.suggestion(assignment.split_of)
    return Placed(assignment.split_of, assignment.left_out, drawing=drawing, hint=hint)


def _earlier(run: Run, drawing: Drawing) -> dict[str, str]:
    """Return the splits that an earlier conversion drew by the same rules; empty if there are none."""
    if not run.splits.is_file():
        return {}
    drawing_before = files.read_json(run.splits)
    images = drawing_before.get("images") if isinstance(drawing_before, dict) else None
    if not isinstance(images, dict) or not all(split in SPLITS for split in images.values()):
        raise DataError(f"{run.splits}: damaged; restore it from git, or delete it to make new splits")
    same_rules = all(drawing_before.get(key) == rule for key, rule in drawing.items() if key != "images")
    return images if same_rules else {}


def _checked(placed: Placed, names: Sequence[str], ties: Ties, config: Convert) -> Placed:
    """Report, move or refuse images that belong together but are in different splits, as `convert.leaks` says."""
    split_of = [placed.split_of[name] for name in names]
    leaks = _leaks(names, split_of, ties)
    leaking = [*leaks["exact"], *leaks["near"], *leaks["group"]]
    if leaking and config.leaks == "error":
        more = f" (and {len(leaking) - 1} more such groups)" if len(leaking) > 1 else ""
        raise DataError(
            f"{config.source}: {' and '.join(leaking[0][:2])} belong together but are in different "
            f"splits{more}; remove one, or set `convert.leaks: move` or `report`"
        )
    if not leaking or config.leaks == "report":
        return replace(placed, leaks=leaks)
    moves = splits.move(split_of, duplicates.clusters(len(names), [pair for pairs in ties.values() for pair in pairs]))
    after = [moves.get(index, split) for index, split in enumerate(split_of)]
    if emptied := set(split_of) - set(after):
        raise DataError(
            f"{config.source}: `convert.leaks: move` leaves no image in the {' and '.join(sorted(emptied))} split; "
            f"remove the copies yourself{f', or {WAY_OUT}' if placed.drawing is None else ''}"
        )
    leaks = _leaks(names, after, ties)  # none, because whole clusters move
    leaks["moved"] = {names[index]: f"{split_of[index]} -> {split}" for index, split in moves.items()}
    moved = {names[index]: split for index, split in moves.items()}
    if placed.drawing is not None:
        placed.drawing["images"].update(moved)
    return replace(placed, split_of=placed.split_of | moved, leaks=leaks)


def _leaks(names: Sequence[str], split_of: Sequence[str], ties: Ties) -> Leaks:
    def straddling(*kinds: str) -> list[list[str]]:
        """Return connected images that are in more than one split, as `split/name`."""
        cluster = duplicates.clusters(len(names), [pair for kind in kinds for pair in ties[kind]])
        groups = splits.leaks(split_of, cluster)
        return sorted(sorted(f"{split_of[index]}/{names[index]}" for index in group) for group in groups)

    exact = straddling("exact")
    # A group of byte-identical images without further members is reported once, as exact.
    near = [group for group in straddling("exact", "near") if group not in exact]
    return {"exact": exact, "near": near, "group": straddling("group"), "moved": {}}


def _refuse_empty(used: set[str | None], config: Convert, hint: str = "") -> None:
    for split in ("train", "val"):
        if split not in used:
            raise DataError(f"{config.source}: no image in the {split} split; {WAY_OUT}{hint}")

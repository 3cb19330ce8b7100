"""Account for a conversion: every annotation that was read, and what became of it."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Literal, TypedDict, get_args

from pipeline.convert.judge import Action, Judged, Unused, Verdict
from pipeline.records.receipt import BoxCounts, ImageCounts, Receipt, SplitCounts
from pipeline.run import SPLITS

CHANGES: tuple[Literal["clipped", "dropped", "ignored"], ...] = ("clipped", "dropped", "ignored")
_NUMBER = re.compile(r"\d[\d.]*")  # reasons of one kind differ in their numbers


class Totals(TypedDict):
    """The part of a receipt that the verdicts give."""

    images: ImageCounts
    boxes: BoxCounts
    files: dict[str, BoxCounts]
    problems: list[dict[str, str]]
    splits: dict[str, SplitCounts]


def make(judged: Sequence[Judged], split_of: Mapping[str, str], names: Sequence[str], source: Path) -> Totals:
    """Return the totals of the verdicts. In each count of boxes, read = kept + clipped + dropped + ignored."""
    per_file: dict[str, Counter[str]] = {}
    problems: list[dict[str, str]] = []
    unused: dict[Unused, dict[str, str]] = {way: {} for way in get_args(Unused)}
    members: dict[str, list[Judged]] = {split: [] for split in SPLITS if split in split_of.values()}
    previous, file, counts = None, "", Counter[str]()
    for image in judged:
        labelled_by = image.item.annotation or image.item.image
        if labelled_by is not previous:  # one file may describe all images
            previous, file = labelled_by, relative(labelled_by, source)
            counts = per_file.setdefault(file, Counter())
        actions = [action for _, action, _, _ in image.verdicts]
        kept = actions.count("kept")
        counts["kept"] += kept
        if kept < len(actions):
            counts.update(action for action in actions if action != "kept")
            others = [verdict for verdict in image.verdicts if verdict.action not in ("kept", "added")]
            problems += [_problem(verdict, file, image.name) for verdict in others]
        if image.unused:
            unused[image.unused][image.name] = image.why
        else:
            members[split_of[image.name]].append(image)
    used = sum(map(len, members.values()))
    return {
        "images": {
            "read": len(judged),
            "used": used,
            "dropped": unused["dropped"],
            "in_no_split": unused["in_no_split"],
            "left_out": unused["left_out"],
            "linked_again": unused["linked_again"],
            "set_aside": unused["set_aside"],
        },
        "boxes": _with_total(sum(per_file.values(), Counter())),
        "files": {file: _with_total(counts) for file, counts in per_file.items()},
        "problems": problems,
        "splits": {split: _summary(images, names) for split, images in members.items()},
    }


def _problem(verdict: Verdict, file: str, image: str) -> dict[str, str]:
    return {
        "file": file,
        "image": image,
        "id": verdict.box.id,
        "class": verdict.box.label,
        "action": verdict.action,
        "reason": verdict.reason,
    }


def _summary(images: Sequence[Judged], names: Sequence[str]) -> SplitCounts:
    boxes = [image.boxes for image in images]
    per_class = Counter(box.label for image_boxes in boxes for box in image_boxes)
    return {
        "images": len(images),
        "background_images": sum(not image_boxes for image_boxes in boxes),
        "boxes": per_class.total(),
        "boxes_per_class": {name: per_class[name] for name in names},
    }


def last_line(receipt: Receipt, target: Path) -> str:
    """Summarise the receipt in one line."""
    boxes, images, leaks = receipt["boxes"], receipt["images"], receipt["leaks"]
    splits = ", ".join(f"{split} {summary['images']}" for split, summary in receipt["splits"].items())
    written = sum(summary["boxes"] for summary in receipt["splits"].values())
    line = f"{images['used']} images ({splits}), {written} boxes -> {target}"
    notes = [f"{boxes[action]} {action}" for action in CHANGES if boxes[action]]
    not_used = [line for line in receipt["labels"] if not line["used"]]
    such_as = f", such as {not_used[0]['image']}: {not_used[0]['reason']}" if not_used else ""
    counted: tuple[tuple[Sized, str, str], ...] = (
        (images["dropped"], "image", "dropped"),
        (images["in_no_split"], "image", "in no split"),
        (images["left_out"], "image", "left out because they would leak"),
        (receipt["background_by_setting"], "image", "counted as background only by convert.unlabelled"),
        (images["linked_again"], "link", "to an image that is in the source already"),
        (images["set_aside"], "image", "set aside"),
        (leaks["exact"], "group", "of identical images in more than one split"),
        (leaks["near"], "group", "of near-duplicates in more than one split"),
        (leaks["group"], "convert.group_by group", "in more than one split"),
        (leaks["moved"], "image", "moved to another split"),
        ([line for line in receipt["labels"] if line["used"]], "image", "labelled with `make label`"),
        (not_used, "labelled image", f"not used{such_as}"),
        ([line for line in receipt["fixes"] if line["applied"]], "fix", "applied"),
        ([line for line in receipt["fixes"] if not line["applied"]], "fix", "that could not be applied"),
    )
    for cases, noun, words in counted:
        if cases:
            notes.append(
                f"{len(cases)} {noun}{('es' if noun.endswith('x') else 's') if len(cases) > 1 else ''} {words}"
            )
    line = f"{line} ({', '.join(notes)}: see receipt.json)" if notes else line
    return "; ".join([line, *(" ".join(note.split()) for note in receipt["notes"])])


def no_box(judged: Sequence[Judged]) -> str:
    """Say that there is no box to train on: none in the training split, or none at all, with the commonest reason."""
    if any(image.boxes for image in judged if not image.unused):
        return "no usable box in the training split; label training images, or change convert.split"
    cases: dict[tuple[Action, str], list[str]] = {}
    for image in judged:
        for box, action, reason, _ in image.verdicts:
            example = f"{box.id} of {image.name} ({reason})"
            cases.setdefault((action, _NUMBER.sub("", reason)), []).append(example)
    if not cases:
        return "no usable box, because no annotation holds any; label some objects"
    (commonest, _), most = max(cases.items(), key=lambda item: len(item[1]))
    count = sum(map(len, cases.values()))
    return f"no usable box: {len(most)} of {count} {'was' if len(most) == 1 else 'were'} {commonest}, such as {most[0]}"


def relative(path: Path, source: Path) -> str:
    """Return the path below the source, with forward slashes; the full path for a file elsewhere.

    Paths are compared as text, because `Path.relative_to` takes ten times as long.
    """
    text, above = str(path), f"{source}{os.sep}"
    return (text[len(above) :] if text.startswith(above) else text).replace(os.sep, "/")


def _with_total(counts: Counter[str]) -> BoxCounts:
    kept, clipped, dropped, ignored = (counts[action] for action in ("kept", *CHANGES))
    read = kept + clipped + dropped + ignored
    return {"read": read, "kept": kept, "clipped": clipped, "dropped": dropped, "ignored": ignored}

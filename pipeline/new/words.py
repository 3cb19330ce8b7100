"""Put the first look into words: lines for the screen, and the text of the config."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.config.loading import flow
from pipeline.errors import and_more, counted
from pipeline.new.choices import TILED_SIZE, Chosen, quantile
from pipeline.new.contents import Seen

FEW = 100  # images; with fewer, a val split has only a dozen
FEW_VAL = 30  # images; on 22, trainings without one box and one image differed by 24 points of mAP50-95
RARE = 20  # boxes; with fewer, neither a class nor its figures are reliable
SHOWN = 12  # classes with their counts, or notes, at most
CELL = 8  # pixels: one cell of the head's finest grid
COLUMN = 40  # where comments of the config begin
GROUP_BY = "if several images show one video, board or patient, set `convert.group_by` so that they stay in one split"

Entry = tuple[str, str | int | list[str] | dict[str, float], str]  # key, value, comment


def lines(seen: Seen, chosen: Chosen) -> list[str]:
    """Return what there is to know about a folder, one line per topic."""
    topics = {
        "format": seen.format,
        "images": _images(seen),
        "splits": _splits(seen, chosen),
        "classes": _classes(seen),
        "objects": _objects(seen, chosen),
        "groups": _groups(chosen),
        "names": "; ".join(_names(seen, chosen)),
        "labels": "; ".join(_labels(seen)),
        "notes": "; ".join(seen.read.notes[:SHOWN]) + and_more(seen.read.notes[SHOWN - 1 :]),
        "missing": "; ".join(_missing(seen, chosen)),
        "to do": "; ".join(to_do(seen)),
    }
    shown = [str(seen.source), *(f"  {topic:<9}{text}" for topic, text in topics.items() if text)]
    return ["".join(letter if letter.isprintable() else "?" for letter in line) for line in shown]


def _images(seen: Seen) -> str:
    sizes = Counter(image.checked.size for image in seen.usable)
    width, height = sizes.most_common(1)[0][0]
    if len(sizes) == 1:
        text = f"{len(seen.usable)}, all {width}x{height}"
    else:
        ascending = sorted(sizes, key=lambda size: size[0] * size[1])
        (w, h), (wide, high) = ascending[0], ascending[-1]
        text = f"{len(seen.usable)}, from {w}x{h} to {wide}x{high}"
    background = sum(not image.boxes for image in seen.usable if image.item.annotation is not None)
    text += f", {background} without an object" if background else ""
    others = [image for image in seen.set_aside if not image.item.boxes]
    if others:
        verb = "is" if len(others) == 1 else "are"
        text += f"; {len(others)} more {verb} not used{_first([image.name for image in others])}: {others[0].why}"
    return text


def _splits(seen: Seen, chosen: Chosen) -> str:
    counts = _count(seen.images_per_split)
    if chosen.split is not None:
        shares = _count({split: f"{share:.0%}" for split, share in chosen.split.items()})
        lacking = " and ".join(split for split in ("train", "val") if split not in seen.images_per_split)
        return f"drawn ({shares}), because the dataset gives {f'{counts}, but no {lacking}' if counts else 'none'}"
    parts = [f"{counts}, as the dataset gives them", *_leaks(seen)]
    if nowhere := sum(not image.item.split for image in seen.usable):
        parts.append(f"{counted(nowhere, 'image')} in no split, not used")
    return "; ".join(parts)


def _groups(chosen: Chosen) -> str:
    if chosen.group_by:
        return f"{chosen.group}: {chosen.groups} by their names"
    return "" if chosen.split is None else f"none by the names; {GROUP_BY}"


def _leaks(seen: Seen) -> list[str]:
    kinds = ((seen.leaks["exact"], "of identical images"), (seen.leaks["near"], "of near-duplicates"))
    return [f"{counted(len(groups), 'group')} {words} in more than one split" for groups, words in kinds if groups]


def _count(counts: Mapping[str, int | str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _classes(seen: Seen) -> str:
    counts = {name: count for name, count in seen.boxes_per_class.items() if count}
    if len(counts) <= SHOWN:
        return _count(counts)
    most = sorted(counts, key=lambda name: -counts[name])
    return f"{len(counts)}, from {most[0]} {counts[most[0]]} to {most[-1]} {counts[most[-1]]}"


def _objects(seen: Seen, chosen: Chosen) -> str:
    imgsz = chosen.imgsz
    small, middle, large = (quantile(seen.relative_sides, share) * imgsz for share in (0.1, 0.5, 0.9))
    tiny = sum(side * imgsz < CELL for side in seen.relative_sides)
    text = (
        f"{len(seen.relative_sides)}; at imgsz {imgsz} half of them are over {middle:.0f} px, "
        f"one in ten under {small:.0f} px, one in ten over {large:.0f} px"
    )
    if tiny:
        text += f", {tiny} under {CELL} px, which are hardly seen"
    if chosen.tiles:
        text += f"; too small for whole images, so take tiles of {chosen.tiles['size']} px"
    return text


def _alike(seen: Seen) -> list[str]:
    """Return what to decide if names differ only in case, punctuation or a plural."""
    names = [name for name, count in seen.boxes_per_class.items() if count]
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(re.sub(r"[\W_]+", "", name.lower()).removesuffix("s"), []).append(name)
    tasks = [f"{' and '.join(map(repr, group))} may be one class" for group in alike.values() if len(group) > 1]
    if tasks and len(names) <= SHOWN:
        most = {
            name: max(group, key=lambda one: seen.boxes_per_class[one]) for group in alike.values() for name in group
        }
        tasks.append(f"if so, replace `classes` under `convert` by {flow({name: most[name] for name in names})}")
    return tasks


def _names(seen: Seen, chosen: Chosen) -> list[str]:
    """Return remarks on odd class names."""
    names = [name for name, count in seen.boxes_per_class.items() if count]
    remarks = []
    if numbers := [name for name in names if re.fullmatch(r"(class[-_ ]?)?\d+", name)]:
        remarks.append(f"{', '.join(map(repr, numbers[:SHOWN]))}: numbers instead of names")
    unused = [name for name, count in seen.boxes_per_class.items() if not count]
    listed = chosen.classes if len(chosen.classes) <= SHOWN else unused  # `config` writes no longer list
    if left_out := [name for name in unused if name not in listed]:
        remarks.append(f"left out, because no object has it: {', '.join(map(repr, left_out[:SHOWN]))}")
    if kept := [name for name in unused if name in listed]:
        remarks.append(f"without a usable box, but not left out: {', '.join(map(repr, kept[:SHOWN]))}")
    return remarks


def _labels(seen: Seen) -> list[str]:
    """Return remarks on odd boxes."""
    remarks = [f"{len(cases)} {action}{_first(cases)}" for action, cases in seen.changed.items()]
    if seen.filled:
        remarks.append(f"{counted(len(seen.filled), 'image')} with a box as large as the image{_first(seen.filled)}")
    return remarks


def _first(cases: Sequence[str]) -> str:
    """Return the first of some cases, as the end of a remark on all of them."""
    return f"{', such as' if len(cases) > 1 else ':'} {cases[0]}"


def _missing(seen: Seen, chosen: Chosen) -> list[str]:
    remarks = []
    if len(seen.usable) < FEW:
        remarks.append(f"more images: with fewer than {FEW}, all metrics are rough")
    val = seen.images_per_split.get("val", 0) if chosen.split is None else round(chosen.split["val"] * len(seen.usable))
    if len(seen.usable) >= FEW and 0 < val < FEW_VAL:
        remarks.append(f"more images in val: with {val}, two trainings may differ by ten points of mAP by chance")
    if chosen.split is None and "test" not in seen.images_per_split:
        remarks.append("a test split: all metrics come from val, which also chooses epochs and thresholds")
    if rare := {name: count for name, count in seen.boxes_per_class.items() if 0 < count < RARE}:
        remarks.append(
            f"objects of {_count(dict(list(rare.items())[:SHOWN]))}: with fewer than {RARE}, a class is hard to learn"
        )
    return remarks


def to_do(seen: Seen) -> list[str]:
    """Return what a person has to decide: what convert refuses, and which names mean one class."""
    tasks = _alike(seen)
    if seen.unlabelled:
        first, several = seen.unlabelled[0].name, len(seen.unlabelled) > 1
        what_to_do = (
            "label them, leave them out with fixes (docs/fiftyone.md), or write {} if they show"
            if several
            else "label it, leave it out with a fix (docs/fiftyone.md), or write {} if it shows"
        )
        tasks.append(
            f"{counted(len(seen.unlabelled), 'image')} without a label, {'such as ' * several}{first}: "
            f"{what_to_do.format('`unlabelled: background`')} no object"
        )
    if count := len(seen.refused):
        it = "it" if count == 1 else "them"
        tasks.append(
            f"{counted(count, 'label or image', 'labels or images')} cannot be used{_first(seen.refused)}; "
            f"correct {it}, or write `on_problem: drop`, which leaves {it} out and lists {it}"
        )
    if without_box := [image for image in seen.set_aside if image.item.boxes]:
        images, first = counted(len(without_box), "image"), _first([image.name for image in without_box])
        where = f"without a box but with other shapes{first} ({without_box[0].why})"
        tasks.append(f"{images} {where}; draw boxes there, or they are left out")
    return tasks


# --- The config -----------------------------------------------------------------------------------


def config(seen: Seen, chosen: Chosen, target: Path) -> str:
    """Return the config as YAML, each choice with its reason."""
    written: list[Entry] = [("source", str(seen.source), "")]
    written.append(("format", seen.format, "detected"))
    if len(chosen.classes) <= SHOWN:
        order = "their order gives the ids; {theirs: ours, other: null} renames, merges and drops"
        written.append(("classes", list(chosen.classes), order))
    if chosen.split is None:
        written.append(("split", "given", _count(seen.images_per_split)))
        if leaks := "; ".join(_leaks(seen)):
            written.append(("leaks", "report", f"{leaks}; move puts each group into one"))
    else:
        written.append(("split", chosen.split, "drawn at random; each split gets its share of every class"))
    if chosen.group_by:
        rule = "each group stays in one split" if chosen.split else "convert reports groups in more than one split"
        written.append(("group_by", chosen.group_by, f"{chosen.group}; {rule}"))
    if seen.unlabelled:
        count = counted(len(seen.unlabelled), "image")
        written.append(("unlabelled", "error", f"{count} without a label; background: none shows an object"))
    if seen.refused:
        written.append(("on_problem", "fix", f"drop leaves out what cannot be used ({len(seen.refused)})"))
    head = f"# A start for {flow(str(seen.source))}; docs/config.md explains every key.\n#\n"
    head += f"#   make all CONFIG={target}\n"
    text = f"{head}\nconvert:\n{_section(written)}"
    if chosen.split and not chosen.group_by:
        text += f"{'  # group_by: ...':<{COLUMN}}  # what the names of one video, board or patient share\n"
    if chosen.tiles:
        of_size, of_overlap = (part.partition(": ")[2] for part in chosen.tiles["reason"].split("; "))
        keys: list[Entry] = [("size", "auto", f"now {chosen.tiles['size']}: {of_size}")]
        keys.append(("overlap", "auto", f"now {chosen.tiles['overlap']:g}: {of_overlap}"))
        reason = "each tile is fitted into this; half the imgsz trains four times faster"
        return f"{text}\ntiles:\n{_section(keys)}\ntrain:\n{_section([('imgsz', TILED_SIZE, reason)])}"
    small = quantile(seen.relative_sides, 0.1) * chosen.imgsz
    reason = f"one object in ten is then under {small:.0f} px; half of this side trains four times faster"
    return f"{text}\ntrain:\n{_section([('imgsz', chosen.imgsz, reason)])}"


def _section(entries: Sequence[Entry]) -> str:
    text = ""
    for key, value, comment in entries:
        line = f"  {key}: {flow(value)}"
        if len(line) > COLUMN:
            text += f"  # {comment}\n" if comment else ""
            comment = ""
        text += f"{line:<{COLUMN}}  # {comment}\n" if comment else f"{line}\n"
    return text

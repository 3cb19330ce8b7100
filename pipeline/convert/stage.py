"""Convert annotations to an Ultralytics dataset, with a receipt that accounts for every box."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from pipeline import files, fixes, formats, inputs, parallel
from pipeline.boxes import write_data_yaml
from pipeline.config.data import Convert
from pipeline.convert import background, corrections, judge, labelled, placing, plausible, receipt, writing
from pipeline.convert.judge import Judged
from pipeline.convert.labelled import Made
from pipeline.errors import DataError, and_more, counted
from pipeline.fixes import Fixes
from pipeline.formats.source import Source
from pipeline.image_files import deep, reading
from pipeline.image_files.reading import Checked
from pipeline.inputs import Digests
from pipeline.records.base import write_record
from pipeline.records.receipt import Receipt
from pipeline.run import Run


def main(config: Convert, run: Run, seed: int, workers: int | None = None, pool: Path | None = None) -> str:
    """Write `run.dataset` and return a one-line summary of what became of the source.

    `pool` is the folder of `label.pool`, whose images may be labelled in `data/labels/`. Raises DataError, before
    anything is written, if the source cannot be used as it is.
    """
    drawn, drop = config.split != "given", config.on_problem == "drop"
    digests = inputs.digests(config, run)  # before the files are read, so that a later edit is noticed next time
    format_name, source = formats.read(config.source, config.format, given=not drawn, orphans=drop)
    made = labelled.read(run, pool)
    source = labelled.without(source, made)
    if workers not in (0, 1) and len(source.images) >= parallel.FEWEST_ITEMS:
        parallel.start(preload=["pipeline.image_files.reading"])
    items = source.to_use
    placing.check_given(source, config)
    used = [item for item in items if drawn or item.split]
    loaded = fixes.load(fixes.file_of(run))
    dropped = corrections.dropped(run, loaded, config.source.absolute(), used, source.images)
    items, used = ([item for item in some if item.image not in dropped] for some in (items, used))
    background.refuse(items, used, source, config, fixes.file_of(run))
    wanted = list(dict.fromkeys([item.image for item in used] + [entry.item.image for entry in made]))
    checked = dict(zip(wanted, parallel.ordered(reading.check, wanted, workers, "convert: reading"), strict=True))
    line = _convert(config, run, seed, format_name, source, made, checked, loaded, dropped, digests)
    why = f"fewer than {parallel.FEWEST_ITEMS} images"
    return line + parallel.no_effect(workers, parallel.processes(workers, len(wanted)), why)


@formats.without_collection()  # until the end: the collector would walk all objects if switched on before
def _convert(
    config: Convert,
    run: Run,
    seed: int,
    format_name: str,
    source: Source,
    made: Sequence[Made],
    checked: Mapping[Path, Checked],
    loaded: Fixes,
    dropped: Collection[Path],
    digests: Digests,
) -> str:
    """Judge, correct, place and write. `loaded` are the fixes, `dropped` the images that they drop.

    `sources` in the receipt maps each image `SPLIT/NAME` of the dataset to its path below the source, by which fixes
    identify it. `receipt.make` and `Placed` describe the other keys.
    """
    folder = config.source.absolute()
    classes = class_map(source, config)
    names = tuple(dict.fromkeys(name for name in classes.values() if name is not None))
    frames = judge.frames(source.images, checked)
    judged = judge_all(source, checked, frames, classes, config)
    plausible.refuse(judged, config)
    _refuse_problems(judged, config)
    if config.on_problem == "drop":
        judged = set_aside(judged, "dropped", background.not_background(judged, config))
    added, unusable = labelled.judged(made, source, checked, classes, config)
    _refuse_problems(added, config)
    corrected = corrections.correct([*judged, *added, *unusable], run, loaded, names, dropped)
    # After the corrections, which may add the boxes that are missing.
    judged = set_aside(corrected.judged, "set_aside", background.without_boxes(corrected.judged, classes))
    trained_on = {image.name for image in added} if config.new_images == "train" else set()
    placed = _placed(judged, config, run, seed, trained_on)
    judged = set_aside(judged, "left_out", placed.left_out)
    targets = writing.file_names([image for image in judged if not image.unused])
    peak = max((image.checked.peak for image in judged if not image.unused), default=0)
    bits = deep.significant_bits(peak) if peak else None  # of 16; a device must scale them to 8 in the same way
    account: Receipt = {
        "source": str(config.source),
        "format": format_name,
        "classes": list(names),
        **receipt.make(judged, placed.split_of, names, folder),
        "names_matched": dict(source.matched),
        "background_by_setting": background.by_setting(judged),
        "notes": [*source.notes, *filter(None, [_in_doubt(frames, folder), placed.hint])],
        "splits_by": "source" if placed.drawing is None else str(run.splits),
        "rewritten": {
            targets[image.name]: image.checked.rewrite for image in judged if image.checked.rewrite and not image.unused
        },
        "bits": bits,
        "sources": {f"{placed.split_of[name]}/{target}": name for name, target in targets.items()},
        "leaks": placed.leaks,
        "fixes": corrected.lines,
        "labels": labelled.lines(made, judged, placed.split_of),
        "inputs": {"fixes": digests["fixes"], "splits": digests["splits"], "labels": digests["labels"]},
    }
    if not account["splits"]["train"]["boxes"]:
        raise DataError(f"{config.source}: {receipt.no_box(judged)}")
    with files.new_folder(run.dataset) as new:
        writing.write(new, judged, placed.split_of, targets, names, bits)
        if placed.drawing is not None:
            files.write_json(run.splits, placed.drawing)
            account["inputs"]["splits"] = files.sha256(run.splits)
        write_record(new / "receipt.json", Receipt, account)
        write_data_yaml(new / "data.yaml", {split: f"images/{split}" for split in account["splits"]}, names)
    return receipt.last_line(account, run.dataset)


def _in_doubt(frames: Mapping[Path, bool | None], folder: Path) -> str:
    """Name the images whose boxes may refer to the stored image, before EXIF turns it; empty if there are none."""
    doubtful = [path for path, is_stored in frames.items() if is_stored is None]
    if not doubtful:
        return ""
    return (
        f"{receipt.relative(doubtful[0], folder)}: EXIF turns it, and nothing tells whether its boxes are those of the "
        f"turned image, as convert takes them: check it with `make inspect`{and_more(doubtful)}"
    )


def _placed(judged: Sequence[Judged], config: Convert, run: Run, seed: int, trained_on: set[str]) -> placing.Placed:
    """Place the usable images. A DataError also says how many others there are, and why."""
    usable = [image for image in judged if not image.unused]
    lost = [image for image in judged if image.unused == "dropped" or (image.unused == "set_aside" and image.verdicts)]
    try:
        if lost and not usable:
            raise DataError(f"{config.source}: no usable image")
        return placing.place(usable, config, run, seed, trained_on)
    except DataError as error:
        if not lost:
            raise
        of_all = f"of {counted(len(judged), 'image')}, {len(lost)} {'is' if len(lost) == 1 else 'are'} not used"
        raise DataError(f"{error}; {of_all}, such as {lost[0].name}: {lost[0].why}") from None


def class_map(source: Source, config: Convert) -> dict[str, str | None]:
    """Return our name for each class of the source, in the order of our ids; None for a class to leave out."""
    if config.classes:
        if config.on_problem != "drop":
            _refuse_misspelt(config.classes, _labels(source))
        return dict(config.classes) if isinstance(config.classes, dict) else {name: name for name in config.classes}
    return {name: name for name in source.classes or sorted(_labels(source))}


def _labels(source: Source) -> Counter[str]:
    """Count the boxes of each class of the source, without damaged and ignored ones."""
    boxes = (box for item in source.images for box in item.boxes)
    return Counter(box.label for box in boxes if box.label and not box.ignore and not box.damage)


def _refuse_misspelt(listed: Collection[str], labels: Mapping[str, int]) -> None:
    """Raise DataError if a listed class has no box, and a class that is not listed has a similar name."""
    without_box = [name for name in listed if name not in labels]
    for name in labels:
        if name not in listed and (near := get_close_matches(name, without_box, n=1)):
            raise DataError(
                f"convert.classes: no box has the class {near[0]!r}, but {counted(labels[name], 'box', 'boxes')} "
                f"{'has' if labels[name] == 1 else 'have'} {name!r}, which is not listed; correct the name"
            )


def judge_all(
    source: Source,
    checked: Mapping[Path, Checked],
    frames: Mapping[Path, bool | None],
    classes: Mapping[str, str | None],
    config: Convert,
) -> list[Judged]:
    """Return every image of the source with its verdicts; images in no split were not checked.

    `frames` is the result of `judge.frames`.
    """
    folder = config.source.absolute()
    judged = []
    for item in source.images:
        name = receipt.relative(item.image, folder)
        if item.image in source.linked_again:
            why = f"the same file as {receipt.relative(source.linked_again[item.image], folder)}"
            judged.append(judge.never_used(item, name, "linked_again", why))
        elif item.image in source.set_aside:
            judged.append(judge.never_used(item, name, "set_aside", source.set_aside[item.image]))
        elif item.image in checked:
            is_stored = frames.get(item.image)
            judged.append(judge.image(item, name, checked[item.image], classes, config, is_stored))
        else:
            judged.append(judge.never_used(item, name, "in_no_split", "the source puts it in no split"))
    return judged


def set_aside(judged: Sequence[Judged], unused: judge.Unused, reasons: Mapping[str, str]) -> list[Judged]:
    """Return all images, of which those with `reasons` are unused; `unused` says in which way."""
    if not reasons:
        return list(judged)
    return [judge.set_aside(image, unused, reasons[image.name]) if image.name in reasons else image for image in judged]


def _refuse_problems(judged: Sequence[Judged], config: Convert) -> None:
    """Raise DataError for what `on_problem` refuses, with the first problem and the number of others."""
    if config.on_problem == "drop":
        return
    problems, droppable = [], False
    for image in judged:
        if image.unused == "dropped":
            labelled_by = f" (its annotation is {image.item.annotation})" if image.item.annotation else ""
            problems.append(f"{image.item.image}: {image.why}{labelled_by}")
            droppable = droppable or not image.checked.missing
            continue
        for verdict in image.verdicts:
            wrong = verdict.needs_person or (config.on_problem == "error" and verdict.action in ("clipped", "dropped"))
            if wrong:
                box_name = f"{verdict.box.id} ({verdict.box.label})" if verdict.box.label else verdict.box.id
                problems.append(f"{image.item.annotation or image.item.image}: {box_name}: {verdict.reason}")
    if problems:
        offer = "`convert.on_problem: drop` leaves {} out and lists {}"
        if len(problems) > 1:
            raise DataError(f"{problems[0]} (and {len(problems) - 1} more such; {offer.format('them', 'them')})")
        raise DataError(problems[0] + (f" ({offer.format('it', 'it')})" if droppable else ""))

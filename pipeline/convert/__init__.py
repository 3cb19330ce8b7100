"""Annotations in, an Ultralytics data set out, with a receipt that accounts for every box."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline import files, formats, inputs, logs, parallel
from pipeline.boxes import Labelled, write_data_yaml, write_labels
from pipeline.config import Convert
from pipeline.convert import corrections, images, judge, placing, receipt
from pipeline.convert.images import Checked
from pipeline.convert.judge import Judged
from pipeline.errors import DataError
from pipeline.formats.source import Source
from pipeline.run import SPLITS, Run


def main(config: Convert, run: Run, seed: int, workers: int | None = None) -> str:
    """Write `run.dataset` and say in one line what became of the source.

    Raises DataError, before anything is written, where the source cannot be used as it is.
    """
    format_name, source = formats.read(config.source, config.format)
    if workers not in (0, 1) and len(source.images) >= 2 * parallel.WORTH_A_PROCESS:
        parallel.start(preload=["pipeline.convert.images"])
    items = [item for item in source.images if item.image not in source.linked_again]
    _refuse_unlabelled(items, config)
    placing.check_given(source, config)
    wanted = [item.image for item in items if config.split != "given" or item.split]
    checked = dict(zip(wanted, parallel.ordered(images.check, wanted, workers, "convert: reading"), strict=True))
    return _convert(config, run, seed, format_name, source, checked)


@formats.without_collection()  # to the very end: switched on with all of it there, the collector would walk it
def _convert(
    config: Convert, run: Run, seed: int, format_name: str, source: Source, checked: Mapping[Path, Checked]
) -> str:
    """Judge, correct, place and write. In the receipt `sources` gives, for each image `SPLIT/NAME` of the data set, its
    path below the source, by which fixes find it; the rest is `receipt.make`'s and `Placed`'s.
    """
    folder = config.source.absolute()
    used = inputs.digests(config, run)  # before they are read: an edit made meanwhile is then noticed next time
    classes = class_map(source, config)
    names = tuple(dict.fromkeys(name for name in classes.values() if name is not None))
    judged = judge_all(source, checked, classes, config)
    _refuse_problems(judged, config)
    corrected = corrections.correct(judged, run, names)
    judged = corrected.judged
    placed = placing.place([image for image in judged if not image.unused], config, run, seed)
    judged = [_left_out(image, placed.left_out) for image in judged]
    targets = _file_names([image for image in judged if not image.unused])
    peak = max((image.checked.peak for image in judged if not image.unused), default=0)
    account = {
        "source": str(config.source),
        "format": format_name,
        "classes": list(names),
        **receipt.make(judged, placed.split_of, names, folder),
        "splits_by": "source" if placed.drawing is None else str(run.splits),
        "rewritten": {
            targets[image.name]: image.checked.rewrite for image in judged if image.checked.rewrite and not image.unused
        },
        "bits": images.significant_bits(peak) if peak else None,  # of 16: a device has to make 8 of them too
        "sources": {f"{placed.split_of[name]}/{target}": name for name, target in targets.items()},
        "leaks": placed.leaks,
        "fixes": corrected.lines,
    }
    if not account["splits"]["train"]["boxes"]:
        raise DataError(f"{config.source}: not one usable box in the training split; nothing can be learnt from it")
    with files.new_folder(run.dataset) as new:
        _write(new, judged, placed.split_of, targets, names)
        if placed.drawing is not None:
            files.write_json(run.splits, placed.drawing)
            used["splits"] = files.sha256(run.splits)
        files.write_json(new / "receipt.json", {**account, "inputs": used})
        write_data_yaml(new / "data.yaml", {split: f"images/{split}" for split in account["splits"]}, names)
    return receipt.last_line(account, run.dataset)


def class_map(source: Source, config: Convert) -> dict[str, str | None]:
    """Our name for each class of the source, in the order of our ids; None for a class to leave out."""
    if isinstance(config.classes, dict) and config.classes:
        return dict(config.classes)
    if listed := config.classes or source.classes:
        return {name: name for name in listed}
    labels = {box.label for item in source.images for box in item.boxes if box.label and not box.ignore}
    return {name: name for name in sorted(labels)}


def _refuse_unlabelled(items: Sequence[Labelled], config: Convert) -> None:
    if config.unlabelled == "background":
        return
    for item in items:
        if item.annotation is None:
            raise DataError(
                f"{item.image}: no annotation; label it, or set `convert.unlabelled: background` "
                "if images without one truly show nothing"
            )


def judge_all(
    source: Source, checked: Mapping[Path, Checked], classes: Mapping[str, str | None], config: Convert
) -> list[Judged]:
    """Every image of the source with its verdicts; those that were not checked are in no split."""
    folder = config.source.absolute()
    judged = []
    for item in source.images:
        name = receipt.relative(item.image, folder)
        if item.image in source.linked_again:
            why = f"the same file as {receipt.relative(source.linked_again[item.image], folder)}"
            judged.append(judge.set_aside(item, name, "linked_again", why))
        elif item.image in checked:
            judged.append(judge.image(item, name, checked[item.image], classes, config))
        else:
            judged.append(judge.set_aside(item, name, "in_no_split", "the source puts it in no split"))
    return judged


def _left_out(image: Judged, reasons: Mapping[str, str]) -> Judged:
    if image.name not in reasons:
        return image
    return judge.set_aside(image.item, image.name, "left_out", reasons[image.name])


def _refuse_problems(judged: Sequence[Judged], config: Convert) -> None:
    """What `on_problem` does not let pass: the first such thing by name, and how many there are."""
    if config.on_problem == "drop":
        return
    found = []
    for image in judged:
        if image.unused == "dropped":
            labelled_by = f" (its annotation is {image.item.annotation})" if image.item.annotation else ""
            found.append(f"{image.item.image}: {image.why}{labelled_by}")
            continue
        for verdict in image.verdicts:
            wrong = verdict.needs_person or (config.on_problem == "error" and verdict.action in ("clipped", "dropped"))
            if wrong:
                where = f"{verdict.box.id} ({verdict.box.label})" if verdict.box.label else verdict.box.id
                found.append(f"{image.item.annotation or image.item.image}: {where}: {verdict.reason}")
    if found:
        more = f" (and {len(found) - 1} more such; `convert.on_problem: drop` leaves them out and lists them)"
        raise DataError(found[0] + (more if len(found) > 1 else ""))


def _file_names(used: Sequence[Judged]) -> dict[str, str]:
    """The file name of each image in the data set: its own, or with its folders where others have the same stem."""
    stems = Counter(_stem(image.name).lower() for image in used)
    targets: dict[str, str] = {}
    taken: dict[str, str] = {}
    for image in used:
        name = image.name.rpartition("/")[2]
        target = name if stems[_stem(name).lower()] == 1 else image.name.replace("/", "-")
        # Two images of one stem would overwrite each other's labels.
        earlier = taken.setdefault(_stem(target).lower(), image.name)
        if earlier != image.name:
            raise DataError(f"{image.item.image}: has the stem of {earlier}; rename one image and its annotation")
        targets[image.name] = target
    return targets


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def _write(
    folder: Path,
    judged: Sequence[Judged],
    split_of: Mapping[str, str],
    targets: Mapping[str, str],
    names: Sequence[str],
) -> None:
    for split in SPLITS:
        if split in split_of.values():
            for kind in ("images", "labels"):
                (folder / kind / split).mkdir(parents=True)
    used = [image for image in judged if not image.unused]
    bits = images.significant_bits(max((image.checked.peak for image in used), default=0))
    for image in logs.progress(used, "convert: writing"):
        split, target, checked = split_of[image.name], targets[image.name], image.checked
        if checked.rewrite:
            pixels = images.upright(image.item.image, checked.orientation, bits if checked.peak else None)
            (folder / "images" / split / target).write_bytes(pixels)
        else:
            files.link_or_copy(image.item.image, folder / "images" / split / target)
        write_labels(f"{folder}/labels/{split}/{_stem(target)}.txt", image.boxes, names, checked.size)

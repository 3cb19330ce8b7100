"""Read images that a person labelled with `make label` from `data/labels/`, in addition to those of the source."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pipeline.boxes import Labelled
from pipeline.config.data import Convert
from pipeline.convert import judge
from pipeline.convert.judge import Judged
from pipeline.errors import DataError, and_more, did_you_mean
from pipeline.formats.source import Source
from pipeline.image_files.reading import Checked
from pipeline.labels import file as labels
from pipeline.labels.content import Image
from pipeline.records.receipt import LabelledImage
from pipeline.run import Run


class Made(NamedTuple):
    """A labelled image, the file that labels it, and the image in the form that readers return."""

    image: Image
    by: Path
    item: Labelled


def read(run: Run, pool: Path | None) -> list[Made]:
    """Return all images of `data/labels/`. `pool` is the folder of `label.pool`, wherever that is.

    Raises ConfigError for a bad file, DataError for files that contradict each other or lead elsewhere.
    """
    root, outside = run.project, Path(os.path.normpath(pool.absolute())) if pool else None
    made = []
    for path, image in labels.together(labels.files_of(run)):
        name = PurePosixPath(image.file)
        if name.is_absolute() and not (outside and name.is_relative_to(outside.as_posix())):
            raise DataError(
                f"{path}: {image.file!r} is outside this folder and label.pool; name its folder in label.pool again, "
                "or move the images below this folder and correct their paths in the file"
            )
        boxes = tuple(label.box()._replace(id=f"box {n}") for n, label in enumerate(image.labels, start=1))
        made.append(Made(image, path, Labelled(root / name, boxes, path, image.size, "train")))
    return made


def without(source: Source, made: Sequence[Made]) -> Source:
    """Remove unlabelled images of the source that `make label` labelled, perhaps before they came into the source."""
    paths = {entry.item.image.absolute() for entry in made}
    return replace(source, images=tuple(item for item in source.images if item.annotation or item.image not in paths))


def name_of(image: Image) -> str:
    """Return the name of an image in receipts and fixes: its path without a leading slash."""
    return image.file.lstrip("/")


def judged(
    made: Sequence[Made],
    source: Source,
    checked: Mapping[Path, Checked],
    classes: Mapping[str, str | None],
    config: Convert,
) -> tuple[list[Judged], list[Judged]]:
    """Return the judged images of `data/labels/`, and those that cannot be used.

    `classes` maps the source's class names to ours, and also renames labels made before a class was renamed. A changed
    image cannot be used, because nobody has labelled its present content. Raises DataError for an unknown class, and
    for missing images unless `on_problem` drops them.
    """
    missing = [entry for entry in made if checked[entry.item.image].missing]
    if missing and config.on_problem != "drop":
        image, by, _ = missing[0]
        raise DataError(
            f"{by}: labels {image.file}, which no longer exists; restore it, or remove it there{and_more(missing)}; "
            "`convert.on_problem: drop` leaves such images out and lists them"
        )
    # Labels already have our names, so these come first.
    known = {**classes, **{name: name for name in classes.values() if name is not None}}
    usable: list[Judged] = []
    unusable: list[Judged] = []
    source_images = {item.image for item in source.images}
    for entry in made:
        image, by, item = entry
        for label in image.labels:
            if label.label not in known:
                hint = did_you_mean(label.label, known)
                raise DataError(
                    f"{by}: {image.file}: {label.label!r} is not one of {', '.join(known)}; correct it, or add it to "
                    f"convert.classes, which may map it to another class or to null{hint}"
                )
        seen, name = checked[item.image], name_of(image)
        if item.image.absolute() in source_images:
            unusable.append(judge.never_used(item, name, "dropped", "the source labels it too"))
        elif seen.missing:
            unusable.append(judge.never_used(item, name, "dropped", f"{by} labels it, but it no longer exists"))
        elif image.sha256 and not seen.problem and seen.sha256 != image.sha256:
            unusable.append(judge.never_used(item, name, "dropped", f"{by} labels another image with this name"))
        else:
            is_stored = judge.frames([item], checked).get(item.image)
            usable.append(judge.image(item, name, seen, known, config, is_stored))
    return usable, unusable


def lines(made: Sequence[Made], done: Sequence[Judged], split_of: Mapping[str, str]) -> list[LabelledImage]:
    """Return a line for the receipt on each labelled image: what the person did, and whether convert used it."""
    by_name = {image.name: image for image in done}
    rows: list[LabelledImage] = []
    for image, by, _ in made:
        outcome = by_name[name_of(image)]
        counts = Counter(label.origin for label in image.labels)
        rows.append(
            {
                "image": image.file,
                "file": str(by),
                "used": not outcome.unused,
                "reason": outcome.why,
                "split": split_of.get(name_of(image)) if not outcome.unused else None,
                "kept": counts["kept"],
                "moved": counts["moved"],
                "relabelled": counts["relabelled"],
                "deleted": len(image.deleted),
                "added": counts["added"],
                "models": sorted({label.model for label in (*image.labels, *image.deleted) if label.model}),
            }
        )
    return rows

"""Open Images: CSV of boxes relative to their images, a row a box, `ImageID.jpg` anywhere in the source.

Class names come from the class descriptions (`/m/01g317,Person`) where those lie in the source, else labels stay as
they are. File or folder names give the splits: `train-annotations-bbox.csv`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.boxes import Box, Labelled
from pipeline.errors import DataError
from pipeline.formats.pairing import Images
from pipeline.formats.source import (
    Source,
    Tree,
    damaged,
    files_under,
    folder_split,
    head,
    read_text,
    show,
    split_of,
    with_the_rest,
)
from pipeline.formats.text import RAGGED, columns, numbers, records, rows, upright_size

IMAGE, LABEL = "ImageID", "LabelName"
CORNERS = ("XMin", "YMin", "XMax", "YMax")
GROUP = "IsGroupOf: one box around many objects"
NEGATIVE = "Confidence 0: people found that the image does not show it"
MACHINE_IDS = ("/m/", "/g/")


def holds_boxes(names: list[str]) -> bool:
    """Whether these column names are those of Open Images' boxes; its lists of image labels have no corners."""
    return IMAGE in names and LABEL in names and any(name in names for name in CORNERS)


def recognises(folder: Path) -> bool:
    return any(holds_boxes(columns(head(path))[0]) for path in files_under(folder, {".csv"}))


def read(folder: Path) -> Source:
    tree = Tree(folder)
    images = Images(tree)
    texts = {path: read_text(path) for path in tree.files({".csv"})}
    names_of = _class_names(texts)
    labelled: list[Labelled] = []
    for path, text in texts.items():
        if holds_boxes(columns(text)[0]):
            labelled += _read_file(path, text, images, names_of)
    return Source(with_the_rest(tree, labelled), None, has_splits=any(item.split for item in labelled))


def _class_names(texts: Mapping[Path, str]) -> dict[str, str]:
    """Names by machine id, from every table of two columns that has machine ids in the first."""
    names: dict[str, str] = {}
    for path, text in texts.items():
        if len(columns(text)[0]) != 2:
            continue
        for number, row in rows(path, text, ","):
            identity, name = row[0].strip(), row[1].strip() if len(row) == 2 else ""
            if identity.startswith(MACHINE_IDS) and (not name or names.setdefault(identity, name) != name):
                raise DataError(
                    f"{path}: line {number}: {show(identity)} has no name, or a second one; give it one name"
                )
    return names


def _read_file(path: Path, text: str, images: Images, names_of: Mapping[str, str]) -> list[Labelled]:
    names, delimiter = columns(text)
    if missing := [name for name in CORNERS if name not in names]:
        raise DataError(f"{path}: no column {missing[0]}; boxes need {', '.join((IMAGE, LABEL, *CORNERS))}")
    found: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for number, record in records(path, text, names, delimiter):
        if not record[IMAGE]:
            raise DataError(f"{path}: line {number}: no {IMAGE}; name the image")
        found.setdefault(record[IMAGE], []).append((number, record))
    split = split_of(path.stem) or folder_split(images.source, path)
    labelled = []
    for identity, numbered in found.items():
        image = images.called(identity, path, split)
        sides = upright_size(image)
        boxes = tuple(_box(record, f"line {number}", names_of, sides) for number, record in numbered)
        labelled.append(Labelled(image, boxes, path, None, split or folder_split(images.source, image)))
    return labelled


def _box(record: Mapping[str, str], identity: str, names_of: Mapping[str, str], sides: tuple[int, int] | None) -> Box:
    label = record.get(LABEL, "")
    label = names_of.get(label, label)
    if RAGGED in record:
        return damaged(record[RAGGED], label, identity)
    if not label:
        return damaged(f"no {LABEL}", id=identity)
    ignore = GROUP if record.get("IsGroupOf") == "1" else NEGATIVE if _is_zero(record.get("Confidence")) else ""
    try:
        xmin, ymin, xmax, ymax = numbers({name: record.get(name) for name in CORNERS})
    except ValueError as error:
        return damaged(str(error), label, identity, ignore)
    if sides is None:
        return damaged("image cannot be read", label, identity, ignore)
    width, height = sides
    return Box(label, xmin * width, ymin * height, xmax * width, ymax * height, identity, ignore)


def _is_zero(text: str | None) -> bool:
    try:
        return numbers({"": text}) == [0.0]
    except ValueError:
        return False

"""Open Images: CSV, one box per row, relative to the image size; `ImageID.jpg` may be anywhere in the source.

Class names come from the class descriptions (`/m/01g317,Person`) if the source has them; otherwise labels stay as they
are. File or folder names give the splits: `train-annotations-bbox.csv`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.boxes import Box, Labelled
from pipeline.errors import DataError
from pipeline.formats.matching import Wanted, find, has_image_suffix
from pipeline.formats.source import NoBox, Source, damaged, source_of, with_the_rest
from pipeline.formats.splits import folder_split
from pipeline.formats.text import RAGGED, columns, numbers, read_text, records, rows, show, upright_size
from pipeline.formats.tree import Tree

IMAGE, LABEL = "ImageID", "LabelName"
CORNERS = ("XMin", "YMin", "XMax", "YMax")
GROUP = NoBox("IsGroupOf: one box around many objects")
NEGATIVE = "Confidence 0: people verified that the image does not show it"
MACHINE_IDS = ("/m/", "/g/")
Rows = list[tuple[int, dict[str, str]]]  # each with its line number


def holds_boxes(names: list[str]) -> bool:
    """Return whether these columns are those of Open Images' boxes; its lists of image labels have no corners."""
    return IMAGE in names and LABEL in names and any(name in names for name in CORNERS)


def recognises(tree: Tree) -> bool:
    return any(holds_boxes(columns(text)[0]) for text in tree.heads({".csv"}))


def read(folder: Path) -> Source:
    tree = Tree(folder)
    texts = {path: read_text(path) for path in tree.files({".csv"})}
    names_of = _class_names(tree, texts)
    rows_of: list[tuple[Wanted, Rows]] = []
    for path, text in texts.items():
        names = columns(text)[0]
        if holds_boxes(names):
            rows_of += _read_file(path, text, tree)
        if IMAGE in names and LABEL in names:  # without corners they are labels of whole images
            tree.taken.add(path)
    labelled = []
    for (wanted, numbered), image in zip(rows_of, find(tree, [wanted for wanted, _ in rows_of]), strict=True):
        sides = upright_size(image)
        boxes = tuple(_box(record, f"line {number}", names_of, sides) for number, record in numbered)
        split = wanted.split or folder_split(folder, image)
        labelled.append(Labelled(image, boxes, wanted.named_by, None, split))
    return source_of(tree, with_the_rest(tree, labelled), None)


def _class_names(tree: Tree, texts: Mapping[Path, str]) -> dict[str, str]:
    """Return class names by machine id, from every table of two columns whose first one has machine ids."""
    names: dict[str, str] = {}
    for path, text in texts.items():
        if len(columns(text)[0]) != 2:
            continue
        for number, row in rows(path, text, ","):
            identity, name = row[0].strip(), row[1].strip() if len(row) == 2 else ""
            if identity.startswith(MACHINE_IDS):
                tree.taken.add(path)
            if identity.startswith(MACHINE_IDS) and (not name or names.setdefault(identity, name) != name):
                raise DataError(f"{path}: line {number}: {show(identity)} has no name or two names; give it one")
    return names


def _read_file(path: Path, text: str, tree: Tree) -> list[tuple[Wanted, Rows]]:
    names, delimiter = columns(text)
    if missing := [name for name in CORNERS if name not in names]:
        needed = ", ".join((IMAGE, LABEL, *CORNERS))
        raise DataError(f"{path}: column {missing[0]} is missing; add it (needed: {needed})")
    rows_of: dict[str, Rows] = {}
    for number, record in records(path, text, names, delimiter):
        if not record[IMAGE]:
            raise DataError(f"{path}: line {number}: no {IMAGE}; give its name")
        rows_of.setdefault(record[IMAGE], []).append((number, record))
    split, homes = tree.split_by(path), tree.homes(path)
    named = ((name if has_image_suffix(name) else f"{name}.jpg", numbered) for name, numbered in rows_of.items())
    return [(Wanted(name, homes, split, path), numbered) for name, numbered in named]


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

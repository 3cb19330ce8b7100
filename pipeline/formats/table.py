"""Plain CSV: a row a box, `filename,width,height,class,xmin,ymin,xmax,ymax` in any order, by their usual names.

Corners are in pixels. A row without class and corners is an image that shows nothing. Commas, semicolons or
tabs; beside semicolons and tabs a number may have a decimal comma. A column, file or folder names give the splits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.boxes import Box
from pipeline.errors import DataError
from pipeline.formats import openimages
from pipeline.formats.matching import Described, Wanted, complete, has_image_suffix
from pipeline.formats.source import Source, damaged
from pipeline.formats.splits import folder_split, split_of
from pipeline.formats.text import RAGGED, columns, numbers, read_text, records, show, size
from pipeline.formats.tree import Tree, tree_of

# Without case, spaces and underscores.
SYNONYMS = {
    "filename": ("filename", "file", "image", "imagename", "imagepath", "imageid", "filepath", "path", "img"),
    "class": ("class", "classname", "label", "labelname", "category", "categoryname"),
    "xmin": ("xmin", "x1", "left", "xtl"),
    "ymin": ("ymin", "y1", "top", "ytl"),
    "xmax": ("xmax", "x2", "right", "xbr"),
    "ymax": ("ymax", "y2", "bottom", "ybr"),
    "width": ("width", "imagewidth", "imgwidth"),
    "height": ("height", "imageheight", "imgheight"),
    "split": ("split", "subset"),
}  # fmt: skip
CORNERS = ("xmin", "ymin", "xmax", "ymax")
NEEDED = ("filename", "class", *CORNERS)


def recognises(folder: Path | Tree) -> bool:
    return any(_meant(columns(text)[0]) for text in tree_of(folder).heads({".csv", ".tsv"}))


def read(folder: Path) -> Source:
    tree = Tree(folder)
    described: list[Described] = []
    for path in tree.files({".csv", ".tsv"}):
        text = read_text(path)
        names, delimiter = columns(text)
        if _meant(names):
            described += _read_file(path, text, names, delimiter, tree)
            tree.taken.add(path)
    return complete(tree, described)


def _meant(names: list[str]) -> bool:
    """Whether a table is meant as one of boxes, even if a column is missing; Open Images' is another format's."""
    found = _known(names)
    return "filename" in found and any(corner in found for corner in CORNERS) and not openimages.holds_boxes(names)


def _known(names: list[str]) -> dict[str, str]:
    """The name in this file of each column that we know, by its name here."""
    plain = {name.lower().replace("_", "").replace(" ", ""): name for name in names}
    return {
        column: plain[next(word for word in words if word in plain)]
        for column, words in SYNONYMS.items()
        if any(word in plain for word in words)
    }


def _read_file(path: Path, text: str, names: list[str], delimiter: str, tree: Tree) -> list[Described]:
    known = _known(names)
    if missing := [column for column in NEEDED if column not in known]:
        raise DataError(f"{path}: no column for {' and '.join(missing)}; it needs {', '.join(NEEDED)}")
    found: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for number, record in records(path, text, names, delimiter):
        values = {column: record[name] for column, name in known.items()}
        if not values["filename"]:
            raise DataError(f"{path}: line {number}: no image; name its file")
        if RAGGED in record:
            values[RAGGED] = record[RAGGED]
        found.setdefault(values["filename"], []).append((number, values))
    return [_image(name, numbered, path, delimiter, tree) for name, numbered in found.items()]


def _image(name: str, numbered: list[tuple[int, dict[str, str]]], path: Path, delimiter: str, tree: Tree) -> Described:
    splits = {split_of(values.get("split", "")) for _, values in numbered}
    sizes = {size(values.get("width"), values.get("height")) for _, values in numbered}
    if len(splits) > 1 or len(sizes - {None}) > 1:
        raise DataError(f"{path}: rows of {show(name)} differ in its split or size; make them the same")
    split = splits.pop() or split_of(path.stem) or folder_split(tree.folder, path)
    # A row of nothing but the name says that the image is background; beside others it is a row that lost its box.
    is_background = len(numbered) == 1 and _is_background(numbered[0][1])
    boxes = [] if is_background else [_box(values, f"line {number}", delimiter) for number, values in numbered]
    name = name if has_image_suffix(name) else f"{name}.jpg"
    return Described(Wanted(name, tree.homes(path), split, path), boxes, next(filter(None, sizes), None))


def _is_background(values: Mapping[str, str]) -> bool:
    return RAGGED not in values and not any(values[column] for column in ("class", *CORNERS))


def _box(values: Mapping[str, str], identity: str, delimiter: str) -> Box:
    label = values["class"]
    if RAGGED in values:
        return damaged(values[RAGGED], label, identity)
    if not label:
        return damaged("no class", id=identity)
    texts = {name: values[name] if delimiter == "," else values[name].replace(",", ".") for name in CORNERS}
    try:
        xmin, ymin, xmax, ymax = numbers(texts)
    except ValueError as error:
        return damaged(str(error), label, identity)
    return Box(label, xmin, ymin, xmax, ymax, identity)

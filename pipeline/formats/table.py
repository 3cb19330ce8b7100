"""Plain CSV, in pixels: one box per row, `filename,width,height,class,xmin,ymin,xmax,ymax` or synonyms, in any order.

`x,y,w,h`, or a column `bbox` with these four, may replace the corners. If no column can hold the class, every box gets
the class `object`. Without a header, the columns are as in keras-retinanet (`path,x1,y1,x2,y2,class`) or MakeSense
(`class,x,y,w,h,file,width,height`). A row without class and corners is a background image. The delimiter is a comma, a
semicolon or a tab; with the latter two, numbers may have a decimal comma. A column, file names or folder names give the
splits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.boxes import Box
from pipeline.errors import DataError
from pipeline.formats import openimages
from pipeline.formats.matching import Described, Wanted, complete, has_image_suffix
from pipeline.formats.shapes import corners
from pipeline.formats.source import Source, damaged
from pipeline.formats.splits import split_of
from pipeline.formats.text import RAGGED, columns, numbers, read_text, records, show, size
from pipeline.formats.tree import Tree

# Names are compared without case, spaces and underscores.
SYNONYMS = {
    "filename": ("filename", "file", "image", "imagename", "imagepath", "imageid", "filepath", "path", "img"),
    # Names before ids, which count only if there is nothing better.
    "class": (
        *("class", "classname", "label", "labelname", "category", "categoryname", "labels", "classes", "object"),
        *("objectclass", "type", "tag", "species", "name", "classid", "labelid", "categoryid"),
    ),
    "xmin": ("xmin", "x1", "left", "xtl"),
    "ymin": ("ymin", "y1", "top", "ytl"),
    "xmax": ("xmax", "x2", "right", "xbr"),
    "ymax": ("ymax", "y2", "bottom", "ybr"),
    "width": ("width", "imagewidth", "imgwidth"),
    "height": ("height", "imageheight", "imgheight"),
    "split": ("split", "subset", "set"),
}  # fmt: skip
CORNERS = ("xmin", "ymin", "xmax", "ymax")
NEEDED = ("filename", "class", *CORNERS)
# Synonyms for the columns of a box without corners; `width` alone may be the image's.
SIDES = {"x": ("x", "bboxx"), "y": ("y", "bboxy"), "w": ("w", "bboxwidth", "width"), "h": ("h", "bboxheight", "height")}
BBOX = ("bbox", "box", "boundingbox")
PLACES = ("bbox", *CORNERS, *SIDES)
NO_CLASS = "object"
# Columns that cannot hold a class, so that a table with no others shows objects of one class.
NO_CLASSES = {
    *(word for words in [*SYNONYMS.values(), *SIDES.values(), BBOX] for word in words),
    *("", "unnamed:0", "index", "id", "imgid", "boxid", "bboxid", "annotationid", "source", "url", "fold", "depth"),
    *("area", "confidence", "conf", "score", "iscrowd", "difficult", "occluded", "truncated"),
}
RETINANET = ("filename", *CORNERS, "class")
MAKE_SENSE = ("class", *SIDES, "filename", "width", "height")
CUT = "\n\n"  # no column has this name


class _Table(NamedTuple):
    """How to read a table. `known` maps our column names to those in the file; a header is its first line."""

    names: Sequence[str]
    known: Mapping[str, str]
    delimiter: str
    has_header: bool = True


def recognises(tree: Tree) -> bool:
    return any(_table(text) for text in tree.heads({".csv", ".tsv"}))


def read(folder: Path) -> Source:
    tree = Tree(folder)
    described: list[Described] = []
    for path in tree.files({".csv", ".tsv"}):
        text = read_text(path)
        if table := _table(text):
            described += _read_file(path, text, table, tree)
            tree.taken.add(path)
    return complete(tree, described)


def _table(text: str) -> _Table | None:
    """Return how to read a table of boxes, even if a column is missing; None for other tables and Open Images'."""
    names, delimiter = columns(text)
    known = _known(names)
    if "filename" in known and not openimages.holds_boxes(names):
        if any(corner in known for corner in CORNERS):
            return _Table(names, known, delimiter)
        plain = {_plain(name): name for name in names}
        sides = {side: next((plain[word] for word in words if word in plain), "") for side, words in SIDES.items()}
        bbox = next((plain[word] for word in BBOX if word in plain), "")
        if bbox:
            return _Table(names, {**known, "bbox": bbox}, delimiter)
        if all(sides.values()):
            size = {key: known[key] for key in ("width", "height") if known.get(key) not in (None, *sides.values())}
            others = {key: name for key, name in known.items() if key not in ("width", "height")}
            return _Table(names, {**others, **size, **sides}, delimiter)
    for order, file in ((RETINANET, 0), (MAKE_SENSE, 5)):
        if len(names) == len(order) and has_image_suffix(names[file]) and _are_numbers(names[1:5]):
            return _Table(order, {name: name for name in order}, delimiter, has_header=False)
    return None


def _are_numbers(words: Sequence[str]) -> bool:
    try:
        return len([float(word) for word in words if word]) in (0, len(words))
    except ValueError:
        return False


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace(" ", "")


def _known(names: Sequence[str]) -> dict[str, str]:
    """Return the names of the known columns in this file, by our names."""
    plain = {_plain(name): name for name in names}
    return {
        column: plain[next(word for word in words if word in plain)]
        for column, words in SYNONYMS.items()
        if any(word in plain for word in words)
    }


def _read_file(path: Path, text: str, table: _Table, tree: Tree) -> list[Described]:
    known = dict(table.known)
    needed = () if "bbox" in known or "x" in known else CORNERS
    if missing := [column for column in needed if column not in known]:
        one = len(missing) == 1
        words = f"column {missing[0]} is" if one else f"columns {' and '.join(missing)} are"
        raise DataError(f"{path}: {words} missing; add {'it' if one else 'them'} (needed: {', '.join(NEEDED)})")
    if "class" not in known:
        if unknown := [show(name) for name in table.names if _plain(name) not in NO_CLASSES]:
            raise DataError(
                f"{path}: no column is called class; rename the one that holds it ({', '.join(unknown[:5])}) to class, "
                "or add a column class with one name in every row"
            )
        name = path.relative_to(tree.folder).as_posix()
        tree.notes.append(f"{name}: no column for a class, so every box gets the class {NO_CLASS!r}")
    # A file cut off in the middle of a number ends without a line break.
    last = 0 if text.endswith(("\n", "\r")) else text.count("\n") + 1
    rows_of: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for number, record in records(path, text, table.names, table.delimiter, table.has_header):
        values = {column: record[name] for column, name in known.items()}
        if not values["filename"]:
            raise DataError(f"{path}: line {number}: no image; give its file name")
        values.setdefault("class", NO_CLASS if any(values.get(column) for column in PLACES) else "")
        if RAGGED in record:
            values[RAGGED] = record[RAGGED]
        if number == last:
            values[CUT] = "cut"
        rows_of.setdefault(values["filename"], []).append((number, values))
    return [_image(name, numbered, path, table.delimiter, tree) for name, numbered in rows_of.items()]


def _image(name: str, numbered: list[tuple[int, dict[str, str]]], path: Path, delimiter: str, tree: Tree) -> Described:
    splits = {split_of(values.get("split", "")) for _, values in numbered}
    sizes = {size(values.get("width"), values.get("height")) for _, values in numbered}
    if len(splits) > 1 or len(sizes - {None}) > 1:
        raise DataError(f"{path}: rows of {show(name)} differ in split or size; make them the same")
    split = splits.pop() or tree.split_by(path)
    # A single row with only a name is a background image; beside other rows, it is a row that lost its box.
    is_background = len(numbered) == 1 and _is_background(numbered[0][1])
    boxes = [] if is_background else [_box(values, f"line {number}", delimiter) for number, values in numbered]
    name = name if has_image_suffix(name) else f"{name}.jpg"
    return Described(Wanted(name, tree.homes(path), split, path), boxes, next(filter(None, sizes), None))


def _is_background(values: Mapping[str, str]) -> bool:
    return RAGGED not in values and not any(values.get(column) for column in ("class", *PLACES))


def _box(values: Mapping[str, str], identity: str, delimiter: str) -> Box:
    label = values["class"]
    if RAGGED in values:
        return damaged(values[RAGGED], label, identity)
    if not label:
        return damaged("no class", id=identity)
    try:
        xmin, ymin, xmax, ymax = _corners(values, delimiter)
    except ValueError as error:
        return damaged(str(error), label, identity)
    if CUT in values and (xmax < xmin or ymax < ymin):
        return damaged("corners are swapped in the last line, which seems to be cut off", label, identity)
    return Box(label, xmin, ymin, xmax, ymax, identity)


def _corners(values: Mapping[str, str], delimiter: str) -> Sequence[float]:
    """Return the corners of a row. Raises ValueError if a value is not a number or a bbox does not have four."""
    if "bbox" in values:
        words = values["bbox"].strip("[]() ").replace(",", " ").split()
        if len(words) != 4:
            raise ValueError(f"bbox {show(values['bbox'])} is not x, y, width, height")
        values = dict(zip(SIDES, words, strict=True))
    columns_of = tuple(SIDES) if "x" in values else CORNERS
    texts = {name: values[name] if delimiter == "," else values[name].replace(",", ".") for name in columns_of}
    sides = numbers(texts)
    if "x" in values:
        return corners(*sides)
    return sides

"""What a source that no reader recognises holds, and what comes closest: for the line that refuses it."""

from __future__ import annotations

from pathlib import Path

from pipeline.formats.text import columns, show
from pipeline.formats.tree import Tree
from pipeline.formats.yolo_data import looks_like_labels
from pipeline.walk import LABEL_SUFFIXES

PACKED = (".zip", ".tar", ".tar.gz", ".tgz", ".rar", ".7z")
OTHER_LABELS = (*LABEL_SUFFIXES, ".yaml", ".yml", ".parquet", ".tfrecord", ".h5", ".mat", ".data")


def in_words(tree: Tree) -> str:
    """Begins with a semicolon; empty where the source holds nothing that could be meant."""
    found = [*_packed(tree), *_without_names(tree), *_others(tree)]
    return f"; {found[0]}" if found else ""


def _packed(tree: Tree) -> list[str]:
    packed = tree.files(PACKED)
    return [f"{_some(tree, packed)} still packed: unpack it here"] if packed else []


def _without_names(tree: Tree) -> list[str]:
    labels = [path for path in tree.files({".txt"}) if looks_like_labels(tree.head(path))]
    if not labels:
        return []
    ids = {
        int(float(line.split()[0])) for path in labels for line in tree.head(path).splitlines() if _starts_with_id(line)
    }
    where = labels[0].relative_to(tree.folder).as_posix()
    text = "1 text file that looks" if len(labels) == 1 else f"{len(labels)} text files that look"
    names = "no class names" if not ids else f"no names for the classes 0 to {max(ids)}"
    return [
        f"there are {text} like YOLO labels, such as {where}, and {names}: write classes.txt in {tree.folder}, "
        "one name per line in the order of the ids, such as `cat`"
    ]


def _starts_with_id(line: str) -> bool:
    try:
        return 0 <= float(line.split()[0]) < 10_000
    except (IndexError, ValueError, OverflowError):
        return False


def _others(tree: Tree) -> list[str]:
    found = tree.files(OTHER_LABELS)
    images = tree.images()
    if not found:
        return (
            [f"there are {len(images)} images, such as {_name(tree, images[0])}, and no annotation file"]
            if images
            else []
        )
    said = [f"{_some(tree, found)} of no layout that we know"]
    if tables := [path for path in found if path.suffix.lower() in (".csv", ".tsv")]:
        first = show(", ".join(columns(tree.head(tables[0]))[0]))
        needed = "a line of column names: filename, class, xmin, ymin, xmax, ymax"
        said = [f"{_name(tree, tables[0])} begins with {first}, and needs {needed}"]
    return said


def _name(tree: Tree, path: Path) -> str:
    return path.relative_to(tree.folder).as_posix()


def _some(tree: Tree, paths: list[Path]) -> str:
    """`a.zip is`, or `a.zip and 2 more are`."""
    more = f" and {len(paths) - 1} more are" if len(paths) > 1 else " is"
    return f"{_name(tree, paths[0])}{more}"

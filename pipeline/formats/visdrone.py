"""VisDrone-DET: `annotations/STEM.txt`, a line an object, eight whole numbers with commas between them.

They are left, top, width, height, score, category, truncation and occlusion. Score 0 says that an object does not
count, and category 0 that it is a region to be ignored. From the toolkit of the VisDrone challenge.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.boxes import Box
from pipeline.formats.pairing import one_each
from pipeline.formats.shapes import corners
from pipeline.formats.source import Source, damaged, source_of
from pipeline.formats.text import numbers, read_text
from pipeline.formats.tree import Tree, tree_of

CLASSES = (
    *("pedestrian", "people", "bicycle", "car", "van", "truck"),
    *("tricycle", "awning-tricycle", "bus", "motor", "others"),
)
COLUMNS = ("left", "top", "width", "height", "score", "category", "truncation", "occlusion")
REGION = "category 0: a region to be ignored"
NOT_COUNTED = "score 0: an object that does not count"


def recognises(folder: Path | Tree) -> bool:
    tree = tree_of(folder)
    return any(_looks_like_labels(tree.head(text)) for text in tree.files({".txt"}))


def read(folder: Path) -> Source:
    tree = Tree(folder)
    texts = [text for text in tree.files({".txt"}) if _is_label(tree, text)]
    return source_of(tree, one_each(tree, texts, _boxes, _missing), None)


def _is_label(tree: Tree, text: Path) -> bool:
    return text.parent.name.lower() == "annotations" or _looks_like_labels(tree.head(text))


def _looks_like_labels(head: str) -> bool:
    first = next((line for line in head.splitlines() if line.strip()), "")
    words = _words(first)
    return len(words) == len(COLUMNS) and all(word.lstrip("-").isdecimal() for word in words)


def _missing(text: Path) -> Path:
    return text.parent.with_name("images") / f"{text.stem}.jpg"


def _boxes(text: Path) -> tuple[Box, ...]:
    lines = enumerate(read_text(text).splitlines(), start=1)
    return tuple(_box(line, f"line {number}") for number, line in lines if line.strip())


def _words(line: str) -> list[str]:
    return [word.strip() for word in line.strip().removesuffix(",").split(",")]  # some lines end in a comma


def _box(line: str, identity: str) -> Box:
    words = _words(line)
    if len(words) != len(COLUMNS):
        return damaged(f"{len(words)} columns; VisDrone-DET has eight", id=identity)
    try:
        left, top, width, height, score, category, *_ = numbers(dict(zip(COLUMNS, words, strict=True)))
        if score not in (0, 1):
            raise ValueError(f"score is {words[4]}, neither 0 nor 1")
        if category not in range(len(CLASSES) + 1):
            raise ValueError(f"category is {words[5]}, not one of 0 to {len(CLASSES)}")
        label = CLASSES[int(category) - 1] if category else ""
        ignore = REGION if not category else NOT_COUNTED if not score else ""
        return Box(label, *corners(left, top, width, height), identity, ignore)
    except ValueError as error:
        return damaged(str(error), id=identity)

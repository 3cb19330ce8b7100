"""VisDrone-DET: `annotations/STEM.txt`, one line per object, eight integers separated by commas.

They are left, top, width, height, score, category, truncation and occlusion. An object with score 0 does not count, and
category 0 marks a region to ignore. Source: the toolkit of the VisDrone challenge.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.boxes import Box
from pipeline.errors import counted
from pipeline.formats.pairing import read_one_each
from pipeline.formats.shapes import corners
from pipeline.formats.source import Source, damaged
from pipeline.formats.text import is_about, numbered_lines, numbers
from pipeline.formats.tree import Tree

CLASSES = (
    *("pedestrian", "people", "bicycle", "car", "van", "truck"),
    *("tricycle", "awning-tricycle", "bus", "motor", "others"),
)
COLUMNS = ("left", "top", "width", "height", "score", "category", "truncation", "occlusion")
REGION = "category 0: a region to be ignored"
NOT_COUNTED = "score 0: an object that does not count"


def recognises(tree: Tree) -> bool:
    return any(_looks_like_labels(tree.head(text)) for text in tree.files({".txt"}))


def read(folder: Path) -> Source:
    return read_one_each(folder, _is_label, _boxes, suffix=".jpg")


def _is_label(tree: Tree, text: Path) -> bool:
    is_there = text.parent.name.lower() == "annotations" and not is_about(text)
    return is_there or _looks_like_labels(tree.head(text))


def _looks_like_labels(head: str) -> bool:
    first = next((line for line in head.splitlines() if line.strip()), "")
    words = _words(first)
    return len(words) == len(COLUMNS) and all(word.lstrip("-").isdecimal() for word in words)


def _boxes(text: Path) -> tuple[Box, ...]:
    return tuple(_box(line, f"line {number}") for number, line in numbered_lines(text))


def _words(line: str) -> list[str]:
    return [word.strip() for word in line.strip().removesuffix(",").split(",")]  # some lines end in a comma


def _box(line: str, identity: str) -> Box:
    words = _words(line)
    if len(words) != len(COLUMNS):
        return damaged(f"{counted(len(words), 'column')}; VisDrone-DET has eight", id=identity)
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

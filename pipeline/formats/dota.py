"""DOTA: `labelTxt/STEM.txt`, one line per object: four corners x y, the class, and whether it is difficult.

Header lines such as `imagesource:` and `gsd:` come first. Source: captain-whu.github.io/DOTA.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.boxes import Box
from pipeline.errors import counted
from pipeline.formats.pairing import read_one_each
from pipeline.formats.shapes import around_points
from pipeline.formats.source import Source, damaged
from pipeline.formats.text import is_about, numbered_lines, numbers
from pipeline.formats.tree import Tree

HEADS = ("imagesource", "gsd", "acquisition dates")
CORNERS = ("x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4")


def recognises(tree: Tree) -> bool:
    return any(_looks_like_labels(tree.head(text)) for text in tree.files({".txt"}))


def read(folder: Path) -> Source:
    return read_one_each(folder, _is_label, _boxes, suffix=".png")


def _is_label(tree: Tree, text: Path) -> bool:
    is_there = text.parent.name.lower().startswith("labeltxt") and not is_about(text)
    return is_there or _looks_like_labels(tree.head(text))


def _looks_like_labels(head: str) -> bool:
    lines = [line for line in head.splitlines() if line.strip() and not _is_head(line)]
    return bool(lines) and len(lines[0].split()) in (9, 10) and not _box(lines[0], "").damage


def _is_head(line: str) -> bool:
    return line.partition(":")[0].strip().lower() in HEADS and ":" in line


def _boxes(text: Path) -> tuple[Box, ...]:
    return tuple(_box(line, f"line {number}") for number, line in numbered_lines(text) if not _is_head(line))


def _box(line: str, identity: str) -> Box:
    words = line.split()
    if len(words) not in (9, 10) or (len(words) == 10 and not words[9].lstrip("-").isdecimal()):
        return damaged(f"{counted(len(words), 'column')}; DOTA has eight numbers, a class and 0 or 1", id=identity)
    label = words[8]
    try:
        if _is_number(label):
            raise ValueError(f"class is {label}, a number")
        xmin, ymin, xmax, ymax = around_points(numbers(dict(zip(CORNERS, words[:8], strict=True))))
    except ValueError as error:
        return damaged(str(error), label, identity)
    return Box(label, xmin, ymin, xmax, ymax, identity)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

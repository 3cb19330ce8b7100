"""MOT: one folder of frames per video, `img1/000001.jpg`, and its boxes in `gt/gt.txt`, one line per box.

A line has frame, track, left, top, width, height, a flag that is 0 for objects that do not count, class and
visibility. MOT Challenge counts pixels from 1; CVAT and Datumaro count from 0, and name the classes in `gt/labels.txt`.
`det/` has unchecked detector output and is not read. Sources: motchallenge.net/instructions and Datumaro's code.
"""

from __future__ import annotations

import configparser
import posixpath
import re
from collections import defaultdict
from pathlib import Path

from pipeline.boxes import Box
from pipeline.errors import DataError, counted
from pipeline.formats.matching import Described, Wanted, complete
from pipeline.formats.shapes import corners
from pipeline.formats.source import Source, damaged
from pipeline.formats.splits import folder_split
from pipeline.formats.text import is_whole_number, numbered_lines, numbers, read_text, show
from pipeline.formats.tree import Tree
from pipeline.formats.yolo_data import read_names

# The classes of MOT16 to MOT20; older sets have -1.
CLASSES = (
    *("pedestrian", "person on vehicle", "car", "bicycle", "motorbike", "non motorized vehicle", "static person"),
    *("distractor", "occluder", "occluder on the ground", "occluder full", "reflection", "crowd"),
)
COLUMNS = ("frame", "track", "left", "top", "width", "height", "flag", "class", "visibility")
NOT_COUNTED = "flag 0: it does not count"
FRAMES = "img1"
LOOKED_INTO = 20  # lines, because the first may be damaged
_NUMBER = re.compile(r"\d+$")  # of a frame, at the end of its stem


def recognises(tree: Tree) -> bool:
    return any(any(map(_looks_like_box, tree.head(text).split("\n")[:LOOKED_INTO])) for text in _truths(tree))


def read(folder: Path) -> Source:
    tree = Tree(folder)
    tree.taken.update(text for text in tree.files({".txt"}) if text.parent.name == "det")
    frames: defaultdict[str, dict[int, str]] = defaultdict(dict)
    for image in tree.images():
        if number := _NUMBER.search(image.stem):
            frames[image.parent.relative_to(folder).as_posix()].setdefault(int(number[0]), image.name)
    described: list[Described] = []
    classes: dict[str, None] = {}
    for text in _truths(tree):
        tree.taken.add(text)
        names, first = _names(tree, text)
        classes.update(dict.fromkeys(names))
        described += _video(tree, text, frames, names, first)
    used = {box.label for item in described for box in item.boxes if not box.ignore}
    return complete(tree, described, [name for name in classes if name in used])


def _truths(tree: Tree) -> list[Path]:
    return [text for text in tree.files({".txt"}) if text.name == "gt.txt" and text.parent.name == "gt"]


def _looks_like_box(line: str) -> bool:
    words = line.split(",")
    return 7 <= len(words) <= 10 and all(word.strip().lstrip("-").replace(".", "", 1).isdecimal() for word in words)


def _names(tree: Tree, text: Path) -> tuple[tuple[str, ...], int]:
    """Return the class names, numbered from 1, and the number of the first pixel (0 or 1)."""
    labels_file = text.with_name("labels.txt")
    if labels_file not in tree.files({".txt"}):
        return CLASSES, 1
    tree.taken.add(labels_file)
    return read_names(labels_file), 0


def _video(
    tree: Tree, text: Path, frames: dict[str, dict[int, str]], names: tuple[str, ...], first: int
) -> list[Described]:
    home = posixpath.normpath(f"{text.parent.parent.relative_to(tree.folder).as_posix()}/{_frames(text)}")
    boxes: defaultdict[int, list[Box]] = defaultdict(list)
    for number, line in numbered_lines(text):
        words = line.strip().removesuffix(",").split(",")
        frame = words[0].strip()
        if not is_whole_number(frame):
            raise DataError(f"{text}: line {number}: {show(frame)} instead of a frame number; correct it")
        boxes[int(frame)].append(_box(words, names, first, f"line {number}"))
    split = folder_split(tree.folder, text)
    known = frames[home]
    return [
        Described(Wanted(known.get(frame, f"{frame:06}.jpg"), [home], split, text), frame_boxes)
        for frame, frame_boxes in boxes.items()
    ]


def _frames(text: Path) -> str:
    """Return the folder of the frames, from `seqinfo.ini` if there is one."""
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read_string(read_text(text.parent.with_name("seqinfo.ini")))
    except (FileNotFoundError, configparser.Error):
        return FRAMES
    return config.get("Sequence", "imDir", fallback=FRAMES)


def _box(words: list[str], names: tuple[str, ...], first: int, identity: str) -> Box:
    if not 7 <= len(words) <= 10:
        return damaged(f"{counted(len(words), 'column')}; MOT has nine", id=identity)
    try:
        _, _, left, top, width, height, flag, *rest = numbers(dict(zip(COLUMNS, words, strict=False)))
        number = rest[0] if rest else -1
        number = 1 if number == -1 and names is CLASSES else number
        if number not in range(1, len(names) + 1):
            raise ValueError(f"class is {number:g}, not one of 1 to {len(names)}")
        ignore = "" if flag else NOT_COUNTED
        return Box(names[int(number) - 1], *corners(left - first, top - first, width, height), identity, ignore)
    except ValueError as error:
        return damaged(str(error), id=identity)

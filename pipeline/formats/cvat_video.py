"""The frames of CVAT's videos: which numbers they have, and which of them exist as images.

A frame is named after its number in the video: with a step of 5, `frame_000000` and `frame_000005`. Its image is in
`images/` or, in the export of a project, in `images/SUBSET/`. Deleted frames have no image.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from xml.etree.ElementTree import Element

from pipeline.formats.outlines import Size
from pipeline.formats.text import is_whole_number, size
from pipeline.formats.tree import Tree

MOST_FRAMES = 1_000_000
FRAME = re.compile(r"frame_([0-9]{6,9})(\.\w+)?", re.IGNORECASE)
STEP = re.compile(r"step\s*=\s*([1-9][0-9]{0,5})\b")


class Video(NamedTuple):
    """The frames of a task or job, by its meta data. `last` is the last number that a shape may have."""

    subset: str
    numbers: range
    last: int
    size: Size | None


def videos(root: Element) -> list[Video]:
    """Return the video of the task or job, or those of the tasks of a project.

    In a project, the numbers of a task follow those of the task before it in the same subset.
    """
    tasks = root.findall("meta/project/tasks/task")
    used: Counter[str] = Counter()  # numbers by subset
    found = []
    for item in tasks or [*root.iterfind("meta/task"), *root.iterfind("meta/job")]:
        subset = item.findtext("subset", "").strip() if tasks else ""
        count, start, stop = (_number(item, name) for name in ("size", "start_frame", "stop_frame"))
        step = int(match[1]) if (match := STEP.search(item.findtext("frame_filter", ""))) else 1
        count = count or ((stop - start) // step + 1 if stop > start else 0)
        first = used[subset] + start
        numbers = range(first, first + step * count, step)
        last = max(numbers[-1], used[subset] + stop) if count else MOST_FRAMES - 1
        found.append(Video(subset, numbers, last, original_size(item if tasks else root)))
        used[subset] = numbers.stop
    return found


def original_size(item: Element) -> Size | None:
    sides = item.find(".//original_size")
    return None if sides is None else size(sides.findtext("width"), sides.findtext("height"))


def _number(item: Element, name: str) -> int:
    """Return the whole number in an element; 0 if it is missing, invalid or beyond MOST_FRAMES."""
    text = item.findtext(name, "")
    return int(text) if is_whole_number(text) and int(text) < MOST_FRAMES else 0


def pictures(tree: Tree) -> dict[str, set[int]]:
    """Return the numbers of the frames that exist as images, by folder, in lower case."""
    found: dict[str, set[int]] = defaultdict(set)
    for name in tree.names_of_images():
        folder, _, last = name.rpartition("/")
        if match := FRAME.fullmatch(last):
            found[folder.casefold() or "."].add(int(match[1]))
    return found


def existing(pictures: Mapping[str, set[int]], homes: Iterable[str], subset: str) -> set[int]:
    """Return the numbers of a video's images: in the folder of its subset, else in its homes, else anywhere."""
    plain = [home.casefold() for home in homes]
    of_subset = [posixpath.normpath(f"{home}/{subset.casefold()}") for home in plain]
    found = (pictures[home] for home in (*of_subset, *plain) if home in pictures)
    return next(found, None) or set().union(*pictures.values())

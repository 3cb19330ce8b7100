"""Every file below a folder, links followed: the listing of a source and all of its readers see the same.

A link is followed wherever it leads, to a file or to a folder, as people link large data sets and do not copy them.
Hidden files and folders are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

LABEL_SUFFIXES = (".csv", ".json", ".jsonl", ".ndjson", ".tsv", ".txt", ".xml")


class _Folder(NamedTuple):
    path: str  # relative to the start, as the user sees it: empty, or with a slash at its end
    left: tuple[Path, ...] = ()  # where the links on the way here lie, their own links resolved


def walk(folder: Path) -> Iterator[tuple[str, os.DirEntry[str] | None, str]]:
    """Yield (name, entry, problem) for each file, sorted by the parts of its path.

    Names are relative to `folder`, with forward slashes. Where a name leads to nothing that can be read, `entry` is
    None and `problem` says why and what to do; else `problem` is empty. Nothing on the disk makes this raise or go
    round in circles.
    """
    pending: list[tuple[_Folder, os.DirEntry[str]]] = []

    def enter(path: str, below: _Folder) -> str:
        try:
            with os.scandir(path) as entries:
                visible = [entry for entry in entries if entry.name[0] != "."]
        except (OSError, ValueError) as error:  # ValueError: a null byte in the start's own path
            return f"cannot be read ({getattr(error, 'strerror', error)}); make it readable, or remove it"
        if not visible and below.path.lower().rstrip("/").endswith(LABEL_SUFFIXES):
            return "is an empty folder in place of a file; restore the file, or remove the folder"
        visible.sort(key=attrgetter("name"), reverse=True)
        pending.extend([(below, entry) for entry in visible])
        return ""

    if problem := enter(str(folder), _Folder("")):
        yield ".", None, problem
    while pending:
        place, entry = pending.pop()
        name = place.path + entry.name
        try:
            if entry.is_file():
                yield name, entry, ""
                continue
            is_folder = entry.is_dir()
        except OSError:  # a link in a circle of links, or through a folder that cannot be read
            is_folder = False
        if is_folder:
            below = _below(place, entry)
            problem = enter(entry.path, below) if below else _leads_back(Path(entry.path))
        else:
            problem = broken_link(Path(entry.path)) or "is no file or folder that can be read; remove it"
        if problem:
            yield name, None, problem


def _below(place: _Folder, entry: os.DirEntry[str]) -> _Folder | None:
    """Return the folder that an entry is; None for a link to a folder that it lies in itself: that never ends."""
    path = f"{place.path}{entry.name}/"
    if not entry.is_symlink():
        return _Folder(path, place.left)
    link = Path(entry.path)
    left, target = (*place.left, link.parent.resolve()), link.resolve()
    return None if any(folder.is_relative_to(target) for folder in left) else _Folder(path, left)


def _leads_back(path: Path) -> str:
    return f"is a link to {str(path.readlink())!r}, a folder that the link itself lies in; remove the link"


def broken_link(path: Path) -> str:
    """Say what is wrong with a link that leads nowhere, and what to do; empty for anything else."""
    try:
        target = str(path.readlink())
    except OSError:  # no link
        return ""
    try:
        path.stat()
    except OSError:
        return f"is a link to {target!r}, where nothing can be read; restore that, or remove the link"
    return ""

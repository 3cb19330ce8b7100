"""List every file below a folder. The listing of a source and all its readers share this walk.

Links to files and folders are followed wherever they lead, because people link large datasets instead of copying
them. Hidden files and folders are skipped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

LONGEST_LINK = 4096  # bytes, on Linux
# Targets of links to a file and to a folder.
_FILE = re.compile(r"(\.\.?/)+[^<>{}]+$|/[^<>{}]+\.\w+$")
_FOLDER = re.compile(r"\.{0,2}/[^<>{}]+$")
_CONTROL = re.compile(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
LABEL_SUFFIXES = (".csv", ".json", ".jsonl", ".ndjson", ".tsv", ".txt", ".xml")


class _Folder(NamedTuple):
    path: str  # relative to the start, as the user sees it: empty, or ending in a slash
    left: tuple[Path, ...] = ()  # resolved parent folders of the links followed on the way here


def walk(folder: Path) -> Iterator[tuple[str, os.DirEntry[str] | None, str]]:
    """Yield (name, entry, problem) for each file, sorted by the parts of its path.

    Names are relative to `folder`, with forward slashes. For an unreadable file, `entry` is None and `problem` says why
    and what to do; otherwise `problem` is empty. Nothing on the disk makes this raise or loop.
    """
    pending: list[tuple[_Folder, os.DirEntry[str]]] = []

    def enter(path: str, below: _Folder) -> str:
        try:
            with os.scandir(path) as entries:
                visible = [entry for entry in entries if entry.name[0] != "."]
        except (OSError, ValueError) as error:  # ValueError: a null byte in `folder` itself
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
        except OSError:  # a circular link, or one through an unreadable folder
            is_folder = False
        if is_folder:
            below = _below(place, entry)
            problem = enter(entry.path, below) if below else _leads_back(Path(entry.path))
        else:
            problem = broken_link(Path(entry.path)) or "is not a readable file or folder; remove it"
        if problem:
            yield name, None, problem


def _below(place: _Folder, entry: os.DirEntry[str]) -> _Folder | None:
    """Return the folder of an entry; None for a link to a folder that contains the link, which would loop."""
    path = f"{place.path}{entry.name}/"
    if not entry.is_symlink():
        return _Folder(path, place.left)
    link = Path(entry.path)
    left, target = (*place.left, link.parent.resolve()), link.resolve()
    return None if any(folder.is_relative_to(target) for folder in left) else _Folder(path, left)


def _leads_back(path: Path) -> str:
    return f"is a link to {str(path.readlink())!r}, a folder that contains the link itself; remove the link"


def broken_link(path: Path) -> str:
    """Return what is wrong with a broken link and what to do; empty for anything else."""
    try:
        target = str(path.readlink())
    except OSError:  # not a link
        return ""
    try:
        path.stat()
    except OSError:
        return f"is a link to {target!r}, which cannot be read; restore that, or remove the link"
    return ""


def link_as_text(data: bytes, target: re.Pattern[str] = _FILE) -> str:
    """Describe content that is a link stored as text, as Git does on Windows; empty for any other content."""
    if len(data) > LONGEST_LINK:
        return ""
    text = data.decode("utf-8", errors="replace").strip()
    if not text.isprintable() or not target.match(text):
        return ""
    return f"a symbolic link to {text!r} that Git checked out as a text file"


@cache  # because most missing images share a folder
def folder_as_text(folder: Path) -> str:
    """Return what to do about a link to a folder that was stored as text: `folder` itself, or a file in it.

    Empty if there is no such file. Missing images may lie behind the link.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        files = [folder] if folder.is_file() else [path for path in sorted(folder.iterdir()) if not path.suffix]
        for path in files:
            small = path.is_file() and path.stat().st_size <= LONGEST_LINK
            if small and (link := link_as_text(path.read_bytes(), _FOLDER)):
                return f"{path.name} is {link}: put the folder there"
    except OSError:
        pass
    return ""


def is_text(name: str) -> bool:
    """Return whether a file name is one line of UTF-8, as the receipt and messages need it.

    A name with other bytes is not, nor is one with a lone surrogate from JSON.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return name.splitlines() in ([], [name]) and not holds_control(name)


def holds_control(name: str) -> bool:
    """Return whether a name holds control characters for a terminal, such as escape; line breaks do not count."""
    return bool(_CONTROL.search(name))

"""Resolve the paths in annotation files, and tell which paths are links to one file.

Links are followed wherever they lead, because the user put them there. Annotation files are not trusted: a path in one
that leaves the source is refused by its text, before any link is followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from pipeline.errors import DataError
from pipeline.walk import holds_control as holds_control
from pipeline.walk import is_text as is_text

LONGEST_NAME = 255  # bytes of one part of a path, on every file system in use


def inside(source: Path, name: str, relative_to: Path, named_by: Path) -> Path:
    """Return the path in the source that `name` means, as text: links are not resolved.

    `relative_to` is a folder in the source. An absolute `name` may begin with the path of the source as given or with
    its links resolved. Raises DataError for a path that leads elsewhere or is impossible.
    """
    shown = repr(name if len(name) <= 80 else f"{name[:80]}...")
    if not is_text(name) or "\0" in name or max(map(len, name.encode().split(b"/"))) > LONGEST_NAME:
        raise DataError(f"{named_by}: names an impossible path, {shown}; correct it")
    home = str(relative_to)[len(str(source)) + 1 :]
    for root in _names_of(source):
        path = os.path.normpath(os.path.join(root, home, name))
        if f"{path}{os.sep}".startswith(f"{root}{os.sep}"):
            return source / path[len(root) + 1 :]
    raise DataError(f"{named_by}: names {shown}, outside {source}; move the image into the source, or link it there")


@cache
def _names_of(source: Path) -> tuple[str, ...]:
    """Return the path of the source as the user gave it, and with its links resolved."""
    return os.path.normpath(source), os.path.realpath(source)


def is_one_file(paths: Iterable[Path]) -> bool:
    """Return whether all these paths are links to one file."""
    identities = set(map(identity, paths))
    return len(identities) == 1 and None not in identities


def identity(path: Path) -> tuple[int, int] | None:
    """Return what two paths share only if they are links to one file; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino

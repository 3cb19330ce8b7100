"""`results.jsonl`: one line for each trial that ended well. A study continues from this file alone."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import DataError

Line = dict[str, Any]


def read(path: Path) -> dict[str, Line]:
    """Return the lines by their `key`; of equal keys, the first.

    A last line without an end is that of a process killed while it wrote: that trial runs again. Raises DataError for
    any other line that is not one of ours.
    """
    if not path.is_file():
        return {}
    lines: dict[str, Line] = {}
    *whole, _ = path.read_bytes().split(b"\n")
    for number, text in enumerate(whole, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            lines.setdefault(line["key"], line)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: line {number} is damaged ({error!r}); delete it: its trial runs again") from None
    return lines


def append(path: Path, line: Mapping[str, Any]) -> bool:
    """Add a line and return True; False if a trial of its key is there already, from another process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):
        if line["key"] in read(path):
            return False
        _end_last_line(path)
        text = json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
        with path.open("ab") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    return True


def _end_last_line(path: Path) -> None:
    """Cut off a line without an end, which a killed process left."""
    if not path.is_file():
        return
    whole = path.read_bytes()
    if whole and not whole.endswith(b"\n"):
        with path.open("rb+") as file:
            file.truncate(whole.rfind(b"\n") + 1)


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold a lock that ends with the last process that inherited its file descriptor, which is yielded.

    So it outlives a killed parent for as long as a child still writes to the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)

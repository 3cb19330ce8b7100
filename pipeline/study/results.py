"""Read and write `results.jsonl`: one line for each successful trial. A study resumes from this file alone."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typing_extensions import NotRequired

from pipeline import logs
from pipeline.errors import DataError
from pipeline.records.base import Record
from pipeline.records.training import SourceWeights, Teacher


class About(Record):
    """What goes into a trial."""

    images: int
    boxes: dict[str, int]
    images_sha256: str
    judged_sha256: str
    list: int
    """Number of images in an epoch's list."""
    split_seed: int
    train: dict[str, Any]
    """The `train` section of the config, with its defaults."""


class Figures(Record):
    map50_95: float | None
    map50: float | None
    per_class: dict[str, float | None]
    test_images: int
    drawn: list[float | None]
    val_map50_95: float | None
    val: list[float]
    epochs: list[int]
    freeze: list[int]
    batch: int
    precision: list[str]
    train_seconds: float
    phase_seconds: list[float]
    epoch_seconds: NotRequired[list[float | None]]
    """Of each phase, without its first epoch; null for a phase of one epoch."""
    weights: SourceWeights
    teacher: Teacher | None
    versions: dict[str, str]
    machine: dict[str, str | int]
    """`node`, `cpu` and `threads`."""
    device: str


class Amount(Record):
    share: NotRequired[float]
    shots: NotRequired[float]


class Line(About, Figures, Amount):
    key: str
    row: str
    seed: int
    seconds: float


def read(path: Path) -> dict[str, Line]:
    """Return the lines by their `key`; the first one if a key appears twice.

    An invalid last line without a line end was left by a process that was killed while writing: that trial runs again.
    Raises DataError for any other invalid line.
    """
    if not path.is_file():
        return {}
    lines: dict[str, Line] = {}
    texts = path.read_bytes().split(b"\n")
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            lines.setdefault(line["key"], line)
        except (ValueError, KeyError, TypeError) as error:
            if number == len(texts):
                break
            raise DataError(
                f"{path}: line {number} is damaged ({error!r}); delete it, and make study writes it again"
            ) from None
    return lines


def append(path: Path, line: Line) -> bool:
    """Append a line and return True; False if there already is one with its key, from another process."""
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
    """End a last line without a line end: cut it off if a killed process left it half-written."""
    if not path.is_file():
        return
    whole = path.read_bytes()
    last = whole[whole.rfind(b"\n") + 1 :]
    if last.strip():
        with path.open("rb+") as file:
            try:
                json.loads(last)
                file.seek(0, os.SEEK_END)
                file.write(b"\n")
            except ValueError:
                file.truncate(len(whole) - len(last))


@contextmanager
def locked(path: Path, waiting: str = "") -> Iterator[int]:
    """Hold a lock and yield its file descriptor. The lock ends with the last process that inherited the descriptor.

    So it outlives a killed parent for as long as a child still writes to the folder. If another process holds the lock,
    the line `waiting` is shown.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                logs.say(waiting)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)

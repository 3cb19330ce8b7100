# SPDX-License-Identifier: AGPL-3.0-only
"""One line of JSON per image, written as soon as the image is finished, so that nothing found is lost."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from .base import Found, Trouble, say

SYNCED_EVERY = 1.0  # seconds: what a power cut takes at most


def as_json(name: str, frame: int | None, image: Any, found: Found, classes: list[str]) -> dict[str, Any]:
    """Boxes are x, y of the upper left corner, width, height, in pixels of the original image."""
    boxes = np.concatenate([found.corners[:, :2], found.corners[:, 2:] - found.corners[:, :2]], axis=1)
    return {
        "file": name,
        **({} if frame is None else {"frame": frame}),
        "height": image.shape[0],
        "width": image.shape[1],
        "objects": [
            {"class": classes[index], "score": round(float(score), 5), "bbox": [round(float(side), 2) for side in box]}
            for box, score, index in zip(boxes, found.scores, found.classes)
        ],
    }


class Lines:
    """The screen, or a file. Raises Trouble where a line cannot be written; those before it stay.

    A file is called FILE.partial until `finish`: what is there under its own name came to an end.
    """

    def __init__(self, path: Path | None) -> None:
        self.count, self.synced = 0, time.monotonic()
        self.partial: Path | None = None
        if path is None:
            if sys.stdout is None:
                raise Trouble("there is no screen to write on; name a file with --json")
            sys.stdout.flush()
            self.name, self.file = "standard output", getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
            self.utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
            return
        self.path, self.utf8 = Path(os.path.realpath(path)), True
        self.name = str(path)
        if self.path.is_dir():
            raise Trouble(f"{path}: a folder; name a file")
        try:
            if self.path.exists() and not self.path.is_file():  # a pipe or /dev/null
                self.file = self.path.open("wb", buffering=0)
            else:
                self.partial, self.file = _new_partial(self.path)
        except OSError as error:
            raise Trouble(f"{path}: {error.strerror}") from None

    def write(self, record: dict[str, Any]) -> None:
        """One line. Bytes of a name that are no UTF-8 are escaped in Python's way, for `os.fsencode` to read."""
        text = json.dumps(record, ensure_ascii=not self.utf8)
        try:
            data = text.encode()
        except UnicodeEncodeError:
            data = json.dumps(record).encode()
        self.put(data + b"\n")
        self.count += 1
        if self.partial and time.monotonic() - self.synced > SYNCED_EVERY:
            os.fsync(self.file.fileno())
            self.synced = time.monotonic()

    def put(self, data: bytes) -> None:
        """All of it or, in a file, none of it."""
        done = 0
        try:
            while done < len(data):
                written = self.file.write(data[done:])
                if written is None:  # a pipe that does not wait, and is full
                    time.sleep(0.01)
                done += written or 0
        except OSError as error:
            with contextlib.suppress(OSError, ValueError):
                now = os.fstat(self.file.fileno())
                if done and stat.S_ISREG(now.st_mode):
                    os.ftruncate(self.file.fileno(), now.st_size - done)
            held = f"; the {self.count} lines before are whole" if self.count else ""
            raise Trouble(f"{self.name}: {error.strerror}{held}") from None

    def finish(self, ended: bool) -> None:
        """Give the file its name. Of a run that did not end as it should, only where no earlier one has it."""
        if self.partial is None:
            return
        with contextlib.suppress(OSError):
            os.fsync(self.file.fileno())
        self.file.close()
        if not self.count:
            self.partial.unlink()
        elif ended or not self.path.exists():
            try:
                os.replace(self.partial, self.path)
            except OSError as error:
                raise Trouble(f"{self.partial}: holds what was found, but: {error.strerror}") from None
        else:
            say(f"{self.partial}: what was found until then; {self.name} is still that of an earlier run")


def _new_partial(path: Path) -> tuple[Path, Any]:
    """A file of this run alone: one that is there holds what a run found that was cut off, or still goes on."""
    number = 0
    while True:
        partial = path.with_name(f"{path.name}.partial{number or ''}")
        try:
            return partial, partial.open("xb", buffering=0)
        except FileExistsError:
            say(f"{partial}: of a run that was cut off, or still goes on; it stays as it is")
            number += 1

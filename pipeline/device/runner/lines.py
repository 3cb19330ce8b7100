# SPDX-License-Identifier: AGPL-3.0-only
"""Write one line of JSON per image as soon as the image is finished, so that no detection is lost."""

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

from .base import Detections, RunnerError, say

SYNCED_EVERY = 1.0  # seconds, the most that a power cut loses


def as_json(name: str, frame: int | None, image: Any, found: Detections, classes: list[str]) -> dict[str, Any]:
    """Return the record of an image. Boxes are [x, y, width, height] in its pixels, from the upper left corner."""
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
    """Lines on standard output or in a file. Raises RunnerError if a line cannot be written; earlier lines stay.

    A file is named FILE.partial until `finish`; every line in it is complete. `name` says where the lines are.
    """

    def __init__(self, path: Path | None) -> None:
        self.count, self.synced = 0, time.monotonic()
        self.partial: Path | None = None
        if path is None:
            if sys.stdout is None:
                raise RunnerError("there is no standard output; name a file with --json")
            sys.stdout.flush()
            self.name, self.file = "standard output", getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
            self.utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
            return
        self.path, self.utf8 = Path(os.path.realpath(path)), True
        self.name = str(path)
        if self.path.is_dir():
            raise RunnerError(f"{path}: a folder; name a file")
        try:
            if self.path.exists() and not self.path.is_file():  # a pipe or /dev/null
                self.file = self.path.open("wb", buffering=0)
            else:
                self.partial, self.file = _new_partial(self.path)
        except OSError as error:
            raise RunnerError(f"{path}: {error.strerror}") from None

    def write(self, record: dict[str, Any]) -> None:
        """Write a line. Bytes of a name that are not UTF-8 are escaped so that `os.fsencode` can restore them."""
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
        """Write all bytes or, to a file, none."""
        done = 0
        try:
            while done < len(data):
                written = self.file.write(data[done:])
                if written is None:  # a non-blocking pipe that is full
                    time.sleep(0.01)
                done += written or 0
        except OSError as error:
            with contextlib.suppress(OSError, ValueError):
                now = os.fstat(self.file.fileno())
                if done and stat.S_ISREG(now.st_mode):
                    os.ftruncate(self.file.fileno(), now.st_size - done)
            kept = f"; the {self.count} lines before are complete" if self.count else ""
            raise RunnerError(f"{self.name}: {error.strerror}{kept}") from None

    def finish(self, ended: bool) -> None:
        """Rename the file. A run that did not end normally does not replace the file of an earlier run."""
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
                raise RunnerError(f"{self.partial}: holds all lines, but cannot be renamed: {error.strerror}") from None
        else:
            say(f"{self.partial}: holds the results so far; {self.name} is still that of an earlier run")
            self.name = str(self.partial)


def _new_partial(path: Path) -> tuple[Path, Any]:
    """Create a new file. An existing one belongs to a run that was interrupted or is still running."""
    number = 0
    while True:
        partial = path.with_name(f"{path.name}.partial{number or ''}")
        try:
            return partial, partial.open("xb", buffering=0)
        except FileExistsError:
            say(f"{partial}: belongs to a run that was interrupted or is still running; it is kept")
            number += 1

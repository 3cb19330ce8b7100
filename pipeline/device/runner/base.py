# SPDX-License-Identifier: AGPL-3.0-only
"""What the other parts share: OpenCV where it is there, the one kind of error, and what was found."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from typing import Any

from .quota import quota

try:
    import cv2
except ImportError:  # images can be read without it, videos and cameras cannot
    cv2 = None  # type: ignore[assignment,unused-ignore]

__all__ = ["Found", "Trouble", "cores", "cv2", "in_a_line", "say"]


class Trouble(Exception):
    """One line for the person at the device."""


class Found:
    """What was found in one image: (n, 4) corners in its pixels, (n,) scores and (n,) class indices, best first."""

    def __init__(self, corners: Any, scores: Any, classes: Any) -> None:
        self.corners, self.scores, self.classes = corners, scores, classes

    def __len__(self) -> int:
        return len(self.scores)

    def only(self, keep: Any) -> Found:
        """The objects for which `keep`, a mask or indices, stands."""
        return Found(self.corners[keep], self.scores[keep], self.classes[keep])


def cores() -> list[int]:
    """The cores that this process may use: with a quota of 1.5 CPUs one, as two threads would wait."""
    own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return own[: max(1, math.floor(min(len(own), quota())))]


def in_a_line(error: BaseException) -> str:
    """What a library's error says, of which it may need many lines."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def say(text: str) -> None:
    """Tell the person a line. A name may hold a line break, and the terminal may be gone."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # AttributeError: there is no stderr at all
        sys.stderr.write(f"{shown}\n")
        sys.stderr.flush()

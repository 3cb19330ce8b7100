# SPDX-License-Identifier: AGPL-3.0-only
"""What the other parts share: OpenCV where it is there, the one kind of error, and what was found."""

from __future__ import annotations

import os
from typing import Any

try:
    import cv2
except ImportError:  # images can be read without it, videos and cameras cannot
    cv2 = None  # type: ignore[assignment,unused-ignore]

__all__ = ["Found", "Trouble", "cores", "cv2"]


class Trouble(Exception):
    """One line for the person at the device."""


class Found:
    """What was found in one image: (n, 4) corners in its pixels, (n,) scores and (n,) class indices, best first."""

    def __init__(self, corners: Any, scores: Any, classes: Any) -> None:
        self.corners, self.scores, self.classes = corners, scores, classes

    def __len__(self) -> int:
        return len(self.scores)


def cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))

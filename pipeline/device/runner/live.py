# SPDX-License-Identifier: AGPL-3.0-only
"""Follow a camera: hand out its newest frame, however long the model takes for each."""

from __future__ import annotations

import contextlib
from queue import Empty, Queue
from threading import Thread
from typing import Any


class Newest:
    """A camera that a thread reads all the time. It takes the place of OpenCV's capture.

    OpenCV would queue the frames, and a model slower than the camera would fall further and further behind.
    """

    def __init__(self, capture: Any) -> None:
        self.capture, self.wanted = capture, True
        self.number = 0  # of the last frame returned by `read`; of all frames at the end. Skipped ones count.
        self.newest: Queue[Any] = Queue(1)
        Thread(target=self._follow).start()

    def read(self) -> tuple[bool, Any]:
        """Wait for a frame that was not returned yet. Raises what OpenCV raised."""
        self.number, success, frame = self.newest.get()
        if isinstance(frame, Exception):
            raise frame
        return success, frame

    def get(self, fact: int) -> float:
        return float(self.capture.get(fact))

    def release(self) -> None:
        """End the thread after its next frame. OpenCV closes the camera with the last reference to it."""
        self.wanted = False

    def _follow(self) -> None:
        number, success = 0, True
        while success and self.wanted:
            try:
                success, frame = self.capture.read()
            except Exception as error:
                success, frame = False, error
            with contextlib.suppress(Empty):
                self.newest.get_nowait()  # nobody asked for it in time
            self.newest.put((number, success, frame))
            number += 1

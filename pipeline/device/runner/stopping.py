# SPDX-License-Identifier: AGPL-3.0-only
"""End a run between two images, never within a line, on Ctrl-C, `kill` or a closed terminal."""

from __future__ import annotations

import signal
from concurrent.futures import Future
from typing import Any

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


class Stop(BaseException):
    """The user ends the run. Not an Exception, so that no error handler catches it."""


class Signals:
    """Note the first signal in `caught`; raise Stop only while the program waits."""

    def __init__(self) -> None:
        self.caught, self._waiting = 0, False

    def listen(self) -> None:
        for number in (getattr(signal, name) for name in SIGNALS if hasattr(signal, name)):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._catch)

    def _catch(self, number: int, frame: Any) -> None:
        first, self.caught = not self.caught, self.caught or number
        if first and self._waiting:
            raise Stop

    def result_of(self, future: Future[Any]) -> Any:
        """Wait for a result. Raises Stop if a signal was caught, and whatever the future raises."""
        self._waiting = True
        try:
            if self.caught:
                raise Stop
            return future.result()
        finally:
            self._waiting = False

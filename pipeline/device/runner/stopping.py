# SPDX-License-Identifier: AGPL-3.0-only
"""Ctrl-C, `kill` and a closed terminal end a run between two images, and never within a line."""

from __future__ import annotations

import signal
from concurrent.futures import Future
from typing import Any

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


class Stop(BaseException):
    """The person wants it to end. No Exception, so that nobody takes it for damage."""


class Signals:
    """Notes the first signal in `caught`, and raises Stop where nothing is done but waiting."""

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
        """Wait for it, but not when the person wants it to end. Raises Stop, or what the future raises."""
        self._waiting = True
        try:
            if self.caught:
                raise Stop
            return future.result()
        finally:
            self._waiting = False

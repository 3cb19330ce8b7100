"""Tell a hang from a slow machine, for tests and for benchmarks/corrupt.py."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Hang(AssertionError):
    """Raised in the middle of work that takes too long. Not an OSError: readers turn those into refusals."""


@contextmanager
def no_hang(seconds: int) -> Iterator[None]:
    """Raise Hang if the block takes longer than `seconds`."""

    def stop(*_: object) -> None:
        raise Hang(f"still running after {seconds} s")

    earlier = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)

"""Decide what the screen shows and what goes to a log.

A stage shows its progress and one line. Libraries write far more, from Python, from C++ and from processes that they
start. All of it passes through file descriptors 1 and 2, where it is redirected to `runs/NAME/logs/STAGE.log`.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

from tqdm import tqdm


class Screen(NamedTuple):
    """The streams that the user sees: standard output and standard error."""

    out: TextIO
    err: TextIO


_screen: Screen | None = None  # None: nothing is redirected, and Python writes to the screen


def screen() -> Screen:
    """Return standard output and standard error as they were before `caught`."""
    return _screen or Screen(sys.stdout, sys.stderr)


def say(line: str) -> None:
    """Show a line to the user at once."""
    print(line, file=screen().out, flush=True)


def progress(
    items: Iterable[Any] | None = None, description: str = "", *, total: int | None = None, unit: str = "image"
) -> Any:
    """Return a tqdm bar that clears itself at the end. It shows nothing without a terminal or in its first second."""
    options: dict[str, Any] = {"leave": False, "delay": 1, "disable": None, "file": screen().err}
    return tqdm(items, description, total=total, unit=unit, **options)


@contextmanager
def caught(log: Path) -> Iterator[None]:
    """Redirect file descriptors 1 and 2 to `log`; `say` and `progress` still reach the screen.

    Processes started meanwhile write to the log too. The log is of the stage's last run, and exists only if anything
    was written. It never raises: without a run, or if the log cannot be written, the text is lost.
    """
    global _screen
    with ExitStack() as stack:
        file = stack.enter_context(_open(log))
        _flush()
        screens = [stack.enter_context(_duplicate(number)) for number in (1, 2)]
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError):  # a stream that a test replaced
                stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # in order with C++ output
        _screen = Screen(*screens)
        try:
            yield
        finally:
            _screen = None
            _flush()
            for number, stream in zip((1, 2), screens, strict=True):
                stream.flush()
                os.dup2(stream.fileno(), number)
            with suppress(OSError):
                _keep(file, log)


@contextmanager
def process() -> Iterator[None]:
    """Wrap the whole process: show crashes in C++, and silence what extension modules print at exit.

    They complain about their bookkeeping (nanobind: "leaked 3 types") after the last line of Python, when nothing can
    catch it. Tracebacks are still shown.
    """
    faulthandler.enable(os.dup(2))
    try:
        yield
    finally:
        _flush()
        sys.stdout, sys.stderr = _duplicate(1), _duplicate(2)
        silence()


def silence() -> None:
    """Discard everything written to file descriptors 1 and 2 from now on."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nothing, number)


def _duplicate(number: int) -> TextIO:
    return os.fdopen(os.dup(number), "w", encoding=sys.stdout.encoding or "utf-8", errors="backslashreplace")


def _open(log: Path) -> BinaryIO:
    """Open the log, or an unnamed file if there is no run yet, so that a stage that fails early leaves nothing."""
    with suppress(OSError):
        log.unlink(missing_ok=True)
        if log.parents[1].is_dir():
            log.parent.mkdir(exist_ok=True)
            return log.open("a+b", buffering=0)
    return tempfile.TemporaryFile("a+b", buffering=0)


def _keep(file: BinaryIO, log: Path) -> None:
    """Delete an empty log; copy the text of an unnamed file to the log if the run exists by now."""
    if os.fstat(file.fileno()).st_size == 0:
        log.unlink(missing_ok=True)
        log.parent.rmdir()  # fails if it holds a log of another stage
    elif not log.exists() and log.parents[1].is_dir():  # the stage created the run
        log.parent.mkdir(exist_ok=True)
        file.seek(0)
        with log.open("wb") as target:
            shutil.copyfileobj(file, target)


def _flush() -> None:
    """Flush the buffers of Python and C."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)

"""Work on many images with every core: results in the order of the items, a bar, bounded memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import forkserver
from threading import Thread
from typing import TypeVar

import cv2

from pipeline import logs
from pipeline.errors import PipelineError

Item = TypeVar("Item")
Result = TypeVar("Result")
# A process takes about a second to start and import; below this many items it would not pay.
WORTH_A_PROCESS = 64
CHUNK = 8  # items a process takes at a time: a dozen milliseconds each, so that passing them on costs nothing
AHEAD = 4  # chunks a process may be ahead, so that memory does not grow with the number of items


def cores() -> int:
    """Return the cores that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes(workers: int | None, items: int) -> int:
    """Return how many processes work on so many items where `workers` are asked for (None: one per core)."""
    return min(cores() if workers is None else workers, items // WORTH_A_PROCESS)


def no_effect(workers: int | None, items: int, things: str) -> str:
    """Return the end of a line that says that `--workers` was given in vain; empty where it was not."""
    if workers is None or workers < 2 or processes(workers, items) > 1:
        return ""
    return f"; --workers has no effect: fewer than {2 * WORTH_A_PROCESS} {things}"


def ordered(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | None, description: str
) -> Iterator[Result]:
    """Yield `function` of every item, in their order, by so many processes (None: one a core; 0 or 1: in this one).

    What the function raises is raised here. Function, items and results have to be picklable.
    """
    workers = processes(workers, len(items))
    bar = logs.progress(description=description, total=len(items))
    with bar:
        for result in map(function, items) if workers < 2 else _by_processes(function, items, workers):
            bar.update()
            yield result


def start(preload: Sequence[str] = ()) -> None:
    """Have these modules imported once for all processes, in the background; to be called before much else is done.

    Without it `ordered` starts its processes by itself, when it needs them.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return
    multiprocessing.set_forkserver_preload(list(preload))
    # The processes inherit that Ctrl-C is ignored: the one at the keyboard ends them, without their tracebacks.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)


def _by_processes(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    # Not `fork`: by now there may be threads, of which a fork would copy the locks but not the holders.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context(method), initializer=_begin)
    chunks = (items[first : first + CHUNK] for first in range(0, len(items), CHUNK))
    waiting: deque[Future[list[Result]]] = deque()
    try:
        for chunk in islice(chunks, workers * AHEAD):
            waiting.append(pool.submit(_all, function, chunk))
        while waiting:
            yield from waiting.popleft().result()
            for chunk in islice(chunks, 1):
                waiting.append(pool.submit(_all, function, chunk))
    except BrokenProcessPool:
        raise PipelineError("a process was killed, for want of memory? try `--workers 1`") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """In each process, before its first item."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)  # there is a process for every core
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Killed, the parent cannot tell; its processes would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _all(function: Callable[[Item], Result], chunk: Sequence[Item]) -> list[Result]:
    return [function(item) for item in chunk]

"""Process many images on all cores, with ordered results, a progress bar and bounded memory."""

from __future__ import annotations

import math
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
from pipeline.device.runner.quota import quota
from pipeline.errors import PipelineError

Item = TypeVar("Item")
Result = TypeVar("Result")
# A worker process takes about a second to start and import, which pays off only from this many items per worker.
WORTH_A_PROCESS = 64
FEWEST_ITEMS = 2 * WORTH_A_PROCESS  # for which worker processes start
CHUNK = 8  # items per task; an item takes about a dozen milliseconds, so the cost of passing it is negligible
AHEAD = 4  # tasks queued per worker, so that memory does not grow with the number of items


def cores() -> int:
    """Return how many cores this process may use; in a container, they may be fewer than the machine has."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Rounded down: two threads on one and a half cores would wait for each other.
    return max(1, math.floor(min(allowed, quota())))


def half_of_the_cores() -> int:
    """Return the threads for a runtime: with all cores they would busy-wait and become slow beside other processes."""
    return max(1, cores() // 2)


def processes(workers: int | None, items: int, each: int = 1) -> int:
    """Return the number of worker processes for `items` when `workers` are requested (None: one per core).

    `each` is the cost of an item, in ordinary images.
    """
    return min(cores() if workers is None else workers, items * each // WORTH_A_PROCESS)


def no_effect(workers: int | None, used: int, why: str) -> str:
    """Return the end of a line that says why `--workers` had no effect; empty if it had one or was not set."""
    return f"; --workers has no effect: {why}" if workers and workers > 1 >= used else ""


def ordered(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | None, description: str, each: int = 1
) -> Iterator[Result]:
    """Yield `function(item)` in order, using `workers` processes (None: one per core; 0 or 1: in-process).

    Exceptions of `function` are raised here. Function, items and results must be picklable. `each` is the
    cost of an item, in ordinary images.
    """
    workers = processes(workers, len(items), each)
    chunk = max(1, CHUNK // each)
    bar = logs.progress(description=description, total=len(items))
    with bar:
        for result in map(function, items) if workers < 2 else _by_processes(function, items, workers, chunk):
            bar.update()
            yield result


def start(preload: Sequence[str] = ()) -> None:
    """Import these modules once for all worker processes, in the background. Call it early.

    Without it, each worker process of `ordered` imports them itself.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return
    multiprocessing.set_forkserver_preload(list(preload))
    # Workers inherit this and ignore Ctrl-C: the main process stops them, without their tracebacks.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)


def _by_processes(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, size: int
) -> Iterator[Result]:
    # Not `fork`: by now there may be threads, and a fork copies their locks but not the threads that hold them.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context(method), initializer=_begin)
    chunks = (items[first : first + size] for first in range(0, len(items), size))
    waiting: deque[Future[list[Result]]] = deque()
    try:
        for chunk in islice(chunks, workers * AHEAD):
            waiting.append(pool.submit(_all, function, chunk))
        while waiting:
            yield from waiting.popleft().result()
            for chunk in islice(chunks, 1):
                waiting.append(pool.submit(_all, function, chunk))
    except BrokenProcessPool:
        raise PipelineError(
            "a worker process was killed, probably because memory ran out; run again with WORKERS=1"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Prepare a worker process before its first item."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)  # one process per core already uses them all
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit when the parent dies: a killed parent cannot stop its workers, which would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _all(function: Callable[[Item], Result], chunk: Sequence[Item]) -> list[Result]:
    return [function(item) for item in chunk]

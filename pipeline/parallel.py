"""Work on many images with every core: results in the order of the items, a bar, bounded memory."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")
# A process takes about a second to start and import; below this many items it would not pay.
WORTH_A_PROCESS = 64
CHUNK = 8  # items a process takes at a time: a dozen milliseconds each, so that passing them on costs nothing
AHEAD = 4  # chunks a process may be ahead, so that memory does not grow with the number of items


def cores() -> int:
    """The cores that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int | None, description: str
) -> Iterator[Result]:
    """`function` of every item, in their order, by so many processes (None: one a core; 0 or 1: in this one).

    What the function raises is raised here. Function, items and results have to be picklable.
    """
    workers = cores() if workers is None else workers
    workers = min(workers, len(items) // WORTH_A_PROCESS)
    bar = tqdm(total=len(items), desc=description, unit="image", leave=False, delay=1, disable=None)
    with bar:
        for result in map(function, items) if workers < 2 else _by_processes(function, items, workers):
            bar.update()
            yield result


def _by_processes(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    # Not `fork`: by now there may be threads, of which a fork would copy the locks but not the holders.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context(method))
    chunks = (items[first : first + CHUNK] for first in range(0, len(items), CHUNK))
    waiting: deque[Future[list[Result]]] = deque()
    try:
        for chunk in islice(chunks, workers * AHEAD):
            waiting.append(pool.submit(_all, function, chunk))
        while waiting:
            yield from waiting.popleft().result()
            for chunk in islice(chunks, 1):
                waiting.append(pool.submit(_all, function, chunk))
    finally:
        pool.shutdown(cancel_futures=True)


def _all(function: Callable[[Item], Result], chunk: Sequence[Item]) -> list[Result]:
    return [function(item) for item in chunk]

"""Run trials on this machine, several at a time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from queue import SimpleQueue

from pipeline import parallel
from pipeline.errors import FULL_DISK_NUMBERS, PipelineError, in_a_line
from pipeline.study import folders, trials
from pipeline.study.planning import Place
from pipeline.study.results import Line
from pipeline.study.trials import Trial


def run(waiting: Sequence[Trial], place: Place, jobs: int, device: str) -> Iterator[tuple[Trial, Line | PipelineError]]:
    """Run trials, `jobs` at a time, and yield each with its line, or its error, as it ends.

    Several jobs have one core each, because a trial takes less than twice as long on one core as on two. A study that
    is stopped stops its trials; they resume when it is started again.
    """
    folders.STOPPING.clear()
    free: SimpleQueue[int | None] = SimpleQueue()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(parallel.cores()))
    for number in range(jobs):
        free.put(cores[number % len(cores)] if jobs > 1 else None)

    def one(trial: Trial) -> Line | PipelineError:
        core = free.get()
        try:
            return trials.perform(trial, place.project, place.study, device, core)
        except PipelineError as error:
            return error
        except OSError as error:  # for example a folder that another machine still uses
            if error.errno in FULL_DISK_NUMBERS:
                raise
            return PipelineError(in_a_line(error))
        finally:
            free.put(core)

    with ThreadPoolExecutor(jobs) as pool, ended_by_sigterm():
        running: dict[Future[Line | PipelineError], Trial] = {}
        left = list(reversed(waiting))
        try:
            while running or left:
                while left and len(running) < jobs:
                    trial = left.pop()
                    running[pool.submit(one, trial)] = trial
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BaseException:
            folders.stop()
            raise


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end this process as Ctrl-C does, so that its trials end with it."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # Python handles signals only there
        yield
        return
    earlier = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)

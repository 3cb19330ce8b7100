"""Notice a step that takes ten times the usual, and say why it may."""

from __future__ import annotations

import resource
import statistics
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TIMES = 10  # the usual
LEAST = 2.0  # seconds; shorter ones cost too little to be worth a line
KNOWN = 10  # steps from which there is a usual
WINDOW = 100  # steps that define it
FAULTS = 100  # pages read back from the disk per second; a training that fits into memory reads none
QUEUED = 1 / 3  # of the time ready to run, but without a core; alone on its cores a training sees 0.02
COMPUTING = 1 / 3  # cores in use on average; with fewer, the step waited for something else


@dataclass(frozen=True, slots=True)
class Usage:
    """What this process has used since its start.

    `clock` is the time, `cpu` the seconds on all cores, `queued` those that the main thread was ready without getting
    a core (0 where the system does not count them), `faults` the pages read from the disk.
    """

    clock: float
    cpu: float
    queued: float
    faults: int

    @classmethod
    def now(cls) -> Usage:
        used, queued = resource.getrusage(resource.RUSAGE_SELF), 0.0
        with suppress(OSError, ValueError, IndexError):
            # Linux, Documentation/scheduler/sched-stats.rst: nanoseconds on a core, nanoseconds in the queue, runs.
            queued = int(Path("/proc/thread-self/schedstat").read_text(encoding="utf-8").split()[1]) / 1e9
        return cls(time.monotonic(), used.ru_utime + used.ru_stime, queued, used.ru_majflt)


class SlowSteps:
    """The seconds of the latest steps, the usage at the end of the last one, and whether this epoch has a line."""

    def __init__(self) -> None:
        self.seconds: deque[float] = deque(maxlen=WINDOW)
        self.last: Usage | None = None
        self.reported = False

    def begin(self) -> None:
        """Begin an epoch: the time since the last step is not that of a step."""
        self.last, self.reported = None, False

    def step(self, now: Usage) -> str:
        """Return a line for the first step of an epoch that takes ten times the usual; otherwise an empty string.

        The line says how long the step took, and the likely reason.
        """
        before, self.last = self.last, now
        if before is None:
            return ""
        took, line = now.clock - before.clock, ""
        if len(self.seconds) >= KNOWN and not self.reported:
            usual = statistics.median(self.seconds)
            if took >= max(TIMES * usual, LEAST):
                self.reported = True
                line = f"a step took {took:.0f} s, usually {usual:.2g} s: {_reason(before, now)}"
        self.seconds.append(took)
        return line


def _reason(before: Usage, now: Usage) -> str:
    seconds = now.clock - before.clock
    if now.faults - before.faults >= FAULTS * seconds:
        return "memory is short, and pages are read back from the disk; close other programs, or lower train.batch"
    if now.queued - before.queued >= QUEUED * seconds:
        return "other processes use the same cores, or the container's CPU quota is used up"
    if now.cpu - before.cpu < COMPUTING * seconds:
        return "it waited, for the disk or a network folder, or because it was stopped"
    return "it computed all the time, so the machine is slower now: heat, power saving, or other virtual machines"

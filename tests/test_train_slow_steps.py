"""A step that takes ten times the usual has a line that says why it may."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Trained, train_tiny

from pipeline.run import Run
from pipeline.train import slow_steps
from pipeline.train.slow_steps import SlowSteps, Usage

USUAL = 0.25  # seconds


def after(steps: SlowSteps, seconds: float, cpu: float = 0.0, queued: float = 0.0, faults: int = 0) -> str:
    """Let one step pass, of so many seconds; return the line."""
    last = steps.last or Usage(100.0, 50.0, 3.0, 7)
    steps.last = last
    return steps.step(Usage(last.clock + seconds, last.cpu + cpu, last.queued + queued, last.faults + faults))


@pytest.fixture
def steps() -> SlowSteps:
    steps = SlowSteps()
    for number in range(slow_steps.KNOWN + 5):
        assert not after(steps, USUAL * (1.3 if number % 3 else 0.7), cpu=0.4)
    return steps


@pytest.mark.parametrize(
    ("cpu", "queued", "faults", "reason"),
    [
        (0.4, 0.0, 40_000, "memory is short"),
        (3.0, 25.0, 40_000, "memory is short"),
        (5.0, 25.0, 0, "other processes use the same cores"),
        (0.5, 0.1, 3, "it waited, for the disk"),
        (58.0, 0.4, 0, "it computed all the time"),
    ],
)
def test_the_reason_follows_from_what_the_step_used(
    steps: SlowSteps, cpu: float, queued: float, faults: int, reason: str
) -> None:
    line = after(steps, 30.0, cpu, queued, faults)
    assert line.startswith("a step took 30 s, usually 0.") and reason in line and "\n" not in line


def test_only_ten_times_the_usual_counts(steps: SlowSteps) -> None:
    assert not after(steps, 9 * USUAL)
    assert after(steps, 14 * USUAL)
    fast = SlowSteps()
    assert not any(after(fast, 0.01) for _ in range(50)) and not after(fast, 1.5)  # nobody misses 1.5 s


def test_time_between_epochs_is_no_step(steps: SlowSteps) -> None:
    before = steps.last
    steps.begin()
    assert before and not steps.step(Usage(before.clock + 60, before.cpu, before.queued, before.faults))


def test_the_first_steps_have_no_usual() -> None:
    steps = SlowSteps()
    assert not any(after(steps, seconds) for seconds in (0.2, 30.0, 0.2))


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").is_file(), reason="no /proc/thread-self/schedstat here")
def test_other_processes_on_the_same_core_are_noticed() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})  # processes started now inherit it
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        before = now = Usage.now()
        while now.cpu < before.cpu + 1:
            now = Usage.now()
    finally:
        for other in others:
            other.kill()
            other.wait()
        os.sched_setaffinity(0, allowed)
    assert "other processes use the same cores" in slow_steps._reason(before, now)


def test_a_training_prints_the_line_once_per_epoch(
    trained: Trained,
    copy_of: Callable[[Run], Run],
    start: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(slow_steps, "TIMES", 0.0)  # now each step is slow
    monkeypatch.setattr(slow_steps, "LEAST", 0.0)
    monkeypatch.setattr(slow_steps, "KNOWN", 1)
    train_tiny(copy_of(trained.run), start, {"epochs": 2})
    lines = re.findall(
        r"(train: phase 1 of 1, epoch \d): a step took [\d.]+ s, usually [\d.]+ s: ", capsys.readouterr().out
    )
    assert lines == ["train: phase 1 of 1, epoch 1", "train: phase 1 of 1, epoch 2"]

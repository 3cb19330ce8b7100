"""Kill a study in the middle of trials: none is lost, none is counted twice, and no two processes work on one.

A short shell script stands in for a trial's make; folders, locks, lines and their order are real. The script itself
kills its study, at a given step of a given trial: exact moments, no clocks. `benchmarks/study_kills.py` kills real
trainings at random moments.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.run import Run
from pipeline.study import figures, folders, local, results
from pipeline.study.planning import Place
from pipeline.study.results import About
from pipeline.study.trials import Trial

KILLS = 16
STEPS = ("begun", "busy", "made", "counted")
# A second one in the same folder would find `busy` and a live process. A killed one leaves a folder, and perhaps a
# zombie. The sleep is the work of a trial: it lets a trial whose study was killed meet the next study, and nothing
# waits for it. Of the marks of a study, each step takes the first of its name; the last one kills.
MAKE = """
reach() {
    for mark in ../../../../marks/$PPID/$1.*; do
        if mv $mark mark 2>/dev/null; then case $mark in *.kill) kill -9 $PPID; esac; break; fi
    done
}
echo $$ > pid
reach begun
if [ -s busy/pid ] && ps -o stat= -p $(cat busy/pid) | grep -qv Z; then echo clash >> ../../../../clashes; fi
mkdir -p busy; echo $$ > busy/pid
reach busy
sleep 0.05
echo made >> made
rm -r busy
reach made
"""


def play(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(folder: Path, name: str, targets: Sequence[str], lock: int, **_: Any) -> None:
        process = subprocess.Popen(["sh", "-c", MAKE], cwd=folder, pass_fds=[lock], start_new_session=True)
        assert process.wait() == 0

    monkeypatch.setattr(folders, "make", make)
    monkeypatch.setattr(folders, "prepare", lambda *_, **__: Path("nowhere"))

    def make_trial(project: Path, folder: Path, *_: Any) -> Run:
        (folder / "runs").mkdir(exist_ok=True)
        return Run(folder / "runs" / "x")

    monkeypatch.setattr(folders, "make_trial", make_trial)
    monkeypatch.setattr(figures, "of", lambda run: {"map50_95": 0.5, "drawn": [0.5]})


def planned() -> list[Trial]:
    sections, about = {"convert": {"source": "raw"}}, cast(About, {"split_seed": 0})
    return [
        Trial(f"key{row}{seed}", f"row{row}", ("share", 0.5), seed, "x", sections, (), 1, about)
        for seed in range(10)
        for row in range(4)
    ]


def study(place: Place, jobs: int, step: str = "", trials: int = 0) -> None:
    """What `stage` does, in a separate process, which is killed when the last of so many trials reaches the step."""
    marks = place.study / "marks" / str(os.getpid())
    marks.mkdir(parents=True)
    for number in range(trials):
        (marks / f"{step}.{number}{'.kill' * (number == trials - 1)}").touch()
    done = results.read(place.results)
    waiting = [trial for trial in planned() if trial.key not in done]
    for number, (_, line) in enumerate(local.run(waiting, place, jobs, ""), start=1):
        assert isinstance(line, dict)
        results.append(place.results, line)
        if step == "counted" and number == trials:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("jobs", [1, 3])
def test_kills_lose_nothing_and_count_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    play(monkeypatch)
    place, context = Place(tmp_path, tmp_path / "study"), multiprocessing.get_context("fork")
    for kill in range(KILLS):
        # The first or second trial after a restart, so that enough are left for all kills.
        process = context.Process(target=study, args=(place, jobs, STEPS[kill % len(STEPS)], 1 + kill // 8))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL  # it reached that step of that trial
        if kill // len(STEPS) % 2:  # a power cut kills the makes too
            for path in place.study.glob("trials/*/*/*/pid"):
                with suppress(ProcessLookupError, ValueError):
                    os.killpg(int(path.read_text()), signal.SIGKILL)
    process = context.Process(target=study, args=(place, jobs))
    process.start()
    process.join()
    assert process.exitcode == 0
    lines = [json.loads(line) for line in place.results.read_text().splitlines()]
    assert sorted(line["key"] for line in lines) == sorted(trial.key for trial in planned())
    assert not (tmp_path / "study" / "clashes").exists()
    made = [len(path.read_text().splitlines()) for path in place.study.glob("trials/*/*/*/made")]
    # Each kill may make one trial run again: `made` was written, but not yet its line.
    assert len(made) == len(planned()) and sum(made) <= len(planned()) + KILLS * jobs


def test_a_trial_another_process_works_on_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch)
    place = Place(tmp_path, tmp_path / "study")
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=study, args=(place, 2)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    made = [path.read_text() for path in place.study.glob("trials/*/*/*/made")]
    assert made == ["made\n"] * len(planned())  # the second finds the first one's line
    assert not (tmp_path / "study" / "clashes").exists()


def test_a_failed_trial_is_reported_and_the_others_continue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch)
    from pipeline.errors import PipelineError

    whole = folders.make

    def make(folder: Path, *arguments: Any, **options: Any) -> None:
        if "row2" in folder.parts and "seed3" in folder.parts:
            raise PipelineError("the loss became NaN")
        whole(folder, *arguments, **options)

    monkeypatch.setattr(folders, "make", make)
    place = Place(tmp_path, tmp_path / "study")
    found = list(local.run(planned(), place, 2, ""))
    failed = [trial.key for trial, line in found if isinstance(line, PipelineError)]
    assert failed == ["key23"] and len(found) == len(planned())

"""Compare ways to train over amounts of labels and seeds, and separate luck from real differences.

rows        the config of each row, and what is held equal      subsets     the training images of each trial
planning    all trials, in their order                          folders     folders that share files by links
trials      one trial: folder, make, line                       local       several trials at a time on this machine
figures     what is kept of a trial                             results     results.jsonl, from which a study resumes
cluster     trials on the machines of a Ray cluster              board       what is done, and the time left
statistics  luck or difference
curves      label multiples, forecasts                          answers     all of it in sentences
words       sizes and differences in words                      page        the report of the study
plots       its plots
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from pipeline import lock, logs
from pipeline.config.study import Minutes, Study
from pipeline.errors import PipelineError, counted
from pipeline.run import Run
from pipeline.study import answers, cluster, local, page, planning, results, rows, subsets
from pipeline.study.board import Board, duration
from pipeline.study.planning import Place
from pipeline.study.results import Line
from pipeline.study.trials import Trial

PAGE_SECONDS = 60  # between two updates of the page while trials run: writing it takes a second


def main(path: Path, jobs: int = 1, device: str = "", on: str = "") -> str:
    """Run the trials that `results.jsonl` lacks, and update the page while they run.

    Raises PipelineError at the end if a trial failed; all others have run by then.
    """
    study, place = rows.load(path), Place.of(path)
    lock.check_config(Run(place.study), path)
    lock.note_config(Run(place.study), path)
    data = planning.prepare(path, study, place)
    seconds: dict[str, list[rows.PhaseSeconds]] = {}
    untimed: list[PipelineError] = []
    if isinstance(study.budget, Minutes):
        # On this machine even with a cluster, so that all rows are timed on the same one.
        lines, untimed = _run(study, planning.probes(study, data), place, jobs, device, on="")
        seconds = {line["row"].removeprefix("probe-"): rows.timing(line) for line in lines}
    trials = planning.plan(study, data, seconds)
    lines, failed = _run(study, trials, place, jobs, device, on)
    if failed := [*untimed, *failed]:
        raise PipelineError(
            f"{counted(len(failed), 'trial')} failed, the first: {failed[0]}; correct the cause and run make study "
            "again, which keeps the finished ones"
        )
    return f"{len(lines)} trials; {answers.first(study, lines).replace('`', '')} -> {page.path(place)}"


def _run(
    study: Study, trials: Sequence[Trial], place: Place, jobs: int, device: str, on: str
) -> tuple[list[Line], list[PipelineError]]:
    """Run those of the trials that `results.jsonl` lacks; return the lines of all, and the errors of failed ones."""
    failed: list[PipelineError] = []
    known = results.read(place.results)
    done = {trial.key: known[trial.key] for trial in trials if trial.key in known}
    if done:
        logs.say(f"study: {len(done)} of {len(trials)} trials are already in {place.results}")
    waiting = [trial for trial in trials if trial.key not in done]
    if on and waiting:
        jobs = cluster.connect(waiting, place, on, device)
    ended = cluster.run(waiting, place, on, device) if on and waiting else local.run(waiting, place, jobs, device)
    board, told, written = Board(study, trials, done, jobs), False, 0.0
    for trial, line in ended:
        if isinstance(line, PipelineError):
            failed.append(line)
            logs.say(f"study: {trial.row} {subsets.label(trial.size)} seed {trial.seed} failed: {line}")
            continue
        results.append(place.results, line)
        board.add(trial, line)
        if time.monotonic() - written > PAGE_SECONDS:
            page.write(study, list(board.done.values()), place)
            written = time.monotonic()
        if not told and (told := _pilot_is_done(study, trials, board)):
            for sentence in answers.pilot(study, answers.table_of(study, board.done.values())):
                logs.say(f"study: {sentence} {duration(board.seconds_left())} left")
    page.write(study, list(board.done.values()), place)
    return [board.done[trial.key] for trial in trials if trial.key in board.done], failed


def _pilot_is_done(study: Study, trials: Sequence[Trial], board: Board) -> bool:
    pilot = [trial for trial in trials if planning.is_pilot(study, trial.row, trial.seed)]
    return study.seeds > 1 and bool(pilot) and all(trial.key in board.done for trial in pilot)

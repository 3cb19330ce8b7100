"""Compare ways to train, over amounts of labels and seeds, so that luck is told from difference.

rows        the config of each row, and what is held equal      subsets     the training images of each trial
planning    all trials, in their order                          folders     what a trial shares, by links
trials      one trial: folder, make, line                       local       some trials at a time on this machine
figures     what is left of a trial                             results     results.jsonl, which a study goes on from
"""

from __future__ import annotations

from pathlib import Path

from pipeline import logs
from pipeline.errors import PipelineError
from pipeline.study import local, planning, results, rows
from pipeline.study.planning import Place


def main(path: Path, jobs: int = 1, device: str = "") -> str:
    """Run the trials that `results.jsonl` lacks, and write the page after each.

    Raises PipelineError at the end if a trial failed; the others have run.
    """
    study, place = rows.load(path), Place.of(path)
    trials = planning.plan(path, study, place)
    done = results.read(place.results)
    known = [trial for trial in trials if trial.key in done]
    waiting = [trial for trial in trials if trial.key not in done]
    if other := len(done) - len(known):
        logs.say(f"study: {other} lines of other settings in {place.results} are kept and not counted")
    failed = []
    for trial, line in local.run(waiting, place, jobs, device):
        if isinstance(line, PipelineError):
            failed.append(line)
            logs.say(f"study: {trial.folder} failed: {line}")
            continue
        results.append(place.results, line)
        logs.say(f"study: {trial.folder} mAP50-95 {line['map50_95']:.3f}")
    if failed:
        raise PipelineError(f"{len(failed)} of {len(trials)} trials failed, the first: {failed[0]}")
    return f"{len(trials)} trials -> {place.results}"

"""Run one trial: build its folder, run make in it, and keep its line of results."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.config.experiment import Config
from pipeline.study import figures, folders, results, subsets
from pipeline.study.results import About, Amount, Line
from pipeline.study.subsets import Size


@dataclass(frozen=True, slots=True)
class Trial:
    """Everything that a machine needs to run a trial, besides the project and its data; plain values only.

    `key` is a digest of everything that changes the result, `sections` are those of its YAML, `images` the file names
    of its training images, and `length` the number in an epoch's list. `about` is copied into the line.
    """

    key: str
    row: str
    size: Size
    seed: int
    name: str
    sections: dict[str, Any]
    images: tuple[str, ...]
    length: int
    about: About

    @property
    def folder(self) -> Path:
        """The folder of the trial below that of the study."""
        return Path("trials") / self.row / subsets.label(self.size) / f"seed{self.seed}"


def perform(trial: Trial, project: Path, study: Path, device: str = "", core: int | None = None) -> Line:
    """Run or resume the trial in its folder below `study`, and return its line.

    The line replaces the model and the images in the folder. Waits for another process that works on the same trial,
    perhaps from a study that was killed. Raises PipelineError if a stage fails.
    """
    folder = study / trial.folder
    line: Line
    with results.locked(folder / "lock", f"study: {folder} is in use by another process; waiting for it") as lock:
        left = folder / "line.json"
        if left.is_file() and (line := files.read_json(left))["key"] == trial.key:
            shutil.rmtree(folder / "runs", ignore_errors=True)  # it was killed after it had written the line
            return line
        _forget_other(folder, trial.key)
        base = Config.model_validate({**trial.sections, "seed": trial.about["split_seed"]})
        prepared = folders.prepare(project, study, trial.name, base, {**trial.sections, "seed": base.seed}, again=False)
        run = folders.make_trial(project, folder, trial.name, prepared, trial.sections, trial.images, trial.length)
        old = [f"runs/{trial.name}/{path}/data.yaml" for path in ("dataset", "augmented")]
        targets = [*([f"DEVICE={device}"] if device else []), "validate"]
        began = time.perf_counter()
        folders.make(folder, trial.name, targets, lock, old=old, core=core)
        seconds = round(time.perf_counter() - began, 1)
        kind, value = trial.size
        size: Amount = {"share": value} if kind == "share" else {"shots": value}
        made = figures.of(run)
        line = {
            "key": trial.key,
            "row": trial.row,
            **size,
            "seed": trial.seed,
            **trial.about,
            **made,
            "seconds": seconds,
        }
        files.write_json(left, line)
        shutil.rmtree(folder / "runs", ignore_errors=True)  # the line is what counts
        return line


def _forget_other(folder: Path, key: str) -> None:
    """Delete what a trial with other settings left in the folder."""
    mark = folder / "key.txt"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != key:
        shutil.rmtree(folder / "runs", ignore_errors=True)
        (folder / "line.json").unlink(missing_ok=True)
        files.write_text(mark, key)

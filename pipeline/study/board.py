"""Show which trials are done, and how long the rest will take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, median

from pipeline import logs
from pipeline.config.study import Study
from pipeline.study import subsets
from pipeline.study.results import Line
from pipeline.study.trials import Trial


class Board:
    """A table of rows and sizes on the terminal, redrawn after each trial; without a terminal, one line per trial."""

    def __init__(self, study: Study, trials: Sequence[Trial], done: Mapping[str, Line], jobs: int) -> None:
        self.study, self.trials, self.done, self.jobs = study, trials, dict(done), jobs
        self.height = 0

    def add(self, trial: Trial, line: Line) -> None:
        self.done[trial.key] = line
        left = f"{len(self.done)} of {len(self.trials)} trials, {duration(self.seconds_left())} left"
        if logs.screen().out.isatty():
            self.show(left)
        else:
            figure = "nothing to measure" if line["map50_95"] is None else f"mAP50-95 {line['map50_95']:.3f}"
            logs.say(f"study: {trial.row} {subsets.label(trial.size)} seed {trial.seed}: {figure} ({left})")

    def seconds_left(self) -> float:
        """Return the seconds of all unfinished trials, estimated by the median of their row, or of all rows."""
        waiting = [trial for trial in self.trials if trial.key not in self.done]
        total = sum(seconds_of(self.done.values(), trial.row) for trial in waiting)
        return total / max(1, min(self.jobs, len(waiting)))

    def show(self, footer: str) -> None:
        lines = [*self.table(), footer]
        up = f"\x1b[{self.height}A\x1b[J" if self.height else ""
        print(up + "\n".join(lines), file=logs.screen().out, flush=True)
        self.height = len(lines)

    def table(self) -> list[str]:
        """Return the mean figure of each row and size, with how many of its seeds are done."""
        width = max(map(len, self.study.rows))
        lines = [" " * width + "".join(f"{subsets.label(size):>14}" for size in self.study.sizes)]
        for row in self.study.rows:
            cells = []
            for size in self.study.sizes:
                keys = [trial.key for trial in self.trials if (trial.row, trial.size) == (row, size)]
                figures = [self.done[key]["map50_95"] for key in keys if key in self.done]
                known = [figure for figure in figures if figure is not None]
                count = f"({len(figures)}/{len(keys)})"
                cells.append(f"{mean(known):.3f} {count}" if known else count)
            lines.append(f"{row:<{width}}" + "".join(f"{cell:>14}" for cell in cells))
        return lines


def seconds_of(lines: Iterable[Line], row: str) -> float:
    """Return the median seconds of the row's trials, or of all rows' if it has none yet."""
    every = [(line["row"], line["seconds"]) for line in lines]
    relevant = [seconds for name, seconds in every if name == row] or [seconds for _, seconds in every]
    return median(relevant) if relevant else 0.0


def duration(seconds: float) -> str:
    """Return `2 h 05 min`, `7 min` or `40 s`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"

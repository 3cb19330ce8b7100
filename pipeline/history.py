"""What Ultralytics noted down in each epoch of a training, all phases in a row."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Epochs = list[dict[str, float | None]]


def read(folder: Path) -> tuple[Epochs, list[float]]:
    """The rows of each phase's results.csv below `run.train`, and where between two epochs a phase ends."""
    rows: Epochs = []
    ends = []
    # By number: phase10 comes after phase9.
    for path in sorted(folder.glob("phase*/results.csv"), key=lambda path: (len(path.parent.name), path)):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                rows.append({key.strip(): _number(value) for key, value in row.items() if key is not None})
        ends.append(len(rows) + 0.5)
    return rows, ends[:-1]


def points(epochs: Sequence[dict[str, float | None]], column: str) -> list[tuple[int, float]]:
    """Number and value of the epochs that have one; a phase that was not validated has zero throughout."""
    values = [row.get(column) for row in epochs]
    return [(number, value) for number, value in enumerate(values, start=1) if value]


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):  # a column that only some epochs have
        return None

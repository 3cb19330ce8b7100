"""What Ultralytics noted down in each epoch of a training, all phases in a row."""

from __future__ import annotations

import csv
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


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):  # a column that only some epochs have
        return None

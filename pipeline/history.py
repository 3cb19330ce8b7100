"""Read the figures that Ultralytics recorded in each epoch, over all phases of a training."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Any

from pipeline.records import receipt as receipt_record
from pipeline.run import Run

Epochs = list[dict[str, float | None]]


def read(run: Run) -> tuple[Epochs, list[float]]:
    """Return the rows of all phases' results.csv below `run.train`, and where each phase but the last ends.

    A phase that ends after epoch 3 gives 3.5. Ultralytics writes 0 for what it did not measure: all val figures in an
    epoch without validation, and average precision on a val split without objects. Both are None here.
    """
    rows: Epochs = []
    ends = []
    objects = receipt_record.val_has_objects(run)
    # By number: phase10 comes after phase9.
    for path in sorted(run.train.glob("phase*/results.csv"), key=lambda path: (len(path.parent.name), path)):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                values = {key.strip(): _number(value) for key, value in row.items() if key is not None}
                validated = any(value for key, value in values.items() if key.startswith("val/"))
                unmeasured = ("metrics/", "val/") if not validated else () if objects else ("metrics/",)
                rows.append({key: None if key.startswith(unmeasured) else value for key, value in values.items()})
        ends.append(len(rows) + 0.5)
    return rows, ends[:-1]


def points(epochs: Sequence[dict[str, float | None]], column: str) -> list[tuple[int, float]]:
    """Return (epoch, value) for the epochs in which a column was measured, counted from 1."""
    values = [row.get(column) for row in epochs]
    return [(number, value) for number, value in enumerate(values, start=1) if value is not None]


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):  # a column that only some epochs have
        return None

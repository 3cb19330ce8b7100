"""What `validate` left in a run as COCO files, read with the doubt that files on a disk deserve."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.errors import DataError
from pipeline.run import Run


def read(run: Run, split: str, single_label: bool = False) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth and predictions, each box with every class it may be, or with its best one alone.

    Raises DataError where a file is missing or damaged, or the predictions cannot belong to the ground truth.
    """
    file = run.single_label(split) if single_label else run.predictions(split)
    truth, predictions = files.read_json(run.ground_truth(split)), files.read_json(file)
    mend = "delete metrics.json and `make validate` again"
    if not isinstance(truth, dict) or not all(isinstance(truth.get(key), list) for key in _TRUTH_KEYS):
        raise DataError(f"{run.ground_truth(split)}: not a COCO data set; {mend}")
    if wrong := _unfit(truth, predictions):
        raise DataError(f"{file}: {wrong}; {mend}")
    return truth, predictions


_TRUTH_KEYS = ("images", "annotations", "categories")


def _unfit(truth: dict[str, Any], predictions: Any) -> str:
    """What is wrong with the first bad prediction, in words; empty where all can be evaluated."""
    images = {image["id"] for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    if not isinstance(predictions, list):
        return "not a list of COCO results"
    for number, record in enumerate(predictions, start=1):
        if not isinstance(record, dict) or not {"image_id", "category_id", "bbox", "score"} <= record.keys():
            return f"prediction {number} is not a COCO result"
        if record["image_id"] not in images:
            return f"prediction {number} is of image {record['image_id']!r}, which is not in the split"
        if record["category_id"] not in categories:
            return f"prediction {number} is of class {record['category_id']!r}, which is not in the data set"
        numbers = [record["score"], *(record["bbox"] if isinstance(record["bbox"], list) else [])]
        if len(numbers) != 5 or not all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers):
            return f"prediction {number} has a score or box that is not a number"
    return ""


@contextmanager
def as_validate_writes(path: Path) -> Iterator[None]:
    """Turns what a damaged or foreign file does to its reader into a line about the file."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: not as `validate` writes it ({type(error).__name__}: {error}); "
            "delete metrics.json and `make validate` again"
        ) from None

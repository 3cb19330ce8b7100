"""Collect the figures of a finished trial, on test and on drawn samples of the test images."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Sequence

import numpy as np

from pipeline import history
from pipeline.metrics import bootstrap
from pipeline.metrics.matching import match
from pipeline.records import metrics as metrics_record
from pipeline.records import predictions as split_records
from pipeline.records import training as training_record
from pipeline.run import Run
from pipeline.study.results import Figures

DRAWS = 300  # samples of the test images, the same for every trial; 2 kB per line
JUDGE = "test"


def of(run: Run) -> Figures:
    """Return the figures of a run and how they were made. `drawn` is mAP50-95 of each sample of the test images.

    It is None for samples that lack a class, because their means over classes are of other classes. If most samples
    lack one, all count, so that the choice of images is not mistaken for certain. A figure that was
    not measured is None. `val` is mAP50-95 after each validation, by which the best model was chosen.
    """
    metrics, trained = metrics_record.read(run), training_record.read(run)
    test, val = metrics["splits"][JUDGE], metrics["splits"].get("val")
    truth, predictions = split_records.predictions(run, JUDGE)
    draws = bootstrap.draws(len(truth["images"]), DRAWS)
    resampled = bootstrap.figures(match(truth, predictions), draws)
    usable = resampled.usable()
    sampled = np.where(usable if usable.any() else True, resampled.overall()["map50_95"], np.nan)
    epochs, ends = history.read(run)
    return {
        "map50_95": test["map50_95"],
        "map50": test["map50"],
        "per_class": {name: figures["map50_95"] for name, figures in test["per_class"].items()},
        "test_images": len(truth["images"]),
        "drawn": [round(float(value), 5) if value == value else None for value in sampled],
        "val_map50_95": val["map50_95"] if val else None,
        "val": [round(value, 5) for _, value in history.points(epochs, "metrics/mAP50-95(B)")],
        "epochs": [phase["epochs"] for phase in trained["phases"]],
        "freeze": [len(phase["freeze"]) for phase in trained["phases"]],
        "batch": trained["batch"],
        "precision": [phase["precision"]["value"] for phase in trained["phases"]],
        "train_seconds": trained["seconds"],
        "phase_seconds": [phase["seconds"] for phase in trained["phases"]],
        "epoch_seconds": _epoch_seconds(epochs, ends),
        "weights": trained["weights"],
        "teacher": trained["teacher"],
        "versions": trained["versions"],
        "machine": {"node": platform.node(), "cpu": trained["machine"], "threads": trained["threads"]},
        "device": trained["device"],
    }


def _epoch_seconds(epochs: history.Epochs, ends: Sequence[float]) -> list[float | None]:
    """Return for each phase the seconds of an epoch after the first; None for a phase of one epoch."""
    clock = [row.get("time") or 0.0 for row in epochs]  # since the start of the phase
    bounds = [0, *map(int, ends), len(clock)]
    phases = [clock[start:end] for start, end in itertools.pairwise(bounds)]
    return [round((one[-1] - one[0]) / (len(one) - 1), 3) if len(one) > 1 else None for one in phases]

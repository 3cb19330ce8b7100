"""Decide whether a phase made the model better on val, or whether the difference is chance.

Both models are evaluated on the same resamples of the same images. Import this late: it imports Ultralytics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.models.yolo.detect import DetectionValidator

from pipeline import files
from pipeline.metrics import bootstrap
from pipeline.metrics.matching import ClassMatches
from pipeline.records.training import Gain


class KeepingValidator(DetectionValidator):  # type: ignore[misc]  # Ultralytics has no types
    """Ultralytics' validator that also keeps the matches of its last pass, one entry per image."""

    kept: dict[str, list[Any]]

    def get_stats(self) -> Any:
        self.kept = {key: list(values) for key, values in self.metrics.stats.items()}
        return super().get_stats()


def keep(validator: KeepingValidator, path: Path) -> None:
    """Write the matches of the validator's last pass, in the order of its images."""
    kept = validator.kept
    images = np.repeat(np.arange(len(kept["conf"])), [len(scores) for scores in kept["conf"]])
    labelled = np.repeat(np.arange(len(kept["target_cls"])), [len(labels) for labels in kept["target_cls"]])
    with files.replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(
            file,
            images=images,
            hits=np.concatenate(kept["tp"]).astype(bool),
            scores=np.concatenate(kept["conf"]),
            classes=np.concatenate(kept["pred_cls"]).astype(int),
            labelled=labelled,
            labels=np.concatenate(kept["target_cls"]).astype(int),
            number=len(kept["conf"]),
        )


def _read(path: Path) -> list[ClassMatches]:
    """Return the matches of each labelled class, highest score first."""
    with np.load(path) as kept:
        number = int(kept["number"])
        order = np.argsort(-kept["scores"], kind="stable")
        images, hits, scores, classes = (kept[key][order] for key in ("images", "hits", "scores", "classes"))
        return [
            ClassMatches(
                scores=scores[classes == label].astype(float),
                images=images[classes == label],
                hits=hits[classes == label].T,
                objects=np.bincount(kept["labelled"][kept["labels"] == label], minlength=number),
            )
            for label in np.unique(kept["labels"])
        ]


def between(before: Path, after: Path) -> Gain | None:
    """Return the gain in val mAP50-95 between two files of `keep`; None if val has no objects."""
    first, second = _read(before), _read(after)
    if not second:
        return None
    gains = bootstrap.with_draws(second).overall()["map50_95"] - bootstrap.with_draws(first).overall()["map50_95"]
    return {
        "map50_95": round(float(gains[0]), 6),
        "interval": bootstrap.interval(gains[1:], bootstrap.images_with_objects(second)),
        "noise": round(float(np.nanstd(gains[1:])), 6),
    }

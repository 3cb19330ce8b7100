"""Complete records of a run with minimal figures, for tests that need a run but no training."""

from __future__ import annotations

from typing import Any

from pipeline import files
from pipeline.records.base import write_record
from pipeline.records.metrics import Metrics
from pipeline.records.training import Training
from pipeline.run import Run

SOURCE: Any = {"name": "yolo26n.pt", "sha256": None, "instead_of": None}
RATES: Any = {"tp": 0, "fp": 0, "fn": 0, "precision": None, "recall": None, "f1": None}
FIGURES: Any = {
    **{name: 0 for name in ("images", "objects", "predictions")},
    **{name: None for name in ("map50_95", "map50", "map75", "ar1", "ar10", "ar100", "reconciliation", "at_100")},
    **{name: {} for name in ("per_class", "per_size", "error_counts", "error_costs")},
    "intervals": {
        "level": 0.95,
        "resamples": 1000,
        "per_class": {},
        **{name: None for name in ("map50_95", "map50", "map75", "ar100")},
    },
    "max_detections": 100,
    "confusion": {"labels": [], "matrix": []},
    "operating_point": {**RATES, "per_class": {}},
    "calibration": {"bins": [], "ece": None, "from_score": 0.05, "predictions": 0},
}


def write_metrics(run: Run, **splits: dict[str, Any]) -> None:
    """Write `run.metrics` with the given figures of each split; all others count as not measured."""
    latency = {"median_ms": 1, "p95_ms": 1, "runs": 1, "batch": 1, "device": "cpu", "includes": ""}
    record: Any = {
        "model_sha256": files.sha256(run.model) if run.model.is_file() else "",
        "weights": SOURCE,
        "splits": {split: {**FIGURES, **figures} for split, figures in splits.items()},
        "operating_point": None,
        "cost": {"parameters": 1, "gflops": None, "imgsz": 64, "latency": latency},
        "retention": None,
        "imgsz": 64,
        "settings": {},
    }
    write_record(run.metrics, Metrics, record)


def write_training(run: Run, weights: dict[str, Any]) -> None:
    """Write the `run.train_record` of a training without phases."""
    record: Any = {
        **{name: {} for name in ("recipe", "args", "versions")},
        **{name: [] for name in ("phases", "classes_kept")},
        **{name: 1 for name in ("best_phase", "imgsz", "batch", "seed", "seconds", "threads")},
        "weights": weights,
        "teacher": None,
        "device": "cpu",
        "machine": "",
    }
    write_record(run.train_record, Training, record)

"""Figures of the model one can trust: COCO's with error bars, kinds of mistakes, thresholds, cost.

    predict          labels and predictions, as COCO
    compare          against another run
    error_types      TIDE's six       operating_point thresholds, calibration
    reconcile        other tools      retention, cost

Nothing is chosen on test: thresholds come from val, and test is only measured.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.boxes import YoloDataset
from pipeline.config import Validate
from pipeline.errors import DataError
from pipeline.metrics import bootstrap, coco
from pipeline.metrics.matching import ClassMatches, match
from pipeline.run import Run
from pipeline.upstream import checkpoints, environment
from pipeline.validate import compare, cost, error_types, operating_point, predict, reconcile, retention
from pipeline.validate.predict import Predictions

SPLITS = ("val", "test")


def main(config: Validate, run: Run, device: str, against: Path | None = None) -> str:
    """Predict every validation and test image, write predictions, errors and `run.metrics`.

    With `against`, another run's folder, and figures already there: only compare the two.
    """
    if against is not None and run.metrics.is_file():
        return compare.main(run, Run(against))
    environment.prepare()
    environment.check_device(device)
    from ultralytics import YOLO

    dataset = YoloDataset.read(run.dataset / "data.yaml")
    imgsz = checkpoints.imgsz_of(run.model)
    model = YOLO(str(run.model), task="detect")
    images = {split: dataset.files(split) for split in SPLITS if dataset.files(split)}
    if not images:
        raise DataError(f"{run.dataset}: neither a val nor a test split; there is nothing to validate on")
    start = retention.baseline(config, run)
    # Of the model that was here before, and maybe of a split that is gone.
    run.comparison.unlink(missing_ok=True)
    shutil.rmtree(run.predictions_folder, ignore_errors=True)
    names, measured = list(dataset.names), {}
    for split, paths in images.items():
        truth = predict.ground_truth(dataset, paths)
        predictions = predict.predict(model, paths, imgsz, config, device, f"validate: {split}")
        files.write_json(run.ground_truth(split), truth)
        predict.write(run.predictions(split), predictions.every_label)
        predict.write(run.single_label(split), predictions.single_label)
        measured[split] = (truth, predictions)

    matches = {split: match(truth, found.single_label) for split, (truth, found) in measured.items()}
    chosen, thresholds = None, dict.fromkeys(names, operating_point.DEFAULT_SCORE)
    if "val" in measured:
        chosen = operating_point.choose(matches["val"], names, config.wanted)
        thresholds = chosen["thresholds"]
    figures = {}
    for split, (truth, predictions) in measured.items():
        shown = error_types.kept(predictions.single_label, list(thresholds.values()))
        errors = error_types.record(truth, shown, thresholds)
        files.write_json(run.errors(split), errors)
        figures[split] = {
            **_figures(truth, predictions, matches[split], names, thresholds, config.reconcile),
            "error_counts": errors["counts"],
            "confusion": error_types.confusion(truth, shown),
        }
    our_side = {split: (truth, images[split], found.every_label) for split, (truth, found) in measured.items()}
    record = {
        "weights": files.read_json(run.train_record)["weights"],
        "splits": figures,
        "operating_point": chosen,
        "cost": cost.measure(model, next(iter(images.values())), imgsz, device),
        "retention": retention.measure(config, start, model, imgsz, device, our_side),
        "imgsz": imgsz,
        "settings": config.model_dump(mode="json"),
    }
    # Last: a target that exists is a stage that finished.
    files.write_json(run.metrics, record)
    said = f"{', '.join(f'{split} {_in_words(figures[split], config.conf)}' for split in figures)} -> {run.metrics}"
    return said if against is None else f"{said}; {compare.main(run, Run(against))}"


def _figures(
    truth: dict[str, Any],
    predictions: Predictions,
    single: list[ClassMatches],
    names: list[str],
    thresholds: dict[str, float],
    tools: tuple[str, ...],
) -> dict[str, Any]:
    """Compute all figures of a split but its errors. `single` are the matches of the single labels."""
    figures = coco.evaluate(truth, predictions.every_label)
    return {
        **figures,
        "intervals": bootstrap.intervals(match(truth, predictions.every_label), names),
        "error_costs": error_types.costs(truth, predictions.every_label),
        "operating_point": operating_point.judge(single, names, thresholds),
        "calibration": operating_point.calibration(single),
        "reconciliation": reconcile.measure(truth, predictions.every_label, predictions.single_label, figures, tools)
        if tools and figures["map50_95"] is not None
        else None,
    }


def _in_words(figures: dict[str, Any], conf: float) -> str:
    if not figures["objects"]:
        return "no objects, so no average precision"
    interval = figures["intervals"]["map50_95"]
    between = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    nothing = "" if figures["predictions"] else f", nothing found above {conf:g}"
    return f"mAP50 {figures['map50']:.3f} mAP50-95 {figures['map50_95']:.3f}{between}{nothing}"

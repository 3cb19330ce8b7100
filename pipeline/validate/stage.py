"""Evaluate the model: COCO's metrics with confidence intervals, error types, thresholds, cost.

    predict           labels and predictions, as COCO      compare     two runs on the same images
    error_types       TIDE's six types of errors           reconcile   the figures of other tools
    operating_point   thresholds, calibration              retention   what the model still knows
    cost              parameters, GFLOPs, time

Nothing is chosen on test: thresholds come from val, and test is only measured.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline import files, logs, object_sizes
from pipeline.boxes import YoloDataset
from pipeline.config.judging import Validate
from pipeline.errors import DataError
from pipeline.metrics import bootstrap, coco
from pipeline.metrics.matching import MAX_DETECTIONS, ClassMatches, match, most
from pipeline.records import metrics as metrics_record
from pipeline.records import tiles as tiles_record
from pipeline.records import training as training_record
from pipeline.records.base import write_record
from pipeline.records.coco import GroundTruth, Prediction
from pipeline.records.errors import ErrorFile
from pipeline.records.metrics import AtHundred, Metrics, SplitFigures
from pipeline.run import Run
from pipeline.upstream import checkpoints, environment
from pipeline.validate import compare, cost, error_types, operating_point, predict, reconcile, retention
from pipeline.validate.compare import SPLITS
from pipeline.validate.predict import Predictions


def main(config: Validate, run: Run, device: str, against: Path | None = None) -> str:
    """Predict on every val and test image and write predictions, errors and `run.metrics`.

    `against` is the folder of another run to compare with. Unless `run.metrics` is missing or of another model, only
    the comparison is made.
    """
    if against is not None and run.metrics.is_file() and not metrics_record.is_of_another_model(run):
        return compare.main(run, Run(against))
    dataset = YoloDataset.read(run.dataset / "data.yaml")  # first: without data, nothing slow is imported
    environment.prepare()
    environment.check_device(device)
    from ultralytics import YOLO

    imgsz = int(checkpoints.model_of(run.model).args["imgsz"])
    model = YOLO(str(run.model), task="detect")
    checkpoints.refuse_other_classes(run.model, model.names, run.dataset, dataset.names)
    images = {split: dataset.files(split) for split in SPLITS if dataset.files(split)}
    if not images:
        raise DataError(f"{run.dataset}: has neither a val nor a test split to validate on; set convert.split")
    tiling = tiles_record.read(run)
    start = retention.baseline(config, run)
    model_sha256 = files.sha256(run.model)
    before = metrics_record.replaced(run)
    # These files belong to the previous model, and perhaps to a split that no longer exists. The record goes first,
    # because make would take it for a finished stage.
    run.metrics.unlink(missing_ok=True)
    run.comparison.unlink(missing_ok=True)
    shutil.rmtree(run.predictions_folder, ignore_errors=True)
    names, measured = list(dataset.names), {}
    for split, paths in images.items():
        truth = predict.ground_truth(dataset, paths)
        predictions = predict.predict(model, paths, imgsz, config, device, f"validate: {split}", tiling)
        write_record(run.ground_truth(split), GroundTruth, truth)
        predict.write(run.predictions(split), predictions.every_label)
        predict.write(run.single_label(split), predictions.single_label)
        measured[split] = (truth, predictions)

    matches = {split: match(truth, made.single_label, math.inf) for split, (truth, made) in measured.items()}
    chosen, thresholds = None, dict.fromkeys(names, operating_point.undecided(config.conf))
    if "val" in measured:
        chosen = operating_point.choose(matches["val"], names, config.wanted, config.conf)
        thresholds = chosen["thresholds"]
    figures: dict[str, SplitFigures] = {}
    for split, (truth, predictions) in measured.items():
        shown = error_types.kept(predictions.single_label, list(thresholds.values()))
        errors = error_types.record(truth, shown, thresholds)
        write_record(run.errors(split), ErrorFile, errors)
        figures[split] = _figures(truth, predictions, shown, matches[split], errors, config.reconcile)
    ours = {split: (truth, images[split], made.every_label) for split, (truth, made) in measured.items()}
    record: Metrics = {
        "model_sha256": model_sha256,
        "weights": training_record.read(run)["weights"],
        "splits": figures,
        "operating_point": chosen,
        "cost": cost.measure(model, next(iter(images.values())), imgsz, device),
        "retention": retention.measure(config, start, model, imgsz, device, ours, tiling),
        "imgsz": imgsz,
        "settings": config.model_dump(mode="json"),
    }
    finds_nothing = any(of_split["map50"] == 0 for of_split in figures.values())
    if finds_nothing and (small := object_sizes.too_small(dataset, imgsz, tiling and tiling["size"])):
        logs.say(f"validate: {small}")
    if not tiling:  # with tiling, the limit applies to each view
        _warn_of_limit([truth for truth, _ in measured.values()], config.max_det)
    # Written last: a make target that exists means a finished stage.
    write_record(run.metrics, Metrics, record)
    told = [f"{split} {_in_words(of, config.conf, before.get(split))}" for split, of in figures.items()]
    line = f"{', '.join(told)} -> {run.metrics}"
    if tiling:
        line = f"{line}; whole images through tiles of {tiling['size']} px"
    return line if against is None else f"{line}; {compare.main(run, Run(against))}"


def _figures(
    truth: GroundTruth,
    predictions: Predictions,
    shown: list[Prediction],
    matches: list[ClassMatches],
    errors: ErrorFile,
    others: Sequence[str],
) -> SplitFigures:
    """Return the figures of one split. `shown` are the predictions that reach the thresholds in `errors`.

    `others` also evaluate the predictions.
    """
    names = [category["name"] for category in truth["categories"]]
    figures: SplitFigures = {
        **(cocos := coco.evaluate(truth, predictions.every_label)),
        "at_100": None if cocos["max_detections"] else _at_100(truth, predictions.every_label),
        "intervals": bootstrap.intervals(match(truth, predictions.every_label), names),
        "error_counts": errors["counts"],
        "error_costs": error_types.costs(truth, predictions.every_label),
        "confusion": error_types.confusion(truth, shown),
        "operating_point": operating_point.judge(matches, names, errors["thresholds"]),
        "calibration": operating_point.calibration(matches),
        "reconciliation": None,
    }
    if others and figures["map50_95"] is not None:
        figures["reconciliation"] = reconcile.measure(
            truth, predictions.every_label, predictions.single_label, figures, others
        )
    return figures


def _warn_of_limit(truths: Sequence[GroundTruth], max_det: int) -> None:
    fullest = max(most(record["image_id"] for record in truth["annotations"]) for truth in truths)
    if fullest > max_det:
        logs.say(
            f"validate: an image holds {fullest} objects, but at most {max_det} can be found; "
            f"set validate.max_det to {2 * fullest}"
        )


def _at_100(truth: GroundTruth, predictions: list[Prediction]) -> AtHundred:
    figures = coco.evaluate(truth, predictions, MAX_DETECTIONS)
    return {"map50_95": figures["map50_95"], "map50": figures["map50"], "ar100": figures["ar100"]}


def _in_words(figures: SplitFigures, conf: float, before: float | None) -> str:
    """Describe the figures of one split. `before` is the mAP50-95 that they replace."""
    if not figures["objects"]:
        return "no objects, so no average precision"
    interval = figures["intervals"]["map50_95"]
    between = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    earlier = "" if before is None else f", before {before:.3f}"
    nothing = "" if figures["predictions"] else f", nothing found above {conf:g}"
    limit = (
        ""
        if (cocos := figures["at_100"]) is None
        else (
            f", all predictions counted, as an image holds more than {MAX_DETECTIONS} objects of a class "
            f"(with COCO's limit of {MAX_DETECTIONS}: mAP50 {cocos['map50']:.3f} mAP50-95 {cocos['map50_95']:.3f})"
        )
    )
    return f"mAP50 {figures['map50']:.3f} mAP50-95 {figures['map50_95']:.3f}{between}{earlier}{nothing}{limit}"

"""What was not measured is not 0: a training that skips val, and a val split without objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import IMGSZ, Trained, read_coco, settings, write_coco
from test_report import Page

from pipeline import convert, history, report, train
from pipeline.config.experiment import Config
from pipeline.config.judging import Report
from pipeline.config.training import Train
from pipeline.files import read_json, sha256, write_json
from pipeline.records import training
from pipeline.run import Run


def config(trained: Trained, *phases: dict[str, Any], **args: Any) -> Train:
    base = {"weights": str(trained.config.train.weights), "imgsz": IMGSZ, "precision": "fp32", "phases": phases}
    return Train.model_validate({**base, "args": {"plots": False, **args}})


@pytest.mark.parametrize("cached", [False, True])
def test_a_training_without_val_has_no_figures(
    trained: Trained, copy_of: Callable[[Run], Run], capsys: pytest.CaptureFixture[str], cached: bool
) -> None:
    run = copy_of(trained.run)
    first = {"epochs": 2, "freeze": "backbone"} if cached else {"epochs": 1}
    line = train.main(config(trained, first, {"epochs": 1}, val=False), run, 0, "cpu")
    assert ", val mAP50-95 unknown in phase 2, " in line
    assert "mAP" not in capsys.readouterr().out
    record = training.read(run)
    assert [phase["best_fitness"] for phase in record["phases"]] == [None, None]
    assert [phase["gain"] for phase in record["phases"]] == [None, None]
    epochs, _ = history.read(run)
    assert not [key for row in epochs for key, value in row.items() if key.startswith(("metrics/", "val/")) and value]
    assert all(value is None for row in epochs for key, value in row.items() if key.startswith(("metrics/", "val/")))
    write_json(run.metrics, {**read_json(run.metrics), "model_sha256": sha256(run.model)})  # as if measured again
    report.main(Report(), run)
    text = " ".join(Page(run).text.split())
    row = text[text.index("from phase 1") :][:120]
    assert "–" in row and "0.000" not in row


def test_the_line_of_an_epoch_has_no_map_without_objects(
    trained: Trained, source: Any, copy_of: Callable[[Run], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(trained.run)
    data = read_coco(source, "val")
    ignored = [{**box, "ignore": 1} for box in data["annotations"]]  # with an empty list, val would be set aside
    write_coco(source, "val", {**data, "annotations": ignored})
    wanted = Config.model_validate(settings(source, convert={"source": str(source), "unlabelled": "background"}))
    convert.main(wanted.convert, run, 0)
    line = train.main(config(trained, {"epochs": 1}), run, 0, "cpu")
    assert ", val mAP50-95 unknown in phase 1, " in line
    assert "epoch 1 of 1: loss" in (said := capsys.readouterr().out) and said.rstrip().endswith("val mAP50-95 unknown")
    assert read_json(run.train_record)["phases"][0]["best_fitness"] is None

"""Every key of `validate` reaches the device or is known to change no box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from stand_ins import write_metrics

from pipeline.config.export import Export
from pipeline.config.judging import Validate
from pipeline.export import settings, targets
from pipeline.files import read_json, write_json
from pipeline.run import Run

# A non-default value, and where the bundle stores it.
TRAVELS: dict[str, tuple[Any, str]] = {"conf": (0.07, "conf"), "iou": (0.31, "iou"), "max_det": (777, "max_det")}
NO_BOX = {
    "wanted": "chooses thresholds, which travel by themselves",
    "retention": "measures another set",
    "reconcile": "measures the same predictions by other tools",
}


def validated(tmp_path: Path, **changes: Any) -> Run:
    run = Run(tmp_path / "runs" / "tiny")
    run.root.mkdir(parents=True)
    write_metrics(run, val={})
    record = read_json(run.metrics)
    record["settings"] = Validate.model_validate(changes).model_dump(mode="json")
    write_json(run.metrics, record)
    return run


def test_every_key_is_accounted_for() -> None:
    assert set(Validate.model_fields) == {*TRAVELS, *NO_BOX}


@pytest.mark.parametrize("key", TRAVELS)
def test_settings_that_change_a_box_are_in_the_bundle(key: str, tmp_path: Path) -> None:
    value, place = TRAVELS[key]
    assert value != Validate.model_fields[key].default
    run = validated(tmp_path, **{key: value})
    of_run = settings.of(run)
    assert getattr(of_run, key) == value
    artefact = run.export / "tiny.onnx"
    spec: Any = targets.spec(Export().targets[0], artefact, run.export, ("a", "b"), 64, {"a": 0.3, "b": 0.4}, of_run)
    assert spec["output"][place] == value
    assert (spec["classes"], spec["thresholds"], spec["input"]["size"]) == (["a", "b"], {"a": 0.3, "b": 0.4}, 64)


def test_without_figures_the_bundle_has_the_defaults(tmp_path: Path) -> None:
    of_run = settings.of(Run(tmp_path / "none"))
    assert all(getattr(of_run, key) == Validate.model_fields[key].default for key in TRAVELS)

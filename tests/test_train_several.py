"""Training on several devices: Ultralytics pickles the trainer's class and starts it in other processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Trained, train_tiny

from pipeline.errors import PipelineError
from pipeline.run import Run
from pipeline.upstream import checkpoints, environment


@pytest.mark.slow
def test_an_error_of_one_of_several_processes_is_reported_in_one_line(
    trained: Trained, copy_of: Callable[[Run], Run], start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.prepare()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    from gloo import TwoProcesses

    from pipeline.train import trainer

    class Failing(TwoProcesses):
        def _setup_train(self) -> None:
            raise PipelineError("phase1: a process cannot go on; say so")

    def trainer_class(plan: Any, folder: Any, clock: Any) -> Any:
        return type("PhaseTrainer", (Failing,), {"plan": plan, "folder": folder, "clock": clock})

    monkeypatch.setattr(trainer, "trainer_class", trainer_class)
    with pytest.raises(PipelineError, match=r"^phase1: a process cannot go on; say so$"):
        train_tiny(copy_of(trained.run), start)


@pytest.mark.slow
def test_several_devices_keep_phases_proof_average_and_one_writer(
    trained: Trained, copy_of: Callable[[Run], Run], start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.prepare()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # two processes share the available cores
    from gloo import TwoProcesses

    from pipeline.train import trainer

    def trainer_class(plan: Any, folder: Any, clock: Any) -> Any:
        return type("PhaseTrainer", (TwoProcesses,), {"plan": plan, "folder": folder, "clock": clock})

    monkeypatch.setattr(trainer, "trainer_class", trainer_class)
    run = copy_of(trained.run)
    record = train_tiny(run, start, {"epochs": 2, "freeze": "backbone"}, {"epochs": 2}, ema=0.5)
    assert [phase["epochs"] for phase in record["phases"]] == [2, 2]
    frozen, free = (phase["proof"] for phase in record["phases"])
    assert frozen["frozen_tensors"] > 100 and frozen["frozen_sha256_before"] == frozen["frozen_sha256_after"]
    assert free["frozen_tensors"] == 0 and free["trainable_changed"] > 0
    assert record["phases"][0]["features"]["train"]["cached"]
    for phase in (1, 2):
        writers = (run.train / f"phase{phase}" / "writers.txt").read_text().split("\n")[:-1]
        assert len(writers) == 2 and {line.split()[1] for line in writers} == {"0"}
    model = checkpoints.load(run.model)[0]
    assert all(bool(torch.isfinite(tensor.float()).all()) for tensor in model.state_dict().values())

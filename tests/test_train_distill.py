"""Distillation from a teacher, by Ultralytics' own code, in our phases."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Trained, train_tiny

from pipeline import files
from pipeline.run import Run
from pipeline.upstream import checkpoints

PHASES = [{"epochs": 1, "freeze": "backbone"}, {"epochs": 2, "lr_groups": {"backbone": 0.1}}]


def losses(run: Run, phase: int) -> list[float]:
    with (run.train / f"phase{phase}" / "results.csv").open() as file:
        return [float(row["train/dis_loss"]) for row in csv.DictReader(file)]


def test_distillation_resumes_and_saves_an_ordinary_student(
    trained: Trained, copy_of: Callable[[Run], Run], start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after an epoch of the last phase, as by a kill, and resumed to the end."""
    teacher = tmp_path / "teacher.pt"
    shutil.copy(trained.run.model, teacher)
    args = {"plots": False, "distill_model": str(teacher)}
    run, link, resumable = copy_of(trained.run), files.link, 0

    def no_room(source: Path, target: Path) -> None:
        nonlocal resumable
        resumable += target.name == "resume.pt"
        if resumable == 3:
            raise OSError(28, "No space left on device", str(target))
        link(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(files, "link", no_room)
        with pytest.raises(OSError, match="No space"):
            train_tiny(run, start, *PHASES, args=args)
    record = train_tiny(run, start, *PHASES, args=args)

    assert record["teacher"] == {"name": "teacher.pt", "sha256": files.sha256(teacher)}
    assert [phase["epochs"] for phase in record["phases"]] == [1, 2]
    proof = record["phases"][0]["proof"]
    assert proof["frozen_sha256_before"] == proof["frozen_sha256_after"]
    assert proof["frozen_tensors"] > 200 and proof["trainable_changed"] > 0
    assert not record["phases"][0]["features"]  # the teacher needs the images
    assert len(losses(run, 1)) == 1 and len(losses(run, 2)) == 2 and min(losses(run, 1) + losses(run, 2)) > 0
    model, _ = checkpoints.load(run.model)  # an ordinary model, without its teacher
    theirs, _ = checkpoints.load(start)
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"model"}
    assert sum(p.numel() for p in model.parameters()) < 1.2 * sum(p.numel() for p in theirs.parameters())

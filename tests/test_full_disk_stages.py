"""A disk that fills up at any write of a stage: one line, the last result intact, and a retry with room succeeds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import full_disk
import pytest
import yaml
from conftest import ROOT, Trained, settings

from pipeline.extras.sample import dataset as sample

SPACE = ["unshare", "-rm"]  # a separate mount namespace, in which any user may mount
may_mount = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*SPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False).returncode
    != 0,
    reason="no small disk can be mounted here, as Linux allows in a namespace",
)
# Coarse, as each training attempt costs seconds; `full_disk.py` can be run with a factor near 1.
FACTORS = {"convert": 4, "augment": 4, "report": 4, "validate": 8, "label": 8}  # 24 for others


@pytest.fixture(scope="module")
def place(
    trained: Trained, tiles: Path, start: Path, own_database: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    shutil.copytree(trained.run.root, folder / "before")
    shutil.rmtree(folder / "before" / "params")  # they belong to another config
    train = {**settings(tiles, start)["train"], "phases": [{"epochs": 1}]}
    sample.main(seed=7, folder=folder / "drawn", splits={"train": 6})
    label = {"pool": str(folder / "drawn" / "images"), "batch": 3}
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**settings(tiles, start), "train": train, "label": label}))
    return folder


@may_mount
@pytest.mark.slow
@pytest.mark.parametrize("stage", full_disk.TARGETS)
def test_a_full_disk_is_one_line_and_destroys_nothing(place: Path, stage: str) -> None:
    command = [*SPACE, sys.executable, full_disk.__file__, str(place), str(FACTORS.get(stage, 24)), stage]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    attempts = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, done.stderr
    assert len(attempts) > 1 and [one["status"] for one in attempts] == [1] * (len(attempts) - 1) + [0]
    assert [problem for one in attempts for problem in full_disk.problems(one)] == []

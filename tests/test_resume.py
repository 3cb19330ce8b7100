"""SIGKILL in the middle of every stage; the same command goes on from there.

Real make, real stages. The process kills itself the n-th time it is about to open, link or rename a given
file, as seen by Python's audit hooks: exact moments, no clocks.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import checkout, make_environment, settings

from pipeline.files import read_json
from pipeline.run import Run
from pipeline.upstream import checkpoints, environment

KILLER = """
import os, runpy, signal, sys
event, part, count = os.environ.get("KILL", "none|none|0").split("|")
seen = 0

def watch(name, arguments):
    global seen
    if name == event and any(part in os.fsdecode(a) for a in arguments if isinstance(a, (str, bytes, os.PathLike))):
        seen += 1
        if seen == int(count):
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
sys.argv[0] = "pipeline"
runpy.run_module("pipeline", run_name="__main__")
"""

# In run order: when to kill, and the newest target that must exist by then.
KILLS = [
    ("os.link", ".dataset.partial/images/train", 3, None),  # half of the images exist
    ("os.rename", ".dataset.partial", 1, None),  # everything is written but the name
    ("open", ".augmented.partial/labels/train", 5, "dataset/data.yaml"),
    ("open", "phase1/weights/last.pt", 1, "augmented/data.yaml"),  # nothing saved yet
    ("open", "phase1/weights/last.pt", 2, "augmented/data.yaml"),  # written, not yet under its other name
    ("os.rename", "phase1/.model.partial.pt", 1, "train/phase1/resume.pt"),  # after the last epoch
    ("open", "phase2/weights/last.pt", 2, "train/phase1/phase.json"),
    ("os.rename", "phase2/.resume.partial.pt", 2, "train/phase2/resume.pt"),  # the third epoch is recorded, not saved
    ("os.rename", "phase2/.resume.partial.pt", 2, "train/phase2/resume.pt"),  # the fourth
    ("os.rename", "tiny/.model.partial.pt", 1, "train/phase2/phase.json"),  # only the name is missing
    ("os.rename", ".metrics.partial.json", 1, "model.pt"),
    ("os.rename", ".manifest.partial.json", 1, "metrics.json"),
    ("os.rename", ".report.partial", 1, "export/manifest.json"),
]


@pytest.fixture
def project(tmp_path: Path, source: Path) -> Path:
    checkout(tmp_path)
    # Mosaic ends after the second epoch of the last phase: training resumes before, at and after that point.
    phases = [{"epochs": 2, "freeze": "backbone"}, {"epochs": 4, "lr": 0.5}]
    config = settings(source, train={"phases": phases, "args": {"close_mosaic": 2}})
    for name in ("tiny", "whole"):
        (tmp_path / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "killer.py").write_text(KILLER)
    return tmp_path


def make(project: Path, kill: str = "none|none|0", what: str = "all tiny") -> subprocess.CompletedProcess[str]:
    target, name = what.split()
    command = ["make", target, f"CONFIG=configs/{name}.yaml", "DEVICE=cpu", f"PIPELINE={sys.executable} killer.py"]
    return subprocess.run(
        command, cwd=project, env=make_environment(KILL=kill), capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_run_killed_in_every_stage_resumes_to_the_end(project: Path) -> None:
    run = Run(project / "runs" / "tiny")
    done_before: dict[Path, int] = {}
    said = ""
    for event, part, count, newest in KILLS:
        done = make(project, f"{event}|{part}|{count}")
        assert done.returncode != 0 and "Killed" in done.stderr, (
            f"{part}: not killed\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
        said += done.stdout
        if newest:
            assert (run.root / newest).is_file(), part
        # What was finished at the last kill is not made again.
        assert all(path.stat().st_mtime_ns == date for path, date in done_before.items()), part
        targets = [run.dataset / "data.yaml", run.augmented / "data.yaml", run.model, run.metrics]
        done_before = {path: path.stat().st_mtime_ns for path in targets if path.is_file()}
    done = make(project)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^train: phase 2 continues after epoch [1-3] of 4$", said + done.stdout, re.M)

    record = read_json(run.train_record)
    assert [phase["epochs"] for phase in record["phases"]] == [2, 4]
    proofs = [phase["proof"] for phase in record["phases"]]
    assert all(proof["frozen_sha256_before"] == proof["frozen_sha256_after"] for proof in proofs)
    assert proofs[0]["frozen_tensors"] > 200
    for number, epochs in ((1, "12"), (2, "1234")):  # each epoch once: resumed, not restarted
        with (run.train / f"phase{number}" / "results.csv").open() as file:
            assert [row["epoch"].strip() for row in csv.DictReader(file)] == list(epochs)
    assert run.manifest.is_file() and (run.report / "index.html").is_file()
    leftovers = [path for path in run.root.rglob("*") if re.match(r"\..*partial|resume", path.name)]
    assert leftovers == []
    assert make(project).stdout.count("up to date") == 3

    # The model is bit-identical to that of an uninterrupted training.
    done = make(project, what="train whole")
    assert done.returncode == 0, done.stderr
    environment.prepare()
    models = [checkpoints.load(project / "runs" / name / "model.pt")[0].state_dict() for name in ("tiny", "whole")]
    assert models[0].keys() == models[1].keys()
    assert [name for name, tensor in models[0].items() if not torch.equal(tensor, models[1][name])] == []

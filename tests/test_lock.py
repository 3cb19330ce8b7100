"""A run has one writer and belongs to its config file; what all runs share is written by one command at a time."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import yaml
from conftest import ROOT, pipeline_process, settings

from pipeline.run import Run
from pipeline.upstream import environment

pytest.importorskip("fcntl")

HOLD = """
import sys
from pathlib import Path
from pipeline import lock
from pipeline.run import Run
with lock.of(Run(Path("runs/tiny"))):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def project(tmp_path: Path, source: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings(source)))
    return tmp_path


def test_a_second_process_learns_who_holds_the_run(project: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert pipeline_process("params", "--config", "tiny.yaml", cwd=project).returncode == 0
    with subprocess.Popen(
        [sys.executable, "-c", HOLD],
        cwd=project,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        log = Run(project / "runs/tiny").log("train")
        log.parent.mkdir(parents=True)
        log.write_text("what the first one wrote")
        for stage in ("convert", "train", "report"):
            done = pipeline_process(stage, "--config", "tiny.yaml", cwd=project)
            who = f"process {holder.pid} (" if sys.platform == "linux" else "another process"
            assert done.returncode == 1 and done.stderr.count("\n") == 1
            assert done.stderr.startswith(f"error: runs/tiny: is being written by {who}")
        assert not list((project / "runs" / "tiny").glob("dataset"))
        assert log.read_text() == "what the first one wrote"

        # What the first one writes would be newer than an edit that it does not know.
        given = project / "tiny.yaml"
        assert pipeline_process("params", "--config", "tiny.yaml", cwd=project).returncode == 0
        given.write_text(f"{given.read_text()}\nseed: 7\n")
        before = {path: path.read_text() for path in (project / "runs/tiny/params").iterdir()}
        done = pipeline_process("params", "--config", "tiny.yaml", cwd=project)
        assert done.returncode == 1 and done.stderr.startswith(f"error: runs/tiny: is being written by {who}")
        assert before == {path: path.read_text() for path in (project / "runs/tiny/params").iterdir()}
        holder.send_signal(signal.SIGKILL)  # a kill releases the lock
        holder.wait()
    assert pipeline_process("convert", "--config", "tiny.yaml", cwd=project).returncode == 0


def test_two_configs_of_the_same_name_are_refused(project: Path) -> None:
    for folder in ("cam1", "cam2"):
        (project / folder).mkdir()
        shutil.copy(project / "tiny.yaml", project / folder / "tiny.yaml")
    assert pipeline_process("params", "--config", "cam1/tiny.yaml", cwd=project).returncode == 0
    for stage in ("params", "train"):
        done = pipeline_process(stage, "--config", "cam2/tiny.yaml", cwd=project)
        assert done.returncode == 1
        assert done.stderr.startswith("error: runs/tiny: was made by cam1/tiny.yaml, not by cam2/tiny.yaml; ")
    # The same file by another path, or moved, is not another config.
    assert pipeline_process("params", "--config", "./cam2/../cam1/tiny.yaml", cwd=project).returncode == 0
    shutil.move(project / "cam1" / "tiny.yaml", project / "moved")
    shutil.move(project / "moved", project / "cam2" / "tiny.yaml")
    assert pipeline_process("convert", "--config", "cam2/tiny.yaml", cwd=project).returncode == 0


def test_the_first_commands_in_a_clone_can_start_at_once(tmp_path: Path) -> None:
    config = tmp_path / "cache" / "Ultralytics"
    start = Barrier(8)

    def bring() -> None:
        start.wait()
        environment.bring_fonts(config)

    for _ in range(20):
        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(bring) for _ in range(8)]:
                done.result()
        assert sorted(path.name for path in config.iterdir()) == ["Arial.Unicode.ttf", "Arial.ttf"]
        shutil.rmtree(config.parent)

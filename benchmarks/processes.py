"""Start commands of the pipeline in order to kill them: shared by `kill.py` and `study_kills.py`."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def options(description: str | None) -> argparse.Namespace:
    """Read `--kills` and `--seed`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def start(folder: Path, name: str, *words: str) -> subprocess.Popen[bytes]:
    """Start a command of the pipeline in a folder; its output is appended to `NAME.log` there."""
    command = [sys.executable, "-m", "pipeline", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    log = (folder / f"{name}.log").open("ab")
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)

"""Kill a study with SIGKILL at random moments, restart it each time, and check the result.

python benchmarks/study_kills.py --kills 20 > benchmarks/study/kills.md

The study is on the drawn sample: two rows, two shares, two seeds, real training of a few steps. An undisturbed study
comes first. Every second kill ends the study alone, whose trial then runs on by itself; the others also end everything
that it started, as a power cut does. At the end `results.jsonl` has to hold each trial once, with the figures of the
undisturbed study, to the last bit.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import processes
import yaml

from pipeline.extras.sample import dataset as sample

ROOT = processes.ROOT
BASE: dict[str, Any] = {
    "convert": {"source": "raw"},
    "train": {"weights": str(ROOT / "data/weights/yolo26n.pt"), "imgsz": 64, "phases": [{"epochs": 2}]},
}
STUDY: dict[str, Any] = {
    "base": "configs/tiny.yaml",
    "rows": {"full": {}, "frozen": {"train": {"phases": [{"epochs": 2, "freeze": "backbone"}]}}},
    "share": [0.5, 1],
    "seeds": 2,
    "budget": {"steps": 8},
}
TRIALS = 8


def begun(folder: Path, name: str) -> subprocess.Popen[bytes]:
    return processes.start(folder, name, "study", "--study", f"{name}.yaml")


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the lines of a study in the order of its trials. Fails if a trial appears twice."""
    path = folder / "runs" / "studies" / name / "results.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert len({line["key"] for line in found}) == len(found) == TRIALS, f"{len(found)} lines"
    return sorted(found, key=lambda line: (line["row"], line["share"], line["seed"]))


def descendants(number: int) -> list[int]:
    """Return all descendants of a process. Killing its process group is not enough: each trial has its own."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    found = [pid for pid, parent in pairs if parent == number]
    return [one for pid in found for one in (pid, *descendants(pid))]


def main() -> None:
    options = processes.options(__doc__)
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        sample.main(seed=0, folder=folder / "raw", splits={"train": 8, "val": 3, "test": 3})
        (folder / "configs").mkdir()
        (folder / "configs" / "tiny.yaml").write_text(yaml.safe_dump(BASE))
        for name in ("whole", "killed"):
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(STUDY))
        began = time.perf_counter()
        assert begun(folder, "whole").wait() == 0, (folder / "whole.log").read_text()
        seconds = time.perf_counter() - began
        undisturbed = lines(folder, "whole")
        inside = sum(line["seconds"] for line in undisturbed)
        kills = alone = 0
        process = begun(folder, "killed")
        while True:
            try:
                # Long enough to finish a trial now and then, short enough to be killed at any point.
                process.wait(rng.uniform(0.02, 1.2) * seconds / TRIALS if kills < options.kills else None)
            except subprocess.TimeoutExpired:
                started = [] if kills % 2 else descendants(process.pid)
                alone += kills % 2
                for one in (process.pid, *started):
                    with suppress(ProcessLookupError):
                        os.kill(one, signal.SIGKILL)
                process.wait()
                kills += 1
                print(f"kill {kills}", file=sys.stderr, flush=True)
            else:
                assert process.returncode == 0, (folder / "killed.log").read_text()[-3000:]
                if kills >= options.kills:
                    break
                # The study ended before its last kill: start it again from scratch.
                lines(folder, "killed")
                (folder / "runs" / "studies" / "killed" / "results.jsonl").unlink()
                subprocess.run(["rm", "-rf", folder / "runs" / "studies" / "killed" / "trials"], check=True)
            process = begun(folder, "killed")
        killed = lines(folder, "killed")
        same = sum(one["drawn"] == other["drawn"] for one, other in zip(undisturbed, killed, strict=True))
        above_zero = sum(bool(line["map50_95"]) for line in killed)
    print(f"# Studies that are killed\n\nWritten by `python benchmarks/study_kills.py {' '.join(sys.argv[1:])}`.\n")
    print(f"{kills} kills with SIGKILL at random moments, {alone} of them of the study alone, the others of all that")
    print(f"it had started too. In the end {len(killed)} of {TRIALS} trials are in `results.jsonl`, each once, and")
    print(f"{same} of them have the figures of the undisturbed study to the last bit ({above_zero} are above 0).\n")
    print(f"The undisturbed study took {seconds:.0f} s, of which {inside:.0f} s in the make of its {TRIALS} trials:")
    print(f"{(seconds - inside) / TRIALS:.1f} s a trial for everything else, the start, convert and the page included.")


if __name__ == "__main__":
    main()

"""Kill phased training with SIGKILL at random moments, resume it each time, and check the result.

python benchmarks/kill.py --kills 20 > benchmarks/kill.md      (minutes; with data/weights/yolo26n.pt)

It trains on the drawn sample: a frozen phase on cached features, then an unfrozen one. Three uninterrupted runs with
different seeds come first. A killed run has to end with as many epochs, with its frozen tensors unchanged, without
half-written files, and with exactly the weights of the uninterrupted run of its seed, bit by bit.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import processes
import torch
import yaml

from pipeline import history
from pipeline.extras.sample import dataset as sample
from pipeline.files import read_json
from pipeline.run import Run
from pipeline.upstream import checkpoints, environment

ROOT = processes.ROOT
PHASES: list[dict[str, Any]] = [{"epochs": 2, "freeze": "backbone"}, {"epochs": 4, "lr": 1.5}]
SEEDS = 3  # of the uninterrupted runs


def begun(stage: str, folder: Path, name: str) -> subprocess.Popen[bytes]:
    return processes.start(folder, name, stage, "--config", f"{name}.yaml")


def prepared(folder: Path, name: str, seed: int = 0) -> Run:
    train = {"weights": str(ROOT / "data/weights/yolo26n.pt"), "imgsz": 320, "phases": PHASES, "cache_features": True}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({"seed": seed, "convert": {"source": "raw"}, "train": train}))
    for stage in ("convert", "augment"):
        assert begun(stage, folder, name).wait() == 0, (folder / f"{name}.log").read_text()
    return Run(folder / "runs" / name)


def finished(run: Run) -> dict[str, Any]:
    """Return `train.json` of a finished run. Fails if the run is incomplete."""
    record = read_json(run.train_record)
    assert [phase["epochs"] for phase in record["phases"]] == [phase["epochs"] for phase in PHASES]
    for proof in (phase["proof"] for phase in record["phases"]):
        assert proof["frozen_sha256_before"] == proof["frozen_sha256_after"]
    epochs, _ = history.read(run)
    assert [row["epoch"] for row in epochs] == [n for phase in PHASES for n in range(1, phase["epochs"] + 1)]
    leftovers = [path for path in run.root.rglob("*") if "partial" in path.name or path.name.startswith("resume")]
    assert not leftovers, leftovers
    return dict(record)


def figures(found: list[float]) -> str:
    return ", ".join(f"{one:.3f}" for one in found)


def kept_fitness(run: Run) -> float:
    record = finished(run)
    return float(record["phases"][record["best_phase"] - 1]["best_fitness"])


def is_same(run: Run, other: Run) -> bool:
    models = [checkpoints.load(one.model)[0].state_dict() for one in (run, other)]
    return all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


def main() -> None:
    options = processes.options(__doc__)
    rng = random.Random(options.seed)
    environment.prepare()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        sample.main(seed=0, folder=folder / "raw", splits={"train": 80, "val": 24, "test": 2})
        whole = []
        for seed in range(SEEDS):
            run = prepared(folder, f"whole{seed}", seed)
            began = time.perf_counter()
            assert begun("train", folder, run.name).wait() == 0, (folder / f"{run.name}.log").read_text()
            seconds = time.perf_counter() - began
            whole.append(kept_fitness(run))
        kills, trainings, ends, same = 0, 0, [], 0
        while kills < options.kills:
            trainings += 1
            run = prepared(folder, f"killed{trainings}")
            while not run.model.is_file():
                process = begun("train", folder, run.name)
                try:
                    # Long enough to finish an epoch now and then, short enough to be killed at any point.
                    process.wait(rng.uniform(0.1, 0.9) * seconds if kills < options.kills else None)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    kills += 1
                    known = sorted(str(path.relative_to(run.train)) for path in run.train.rglob("*.pt"))
                    print(f"kill {kills}: {known[-3:]}", file=sys.stderr, flush=True)
                else:
                    assert process.returncode == 0, (folder / f"{run.name}.log").read_text()[-3000:]
            ends.append(kept_fitness(run))
            same += is_same(run, Run(folder / "runs/whole0"))
    print(f"# Killed and resumed\n\nWritten by `python benchmarks/kill.py {' '.join(sys.argv[1:])}`.\n")
    print(f"{kills} kills in {trainings} training runs. ", end="")
    print("Each run finished with all its epochs, its proof and no leftovers.\n")
    print(f"{same} of them end with the same weights as the uninterrupted run of their seed, to the last bit.\n")
    print(f"Val mAP50-95: uninterrupted {figures(whole)} (seeds 0 to {SEEDS - 1}); killed {figures(ends)} (seed 0).")


if __name__ == "__main__":
    main()

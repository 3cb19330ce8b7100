"""Check a GPU in about ten minutes: training, frozen layers, cached features, resume, validation and export.

python benchmarks/gpu.py > benchmarks/gpu.md               (on a machine with a CUDA GPU)
python benchmarks/gpu.py --device cpu --images 16 --imgsz 64   (no GPU: checks this program)

It trains on the drawn sample in a temporary folder: two epochs with a frozen backbone on cached features, then three
with the first three layers frozen. The same training is killed in its last phase and resumed. Both models are
compared, and the first is validated on the GPU and on the CPU. Then it is exported to ONNX and, if TensorRT is
installed, to an engine, each compared with the model. A failed step ends the program with the step's log.

GPU memory is what other processes use at most during a step, measured ten times per second.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kill
import processes
import torch
import yaml

from pipeline.errors import PipelineError
from pipeline.extras.sample import dataset as sample
from pipeline.files import read_json
from pipeline.run import Run
from pipeline.upstream import checkpoints, environment

PHASES: list[dict[str, Any]] = [{"epochs": 2, "freeze": "backbone"}, {"epochs": 3, "freeze": 3}]
EVERY = 0.1  # seconds between two looks at memory and files


class Bench:
    """Runs stages in a folder, one after another, and collects a row for each."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder = folder
        self.on_gpu = environment.is_gpu(options.device)
        self.rows: list[str] = []
        targets: list[dict[str, Any]] = [{"format": "onnx"}]
        if self.on_gpu and importlib.util.find_spec("tensorrt"):
            targets.append({"format": "engine", "quantize": 16})
        weights = processes.ROOT / "data/weights"
        self.config = {
            "convert": {"source": "raw"},
            "train": {
                "weights": str(weights / "yolo26n.pt"),
                "fallback": str(weights / "starter-yolo26n.pt"),
                "imgsz": options.imgsz,
                "phases": PHASES,
                "cache_features": True,
            },
            "export": {"targets": targets},
        }

    def used(self) -> int:
        free, total = torch.cuda.mem_get_info() if self.on_gpu else (0, 0)
        return total - free

    def stage(self, name: str, run: str, *words: str, kill_at: Path | None = None) -> tuple[float, int]:
        """Run a stage, or kill it once `kill_at` has a second line. Return seconds and the peak of GPU memory."""
        before, most, start = self.used(), 0, time.perf_counter()
        process = processes.start(self.folder, run, name, "--config", f"{run}.yaml", *words)
        while process.poll() is None:
            most = max(most, self.used() - before)
            if kill_at and kill_at.is_file() and len(kill_at.read_text().splitlines()) > 1:
                process.kill()
                process.wait()
                break
            time.sleep(EVERY)
        if process.returncode and not (kill_at and process.returncode < 0):
            raise SystemExit((self.folder / f"{run}.log").read_text()[-5000:])
        if kill_at and not process.returncode:
            raise SystemExit(f"{name} ended before it could be killed; train more images")
        return time.perf_counter() - start, most

    def report(self, step: str, spent: tuple[float, int], result: str) -> None:
        memory = f"{spent[1] / 1e6:,.0f}" if self.on_gpu else "–"
        self.rows.append(f"| {step} | {spent[0]:.0f} | {memory} | {result} |")
        print(self.rows[-1], file=sys.stderr, flush=True)

    def prepare(self, name: str) -> Run:
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(self.config))
        for stage in ("convert", "augment"):
            self.stage(stage, name)
        return Run(self.folder / "runs" / name)


def trained(run: Run) -> str:
    """Return what `train.json` says about the frozen tensors and the cached features. Fails if the proof fails."""
    phases = read_json(run.train_record)["phases"]
    proofs = [phase["proof"] for phase in phases]
    assert all(proof["frozen_sha256_before"] == proof["frozen_sha256_after"] for proof in proofs)
    frozen = " and ".join(str(proof["frozen_tensors"]) for proof in proofs)
    cached = "cached" if phases[0]["features"]["train"]["cached"] else "not cached"
    return f"{frozen} frozen tensors unchanged; features {cached}; val mAP50-95 {phases[-1]['best_fitness']:.3f}"


def difference(run: Run, other: Run) -> str:
    if kill.is_same(run, other):
        return "the same weights, bit for bit"
    ours, theirs = (checkpoints.load(one.model)[0].state_dict() for one in (run, other))
    largest = max(float((tensor.float() - theirs[name].float()).abs().max()) for name, tensor in ours.items())
    return f"weights differ by at most {largest:.1e}"


def test_map(run: Run) -> float:
    return float(read_json(run.metrics)["splits"]["test"]["map50_95"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="0", help="as in DEVICE=... (default 0, the first GPU)")
    parser.add_argument("--images", type=int, default=240, help="training images to draw (default 240)")
    parser.add_argument("--imgsz", type=int, default=320)
    options = parser.parse_args()
    environment.prepare()
    try:
        environment.check_device(options.device)
    except PipelineError as error:
        raise SystemExit(f"error: {error}") from None
    with tempfile.TemporaryDirectory() as text:
        bench = Bench(Path(text), options)
        fewer = max(4, options.images // 4)
        sample.main(seed=0, folder=Path(text) / "raw", splits={"train": options.images, "val": fewer, "test": fewer})
        run, killed = bench.prepare("whole"), bench.prepare("killed")
        on = ("--device", options.device)
        bench.report("train", bench.stage("train", "whole", *on), trained(run))
        spent = bench.stage("train", "killed", *on, kill_at=killed.train / "phase2" / "results.csv")
        bench.report("train, killed in phase 2", spent, "killed with SIGKILL")
        spent = bench.stage("train", "killed", *on)
        bench.report("train, resumed", spent, f"{trained(killed)}; {difference(run, killed)}")
        spent, there = bench.stage("validate", "whole", *on), test_map(run)
        bench.report(f"validate on {options.device}", spent, f"test mAP50-95 {there:.4f}")
        spent, here = bench.stage("validate", "whole", "--device", "cpu"), test_map(run)
        bench.report("validate on cpu", spent, f"test mAP50-95 {here:.4f}, {100 * (here - there):+.2f} points")
        spent = bench.stage("export", "whole", *on)
        verdicts = [f"{one['file']} {one['verdict']}" for one in read_json(run.manifest)["artefacts"]]
        bench.report("export", spent, ", ".join(verdicts))
    words = " ".join(sys.argv[1:])
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "ultralytics-opencv-headless"))
    print(f"# A GPU, checked\n\nWritten by `python benchmarks/gpu.py{' ' * bool(words)}{words}`.\n")
    print(
        f"{environment.device_name(options.device)}, CUDA {torch.version.cuda}, Python {platform.python_version()}, ",
        end="",
    )
    print(f"{packages}.\n")
    print("\n".join(["| step | seconds | GPU memory, MB | result |", "|---|---|---|---|", *bench.rows]))


if __name__ == "__main__":
    main()

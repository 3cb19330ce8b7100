"""The bundle's runner beside `yolo predict`: the same ONNX file, the same images, the same detections.

python benchmarks/runner.py runs/bccd > benchmarks/runner.md      (on a quiet machine, after `make export`)

Both ways take turns. `command` is what a person types, from the start of Python to its end: Ultralytics has torch to
import, the runner has not. `loop` is one process that is warm: file in, boxes out, image by image, on every core.
Before anything is timed, both have to find the same boxes.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import weights
from pipeline.boxes import YoloDataset
from pipeline.export import runner
from pipeline.files import read_json
from pipeline.run import Run

ROUNDS = 5
CONF, IOU = 0.25, 0.7  # of `yolo predict`
GOAL = 1.2


def main() -> None:
    if len(sys.argv) != 2 or not (run := Run(Path(sys.argv[1]))).manifest.is_file():
        raise SystemExit("error: name a run with an ONNX export: python benchmarks/runner.py runs/bccd")
    weights.prepare()
    images = YoloDataset.read(run.dataset / "data.yaml").files("val")
    model = run.export / f"{run.name}.onnx"
    with tempfile.TemporaryDirectory() as text:
        bundle = Path(text) / "bundle"
        with zipfile.ZipFile(run.export / f"{run.name}-onnx-fp32.zip") as packed:
            packed.extractall(bundle)
        [inside] = bundle.rglob("model.json")
        spec = read_json(inside)
        spec["thresholds"] = dict.fromkeys(spec["thresholds"], CONF)
        ours, theirs = loops(inside.parent, spec, model)
        boxes = same(ours, theirs, images)
        cores = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
        environment = {**os.environ, "OMP_NUM_THREADS": cores}
        folder, size = images[0].parent, spec["input"]["size"]
        command = [str(inside.parent / "run.py"), str(folder), "--json", f"{text}/ours.jsonl"]
        yolo = [f"model={model}", f"source={folder}", f"imgsz={size}", "device=cpu", "save=False", f"project={text}"]
        ways: dict[str, dict[str, Callable[[], Any]]] = {
            "command": {
                "run.py": lambda: typed([sys.executable, *command], environment),
                "yolo predict": lambda: typed(
                    [str(Path(sys.executable).with_name("yolo")), "predict", *yolo], environment
                ),
            },
            "loop": {
                "run.py": lambda: [ours(image) for image in images],
                "yolo predict": lambda: [theirs(image) for image in images],
            },
        }
        took: dict[str, dict[str, list[float]]] = {way: {name: [] for name in jobs} for way, jobs in ways.items()}
        for way, jobs in ways.items():
            for job in jobs.values():
                job()  # the page cache, the runtimes' own warming
            for _ in range(ROUNDS):
                for name, job in jobs.items():
                    start = time.perf_counter()
                    job()
                    took[way][name].append(time.perf_counter() - start)
    packages = ", ".join(f"{name} {version(name)}" for name in ("ultralytics-opencv-headless", "onnxruntime", "torch"))
    print("# The runner, timed\n\nWritten by `python benchmarks/runner.py runs/NAME`.\n")
    print(f"{cores} cores ({platform.machine()}), Python {platform.python_version()}, {packages}.\n")
    print(
        f"{run.name}: {len(images)} images at {size} px, {boxes} boxes found by both; "
        f"seconds, median of {ROUNDS} (least - most).\n"
    )
    print("| | run.py | yolo predict | times as fast | goal |\n|---|---|---|---|---|")
    for way, each in took.items():
        ratios = [a / b for a, b in zip(each["yolo predict"], each["run.py"], strict=True)]
        print(f"| {way} | {words(each['run.py'])} | {words(each['yolo predict'])} | {words(ratios)} | >= {GOAL:g} |")


def loops(folder: Path, spec: dict[str, Any], model: Path) -> tuple[Callable[[Path], Any], Callable[[Path], Any]]:
    from ultralytics import YOLO

    mine, other = runner.Model(folder, spec, 0), YOLO(str(model), task="detect")
    size = spec["input"]["size"]
    return (
        lambda path: mine.detect(runner.read_image(path)),
        lambda path: (
            other.predict(str(path), imgsz=size, conf=CONF, iou=IOU, device="cpu", verbose=False)[0].boxes.cpu().numpy()
        ),
    )


def same(ours: Callable[[Path], Any], theirs: Callable[[Path], Any], images: list[Path]) -> int:
    """How many boxes both find. Ends the program where one finds what the other does not."""
    count = 0
    for image in images:
        mine, other = ours(image), theirs(image)
        if len(mine) != len(other) or not np.array_equal(np.sort(mine.classes), np.sort(other.cls)):
            raise SystemExit(f"error: {image}: {len(mine)} boxes by the runner, {len(other)} by Ultralytics")
        order, their_order = np.argsort(mine.scores), np.argsort(other.conf)
        if len(mine) and np.abs(mine.corners[order] - other.xyxy[their_order]).max() > 0.5:
            raise SystemExit(f"error: {image}: boxes more than half a pixel apart")
        count += len(mine)
    return count


def typed(command: list[str], environment: dict[str, str]) -> None:
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def words(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} - {max(values):.2f})"


if __name__ == "__main__":
    main()

"""Measure how long a person waits for `make inspect`, from a validated run to the App's first page, and how that grows.

python benchmarks/open_app.py > benchmarks/open_app.md      (with data/weights/yolo26n.pt, on a quiet machine)

The run is drawn: images of 640x480 with 20 boxes each and as many predictions, some missing, some misplaced, some of
another class, some invented. Each size has its own process and dataset and is timed from the start of Python to the
first page of the App, so imports, the database and the backbone's vectors are included.
"""

from __future__ import annotations

import math
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.boxes import Box, YoloDataset, write_data_yaml, write_labels
from pipeline.files import write_json
from pipeline.run import Run
from pipeline.validate import error_types, predict

SIZES = (500, 1_000, 2_000, 4_000)
BOXES, WIDTH, HEIGHT, PORT = 20, 640, 480, 5171
CLASSES = ("a", "b", "c", "d")
ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "data" / "weights" / "yolo26n.pt"


def draw(run: Run, images: int) -> None:
    """Write a run as `validate` leaves it, with a test split of the given number of images."""
    rng, noise = random.Random(0), np.random.default_rng(0)
    for split, number in (("train", 1), ("val", 1), ("test", images)):
        for kind in ("images", "labels"):
            (run.dataset / kind / split).mkdir(parents=True)
        for index in range(number):
            coarse = noise.integers(0, 255, (12, 16, 3), dtype=np.uint8)
            picture = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
            (run.dataset / "images" / split / f"{split}{index:05}.jpg").write_bytes(
                cv2.imencode(".jpg", picture)[1].tobytes()
            )
            boxes = [Box(rng.choice(CLASSES), *corners(rng)) for _ in range(BOXES)]
            write_labels(run.dataset / "labels" / split / f"{split}{index:05}.txt", boxes, CLASSES, (WIDTH, HEIGHT))
    splits = {split: f"images/{split}" for split in ("train", "val", "test")}
    write_data_yaml(run.dataset / "data.yaml", splits, CLASSES)
    paths = sorted((run.dataset / "images").rglob("*.jpg"))
    sources = {f"{path.parent.name}/{path.name}": path.name for path in paths}
    write_json(run.receipt, {"splits": {key: {} for key in splits}, "sources": sources})
    shutil.copy(WEIGHTS, run.model)
    data = YoloDataset.read(run.dataset / "data.yaml")
    for split in ("val", "test"):
        truth = predict.ground_truth(data, data.files(split))
        write_json(run.ground_truth(split), truth)
        thresholds = dict.fromkeys(CLASSES, 0.3)
        write_json(run.errors(split), error_types.record(truth, list(found(truth, rng)), thresholds))
    write_json(run.metrics, {"splits": {key: {"map50_95": 0.5, "map50": 0.5} for key in ("val", "test")}})


def corners(rng: random.Random) -> tuple[float, float, float, float]:
    width, height = rng.uniform(20, 120), rng.uniform(20, 120)
    x, y = rng.uniform(0, WIDTH - width), rng.uniform(0, HEIGHT - height)
    return x, y, x + width, y + height


def found(truth: Any, rng: random.Random) -> Any:
    for one in truth["annotations"]:
        x, y, width, height = one["bbox"]
        if rng.random() < 0.9:
            category = one["category_id"] if rng.random() < 0.92 else rng.randrange(len(CLASSES))
            moved = [x + rng.gauss(0, 6), y + rng.gauss(0, 6), width, height]
            yield {"image_id": one["image_id"], "category_id": category, "bbox": moved, "score": rng.uniform(0.3, 1)}
        if rng.random() < 0.1:
            xmin, ymin, xmax, ymax = corners(rng)
            bbox = [xmin, ymin, xmax - xmin, ymax - ymin]
            yield {"image_id": one["image_id"], "category_id": 0, "bbox": bbox, "score": rng.uniform(0.3, 0.8)}


def seconds(folder: Path, name: str) -> float:
    """Return the seconds from the start of `inspect` to the first page."""
    (folder / f"{name}.yaml").write_text("convert: {source: nowhere}\n")
    command = [sys.executable, "-m", "pipeline", "inspect", "--config", f"{name}.yaml", "--port", str(PORT)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FIFTYONE_DATABASE_DIR": str(folder / "database")}
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = next(line for line in process.stdout if line.startswith("inspect: http")).split()[1]
        with urllib.request.urlopen(address, timeout=60) as page:
            page.read()
        taken = time.perf_counter() - start
        process.send_signal(signal.SIGTERM)
    return taken


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for images in SIZES:
            name = f"bench{images}"
            draw(Run(folder / "runs" / name), images)
            rows.append((images, seconds(folder, name), seconds(folder, name)))
    packages = ", ".join(f"{name} {version(name)}" for name in ("fiftyone", "torch"))
    print("# `make inspect`, timed\n\nWritten by `python benchmarks/open_app.py`.\n")
    print(f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {packages}.\n")
    print("| images | objects | first time, s | again, nothing changed, s |\n|---|---|---|---|")
    for images, first, again in rows:
        print(f"| {images:,} | {images * BOXES:,} | {first:.1f} | {again:.1f} |")
    xs, ys = [math.log(images) for images, *_ in rows], [math.log(first) for _, first, _ in rows]
    print(f"\nlog-log slope of the first time: {statistics.linear_regression(xs, ys).slope:.2f}")


if __name__ == "__main__":
    main()

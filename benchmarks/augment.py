"""Time the augment stage against a bare loop over the same images, and two processes against one.

python benchmarks/augment.py

The bare loop is the cost of the work without a stage around it: `cv2.imdecode`, Albumentations' Compose with its boxes,
`cv2.imencode`, write. The stage also reads and writes labels, links the originals, checks the transforms, accounts for
every box and draws the preview. All of them take turns in each round, so that other load on the machine affects them
equally. No figure includes importing Albumentations (two to three seconds, once per run). OpenCV uses one thread per
process throughout; otherwise a single process would already use two cores. Two bare loops at once, each over half of
the images, show what a second core is worth here: it is worth less than two if the cores share a cache, or share the
chip with other tenants.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline import augment, parallel
from pipeline.augment import transforms
from pipeline.augment.stage import JPEG_QUALITY
from pipeline.boxes import Box, read_labels, write_data_yaml, write_labels
from pipeline.config.data import Augment
from pipeline.run import Run

IMAGES, COPIES, BOXES, WIDTH, HEIGHT = 300, 3, 20, 640, 480
ROUNDS = 5
CONFIG = Augment.model_validate(
    {
        "copies": COPIES,
        "transforms": [
            {"HorizontalFlip": {"p": 0.5}},
            {"Affine": {"scale": [0.8, 1.2], "translate_percent": [-0.1, 0.1], "rotate": [-10, 10], "p": 0.7}},
            {"RandomBrightnessContrast": {"p": 0.7}},
            {"HueSaturationValue": {"p": 0.5}},
        ],
    }
)


def main() -> None:
    cv2.setNumThreads(1)
    parallel.start(preload=["pipeline.augment.transforms"])  # as in the stage: a process has only one fork server
    pool = ProcessPoolExecutor(
        2, multiprocessing.get_context("forkserver"), initializer=cv2.setNumThreads, initargs=(1,)
    )
    with pool, tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "runs" / "bench")
        paint(run.dataset)
        peers: dict[str, Callable[[], Any]] = {
            "bare loop": lambda: bare_loop(run.dataset, Path(folder) / "bare"),
            "two bare loops": lambda: list(
                pool.map(bare_loop, [run.dataset] * 2, [Path(folder) / "bare"] * 2, (0, 1), (2, 2))
            ),
            "stage, 1 process": lambda: augment.main(CONFIG, run, 0, workers=1),
            "stage, 2 processes": lambda: augment.main(CONFIG, run, 0, workers=2),
        }
        for warm in ("two bare loops", "stage, 2 processes"):  # imports, the fork server, the page cache
            peers[warm]()
        seconds: dict[str, list[float]] = {name: [] for name in peers}
        order = list(peers)
        for _ in range(ROUNDS):
            for name in order:
                shutil.rmtree(Path(folder) / "bare", ignore_errors=True)
                shutil.rmtree(run.augmented, ignore_errors=True)
                start = time.perf_counter()
                peers[name]()
                seconds[name].append(time.perf_counter() - start)
            order.append(order.pop(0))
    print(f"# Augmentation, timed\n\nWritten by `make bench-augment`.\n\n{machine()}\n")
    print(
        f"{IMAGES} images of {WIDTH}x{HEIGHT}, {BOXES} boxes each, {COPIES} copies; median of {ROUNDS} (least - most)\n"
    )
    print("| | seconds | copies/s |\n|---|---|---|")
    for name, taken in seconds.items():
        median = statistics.median(taken)
        rate = IMAGES * COPIES / median
        print(f"| {name} | {median:.2f} ({min(taken):.2f} - {max(taken):.2f}) | {rate:.0f} |")
    print("\n| ratio, round by round | median (least - most) |\n|---|---|")
    print(f"| stage in 1 process : bare loop | {ratio(seconds, 'stage, 1 process', 'bare loop')} |")
    print(f"| stage in 1 process : in 2 | {ratio(seconds, 'stage, 1 process', 'stage, 2 processes')} |")
    print(f"| bare loop : two at once | {ratio(seconds, 'bare loop', 'two bare loops')} |")


def paint(dataset: Path) -> None:
    """Blurred noise, which JPEG finds about as hard as a photograph, with boxes anywhere."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (dataset / kind / "train").mkdir(parents=True)
    for index in range(IMAGES):
        picture = cv2.GaussianBlur(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), (0, 0), 1.5)
        (dataset / "images" / "train" / f"{index:04}.jpg").write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
        boxes = []
        for _ in range(BOXES):
            width, height = rng.integers(12, 120, 2)
            x, y = rng.integers(0, WIDTH - width), rng.integers(0, HEIGHT - height)
            boxes.append(Box("thing", float(x), float(y), float(x + width), float(y + height)))
        write_labels(dataset / "labels" / "train" / f"{index:04}.txt", boxes, ["thing"], (WIDTH, HEIGHT))
    write_data_yaml(dataset / "data.yaml", {"train": "images/train"}, ["thing"])


def bare_loop(dataset: Path, target: Path, first: int = 0, step: int = 1) -> None:
    import albumentations as A  # late: `transforms` sets it up

    target.mkdir(exist_ok=True)
    compose = A.Compose(
        transforms.make_all(CONFIG.transforms),
        bbox_params=A.BboxParams("pascal_voc", ["labels"], min_visibility=0.3, clip=True),
    )
    for image in sorted((dataset / "images" / "train").iterdir())[first::step]:
        boxes = read_labels(dataset / "labels" / "train" / f"{image.stem}.txt", ["thing"], WIDTH, HEIGHT)
        corners = np.array([(box.xmin, box.ymin, box.xmax, box.ymax) for box in boxes])
        picture = cv2.imdecode(np.frombuffer(image.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        for copy in range(COPIES):
            done = compose(image=picture, bboxes=corners, labels=[0] * len(boxes))
            encoded = cv2.imencode(".jpg", done["image"], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
            (target / f"{image.stem}-{copy}.jpg").write_bytes(encoded.tobytes())


def ratio(seconds: dict[str, list[float]], above: str, below: str) -> str:
    each = [a / b for a, b in zip(seconds[above], seconds[below], strict=True)]
    return f"{statistics.median(each):.2f} ({min(each):.2f} - {max(each):.2f})"


def machine() -> str:
    model = platform.processor() or platform.machine()
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    packages = ", ".join(f"{name} {version(name)}" for name in ("albumentations", "opencv-python-headless", "numpy"))
    return f"{model}, {os.cpu_count()} cores{load}; Python {platform.python_version()}, {packages}"


if __name__ == "__main__":
    main()

"""Pass a slide of 400 million pixels through the stages: seconds and memory of each stage.

python benchmarks/slide.py > benchmarks/slide.md    (10 minutes; after `make convert CONFIG=configs/bccd.yaml`)

The slide is put together from images of cells, as a TIFF in tiles of 512 pixels with Deflate; val and test are smaller
ones. One worker process, so that the memory is that of one. The model is trained for one epoch only, so its figures say
nothing.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaml

from pipeline import pixels
from pipeline.boxes import YoloDataset, read_labels
from pipeline.run import Run
from pipeline.upstream import environment

SLIDES = {"train": (20_000, 20_000), "val": (2_560, 1_920), "test": (20_000, 12_000)}  # width, height
CONFIG: dict[str, Any] = {
    "tiles": {"size": 640, "overlap": 0.2},
    "train": {"imgsz": 160, "phases": [{"epochs": 1, "freeze": "all-but-head"}], "args": {"plots": False}},
}


def compose(data: YoloDataset, folder: Path) -> None:
    """Write the slides and their labels, in COCO."""
    images = [(pixels.read(path), path) for path in data.files("train")]
    height, width = images[0][0].shape[:2]
    truth: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": index, "name": name} for index, name in enumerate(data.names)],
    }
    for number, (split, (wide, high)) in enumerate(SLIDES.items(), start=1):
        (folder / split).mkdir(parents=True)
        rng, slide = random.Random(number), np.full((high, wide, 3), 200, np.uint8)
        for y in range(0, high - height + 1, height):
            for x in range(0, wide - width + 1, width):
                image, path = rng.choice(images)
                slide[y : y + height, x : x + width] = image[:, :, ::-1]
                for box in read_labels(data.label_file(path), data.names, width, height):
                    truth["annotations"].append(
                        {
                            "id": len(truth["annotations"]) + 1,
                            "image_id": number,
                            "category_id": data.names.index(box.label),
                            "bbox": [box.xmin + x, box.ymin + y, box.width, box.height],
                            "area": box.width * box.height,
                            "iscrowd": 0,
                        }
                    )
        name = f"{split}/slide.tif"
        tifffile.imwrite(folder / name, slide, tile=(512, 512), compression="zlib", photometric="rgb")
        truth["images"].append({"id": number, "file_name": name, "width": wide, "height": high})
    (folder / "labels.json").write_text(json.dumps(truth))


def stage(name: str, folder: Path) -> tuple[float, float, str]:
    """Run a stage; return its seconds, its peak memory in GB and its last line."""
    line = [sys.executable, "-m", "pipeline", name, "--config", "slide.yaml"]
    workers = ["--workers", "1"] if name in ("convert", "augment") else []
    start = time.perf_counter()
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(line + workers, cwd=folder, stdout=subprocess.PIPE, text=True, env=variables)
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{name} failed")
    return time.perf_counter() - start, used.ru_maxrss / 2**20, lines[-1]


def main() -> None:
    data = YoloDataset.read(Run(Path("runs/bccd")).dataset / "data.yaml")
    weights = Path("data/weights/yolo26n.pt").resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In another process: the system counts the memory of the parent as that of the stages it starts.
        composer = get_context("spawn").Process(target=compose, args=(data, folder / "source"))
        composer.start()
        composer.join()
        config = {"convert": {"source": "source", "split": "given"}, **CONFIG}
        config["train"] = {**CONFIG["train"], "weights": str(weights)}
        (folder / "slide.yaml").write_text(yaml.safe_dump(config))
        rows = {one: stage(one, folder) for one in ("convert", "augment", "train", "validate", "report", "export")}
    sizes = ", ".join(f"{split} {width:,} x {height:,}" for split, (width, height) in SLIDES.items())
    print(f"# A slide of 400 million pixels\n\nPrinted by `python benchmarks/slide.py`. Slides in pixels: {sizes}.")
    print(f"{environment.device_name('cpu')}, two cores; convert and augment in one process.\n")
    print("| stage | seconds | memory, GB | last line |\n|---|---|---|---|")
    for one, (seconds, memory, last) in rows.items():
        print(f"| {one} | {seconds:.0f} | {memory:.1f} | {last.replace('|', ' ')} |")


if __name__ == "__main__":
    main()

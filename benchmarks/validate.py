"""Time `validate` as a whole beside prediction alone, on 500 images and the model of a trained run.

python benchmarks/validate.py runs/NAME > benchmarks/validate.md      (minutes)

The images are those of the run's splits, repeated up to 500. Both are separate processes and take turns.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from evaluate import REPEATS, in_words, machine, seconds, tables

from pipeline.boxes import YoloDataset, write_data_yaml
from pipeline.config.judging import Validate
from pipeline.records import predictions
from pipeline.run import Run
from pipeline.upstream import checkpoints, environment

IMAGES = 500
PREDICT = """
import json, sys, time
from pipeline.upstream import checkpoints, environment
environment.prepare()
from ultralytics import YOLO
file, images, settings = json.load(sys.stdin)
model = YOLO(file, task="detect")
start = time.perf_counter()
for first in range(0, len(images), 8):
    model.predict(images[first : first + 8], rect=False, device="cpu", verbose=False, **settings)
print(time.perf_counter() - start)
"""


def repeated(source: Run, target: Run) -> None:
    """Copy the run's model, and write a dataset whose val split repeats the images of all splits up to IMAGES."""
    data = YoloDataset.read(source.dataset / "data.yaml")
    for kind in ("images", "labels"):
        (target.dataset / kind / "val").mkdir(parents=True)
    paths = [path for split in data.images for path in data.files(split)]
    for number, path in enumerate(itertools.islice(itertools.cycle(paths), IMAGES)):
        shutil.copy(path, target.dataset / "images" / "val" / f"{number:03}{path.suffix}")
        shutil.copy(data.label_file(path), target.dataset / "labels" / "val" / f"{number:03}.txt")
    write_data_yaml(target.dataset / "data.yaml", {"val": "images/val"}, data.names)
    for path in (source.model, source.train_record):
        shutil.copy(path, target.root)


def process(*command: str, text: str = "") -> tuple[float, str]:
    """Run a command; return its seconds and the last line that it printed."""
    took, done = seconds(
        lambda: subprocess.run([sys.executable, *command], input=text, text=True, check=True, stdout=subprocess.PIPE)
    )
    return took, done.stdout.splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a trained run, such as runs/sample")
    source, run = Run(parser.parse_args().run), Run(Path("runs/bench-validate"))
    shutil.rmtree(run.root, ignore_errors=True)
    repeated(source, run)
    config = run.root / "bench-validate.yaml"
    config.write_text("convert: {source: nowhere}\n")
    environment.prepare()
    settings: dict[str, Any] = {"imgsz": int(checkpoints.model_of(run.model).args["imgsz"])}
    settings |= Validate().model_dump(include={"conf", "iou", "max_det"})
    images = [str(path) for path in YoloDataset.read(run.dataset / "data.yaml").files("val")]
    text = json.dumps([str(run.model), images, settings])
    alone, inside, whole = [], [], []
    for _ in range(REPEATS):
        took, said = process("-c", PREDICT, text=text)
        alone.append(took)
        inside.append(float(said))
        whole.append(process("-m", "pipeline", "validate", "--config", str(config), "--device", "cpu")[0])
    print(
        f"# `validate`, timed\n\nWritten by `python benchmarks/validate.py {source.root}`: medians of {REPEATS} runs,"
    )
    print(f"all in turns, and (least to most).\n\n{machine()}.\n")
    print(f"{len(images)} images at {settings['imgsz']} px. Whole processes, from the start of Python; prediction is")
    print("Ultralytics' `model.predict` with the settings of `validate`, in batches of 8.\n")
    print("| | |\n|---|---|")
    print(f"| prediction alone | {in_words(alone)} |")
    print(f"| of that, the pass through the network, reading images | {in_words(inside)} |")
    print(f"| `validate` | {in_words(whole)} |")
    for name, others in (("prediction alone", alone), ("the pass alone", inside)):
        ratios = [ours / theirs for ours, theirs in zip(whole, others, strict=True)]
        print(f"| `validate` : {name} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |")
    print("\nPart of that is what `validate` computes from the predictions:\n")
    (truth, every), (_, single) = (predictions.predictions(run, "val", single_label) for single_label in (False, True))
    tables(truth, every, single)
    shutil.rmtree(run.root)


if __name__ == "__main__":
    main()

"""Measure time and accuracy of our training beside plain Ultralytics', on the datasets of the configs.

python benchmarks/train.py bccd facemask                            (hours; after `make augment` of both configs)
python benchmarks/train_table.py > benchmarks/train.md              (prints the results so far)

All rows use the same weights, images, image size and machine. Each training run is a separate process, timed from the
start of Python to the last file, and they take turns. Each result is a line of benchmarks/train.jsonl, so a stopped
benchmark continues where it was; delete lines to measure them again. All are evaluated by our code, on the test split,
or on val if there is no test split.

  stock      `yolo train` with all defaults, 15 epochs
  ours       the config as it is: phased
  equal      our phases stretched to 15 epochs
  quick      the least time that is as accurate: the first five layers frozen, their features computed once
  random, starter, coco                        the config's phases from random, starter and COCO weights
  random-frozen, starter-frozen, coco-frozen   the same epochs with the backbone frozen throughout
  scratch, full, backbone, all-but-head        the same epochs in one phase, by initial weights and frozen layers
  backbone-cached, all-but-head-cached         features computed once instead of images augmented in every epoch
  stock-backbone, stock-all-but-head           `yolo train` with the same frozen layers, epochs and step size

  default                     the config without `phases`, rate and batch: what a new user gets
  default-frozen-first        the default of version 0.2.0, where two epochs with a frozen backbone came first on bccd
                              and apple; it cannot be run again
  recipe-quick, recipe-thorough, minutes-2     the same with that `recipe`, or that many minutes to spend
  default-fp32, default-bf16                   the same in that precision
  stock-15, tuned-15          `yolo train` for 15 epochs on all cores, without intermediate validation: with its
                              defaults, and with a small batch, every batch a step (batch=4 nbs=4 warmup_epochs=0.5)
  tuned-15-freeze, tuned-15-val                the same with the backbone frozen, and with validation after each epoch;
                              every rival may have either ending; `default-val` validates after each epoch too

`cores` are those that the process was given, for example by `taskset -c 0 python benchmarks/train.py ...`. Runs on one
core each may be started side by side if that slows none of them. Of two cores, Ultralytics computes on one.
From `quick` on, rows are validated once, at the end. Seconds are medians over the seeds, accuracies are means. The time
per epoch is Ultralytics' own (results.csv), without the first and last epoch. The time per step is from a loaded batch
to updated weights and moving average, as the median over the last phase.

`--share 0.1` takes every tenth training image, in the order of their names, and the recipe's epochs for that number.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import train_rows
import train_table
import yaml

from pipeline import augment
from pipeline.boxes import YoloDataset, write_data_yaml
from pipeline.config.data import Augment
from pipeline.parallel import cores
from pipeline.run import Run
from pipeline.train import precision
from pipeline.upstream import environment

ENVIRONMENT = dict(os.environ)  # for each training run, copied before this process prepares its own
# Copies for the row `quick`: features are computed once, so faces are mirrored beforehand. Making them is not timed.
QUICK = {"facemask": {"copies": 1, "transforms": [{"HorizontalFlip": {"p": 1.0}}]}}
SEEDS = (0, 1, 2)
ROOT = Path(__file__).resolve().parents[1]
OUT = Path("runs/bench-train")
STEPS = """
import atexit, statistics, sys, time
from pathlib import Path
from ultralytics.utils.callbacks import default_callbacks
begun, steps = [], []
default_callbacks["on_train_start"].append(lambda trainer: steps.clear())
default_callbacks["on_train_batch_start"].append(lambda trainer: begun.append(time.perf_counter()))
default_callbacks["on_train_batch_end"].append(lambda trainer: steps.append(time.perf_counter() - begun[-1]))
atexit.register(lambda: Path(sys.argv[1], "step.txt").write_text(str(statistics.median(steps))))
"""
OURS = f"""
from pipeline import run, train
from pipeline.config.loading import load
from pipeline.upstream import environment
environment.prepare()
{STEPS}
folder, given = map(Path, sys.argv[1:])
c = load(given)
print(train.main(c.train, run.Run(folder), c.seed, "", 0))
"""
STOCK = f"""
{STEPS}
import json
from ultralytics import YOLO
folder, weights, settings, threads = sys.argv[1:]
if int(threads):  # Ultralytics computes on one of two cores by itself
    from ultralytics.utils import torch_utils
    torch_utils.NUM_THREADS = int(threads)
YOLO(weights).train(save_dir=Path(folder, "train"), exist_ok=True, **json.loads(settings))
"""


def share_of(augmented: Path, share: float, target: Path) -> Path:
    """Write an Ultralytics dataset with every n-th training image, unless it exists: runs side by side share it."""
    if (target / "data.yaml").is_file():
        return target
    data = YoloDataset.read(augmented / "data.yaml")
    for image in data.files("train")[:: round(1 / share)]:
        for path, kind in ((image, "images"), (data.label_file(image), "labels")):
            link = target / kind / "train" / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(path.resolve())
    folders = {"train": "images/train", "val": str(data.images["val"].resolve())}
    write_data_yaml(target / "data.yaml", folders, data.names)
    return target


def command(
    name: str, config: dict[str, Any], what: str, seed: int, folder: Path, share: float
) -> tuple[list[str], Path]:
    """Return the command that trains, and the model that it writes."""
    given, run = Run(Path("runs") / name), Run(folder)
    whole = share == 1
    augmented = given.augmented if whole else share_of(given.augmented, share, OUT / f"{name}-{share:g}")
    if (arguments := train_rows.theirs(what)) is not None:
        data = (given.dataset if whole else augmented) / "data.yaml"
        settings = {"data": str(data.resolve()), "imgsz": config["train"]["imgsz"], "seed": seed}
        threads = cores() if train_rows.uses_all_cores(what) else 0
        text = json.dumps(settings | arguments)
        line = [sys.executable, "-c", STOCK, str(folder.resolve()), train_rows.START["coco"], text, str(threads)]
        return line, run.train / "weights/best.pt"
    copies = QUICK.get(name) if what == "quick" else None
    links = {run.dataset: given.dataset} if copies else {run.dataset: given.dataset, run.augmented: augmented}
    for link, target in links.items():
        link.symlink_to(target.resolve())
    if copies:
        augment.main(Augment.model_validate(copies), run, seed)
    fewer = None if whole else len(YoloDataset.read(augmented / "data.yaml").files("train"))
    written = folder / f"{folder.name}.yaml"
    written.write_text(yaml.safe_dump({**config, "seed": seed, "train": train_rows.phases(config, what, fewer)}))
    return [sys.executable, "-c", OURS, str(folder), str(written)], run.model


def accuracy(name: str, model: Path, imgsz: int) -> dict[str, float]:
    from ultralytics import YOLO

    from pipeline.config.judging import Validate
    from pipeline.metrics.coco import evaluate
    from pipeline.validate import predict

    data = YoloDataset.read(Run(Path("runs") / name).dataset / "data.yaml")
    images = data.files("test") or data.files("val")
    found = predict.predict(YOLO(str(model), task="detect"), images, imgsz, Validate(), "", "benchmark")
    figures = evaluate(predict.ground_truth(data, images), found.every_label)
    return {key: figures[key] for key in ("map50_95", "map50")}


def epoch_seconds(folder: Path) -> float | None:
    """Return the median seconds per epoch of the last phase, without its first and last; None if it has no others."""
    results = max(folder.rglob("results.csv"))
    ends = [float(row["time"]) for row in csv.DictReader(results.open())]
    lengths = [after - before for before, after in itertools.pairwise(ends[:-1])]
    return round(statistics.median(lengths), 2) if lengths else None


def machine() -> str:
    """Return the processor's name and vector instructions; processors of one name may differ in them."""
    instructions = torch.backends.cpu.get_cpu_capability() + ("-BF16" if precision.has_bfloat16() else "")
    return f"{environment.device_name('cpu')}, {instructions}"


def measure(name: str, what: str, seed: int, share: float) -> dict[str, Any]:
    """Train once and return the results; read them back if they were measured on such a processor before."""
    which = {"config": name, "row": what, "seed": seed, "share": share, "machine": machine(), "cores": cores()}
    for text in train_table.KNOWN.read_text().splitlines() if train_table.KNOWN.is_file() else ():
        if (known := json.loads(text)).items() >= which.items():
            return dict(known)
    folder = OUT / (f"{name}-{what}-{seed}" if share == 1 else f"{name}-{share:g}-{what}-{seed}")
    shutil.rmtree(folder, ignore_errors=True)  # cached features of an earlier run would make this one faster
    folder.mkdir(parents=True)
    config = yaml.safe_load(Path(f"configs/{name}.yaml").read_text())
    line, model = command(name, config, what, seed, folder, share)
    variables = {**ENVIRONMENT, "PYTHONPATH": str(ROOT), "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    start = time.perf_counter()
    with (folder / "log.txt").open("w") as log:
        subprocess.run(line, env=variables, stdout=log, stderr=subprocess.STDOUT, check=True)
    seconds = time.perf_counter() - start
    result = {**which, "seconds": round(seconds, 1)}
    result["epoch_seconds"] = epoch_seconds(folder / "train")
    result["step_seconds"] = round(float((folder / "step.txt").read_text()), 4)
    result |= accuracy(name, model, config["train"]["imgsz"])
    with train_table.KNOWN.open("a") as file:
        print(json.dumps(result), file=file)
    print(result, file=sys.stderr, flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="CONFIG", help="bccd, facemask or another config's name")
    parser.add_argument("--rows", nargs="+", default=["stock", "ours"], help="which of the trainings above")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--share", type=float, default=1, help="of the training images (default 1)")
    options = parser.parse_args()
    environment.prepare()
    packages = ", ".join(f"{name} {version(name)}" for name in ("ultralytics-opencv-headless", "torch"))
    print(f"# Training, timed\n\nWritten by `python benchmarks/train.py {' '.join(sys.argv[1:])}`.\n")
    print(f"{train_table.INTRODUCTION}\n")
    print(f"{machine()}, Python {platform.python_version()}, {packages}.")
    for name in options.names:
        results: dict[str, list[dict[str, Any]]] = {row: [] for row in options.rows}
        for seed in options.seeds:
            for row in options.rows:
                results[row].append(measure(name, row, seed, options.share))
        images = "" if options.share == 1 else f", {options.share:.0%} of the training images"
        print(f"\n## {name}{images}\n\n{train_table.table(results)}")


if __name__ == "__main__":
    main()

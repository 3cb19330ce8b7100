"""Time our evaluation: COCO's figures beside pycocotools, and everything that `validate` computes for 500 images.

python benchmarks/evaluate.py > benchmarks/evaluate.md      (20 minutes)

The compared functions take turns in one process. The predictions are random, because the time does not depend on the
content of the images. benchmarks/validate.py times the whole stage on real predictions.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.metrics import bootstrap
from pipeline.metrics.coco import evaluate
from pipeline.metrics.matching import match
from pipeline.parallel import cores
from pipeline.upstream import environment
from pipeline.validate import error_types, operating_point, reconcile

REPEATS = 5
Predictions = list[dict[str, Any]]
Drawn = tuple[dict[str, Any], Predictions]


def drawn(images: int, classes: int, invented: int) -> Drawn:
    rng = np.random.default_rng(0)
    truth: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 640} for i in range(1, images + 1)],
        "annotations": [],
        "categories": [{"id": i, "name": str(i)} for i in range(classes)],
    }
    predictions: Predictions = []

    def predicted(image: int, category: int, bbox: Any, score: float) -> None:
        predictions.append({"image_id": image, "category_id": category, "bbox": list(map(float, bbox)), "score": score})

    for image in range(1, images + 1):
        there = rng.choice(classes, size=3)
        for _ in range(rng.poisson(7.3)):
            size = np.exp(rng.uniform(2.2, 5.5, 2))
            bbox = np.concatenate([rng.uniform(0, 640 - size), size])
            category = int(rng.choice(there))
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": bbox.tolist(),
                    "area": float(size.prod()),
                    "iscrowd": 0,
                }
            )
            for _ in range(rng.choice([1, 2, 4])):
                predicted(image, category, bbox + rng.normal(0, 0.07, 4) * np.tile(size, 2), float(rng.random()))
        for _ in range(invented):
            corner, size = rng.uniform(0, 300, 2), rng.uniform(10, 200, 2)
            predicted(image, int(rng.choice(classes)), (*corner, *size), float(rng.random() * 0.3))
    return truth, predictions


def pycocotools(truth: dict[str, Any], predictions: Predictions) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"info": {}, **truth}
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(predictions), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    names = ("map50_95", "map50", "map75", "small", "medium", "large", "ar1", "ar10", "ar100")
    return dict(zip(names, evaluator.stats.tolist(), strict=False))


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def in_words(times: list[float]) -> str:
    return f"{statistics.median(times):.1f} s ({min(times):.1f} to {max(times):.1f})"


def library() -> None:
    """Print the time of faster-coco-eval, as `validate` calls it, beside pycocotools in the same process."""
    truth, predictions = drawn(5000, 80, 60)
    ours, theirs = [], []
    for _ in range(REPEATS):
        took, figures = seconds(lambda: evaluate(truth, predictions))
        ours.append(took)
        took, reference = seconds(lambda: pycocotools(truth, predictions))
        theirs.append(took)
    names = ("map50_95", "map50", "map75", "ar1", "ar10", "ar100")
    apart = max(abs(figures[name] - reference[name]) for name in names)
    ratios = [there / here for here, there in zip(ours, theirs, strict=True)]
    print("## COCO metrics alone\n")
    print("`validate` takes them from faster-coco-eval, so the speed-up is that library's.\n")
    print(heading(truth, predictions, 80))
    print(f"| pycocotools | {in_words(theirs)} |")
    print(f"| faster-coco-eval | {in_words(ours)} |")
    print(f"| times faster | {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) |")
    print(f"| largest difference of the six figures | {apart:.0e} (ours are rounded to six decimals) |\n")


def tables(truth: Any, every: Any, single: Any) -> None:
    """Print the time of each part of what `validate` computes for a split after predicting."""
    names = [category["name"] for category in truth["categories"]]
    matches, single_matches = match(truth, every), match(truth, single)
    thresholds = operating_point.choose(single_matches, names, None)["thresholds"]
    shown = error_types.kept(single, list(thresholds.values()))
    figures = evaluate(truth, every)
    parts: dict[str, Callable[[], Any]] = {
        "COCO's figures (faster-coco-eval)": lambda: evaluate(truth, every),
        "matching, twice": lambda: (match(truth, every), match(truth, single)),
        f"intervals of all figures and classes, {bootstrap.RESAMPLES:,} resamples": lambda: bootstrap.intervals(
            matches, names
        ),
        "what each kind of error costs": lambda: error_types.costs(truth, every),
        "kinds of errors, confusion": lambda: (
            error_types.record(truth, shown, thresholds),
            error_types.confusion(truth, shown),
        ),
        "thresholds, calibration": lambda: (
            operating_point.choose(single_matches, names, None),
            operating_point.judge(single_matches, names, thresholds),
            operating_point.calibration(single_matches),
        ),
    }
    asked = {
        "only with `reconcile: [ultralytics]`": lambda: reconcile.measure(
            truth, every, single, figures, ("ultralytics",)
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in (*parts, *asked)}
    for _ in range(REPEATS):
        for name, work in (*parts.items(), *asked.items()):
            times[name].append(seconds(work)[0])
    print(heading(truth, every, len(names)))
    for name in parts:
        print(f"| {name} | {in_words(times[name])} |")
    print(f"| together | {in_words([sum(each) for each in zip(*(times[name] for name in parts), strict=True)])} |")
    for name in asked:
        print(f"| {name} | {in_words(times[name])} |")
    print()


def machine() -> str:
    environment.prepare()
    packages = ", ".join(f"{name} {version(name)}" for name in ("faster-coco-eval", "pycocotools", "numpy", "torch"))
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{environment.device_name('cpu')}, {cores()} cores{load}; Python {platform.python_version()}, {packages}"


def main() -> None:
    print("# Evaluation, timed\n")
    print(f"Written by `python benchmarks/evaluate.py`: medians of {REPEATS} runs in turns, and (least to most).\n")
    print(f"{machine()}.\n")
    library()
    print("## Everything that `validate` computes for a split\n")
    truth, found = drawn(500, 80, 60)
    tables(truth, found, found)


def heading(truth: dict[str, Any], predictions: Predictions, classes: int) -> str:
    images, objects = len(truth["images"]), len(truth["annotations"])
    return (
        f"| {images:,} images, {objects:,} objects, {len(predictions):,} predictions, {classes} classes | |\n|---|---|"
    )


if __name__ == "__main__":
    main()

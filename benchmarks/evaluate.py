"""Time our evaluation against pycocotools on predictions of COCO val's size, and the intervals on 500 images.

python benchmarks/evaluate.py > benchmarks/evaluate.md

Both evaluate the same predictions in the same process, in turns. The predictions are drawn, since what is timed
does not depend on what is in the pictures: 5,000 images, 80 classes, 36,000 objects, 77 predictions an image.
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

from pipeline.validate import bootstrap, evaluate
from pipeline.validate.matching import match

REPEATS = 5
Drawn = tuple[dict[str, Any], list[dict[str, Any]]]


def drawn(images: int, classes: int, invented: int) -> Drawn:
    rng = np.random.default_rng(0)
    truth: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 640} for i in range(1, images + 1)],
        "annotations": [],
        "categories": [{"id": i, "name": str(i)} for i in range(classes)],
    }
    predictions: list[dict[str, Any]] = []

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


def pycocotools(truth: dict[str, Any], predictions: list[dict[str, Any]]) -> dict[str, float]:
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


def main() -> None:
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

    few, found = drawn(500, 80, 60)
    classes = [str(index) for index in range(80)]
    matching = [seconds(lambda: match(few, found)) for _ in range(REPEATS)]
    drawing = [seconds(lambda: bootstrap.intervals(matching[0][1], classes))[0] for _ in range(REPEATS)]

    packages = ", ".join(f"{name} {version(name)}" for name in ("faster-coco-eval", "pycocotools", "numpy"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print("# Evaluation, timed\n")
    print(f"Written by `python benchmarks/evaluate.py`: medians of {REPEATS} runs in turns, and (least to most).\n")
    print(f"{cores} cores ({platform.machine()}), Python {platform.python_version()}, {packages}.\n")
    print(heading(truth, predictions))
    print(f"| pycocotools | {in_words(theirs)} |")
    print(f"| `validate` (faster-coco-eval) | {in_words(ours)} |")
    print(f"| times faster | {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) |")
    print(f"| largest difference of the six figures | {apart:.0e} (ours are rounded to six decimals) |\n")
    print(heading(few, found))
    print(f"| matching, once | {in_words([took for took, _ in matching])} |")
    print(f"| intervals of all figures and classes, {bootstrap.RESAMPLES:,} resamples | {in_words(drawing)} |")


def heading(truth: dict[str, Any], predictions: list[dict[str, Any]]) -> str:
    images, objects = len(truth["images"]), len(truth["annotations"])
    return f"| {images:,} images, {objects:,} objects, {len(predictions):,} predictions, 80 classes | |\n|---|---|"


if __name__ == "__main__":
    main()

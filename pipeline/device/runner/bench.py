# SPDX-License-Identifier: AGPL-3.0-only
"""Measure the speed of the model on this device."""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from pathlib import Path
from typing import TypedDict

import numpy as np

from .base import RunnerError, Spec, cores, cv2
from .letterbox import prepare
from .model import Model
from .runtimes import MODULES
from .workers import Workers

BENCH_SECONDS = 2.0  # minimum for whole images, so that starting threads does not distort the figure


class Speed(TypedDict):
    threads: int
    import_ms: float
    load_ms: float
    latency_ms: dict[str, float]
    runs: int
    boxes: int
    images_per_s: float
    images_per_s_at_once: float


def bench(folder: Path, spec: Spec, sources: list[str], threads: int, runs: int) -> Speed:
    """Measure milliseconds to import the runtime, to load the model and to infer, and whole images per second.

    Whole images are decoded, resized, inferred and post-processed: one at a time on all threads for `images_per_s`, one
    per thread for `images_per_s_at_once`.
    """
    if threads and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores()[:threads])
    if cv2 is not None and threads:
        cv2.setNumThreads(threads)
    start = time.perf_counter()
    with contextlib.suppress(ImportError):  # loading the model reports the missing package
        importlib.import_module(MODULES[spec["format"]])
    import_ms = (time.perf_counter() - start) * 1e3
    start = time.perf_counter()
    model = Model(folder, spec, threads)
    load_ms = (time.perf_counter() - start) * 1e3
    seen = list(Workers(folder, spec, sources, threads, one_by_one=True).each())  # also warms up
    if not seen:
        raise RunnerError("no image can be read, so there is nothing to measure; name readable images")
    tensor = prepare(seen[0][2], spec["input"])
    boxes = sum(len(found) for _, _, _, found in seen)
    for _ in range(max(3, runs // 5)):
        model.forward(tensor)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        model.forward(tensor)
        times.append((time.perf_counter() - start) * 1e3)
    del model, seen  # the model's threads would poll for work beside those of the next one
    return {
        "threads": threads or len(cores()),
        "import_ms": round(import_ms, 1),
        "load_ms": round(load_ms, 1),
        "latency_ms": {
            "p50": round(float(np.percentile(times, 50)), 2),
            "p95": round(float(np.percentile(times, 95)), 2),
        },
        "runs": runs,
        "boxes": boxes,
        "images_per_s": _images_per_s(Workers(folder, spec, sources, threads, one_by_one=True), runs),
        "images_per_s_at_once": _images_per_s(Workers(folder, spec, sources, threads), runs),
    }


def _images_per_s(workers: Workers, least: int) -> float:
    for _ in workers.each():  # warms up
        pass
    start, images, seconds = time.perf_counter(), 0, 0.0
    while images < least or seconds < BENCH_SECONDS:
        images += sum(1 for _ in workers.each())
        seconds = time.perf_counter() - start
    return round(images / seconds, 2)

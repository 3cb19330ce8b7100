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
from .sources import Video
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


def bench(folder: Path, spec: Spec, sources: list[str], threads: int, runs: int) -> tuple[Speed, int]:
    """Measure milliseconds to import the runtime, to load the model and to infer, and whole images per second.

    Whole images are decoded, resized, inferred and post-processed: one at a time on all threads for `images_per_s`, one
    per thread for `images_per_s_at_once`. Sources with a problem are named once and left out; returns their number too.
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
    workers = Workers(folder, spec, sources, threads, one_by_one=True)
    tensor, boxes, whole = None, 0, []
    for source in workers.sources:
        if isinstance(source, Video) and source.endless:
            raise RunnerError(f"{source.name}: --bench measures files; name images or films")
    for source in workers.sources:
        workers.sources, before = [source], workers.problems
        for _, _, image, found in workers.each():  # also warms up
            tensor = prepare(image, spec["input"]) if tensor is None else tensor
            boxes += len(found)
        if workers.problems == before:
            whole.append(source.name if isinstance(source, Video) else str(source))
    if not whole:
        raise RunnerError("no image can be read, so there is nothing to measure; name readable images")
    problems = workers.problems
    for _ in range(max(3, runs // 5)):
        model.forward(tensor)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        model.forward(tensor)
        times.append((time.perf_counter() - start) * 1e3)
    del model, workers  # the model's threads would poll for work beside those of the next one
    speed: Speed = {
        "threads": threads or len(cores()),
        "import_ms": round(import_ms, 1),
        "load_ms": round(load_ms, 1),
        "latency_ms": {
            "p50": round(float(np.percentile(times, 50)), 2),
            "p95": round(float(np.percentile(times, 95)), 2),
        },
        "runs": runs,
        "boxes": boxes,
        "images_per_s": _images_per_s(Workers(folder, spec, whole, threads, one_by_one=True), runs),
        "images_per_s_at_once": _images_per_s(Workers(folder, spec, whole, threads), runs),
    }
    return speed, problems


def _images_per_s(workers: Workers, least: int) -> float:
    for _ in workers.each():  # warms up
        pass
    start, images, seconds = time.perf_counter(), 0, 0.0
    while images < least or seconds < BENCH_SECONDS:
        images += sum(1 for _ in workers.each())
        if workers.problems:  # a file that is gone now, or too little memory
            raise RunnerError("not every image can be read again, so nothing was measured")
        seconds = time.perf_counter() - start
    return round(images / seconds, 2)

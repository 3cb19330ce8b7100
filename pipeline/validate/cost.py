"""Measure what the model costs to run: parameters, GFLOPs, and time on this machine."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import pixels
from pipeline.records.metrics import Cost
from pipeline.upstream import environment

WARM_UP, RUNS = 3, 30
# The recorded time is the sum of Ultralytics' preprocess, inference and postprocess.
INCLUDES = "letterbox, network and non-maximum suppression, without reading the file"


def measure(model: Any, images: list[Path], imgsz: int, device: str) -> Cost:
    """Measure parameters and GFLOPs of the fused network, as Ultralytics counts them, and milliseconds per image.

    The fused network is the one that predicts and is exported: BatchNorm is folded into convolutions, and the
    training-only head is removed. The time is that of `model.predict` on one decoded image at a time.
    """
    from ultralytics.utils.torch_utils import get_flops, get_num_params

    model.predictor = None  # time Ultralytics' own predictor, not ours
    milliseconds = []
    for number in range(WARM_UP + RUNS):
        image = pixels.read(images[number % len(images)])
        [result] = model.predict(image, imgsz=imgsz, rect=False, device=device or None, verbose=False)
        if number >= WARM_UP:
            milliseconds.append(sum(result.speed.values()))
    network = copy.deepcopy(model.model).fuse(verbose=False)
    gflops = float(get_flops(network, imgsz))
    return {
        "parameters": int(get_num_params(network)),
        "gflops": round(gflops, 3) if gflops else None,  # Ultralytics returns 0 if it cannot count
        "imgsz": imgsz,
        "latency": {
            "device": environment.device_name(device),
            "batch": 1,
            "includes": INCLUDES,
            "runs": RUNS,
            "median_ms": round(float(np.median(milliseconds)), 2),
            "p95_ms": round(float(np.percentile(milliseconds, 95)), 2),
        },
    }

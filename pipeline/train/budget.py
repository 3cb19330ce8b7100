"""Estimate how many epochs fit into `train.minutes` on this machine. Import it late: it imports torch."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from pipeline import files
from pipeline.config.training import Train
from pipeline.train import precision, recipe
from pipeline.upstream import environment

# Measured on 114 to 677 images at 320 px with one and two threads.
AROUND = 25  # seconds spent outside the training steps: imports, setting up two phases, validation
STEP = 1.3  # time of a whole step relative to its forward and backward pass: adds losses, optimizer, average, loading


def epochs_that_fit(config: Train, model: Any, images: int, device: str, record: Path) -> float | None:
    """Return how many unfrozen epochs fit into `config.minutes`; None without `minutes`.

    `model` is the source's DetectionModel. The estimate is stored in `record`, so that resumed training keeps the same
    phases.
    """
    if config.minutes is None:
        return None
    if not record.is_file():
        batch = config.batch or recipe.batch_size(images)
        seconds = STEP * _seconds_per_pass(config, model, batch, device) * math.ceil(images / batch)
        epochs = max(1.0, (60 * config.minutes - AROUND) / seconds)
        files.write_json(record, {"epochs": round(epochs, 2), "epoch_seconds": round(seconds, 2)})
    return float(files.read_json(record)["epochs"])


def _seconds_per_pass(config: Train, model: Any, batch: int, device: str) -> float:
    torch_device = environment.torch_device(device)
    model = deepcopy(model).float().to(torch_device)
    if torch_device.type == "cpu":
        model = model.to(memory_format=torch.channels_last)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return precision.seconds(config.precision, model, batch, config.imgsz)

"""Estimate how many epochs fit into `train.minutes` on this machine. Import it late: it imports torch."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import torch

from pipeline.config.training import Train
from pipeline.train import precision, recipe
from pipeline.upstream import environment

# Measured on 114 to 677 images at 320 px with one and two threads.
AROUND = 25  # seconds spent outside the steps and passes: imports, setting up two phases
STEP = 1.3  # time of a whole step relative to its forward and backward pass: adds losses, optimizer, average, loading
FORWARD = 1 / 3  # of a forward and backward pass; the backward pass computes two gradients per layer
PHASES = 2  # as the recipe has; each is validated at its end


def measure(config: Train, model: Any, images: int, val: int, device: str) -> dict[str, float]:
    """Return how many unfrozen `epochs` fit into `config.minutes`, and the `epoch_seconds` of one.

    `model` is the source's DetectionModel, `images` and `val` are the numbers of training and val images.
    """
    assert config.minutes is not None
    batch = config.batch or recipe.batch_size(images)
    one_pass = _seconds_per_pass(config, model, batch, device)
    seconds, validation = STEP * one_pass * math.ceil(images / batch), FORWARD * one_pass * math.ceil(val / batch)
    left = 60 * config.minutes - AROUND
    if (validated := config.args.get("val")) is True:
        seconds += validation
    elif validated is not False:
        left -= PHASES * validation
    return {"epochs": round(max(1.0, left / seconds), 2), "epoch_seconds": round(seconds, 2)}


def _seconds_per_pass(config: Train, model: Any, batch: int, device: str) -> float:
    torch_device = environment.torch_device(device)
    model = deepcopy(model).float().to(torch_device)
    if torch_device.type == "cpu":
        model = model.to(memory_format=torch.channels_last)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return precision.seconds(config.precision, model, batch, config.imgsz)

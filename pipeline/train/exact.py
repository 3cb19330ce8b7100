"""Save and restore the exact training state between two epochs, which Ultralytics' checkpoint rounds or omits.

Ultralytics' checkpoint holds the averaged weights in half precision instead of the weights themselves, rounds the
momentum of some optimizers, and has no state of the random number generators, so resumed training would see the images
of its first epoch again. If a step takes several batches, it also omits the gradients of those since the last step, and
resumed training would take its first step at once. With this file, training that was killed and resumed on a CPU ends
with exactly the weights of an uninterrupted run.
"""

from __future__ import annotations

import io
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import unwrap_model

from pipeline import files

WHOLE = {"step", "exp_avg", "exp_avg_sq", "square_avg"}  # which `convert_optimizer_state_dict_to_fp16` does not round


def save(path: Path, trainer: Any) -> None:
    """Write the weights, their average, what the checkpoint rounds of the optimizer, and the random states."""
    optimizer = trainer.optimizer.state_dict()["state"]
    model = unwrap_model(trainer.model).state_dict()
    numpy_state: Any = np.random.get_state()
    algorithm, keys, *rest = numpy_state
    state = {
        "model": {name: tensor for name, tensor in model.items() if not name.startswith("teacher_model.")},
        "ema": trainer.ema.ema.state_dict(),
        "optimizer": {
            number: {key: value for key, value in state.items() if key not in WHOLE}
            for number, state in optimizer.items()
        },
        "python": random.getstate(),
        "numpy": (algorithm, keys.tolist(), *rest),
        "loader": trainer.train_loader.generator.get_state(),
        "buffer": list(trainer.train_loader.dataset.buffer),
        "since_step": trainer.since_step,
        "gradients": [parameter.grad if trainer.since_step else None for parameter in _parameters(trainer)],
    }
    # Serialise in memory first: on a full disk PyTorch's own writer raises a RuntimeError that does not name the cause.
    data = io.BytesIO()
    torch.save(state, data)
    files.write_bytes(path, data.getbuffer())


def restore(path: Path, trainer: Any) -> None:
    """Restore what `save` wrote into a trainer that Ultralytics has set up from its checkpoint of that epoch."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    unwrap_model(trainer.model).load_state_dict(state["model"], strict=False)  # a teacher is not saved
    trainer.ema.ema.load_state_dict(state["ema"])
    optimizer = trainer.optimizer.state_dict()
    optimizer["state"] = {number: {**rest, **state["optimizer"][number]} for number, rest in optimizer["state"].items()}
    trainer.optimizer.load_state_dict(optimizer)
    trainer.since_step, trainer.before_first_step = state["since_step"], trainer.accumulate
    for index in state["buffer"]:  # the loaded images, from which mosaic draws three of its four
        trainer.train_loader.dataset.load_image(index)

    def restore_rest(trainer: Any) -> None:
        if trainer.epoch != trainer.start_epoch or RANK > 0:  # with several GPUs, each draws its own random numbers
            return
        # Not earlier, because Ultralytics first sets all gradients to zero.
        for parameter, gradient in zip(_parameters(trainer), state["gradients"], strict=True):
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        random.setstate(state["python"])
        np.random.set_state(state["numpy"])
        trainer.train_loader.generator.set_state(state["loader"])

    trainer.add_callback("on_train_epoch_start", restore_rest)


def _parameters(trainer: Any) -> list[torch.nn.Parameter]:
    return [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]


def count_batch(trainer: Any) -> None:
    """Count a batch, before Ultralytics decides whether a step follows it.

    Ultralytics compares the batches since the last step with `accumulate`. It does not know the last step before a
    resumed epoch, so `accumulate` prevents the first step until it is due.
    """
    trainer.since_step += 1
    if trainer.before_first_step:
        if trainer.accumulate != sys.maxsize:  # during warm-up, Ultralytics sets it for each batch
            trainer.before_first_step = trainer.accumulate
        is_due = trainer.since_step >= trainer.before_first_step
        trainer.accumulate = trainer.before_first_step if is_due else sys.maxsize

"""Two processes on one CPU in place of two GPUs, started as Ultralytics would, over gloo."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import distributed
from ultralytics.utils import LOCAL_RANK, RANK

from pipeline.train.trainer import PhaseTrainer


class TwoProcesses(PhaseTrainer):
    """A PhaseTrainer for two devices that are both the CPU."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.world_size, self.ddp = 2, LOCAL_RANK == -1

    def _setup_ddp(self) -> None:
        distributed.init_process_group("gloo", rank=RANK, world_size=self.world_size)
        whole = torch.nn.parallel.DistributedDataParallel

        def on_a_cpu(model: Any, device_ids: Any, **settings: Any) -> Any:
            return whole(model, **settings)

        torch.nn.parallel.DistributedDataParallel = on_a_cpu  # the CPU has no device number

    def save_model(self) -> bool:
        with (self.folder.root / "writers.txt").open("a") as file:
            print(os.getpid(), RANK, file=file)
        return super().save_model()

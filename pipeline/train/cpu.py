"""Ultralytics' trainer and data loader without what they waste on a CPU.

Imported late: it brings torch and Ultralytics with it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from ultralytics.data.build import InfiniteDataLoader
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.torch_utils import unwrap_model


class InProcessLoader(InfiniteDataLoader):  # type: ignore[misc]  # Ultralytics has no types
    """A data loader without worker processes, Ultralytics' choice on a CPU, whose epochs can be repeated.

    Each epoch depends only on the state of the random numbers at its start, so a killed training can resume there.
    If `ahead`, a thread loads the next batch during the training step. It shares the random numbers with the main
    thread, so nothing else may draw any between two batches. It works on one core: with a second team of OpenMP
    threads, libgomp puts the first to sleep after every operation, which doubled the seconds per epoch on two cores.
    """

    ahead: bool = True
    coming: Future[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        self.reset()
        torch.manual_seed(random.getrandbits(62))  # by which Ultralytics seeds Albumentations
        batches = super().__iter__()
        if not self.ahead:
            yield from batches
            return
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as thread:
            self.coming = thread.submit(next, batches, None)
            while (batch := self.coming.result()) is not None:
                self.coming = thread.submit(next, batches, None)
                yield batch

    def close(self) -> None:
        """Also wait for the batch on its way, if an epoch was broken off: it draws random numbers."""
        if self.coming is not None:
            wait([self.coming])
        super().close()


class CpuTrainer(DetectionTrainer):  # type: ignore[misc]  # Ultralytics has no types
    """Ultralytics' trainer without what it wastes on a CPU; unchanged on other devices."""

    def get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        loader = super().get_dataloader(*args, **kwargs)
        if not loader.num_workers:
            assert type(loader) is InfiniteDataLoader
            loader.__class__ = InProcessLoader
            # With `multi_scale`, `preprocess_batch` draws the size of each batch in the main thread.
            loader.ahead = not self.args.multi_scale
        return loader

    def _build_train_pipeline(self) -> None:
        if self.device.type == "cpu":
            # Convolutions run a fifth faster in this layout, which Ultralytics uses on CUDA only.
            unwrap_model(self.model).to(memory_format=torch.channels_last)
        super()._build_train_pipeline()

    def build_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer = super().build_optimizer(*args, **kwargs)
        if self.device.type == "cpu" and isinstance(optimizer, torch.optim.Adam):
            for group in optimizer.param_groups:  # one pass over memory instead of ten
                group["fused"], group["foreach"] = True, False
        return optimizer

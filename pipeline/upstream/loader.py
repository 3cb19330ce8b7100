"""Load batches in-process for training. Import it late: it imports torch and Ultralytics."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch
from ultralytics.data.build import InfiniteDataLoader


class InProcessLoader(InfiniteDataLoader):  # type: ignore[misc]  # Ultralytics has no types
    """A zero-worker data loader (Ultralytics' default on a CPU and on MPS) with repeatable epochs.

    Each epoch depends only on the random state at its start, so killed training can resume there. If `ahead`, a
    background thread prefetches the next batch. It shares the random state with the main thread, so nothing else may
    draw random numbers between two batches. It uses one core: with a second team of OpenMP threads, libgomp would put
    the first to sleep after every operation, which doubled the time per epoch on two cores.
    """

    ahead: bool = True
    coming: Future[Any] | None = None

    @classmethod
    def of(cls, loader: InfiniteDataLoader, ahead: bool) -> InProcessLoader:
        """Convert a loader of Ultralytics into an InProcessLoader, in place."""
        assert type(loader) is InfiniteDataLoader
        loader.__class__ = cls
        assert isinstance(loader, cls)
        loader.ahead = ahead
        return loader

    def __iter__(self) -> Iterator[Any]:
        self.reset()
        torch.manual_seed(random.getrandbits(62))  # from which Ultralytics seeds Albumentations
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
        """Also wait for the pending batch of an interrupted epoch, because it draws random numbers."""
        if self.coming is not None:
            wait([self.coming])
        super().close()

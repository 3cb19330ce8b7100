"""Speed up Ultralytics' trainer, above all on a CPU, and keep it from downloading weights on a GPU.

Import it late: it imports torch and Ultralytics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import unwrap_model

from pipeline import logs
from pipeline.upstream import checkpoints
from pipeline.upstream.loader import InProcessLoader


class CpuTrainer(DetectionTrainer):  # type: ignore[misc]  # Ultralytics has no types
    """Ultralytics' trainer with channels-last layout and fused Adam on a CPU.

    Wherever no worker processes load images (on a CPU, on MPS, with `--workers 0`), a prefetching loader does.
    """

    def get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        loader = super().get_dataloader(*args, **kwargs)
        if self.args.cache and not loader.dataset.cache and kwargs.get("mode") == "train" and RANK in {-1, 0}:
            logs.say("train: too little room for train.args.cache, so every epoch reads and decodes the images again")
        if not loader.num_workers:
            # With `multi_scale`, `preprocess_batch` draws the size of each batch in the main thread.
            return InProcessLoader.of(loader, ahead=not self.args.multi_scale)
        return loader

    def _setup_train(self) -> None:
        if self.device.type not in ("cpu", "mps") and RANK in {-1, 0}:  # the process that checks mixed precision
            checkpoints.offer_for_amp_check(Path(self.args.model), self.wdir)
        super()._setup_train()

    def _build_train_pipeline(self) -> None:
        if self.device.type == "cpu":
            model = unwrap_model(self.model)
            # Convolutions are 20 % faster in this layout, which Ultralytics uses on CUDA only.
            model.to(memory_format=torch.channels_last)
            # In place, autograd first copies what SiLU overwrites: a pass over memory, for the same result.
            for module in model.modules():
                if isinstance(module, torch.nn.SiLU):
                    module.inplace = False
        super()._build_train_pipeline()

    def build_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        optimizer = super().build_optimizer(*args, **kwargs)
        if self.device.type == "cpu" and isinstance(optimizer, torch.optim.Adam):
            for group in optimizer.param_groups:  # one pass over memory instead of ten
                group["fused"], group["foreach"] = True, False
        return optimizer

"""The process that Ultralytics runs in, and its devices.

A checkpoint is a pickle, and a pickle is a program. Ultralytics runs it unless told otherwise, so it is
told otherwise here, for the whole process and before it is imported: PyTorch's weights-only unpickler,
an allow-list of torch's and Ultralytics' own layer classes, and no `eval` of what a model's YAML says.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipeline import files, parallel
from pipeline.errors import PipelineError

CACHE = Path(".cache")


def prepare() -> None:
    """Set up the process for Ultralytics. Call before the first import of it."""
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "true"
    os.environ["YOLO_AUTOINSTALL"] = "false"  # no surprise installs
    os.environ["YOLO_OFFLINE"] = "true"  # no telemetry, no version checks; downloads asked for still work
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    os.environ.setdefault("YOLO_CONFIG_DIR", str(CACHE.resolve()))
    os.environ.setdefault("MPLCONFIGDIR", str((CACHE / "matplotlib").resolve()))
    os.environ.setdefault("OMP_NUM_THREADS", str(parallel.cores()))
    # Before a thread of libgomp sleeps it looks 300,000 times whether there is work: beside other processes, on a core
    # that they could use. It looks 1,000 times here, libgomp's own number for more threads than cores.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    _bring_fonts(Path(os.environ["YOLO_CONFIG_DIR"]) / "Ultralytics")

    from ultralytics.utils import torch_utils

    # Ultralytics computes on `cores - 1` threads: on a 2-core machine, on one.
    torch_utils.NUM_THREADS = parallel.cores()
    # Ultralytics' `deterministic` also has PyTorch fill all memory that it allocates: 3 % of a step, for nothing, as
    # no tensor is read before it is written.
    torch_utils.torch.utils.deterministic.fill_uninitialized_memory = False


def _bring_fonts(config: Path) -> None:
    """Ultralytics downloads Arial for its plots; Matplotlib brought a font along that does as well."""
    import matplotlib

    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for name in ("Arial.ttf", "Arial.Unicode.ttf"):
        if not (config / name).exists():
            config.mkdir(parents=True, exist_ok=True)
            files.copy(font, config / name)


def torch_device(device: str) -> Any:
    """Return the torch device that `--device` names; empty means the best there is. Raises as `check_device`."""
    from ultralytics.utils.torch_utils import select_device

    try:
        return select_device(device, verbose=False)
    except (AssertionError, RuntimeError, ValueError):
        raise PipelineError(
            f"--device {device}: this machine has no such device; name cpu, or leave it out for the best there is"
        ) from None


def check_device(device: str) -> None:
    """Raise PipelineError for a `--device` that this machine does not have."""
    torch_device(device)


def device_name(device: str) -> str:
    """What the processor or GPU calls itself, for records."""
    import torch
    from ultralytics.utils.torch_utils import get_cpu_info

    chosen = torch_device(device)
    return str(torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else get_cpu_info())


def is_gpu(device: str) -> bool:
    """Whether `--device` is one for which Ultralytics loads images in worker processes."""
    return torch_device(device).type not in ("cpu", "mps")

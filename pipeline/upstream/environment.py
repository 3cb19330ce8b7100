"""Set up the process that Ultralytics runs in, and check devices.

A checkpoint is a pickle, and a pickle is a program, which Ultralytics runs by default. `prepare` forbids that for the
whole process, before the import: it selects PyTorch's weights-only unpickler, with an allow-list of torch's and
Ultralytics' own layer classes, and no `eval` of text in a model's YAML.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipeline import files, parallel
from pipeline.errors import PipelineError

CACHE = Path(".cache")
MOST_THREADS = 8  # as Ultralytics; batches of a few images do not keep more busy


def prepare() -> None:
    """Set up the process for Ultralytics. Call this before the first import of Ultralytics."""
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "true"
    os.environ["YOLO_AUTOINSTALL"] = "false"  # no surprise installs
    os.environ["YOLO_OFFLINE"] = "true"  # no telemetry or version checks; requested downloads still work
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    os.environ.setdefault("YOLO_CONFIG_DIR", str(CACHE.resolve()))
    os.environ.setdefault("MPLCONFIGDIR", str((CACHE / "matplotlib").resolve()))
    os.environ["OMP_NUM_THREADS"] = str(threads())  # without a number, Ultralytics sets it to 1
    # By default an idle libgomp thread polls for work 300,000 times before it sleeps, on a core that other processes
    # could use. 1,000 times are too few: a bfloat16 pass took 0.23 s on two cores instead of 0.16, because such short
    # operations end before a sleeping thread has woken up. benchmarks/busy.py measures other values.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    bring_fonts(Path(os.environ["YOLO_CONFIG_DIR"]) / "Ultralytics")

    from ultralytics.utils import torch_utils

    # Ultralytics sets PyTorch's threads to this number. Its own ignores OMP_NUM_THREADS and is `cores - 1`, at most 8:
    # one on a machine with two cores.
    torch_utils.NUM_THREADS = threads()
    # Ultralytics' `deterministic` also makes PyTorch fill all memory that it allocates. That takes 3 % of a step for
    # nothing, because no tensor is read before it is written.
    torch_utils.torch.utils.deterministic.fill_uninitialized_memory = False


def threads() -> int:
    """Return the number of threads to compute with: OMP_NUM_THREADS if it is set, else one per core, at most 8."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # OpenMP allows a list, by level of nesting
    return int(given) if given.isdecimal() and int(given) else min(parallel.cores(), MOST_THREADS)


def bring_fonts(config: Path) -> None:
    """Copy Matplotlib's font where Ultralytics expects Arial, so that it does not download one for its plots."""
    import matplotlib

    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    config.mkdir(parents=True, exist_ok=True)
    with files.holding(config):  # two commands may start at once
        for name in ("Arial.ttf", "Arial.Unicode.ttf"):
            if not (config / name).exists():
                files.copy(font, config / name)


def torch_device(device: str) -> Any:
    """Return the torch device that `--device` names; empty means a CUDA GPU, or the CPU if there is none.

    Raises PipelineError for a device that this machine does not have.
    """
    import torch
    from ultralytics.utils.torch_utils import select_device

    try:
        found = select_device(device, verbose=False)
        # Ultralytics takes the CPU if there is no MPS, and returns devices that only its exports know as text.
        if not isinstance(found, torch.device) or ("mps" in device.lower() and found.type != "mps"):
            raise ValueError
        return found
    except (AssertionError, RuntimeError, ValueError):
        raise PipelineError(
            f"--device {device}: this machine has no such device; use cpu, mps or 0 (the first CUDA "
            "GPU), or omit it to use a CUDA GPU if there is one, otherwise the CPU"
        ) from None


def check_device(device: str) -> None:
    """Raise PipelineError for a `--device` that this machine does not have."""
    torch_device(device)


def device_name(device: str) -> str:
    """Return the model name of the processor or GPU, for records."""
    import torch
    from ultralytics.utils.torch_utils import get_cpu_info

    chosen = torch_device(device)
    return str(torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else get_cpu_info())


def is_gpu(device: str) -> bool:
    """Return whether Ultralytics loads images in worker processes for this `--device`."""
    return torch_device(device).type not in ("cpu", "mps")

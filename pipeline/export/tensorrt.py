"""Prepare what a device needs to build a TensorRT engine, which runs only on the kind of GPU it was built on.

TensorRT's own parser and builder check the ONNX model first, on the CPU (`tensorrt-rtx-cu13` needs no GPU). A model
that this builder refuses fails on the device too.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.device.runner import RunnerError
from pipeline.device.runner.base import Engine, Profile
from pipeline.device.runner.engine import build, refuse_old
from pipeline.errors import ExportError
from pipeline.export import bundle
from pipeline.records.manifest import Checked, NotChecked

PACKAGE = "tensorrt-rtx-cu13"
WORKSPACE_MB = 2048
BUILD_SH = """#!/bin/sh
# Build the engine with trtexec, on the device that will run it. The model was checked with {checked}.
set -eu
cd "$(dirname "$0")"
command -v trtexec >/dev/null || PATH="$PATH:/usr/src/tensorrt/bin"
command -v trtexec >/dev/null || {{
    echo "error: trtexec not found; it comes with TensorRT, on a Jetson in /usr/src/tensorrt/bin" >&2
    exit 1
}}
# The ONNX file determines the precisions. TensorRT 11 always works that way and no longer has the option.
typed=$(trtexec --help 2>/dev/null | grep -o -m1 -e '--stronglyTyped' || true)
trtexec --onnx={onnx} --saveEngine=.partial.engine $typed{options}
mv .partial.engine {engine}
echo "{engine}: built; next: python run.py --selftest"
"""


class Facts(Engine):
    opset: int
    checked_with: Checked | NotChecked


def can_build_here() -> bool:
    """Return whether this machine has a GPU and the full TensorRT."""
    if find_spec("tensorrt") is None:
        return False
    import torch

    return bool(torch.cuda.is_available())


def profile(imgsz: int, dynamic: bool) -> Profile | None:
    """Return the engine's range for a dynamic model: batches of 1 to 8, half to twice the image size; else None."""
    if not dynamic:
        return None
    small, large = max(32, imgsz // 64 * 32), imgsz * 2
    return {
        "input": "images",
        "min": [1, 3, small, small],
        "opt": [1, 3, imgsz, imgsz],
        "max": [8, 3, large, large],
    }


def preflight(onnx: Path, shapes: Profile | None) -> Checked | NotChecked:
    """Check the model with TensorRT's parser and builder, without a GPU, and return the result for the manifest.

    If the package is not installed, the result says so. Raises ExportError if they refuse the model.
    """
    if find_spec("tensorrt_rtx") is None:
        return {"skipped": f"{PACKAGE} is not installed (proprietary, x86-64 only); `make tensorrt` adds it"}
    import tensorrt_rtx

    def for_ada(config: Any) -> None:
        # Without a GPU the builder needs a target: Ada, which it supports. Nothing runs here.
        config.num_compute_capabilities = 1
        config.set_compute_capability(tensorrt_rtx.ComputeCapability.SM89, 0)

    start = time.perf_counter()
    try:
        plan, layers = build(tensorrt_rtx, onnx.read_bytes(), shapes, WORKSPACE_MB, prepare=for_ada)
    except RunnerError as error:
        raise ExportError(str(error)) from None
    return {
        "builder": f"TensorRT for RTX {tensorrt_rtx.__version__}",
        "layers": layers,
        "plan_bytes": plan.nbytes,
        "seconds": round(time.perf_counter() - start, 2),
    }


def build_here(onnx: Path, engine: Path, shapes: Profile | None, exact: bool) -> None:
    """Build the engine for this machine's GPU. Raises ExportError if TensorRT refuses the model."""
    import tensorrt

    try:
        refuse_old(tensorrt)
        plan, _ = build(tensorrt, onnx.read_bytes(), shapes, WORKSPACE_MB, exact)
    except RunnerError as error:
        raise ExportError(str(error)) from None
    engine.write_bytes(plan)


def device_files(
    onnx: Path, engine: str, shapes: Profile | None, exact: bool, checked: Checked | NotChecked
) -> dict[str, str]:
    """Return the bundle's build.py and build.sh as text. With `exact`, neither rounds 32-bit numbers to TF32."""
    options = " --noTF32" * exact
    if shapes:
        ranges = {"min": shapes["min"], "opt": shapes["opt"], "max": shapes["max"]}
        options += "".join(
            f" --{key}Shapes={shapes['input']}:{'x'.join(map(str, shape))}" for key, shape in ranges.items()
        )
    builder = checked.get("builder", "no TensorRT, which was not installed")
    return {
        "build.py": (bundle.CODE / "build.py").read_text(encoding="utf-8"),
        "build.sh": BUILD_SH.format(checked=builder, onnx=onnx.name, engine=engine, options=options),
    }


def facts(onnx: Path, shapes: Profile | None, checked: Checked | NotChecked) -> Facts:
    """Return the part of model.json that build.py reads, with how the model was checked."""
    import onnx as library

    return {
        "onnx": onnx.name,
        "onnx_sha256": files.sha256(onnx),
        "opset": int(library.load(str(onnx), load_external_data=False).opset_import[0].version),
        "profile": shapes,
        "checked_with": checked,
    }

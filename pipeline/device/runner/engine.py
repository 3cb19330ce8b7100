# SPDX-License-Identifier: AGPL-3.0-only
"""Build the TensorRT engine on the device that will run it: the program behind build.py."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

from .base import Profile, RunnerError, in_a_line, read_spec
from .runtimes import WHERE

ANOTHER = "update TensorRT, or export with another opset, nms or quantize"
OLDEST = 10  # version 8 of older JetPacks has no strongly typed networks


def refuse_old(trt: Any) -> None:
    """Raise RunnerError for a TensorRT that cannot build the engines of bundles."""
    if int(trt.__version__.split(".")[0]) < OLDEST:
        raise RunnerError(
            f"an engine needs TensorRT {OLDEST} or later (JetPack 6.1 or later), but this is {trt.__version__}; "
            "update it, or export with `format: onnx`"
        )


def build(
    trt: Any, onnx: bytes, profile: Profile | None, workspace_mb: int, exact: bool = False, prepare: Any = None
) -> Any:
    """Return the serialised engine of an ONNX model and its number of layers. Raises RunnerError.

    `trt` is the module: `tensorrt`, or `tensorrt_rtx` for a check. The network is strongly typed: the ONNX file
    determines all precisions. `profile` has the shapes of a dynamic model. With `exact`, 32-bit numbers are not rounded
    to TF32. `prepare` may change the configuration.
    """
    logger, logged_errors = _error_log(trt)
    builder = trt.Builder(logger)
    flags = 0
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        errors = "; ".join(str(parser.get_error(index).desc()) for index in range(parser.num_errors))
        raise RunnerError(f"TensorRT does not accept the ONNX model: {' '.join(errors.split())[:300]}; {ANOTHER}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_mb << 20)
    if profile:
        shapes = builder.create_optimization_profile()
        shapes.set_shape(profile["input"], tuple(profile["min"]), tuple(profile["opt"]), tuple(profile["max"]))
        config.add_optimization_profile(shapes)
    if exact and hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)
    if prepare:
        prepare(config)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = " ".join((logged_errors or ["it gave no reason"])[-1].split())[:300]
        raise RunnerError(f"TensorRT cannot build the engine: {reason}; free memory, or {ANOTHER}")
    return plan, network.num_layers


def _error_log(trt: Any) -> tuple[Any, list[str]]:
    """Return a TensorRT logger, and the list of the errors that it receives."""
    errors: list[str] = []

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                errors.append(message)

    return Logger(), errors


def main(about: str | None, arguments: list[str] | None = None) -> int:
    """Build the engine; `about` is the docstring of build.py. Return the exit status."""
    parser = argparse.ArgumentParser(
        prog="build.py", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=int, default=4096, metavar="MB", help="memory for the builder")
    options = parser.parse_args(arguments)
    folder = Path(__file__).resolve().parents[1]
    try:
        spec = read_spec(folder)
        source = folder / spec["engine"]["onnx"]
        if hashlib.sha256(source.read_bytes()).hexdigest() != spec["engine"]["onnx_sha256"]:
            raise RunnerError(
                f"{source.name}: changed since it was proven (its sha256 differs); unpack the bundle again"
            )
        try:
            import tensorrt
        except ImportError:
            raise RunnerError(
                f"no TensorRT for Python here; build the engine on the NVIDIA device that will run it ({WHERE}), "
                "or with trtexec: sh build.sh"
            ) from None
        refuse_old(tensorrt)
        try:
            exact = spec["precision"] == "fp32"
            plan, _ = build(tensorrt, source.read_bytes(), spec["engine"]["profile"], options.workspace, exact)
        except (RuntimeError, TypeError) as error:  # without a driver or GPU its builder is None
            raise RunnerError(
                f"no NVIDIA GPU with a driver here ({in_a_line(error)}); "
                "build the engine on the device that will run it"
            ) from None
        target = folder / spec["model"]
        partial = target.with_name(f".{target.name}.partial")
        partial.write_bytes(plan)
        os.replace(partial, target)
        size = target.stat().st_size / 1e6
        print(f"{target.name}: {size:.1f} MB, TensorRT {tensorrt.__version__}; next: python run.py --selftest")
    except RunnerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or 'build.py'}: {error.strerror}", file=sys.stderr)
        return 1
    return 0

"""Write the model in a format with Ultralytics' exporter, and describe the result for the runner."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from pipeline.boxes import write_data_yaml
from pipeline.config.export import Target
from pipeline.device.runner import Spec
from pipeline.device.runner.base import Tiles
from pipeline.errors import ExportError, in_a_line
from pipeline.export.litert_convert import forget
from pipeline.export.settings import AS_IT_COMES, Settings
from pipeline.records.tiles import Tiling

NEEDS = {
    "onnx": ("onnx", "onnxslim", "onnxruntime"),
    "engine": ("onnx", "onnxslim", "onnxruntime"),
    "openvino": ("openvino",),
    "ncnn": ("ncnn", "pnnx"),
    "litert": ("ai_edge_litert",),
    "torchscript": (),
}
# 8 bits for weights and activations, or for weights only: as small, but as slow as 32 bits.
LITERT_RECIPES: dict[str, str | int] = {"static": 8, "weights": "w8a32"}
# LiteRT's converter needs an older torch than ours, and a `typing-extensions` that FiftyOne refuses.
LITERT_PYTHON = Path(".venv-litert/bin/python")
# Disk space per target, in checkpoint sizes: artefact, 32-bit original, bundle, Ultralytics' intermediate files.
ROOM_PER_TARGET = 12


def refuse_impossible(targets: tuple[Target, ...], model: Path, folder: Path) -> None:
    """Raise ExportError for targets that this environment cannot make, before anything is written."""
    missing = {name for target in targets for name in NEEDS[target.format] if find_spec(name) is None}
    if any(target.format == "openvino" and target.quantize == 8 for target in targets) and find_spec("nncf") is None:
        missing.add("nncf")
    if missing:
        packages = " ".join(sorted(name.replace("_", "-") for name in missing))
        raise ExportError(
            f"export.targets: packages are missing; add them with "
            f"`{sys.executable} -m pip install -c constraints.txt {packages}`"
        )
    if any(target.format == "litert" for target in targets) and not LITERT_PYTHON.is_file():
        raise ExportError("export.targets: litert needs a separate environment, which is missing; run `make litert`")
    needed = ROOM_PER_TARGET * len(targets) * model.stat().st_size
    if (free := shutil.disk_usage(folder).free) < needed:
        raise ExportError(
            f"{folder}: {free / 1e6:.0f} MB free and {needed / 1e6:.0f} MB needed for {len(targets)} targets; "
            "free some disk space, or move runs/ to another disk and link it here"
        )


def file_name(name: str, target: Target) -> str:
    """Return the artefact's name: a folder for formats with several files, named as Ultralytics names them."""
    precision = "" if target.precision == "fp32" else f"-{target.precision}"
    suffix = {
        "onnx": ".onnx",
        "engine": ".onnx",  # what the engine is built from, on its device
        "openvino": "_openvino_model",
        "ncnn": "_ncnn_model",
        "torchscript": ".torchscript",
        "litert": ".tflite",
    }[target.format]
    engine = "-engine" if target.format == "engine" else ""
    return f"{name}{engine}{precision}{target.variant}{suffix}"


def entry_file(artefact: Path) -> Path:
    """Return the file that the runtime loads."""
    if artefact.name.endswith("_openvino_model"):
        return artefact / "model.xml"
    if artefact.name.endswith("_ncnn_model"):
        return artefact / "model.ncnn.param"
    return artefact


def spec(
    target: Target,
    artefact: Path,
    folder: Path,
    names: tuple[str, ...],
    imgsz: int,
    thresholds: dict[str, float],
    validated: Settings = AS_IT_COMES,
) -> Spec:
    """Return what the runner needs to know about an artefact in `folder`, the core of model.json."""
    return {
        "model": entry_file(artefact).relative_to(folder).as_posix(),
        "format": target.format,
        "precision": target.precision,
        "classes": list(names),
        "thresholds": thresholds,
        "input": {
            "size": imgsz,
            "layout": "NCHW float32",
            "colour": "RGB",
            "fit": "letterbox",
            "pad": 114,
            "scale": 1 / 255,
            "upright": "as EXIF says",
            "bits": validated.bits,  # bits that 16-bit images use; scaled to 8
        },
        "output": {
            # rows: corners, score, class in pixels of the input; columns: centre, size, a score per class.
            "layout": "columns" if target.nms is None else "rows",
            "normalised": target.format == "litert",
            "conf": validated.conf,
            "iou": validated.iou,
            "max_det": validated.max_det,
        },
        # How an image larger than a tile is cut into views, which runner/tiles.py merges; null if it is not cut.
        "tiles": _numbers(validated.tiling),
    }


def _numbers(tiling: Tiling | None) -> Tiles | None:
    return tiling and {"size": tiling["size"], "overlap": tiling["overlap"], "whole": tiling["whole"]}


def write(
    target: Target,
    model: Path,
    folder: Path,
    imgsz: int,
    names: tuple[str, ...],
    calibration: list[Path],
    litert_recipe: str = "static",
    validated: Settings = AS_IT_COMES,
) -> Path:
    """Export the model into `folder` and return the artefact, under Ultralytics' name for it.

    For 8-bit targets this is the 32-bit original to be quantised, except for LiteRT, whose converter quantises too.
    The export always runs on the CPU, so that the result does not depend on the machine.
    """
    folder.mkdir(parents=True)
    # Ultralytics writes next to the checkpoint, under the checkpoint's name.
    checkpoint = folder / "model.pt"
    shutil.copyfile(model, checkpoint)
    settings: dict[str, str | float | None] = {
        "format": "onnx" if target.format == "engine" else target.format,
        "imgsz": imgsz,
        "quantize": None if target.quantize == 8 else target.quantize,
        "device": "cpu",
        "verbose": False,
    }
    if target.nms is not None:
        settings["nms"] = target.nms
        if target.nms:  # the runner applies the thresholds of the classes later
            settings |= {"conf": validated.conf, "iou": validated.iou}
        settings["max_det"] = validated.max_det
    if settings["format"] == "onnx":
        settings |= {"simplify": target.simplify, "dynamic": target.dynamic, "opset": target.opset}
    try:
        if target.format == "litert":
            return _write_litert(target, checkpoint, settings, names, calibration, litert_recipe)
        from ultralytics import YOLO

        with _as_export_errors(target), no_telemetry():
            exported = YOLO(str(checkpoint), task="detect")
            exported.add_callback("on_export_start", forget)
            written = Path(exported.export(**settings))
    finally:
        checkpoint.unlink(missing_ok=True)
    if written.suffix == ".onnx":
        _check_onnx(written, fp16=target.quantize == 16)
    # Ultralytics' test script for an NCNN model contains absolute paths, and nobody needs it.
    if target.format == "ncnn":
        (written / "model_ncnn.py").unlink(missing_ok=True)
    return written


@contextmanager
def no_telemetry() -> Iterator[None]:
    """Keep OpenVINO's converter and NNCF from sending telemetry, which they do not send in a CI job."""
    before = {name: os.environ.get(name) for name in ("CI", "NNCF_CI")}
    os.environ |= {"CI": "true", "NNCF_CI": "1"}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _as_export_errors(target: Target) -> Iterator[None]:
    try:
        yield
    except (ModuleNotFoundError, AssertionError, RuntimeError, ValueError, TypeError) as error:
        reason = in_a_line(error, 300)
        raise ExportError(f"export.targets: {target.format}: {reason}; remove or change the target") from None


def _write_litert(
    target: Target,
    checkpoint: Path,
    settings: dict[str, str | float | None],
    names: tuple[str, ...],
    calibration: list[Path],
    recipe: str,
) -> Path:
    """Convert to LiteRT with a script in its own environment."""
    settings["quantize"] = LITERT_RECIPES[recipe] if target.quantize == 8 else None
    folder = checkpoint.parent
    if target.quantize == 8:
        listing = folder / "calibration.txt"
        listing.write_text("".join(f"{path.resolve()}\n" for path in calibration), encoding="utf-8")
        write_data_yaml(folder / "data.yaml", dict.fromkeys(("train", "val"), listing.name), names)
        settings |= {"data": str(folder / "data.yaml"), "split": "train", "batch": 1}
    script = Path(__file__).with_name("litert_convert.py")
    command = [str(LITERT_PYTHON), str(script), str(checkpoint), json.dumps(settings)]
    environment = {**os.environ, "PYTHONPATH": ""}
    completed = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    written = sorted(folder.glob("*.tflite"))
    if completed.returncode or len(written) != 1:
        last = (completed.stderr.strip() or completed.stdout.strip() or "no error message").splitlines()[-1]
        raise ExportError(f"export.targets: litert: the converter failed: {last[:300]}; `make litert` sets it up again")
    return written[0]


def _check_onnx(written: Path, fp16: bool) -> None:
    import onnx

    if fp16:
        # The half-precision converter appends the cast of the input at the end, but nodes must be sorted.
        model = onnx.load(str(written))
        nodes = sorted(model.graph.node, key=lambda node: not node.name.startswith("graph_input_cast"))
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        onnx.save(model, str(written))
    onnx.checker.check_model(str(written), full_check=True)

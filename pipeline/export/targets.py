"""Write the model in a format, through Ultralytics' exporter, and describe what was written for the runner."""

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
from typing import Any

from pipeline.boxes import write_data_yaml
from pipeline.config import Target
from pipeline.errors import ExportError
from pipeline.export.settings import AS_IT_COMES, Settings

NEEDS = {
    "onnx": ("onnx", "onnxslim", "onnxruntime"),
    "engine": ("onnx", "onnxslim", "onnxruntime"),
    "openvino": ("openvino",),
    "ncnn": ("ncnn", "pnnx"),
    "litert": ("ai_edge_litert",),
    "torchscript": (),
}
# Its converter wants an older torch than ours and a `typing-extensions` that FiftyOne refuses.
# Weights and values in 8 bits, or weights alone: as small, and as slow as 32 bits.
LITERT_RECIPES = {"static": 8, "weights": "w8a32"}
LITERT_PYTHON = Path(".venv-litert/bin/python")
# Beside the artefacts there are the 32-bit original, bundles and Ultralytics' own intermediate files.
ROOM_PER_TARGET = 12


def refuse_impossible(targets: tuple[Target, ...], model: Path, folder: Path) -> None:
    """Raises ExportError for what this environment cannot make, before anything is made."""
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
        raise ExportError(
            "export.targets: litert is converted in an environment of its own, not there yet; `make litert` makes it"
        )
    needed = ROOM_PER_TARGET * len(targets) * model.stat().st_size
    if (free := shutil.disk_usage(folder).free) < needed:
        raise ExportError(
            f"{folder}: {free / 1e6:.0f} MB free and {needed / 1e6:.0f} MB needed for {len(targets)} targets; "
            "free some disk space, or move runs/ to another disk and link it here"
        )


def file_name(name: str, target: Target) -> str:
    """Of the artefact: a folder for formats of several files, named as Ultralytics names them."""
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
    """The file that a runtime is given."""
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
) -> dict[str, Any]:
    """What the runner has to know of an artefact in `folder`; the heart of model.json."""
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
            "bits": validated.bits,  # of 16 that are used: 8 are made of them
        },
        "output": {
            # rows: corners, score, class in pixels of the input; columns: centre, size, a score per class.
            "layout": "columns" if target.nms is None else "rows",
            "normalised": target.format == "litert",
            "iou": validated.iou,
            "max_det": validated.max_det,
        },
    }


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
    """The artefact, in `folder` under Ultralytics' name for it.

    Of 8-bit formats this is the 32-bit original that is quantised afterwards, but for LiteRT, whose converter does
    both. Always on the CPU: what is written does not depend on the machine then.
    """
    folder.mkdir(parents=True)
    # Ultralytics writes beside the checkpoint, under its name.
    checkpoint = folder / "model.pt"
    shutil.copyfile(model, checkpoint)
    settings: dict[str, Any] = {
        "format": "onnx" if target.format == "engine" else target.format,
        "imgsz": imgsz,
        "quantize": None if target.quantize == 8 else target.quantize,
        "device": "cpu",
        "verbose": False,
    }
    if target.nms is not None:
        settings["nms"] = target.nms
        if target.nms:  # the thresholds of the classes come later, in the runner
            settings |= {"conf": validated.conf, "iou": validated.iou}
        settings["max_det"] = validated.max_det
    if settings["format"] == "onnx":
        settings |= {"simplify": target.simplify, "dynamic": target.dynamic, "opset": target.opset}
    try:
        if target.format == "litert":
            return _write_litert(target, checkpoint, settings, names, calibration, litert_recipe)
        from ultralytics import YOLO

        with _spoken_errors(target), no_telemetry():
            written = Path(YOLO(str(checkpoint), task="detect").export(**settings))
    finally:
        checkpoint.unlink(missing_ok=True)
    if written.suffix == ".onnx":
        _check_onnx(written, fp16=target.quantize == 16)
    # Ultralytics' PyTorch test script of an NCNN model has absolute paths in it, and nobody needs it.
    if target.format == "ncnn":
        (written / "model_ncnn.py").unlink(missing_ok=True)
    return written


@contextmanager
def no_telemetry() -> Iterator[None]:
    """OpenVINO's converter and NNCF report to their makers unless they believe to be in a CI job."""
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
def _spoken_errors(target: Target) -> Iterator[None]:
    try:
        yield
    except (ModuleNotFoundError, AssertionError, RuntimeError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())[:300]
        raise ExportError(f"export.targets: {target.format}: {said}; take the target out, or change it") from None


def _write_litert(
    target: Target,
    checkpoint: Path,
    settings: dict[str, Any],
    names: tuple[str, ...],
    calibration: list[Path],
    recipe: str,
) -> Path:
    """In the other environment, by a script that is run and not imported."""
    settings["quantize"] = LITERT_RECIPES[recipe] if target.quantize == 8 else None
    folder = checkpoint.parent
    if target.quantize == 8:
        listing = folder / "calibration.txt"
        listing.write_text("".join(f"{path.resolve()}\n" for path in calibration), encoding="utf-8")
        write_data_yaml(folder / "data.yaml", dict.fromkeys(("train", "val"), listing.name), names)
        settings |= {"data": str(folder / "data.yaml"), "split": "train", "batch": 1}
    script = Path(__file__).with_name("litert_convert.py")
    command = [str(LITERT_PYTHON), str(script), str(checkpoint), json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ""})
    written = sorted(folder.glob("*.tflite"))
    if done.returncode or len(written) != 1:
        last = (done.stderr.strip() or done.stdout.strip() or "no word from it").splitlines()[-1]
        raise ExportError(f"export.targets: litert: the converter failed: {last[:300]}; `make litert` sets it up anew")
    return written[0]


def _check_onnx(written: Path, fp16: bool) -> None:
    import onnx

    if fp16:
        # The half-precision converter appends the cast of the input to the end; nodes have to be in order.
        model = onnx.load(str(written))
        nodes = sorted(model.graph.node, key=lambda node: not node.name.startswith("graph_input_cast"))
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        onnx.save(model, str(written))
    onnx.checker.check_model(str(written), full_check=True)

"""Explain why weights are unsuitable, and what would work, without executing anything in their file."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Any

from pipeline.errors import counted

COLOUR = 3  # channels of an image
GET_AGAIN = "get it again from a source that you trust"
KIN = "choose yolo26n.pt or another YOLO26 detector"
TASKS = {
    "segment": "segmentation",
    "semantic": "semantic segmentation",
    "classify": "classification",
    "pose": "pose estimation",
    "obb": "oriented boxes",
    "depth": "depth estimation",
}
# By the last module of a model, because its other parts do not show what it is for.
HEADS = {
    "RTDETRDecoder": "an RT-DETR model, which needs another trainer",
    "WorldDetect": "a YOLO-World model, which is prompted with words",
    "YOLOEDetect": "a YOLOE model, which is prompted with words",
    "YOLOESegment": "a YOLOE model, which is prompted with words",
    "YOLOESegment26": "a YOLOE model, which is prompted with words",
    "LRPCHead": "a YOLOE model, which is prompted with words",
}


def file(path: Path) -> tuple[str, str] | None:
    """Return what a file is that is not an Ultralytics checkpoint, and what would work; None if that is unclear."""
    try:
        with path.open("rb") as opened:
            start = opened.read(512)
        text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        if not start:
            return "it is empty", GET_AGAIN
        if text.startswith(b"version https://git-lfs"):
            return "it is a Git LFS pointer, not the file itself", "run `git lfs pull` where it came from"
        if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
            return "it is a web page, saved in place of the file", "download the file itself, with its `raw` link"
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2]: name for name in archive.namelist()}
            if "constants.pkl" in names:
                return "it is TorchScript, an export", "name the .pt file that it was exported from"
            if "data.pkl" not in names:
                return "it is a ZIP archive of other files", "unpack it, and name the .pt file in it"
            return _pickle(archive.read(names["data.pkl"]))
    except (OSError, ValueError, zipfile.BadZipFile, RuntimeError, NotImplementedError):
        return None


def _pickle(data: bytes) -> tuple[str, str] | None:
    """Return what a pickle without a model holds, and what would work; None if unclear.

    It tells by the classes that the pickle names. The pickle is disassembled, not executed.
    """
    named = {str(word).partition(" ")[0] for code, word, _ in pickletools.genops(data) if code.name == "GLOBAL"}
    if named & {"models.yolo", "models.common", "models.experimental"}:
        return (
            "it comes from the old YOLOv5 repository or a fork, whose models Ultralytics cannot read",
            "choose yolov5nu.pt or a larger one, which are the same networks for Ultralytics",
        )
    if named <= {"collections", "torch._utils", "torch", "torch.storage"}:
        return (
            "it holds tensors without a model",
            "name the .pt file that Ultralytics wrote, with the model in it",
        )
    return None


def model(model: Any) -> str | None:
    """Return what a model is that cannot be trained here, and what would work; None if it can."""
    from ultralytics.nn.tasks import DetectionModel

    task = str(getattr(model, "task", "?"))
    layers = getattr(model, "model", None)
    if layers is not None and (reason := _of_head(type(layers[-1]).__name__, task, getattr(model, "yaml", {}))):
        return reason
    if not isinstance(model, DetectionModel):
        return f"a model for {TASKS.get(task, task)}, not for detection; {KIN}"
    return _of_channels(_channels(model))


def without_boxes(model: Any) -> str | None:
    """Return what a model is that predicts no upright boxes, and what would work; None if it predicts them."""
    head, task = type(model.model[-1]).__name__, str(getattr(model, "task", "?"))
    if head == "RTDETRDecoder" or task not in ("detect", "segment"):
        return _of_head(head, task, {})
    return _of_channels(_channels(model))


def yaml(layers: dict[str, Any], task: str | None) -> str | None:
    """Return why the model that a YAML file describes cannot be trained here; None if it can."""
    return _of_head(str(layers["head"][-1][2]), task or "?", layers) or _of_channels(layers.get("channels", COLOUR))


def _of_head(head: str, task: str, layers: dict[str, Any]) -> str | None:
    if head in HEADS:
        return f"{HEADS[head]}; {KIN}"
    if head in ("Detect", "v10Detect"):
        return None
    stem = _stem(head, layers)
    way_out = f"choose {stem}.pt, the same network up to the head" if stem else KIN
    return f"a model for {TASKS.get(task, task)}, not for detection; {way_out}"


def family(model: Any) -> str | None:
    """Return the name of the detector that equals the model up to the head, such as `yolo26n`; None if none does."""
    stem = _stem(type(model.model[-1]).__name__, getattr(model, "yaml", {}))
    return None if _of_channels(_channels(model)) else stem


def _stem(head: str, layers: dict[str, Any]) -> str | None:
    stem, _, suffix = Path(str(layers.get("yaml_file", ""))).stem.rpartition("-")
    return stem if stem and suffix in ("seg", "pose", "obb") and head not in HEADS else None


def _channels(model: Any) -> int:
    return int(next(layer.shape[1] for layer in model.parameters() if layer.ndim == 4))


def _of_channels(channels: int) -> str | None:
    if channels == COLOUR:
        return None
    return f"takes images with {counted(channels, 'channel')}, not colour images; {KIN}"

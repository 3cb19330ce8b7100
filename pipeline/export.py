"""Write the model for a device, run what was written, and compare it with the model box by box."""

from __future__ import annotations

import os
import shutil
import statistics
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline import files, weights
from pipeline.boxes import YoloDataset
from pipeline.config import Export, Target
from pipeline.errors import DataError, ExportError
from pipeline.run import Run

SUFFIX = {"onnx": ".onnx", "engine": ".engine"}
# Half precision keeps 11 bits: 640 px in steps of up to 0.5, scores in steps of 5e-4, summed over the layers.
LIMITS = {None: (0.5, 1e-3), 16: (2.0, 2e-2)}


@dataclass(frozen=True, slots=True)
class Detections:
    """What one model finds in one image: (n, 4) corners in pixels of the original, (n,) scores, (n,) classes."""

    corners: NDArray[np.float64]
    scores: NDArray[np.float64]
    classes: NDArray[np.int64]

    def above(self, score: float) -> Detections:
        keep = self.scores >= score
        return Detections(self.corners[keep], self.scores[keep], self.classes[keep])


@dataclass(frozen=True, slots=True)
class Parity:
    """How far an artefact is from the model, over all images compared."""

    images: int
    boxes: int
    lost: int
    extra: int
    max_box_px: float
    max_score: float
    worst_image: str | None

    def breaches(self, max_box_px: float, max_score: float) -> list[str]:
        said = []
        if not self.boxes:
            said.append("the model found nothing to compare, so nothing is proven; train longer or lower export.conf")
        if self.lost or self.extra:
            said.append(f"{self.lost} boxes lost and {self.extra} invented")
        if self.max_box_px > max_box_px:
            said.append(f"boxes up to {self.max_box_px:.3g} px apart, {max_box_px:g} allowed")
        if self.max_score > max_score:
            said.append(f"scores up to {self.max_score:.3g} apart, {max_score:g} allowed")
        return said


def main(config: Export, run: Run, device: str) -> str:
    """Write every target into `run.export`, and the manifest last.

    Raises ExportError, and leaves nothing behind, where a target cannot be made here or differs from
    the model by more than its limits.
    """
    _refuse_impossible(config.targets)
    weights.prepare()
    weights.check_device(device)
    dataset = YoloDataset.read(run.dataset / "data.yaml")
    images = _spread(dataset.files("val"), config.images)
    if not images:
        raise DataError(f"{run.dataset}: no validation images to compare on; give the val split some")
    imgsz = weights.imgsz_of(run.model)
    with files.new_folder(run.export) as folder:
        reference, model_ms = _detect(run.model, images, imgsz, config.conf, device)
        entries, said = [], []
        for target in config.targets:
            artefact = _write(target, run, folder, imgsz, device)
            found, artefact_ms = _detect(artefact, images, imgsz, config.conf, device)
            parity = compare(reference, found, config.conf, [path.name for path in images])
            default_box, default_score = LIMITS[target.quantize]
            limits = target.max_box_px or default_box, target.max_score or default_score
            if breaches := parity.breaches(*limits):
                worst = f"; worst image {parity.worst_image}" if parity.worst_image else ""
                raise ExportError(f"{artefact.name}: differs from {run.model}: {', '.join(breaches)}{worst}")
            entries.append(_entry(target, artefact, parity, limits, {"model": model_ms, "artefact": artefact_ms}))
            said.append(
                f"{artefact.name} equal on {parity.boxes} boxes (to {parity.max_box_px:.2g} px, {parity.max_score:.1g})"
            )
        manifest = {
            "model": {"file": run.model.name, "sha256": files.sha256(run.model)},
            "classes": list(dataset.names),
            "imgsz": imgsz,
            "letterbox": "square, grey 114, centred; RGB, 0..1",
            "artefacts": entries,
            "versions": {
                name: version(name) for name in ("ultralytics-opencv-headless", "torch", "onnx", "onnxruntime")
            },
        }
        files.write_json(folder / "manifest.json", manifest)
    return f"{', '.join(said)} -> {run.export}"


def _refuse_impossible(targets: tuple[Target, ...]) -> None:
    if not any(target.format == "engine" for target in targets):
        return
    import torch

    missing = []
    if not torch.cuda.is_available():
        missing.append("an NVIDIA GPU with its driver")
    if find_spec("tensorrt") is None:
        missing.append("the Python package tensorrt")
    if missing:
        raise ExportError(
            "export.targets: engine (TensorRT) is built on the GPU it will run on; "
            f"this machine lacks {' and '.join(missing)}. "
            "Take the target out here, and run `make export` on the device"
        )


def _spread(images: list[Path], number: int) -> list[Path]:
    """`number` images from all over the list, always the same ones."""
    if len(images) <= number:
        return images
    return [images[int(index)] for index in np.linspace(0, len(images) - 1, number)]


def _write(target: Target, run: Run, folder: Path, imgsz: int, device: str) -> Path:
    from ultralytics import YOLO

    # Ultralytics writes beside the checkpoint, under its name.
    workshop = folder / ".workshop"
    workshop.mkdir()
    try:
        shutil.copyfile(run.model, workshop / "model.pt")
        model = YOLO(str(workshop / "model.pt"), task="detect")
        try:
            written = model.export(
                format=target.format, imgsz=imgsz, quantize=target.quantize, device=device or None, verbose=False
            )
        except (ModuleNotFoundError, AssertionError, RuntimeError, ValueError) as error:
            raise ExportError(f"export.targets: {target.format}: {' '.join(str(error).split())[:300]}") from None
        artefact = folder / f"{run.name}{'-fp16' if target.quantize == 16 else ''}{SUFFIX[target.format]}"
        os.replace(written, artefact)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    if target.format == "onnx":
        import onnx

        if target.quantize == 16:
            _put_input_casts_first(artefact)
        onnx.checker.check_model(str(artefact), full_check=True)
    return artefact


def _put_input_casts_first(artefact: Path) -> None:
    """The half-precision converter appends the cast of the input to the end; nodes have to be in order."""
    import onnx

    model = onnx.load(str(artefact))
    nodes = sorted(model.graph.node, key=lambda node: not node.name.startswith("graph_input_cast"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(artefact))


def _detect(
    model_file: Path, images: list[Path], imgsz: int, conf: float, device: str
) -> tuple[list[Detections], float]:
    """Detections of every image, and the median milliseconds of an inference.

    Goes a little below `conf`, so that a box just under it on one side can still find its partner.
    """
    from ultralytics import YOLO

    model = YOLO(str(model_file), task="detect")
    found, milliseconds = [], []
    for image in tqdm(images, f"export: {model_file.suffix[1:]}", unit="image", leave=False, delay=1, disable=None):
        # One at a time: an exported model has a batch of 1. rect=False: and a square input.
        [result] = model.predict(
            str(image), imgsz=imgsz, conf=conf * 0.9, rect=False, device=device or None, verbose=False
        )
        boxes = result.boxes.cpu().numpy()
        found.append(Detections(boxes.xyxy.astype(float), boxes.conf.astype(float), boxes.cls.astype(int)))
        milliseconds.append(result.speed["inference"])
    return found, round(statistics.median(milliseconds), 2)


def compare(reference: list[Detections], found: list[Detections], conf: float, names: list[str]) -> Parity:
    """Pair the boxes of both sides, image by image.

    A box counts from `conf` upwards; its partner on the other side may lie a hair below. Each box takes the
    nearest free one of its class; pairs further apart than any rounding (IoU below 0.5) are not pairs.
    """
    boxes = lost = extra = 0
    worst: tuple[float, str | None] = (0.0, None)
    max_box = max_score = 0.0
    for ours, theirs, name in zip(reference, found, names, strict=True):
        strong = ours.above(conf)
        pairs = _pairs(strong, theirs)
        invented = len(theirs.above(conf).scores) - len(_pairs(theirs.above(conf), ours))
        missing = len(strong.scores) - len(pairs)
        box_px = max((float(np.abs(strong.corners[i] - theirs.corners[j]).max()) for i, j in pairs), default=0.0)
        score = max((abs(float(strong.scores[i] - theirs.scores[j])) for i, j in pairs), default=0.0)
        boxes, lost, extra = boxes + len(strong.scores), lost + missing, extra + invented
        max_box, max_score = max(max_box, box_px), max(max_score, score)
        badness = 1e6 * (missing + invented) + box_px + 100 * score
        if badness > worst[0]:
            worst = badness, name
    return Parity(len(names), boxes, lost, extra, round(max_box, 6), round(max_score, 8), worst[1])


def _pairs(ours: Detections, theirs: Detections) -> list[tuple[int, int]]:
    free = set(range(len(theirs.scores)))
    pairs = []
    for i in range(len(ours.scores)):
        candidates = [
            j for j in free if theirs.classes[j] == ours.classes[i] and _iou(ours.corners[i], theirs.corners[j]) >= 0.5
        ]
        if candidates:
            # By corners and score together: overlapping objects may lie equally near.
            j = min(candidates, key=lambda j: _distance(ours, i, theirs, j))
            pairs.append((i, j))
            free.remove(j)
    return pairs


def _distance(ours: Detections, i: int, theirs: Detections, j: int) -> float:
    return float(np.abs(ours.corners[i] - theirs.corners[j]).max() + 10 * abs(ours.scores[i] - theirs.scores[j]))


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    overlap = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    union = (a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - overlap
    return float(overlap / union) if union else 0.0


def _entry(
    target: Target, artefact: Path, parity: Parity, limits: tuple[float, float], latency_ms: dict[str, float]
) -> dict[str, Any]:
    return {
        "file": artefact.name,
        "sha256": files.sha256(artefact),
        "bytes": artefact.stat().st_size,
        "format": target.format,
        "precision": f"fp{target.quantize or 32}",
        "parity": {
            "images": parity.images,
            "boxes": parity.boxes,
            "lost": parity.lost,
            "extra": parity.extra,
            "max_box_px": parity.max_box_px,
            "max_score": parity.max_score,
            "limit_box_px": limits[0],
            "limit_score": limits[1],
        },
        "latency_ms": latency_ms,
        "verdict": "equal",
    }

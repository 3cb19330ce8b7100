"""Eight bits: which training images the ranges are measured on, and recipes that keep the scores.

Two things go wrong elsewhere. Calibration on a handful of foreign images, or on the very images that judge the
result. And one range for a tensor that holds boxes (0..640) and scores (0..1) together: every score rounds to
zero. So calibration images come from the training split alone, and the detection head stays in float.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import files, logs
from pipeline.boxes import YoloDataset
from pipeline.config import Calibration
from pipeline.device import runner
from pipeline.device.runner import Found
from pipeline.errors import DataError
from pipeline.export import ap
from pipeline.export.targets import no_telemetry

PLAIN = "head in float"
# For models that lose too much by the plain one. Face masks, in points of mAP50-95: plain 2.3, the rarest values cut
# 1.5, first layers in float 1.2, both -0.1. The attention in float, or a scale per tensor, were worse than plain.
CAREFUL = "head and first two layers in float, the rarest values cut"
FIRST_LAYERS = 2  # they see pixels, few channels of them, and every later layer builds on their rounding
PERCENTILE = 99.99  # of the absolute values: the ranges that onnxruntime then takes leave the rest out

# Accuracy-aware quantisation watches average precision on so many training images that did not calibrate.
WATCHED_IMAGES = 64


def choose(dataset: YoloDataset, settings: Calibration, seed: int) -> list[Path]:
    """Training images, each class in turn giving one that shows it, so that rare classes are there too.

    Raises DataError where the training split has no images, or too few of a class.
    """
    images = dataset.files("train")
    if not images:
        raise DataError(f"{dataset.images.get('train', 'train')}: no training images to calibrate 8 bits on")
    shows: dict[int, list[int]] = {kind: [] for kind in range(len(dataset.names))}
    for index, path in enumerate(images):
        label = dataset.label_file(path)
        lines = label.read_text(encoding="utf-8").splitlines() if label.is_file() else []
        for kind in {int(float(line.split()[0])) for line in lines if line.strip()}:
            shows[kind].append(index)
    for kind, found in shows.items():
        if len(found) < settings.per_class:
            raise DataError(
                f"{dataset.images['train']}: {len(found)} training images show {dataset.names[kind]!r}, too few to "
                f"calibrate 8 bits on (export.calibration.per_class: {settings.per_class}); add some, or lower it"
            )
    random = np.random.default_rng(seed)
    queues = [list(random.permutation(found)) for found in shows.values()] + [list(random.permutation(len(images)))]
    chosen: dict[int, None] = {}
    while len(chosen) < min(settings.images, len(images)):
        for queue in queues:
            while queue and int(queue[-1]) in chosen:
                queue.pop()
            if queue and len(chosen) < settings.images:
                chosen[int(queue.pop())] = None
    return [images[index] for index in chosen]


def prove_disjoint(chosen: list[Path], dataset: YoloDataset) -> dict[str, Any]:
    """That no calibration image is one of val or test, pixel by pixel; a copy under another name is one too.

    Returns the list for the manifest. Raises DataError naming a pair.
    """
    judges = {
        _pixels(path): path
        for split in ("val", "test")
        for path in logs.progress(dataset.files(split), f"export: {split}")
    }
    listed = []
    for path in chosen:
        twin = judges.get(_pixels(path))
        if twin is not None:
            raise DataError(
                f"{path}: would calibrate, and is the same picture as {twin}, which judges; "
                "take one of them out of its split (convert.leaks: move does)"
            )
        listed.append({"file": path.name, "sha256": files.sha256(path)})
    return {"split": "train", "disjoint_from": ["val", "test"], "compared_with": len(judges), "images": listed}


def _pixels(path: Path) -> str:
    picture = runner.read_image(path)
    return hashlib.sha256(f"{picture.shape}".encode() + picture.tobytes()).hexdigest()


def tensors(images: list[Path], spec: dict[str, Any]) -> list[NDArray[np.float32]]:
    """The images as the runner will feed them."""
    return [runner.prepare(runner.read_image(path), spec["input"]) for path in images]


# --- ONNX -----------------------------------------------------------------------------------------


def quantise_onnx(source: Path, target: Path, calibration: list[NDArray[np.float32]], recipe: str) -> None:
    """A static Q/DQ model that onnxruntime and TensorRT both take.

    TensorRT's rules: symmetric ranges (zero point 0), and biases as floats, not as an int32 DequantizeLinear.
    `recipe` "naive" is onnxruntime's default, everything quantised: kept to show what it loses.
    """
    # onnxruntime advises a pre-processing that Ultralytics' exporter has done, each time anew.
    logging.disable(logging.WARNING)
    try:
        _quantise_onnx(source, target, calibration, recipe)
    finally:
        logging.disable(logging.NOTSET)


def _quantise_onnx(source: Path, target: Path, calibration: list[NDArray[np.float32]], recipe: str) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # no types
        def __init__(self) -> None:
            self.left = iter(logs.progress(calibration, "export: calibration"))

        def get_next(self) -> dict[str, Any] | None:
            tensor = next(self.left, None)
            return None if tensor is None else {"images": tensor}

    if recipe == "naive":
        quantize_static(str(source), str(target), Reader())
        return
    nodes = [node.name for node in onnx.load(str(source)).graph.node]
    careful = recipe == CAREFUL
    quantize_static(
        str(source),
        str(target),
        Reader(),
        nodes_to_exclude=in_head(nodes) + (in_layers(nodes, range(FIRST_LAYERS)) if careful else []),
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        per_channel=True,
        calibrate_method=CalibrationMethod.Percentile if careful else CalibrationMethod.MinMax,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "CalibPercentile": PERCENTILE,
        },
    )


def in_head(names: list[str]) -> list[str]:
    """Those of the layer with the highest number."""
    last = max(_layers(names).values())
    return in_layers(names, [last])


def in_layers(names: list[str], wanted: Collection[int]) -> list[str]:
    return [name for name, layer in _layers(names).items() if layer in wanted]


def _layers(names: list[str]) -> dict[str, int]:
    """Numbers of layers by name: Ultralytics names nodes `/model.23/...`, `__module.model.23/...`."""
    return {name: int(found[1]) for name in names if (found := re.search(r"(?:^|[/.])model\.(\d+)(?:[/.]|$)", name))}


# --- OpenVINO -------------------------------------------------------------------------------------


def quantise_openvino(
    source: Path,
    target: Path,
    calibration: list[NDArray[np.float32]],
    recipe: str,
    watch: tuple[list[Path], YoloDataset, dict[str, Any]],
    max_drop: float,
) -> None:
    """Through NNCF, into the folder `target`. `max_drop` is in points of mAP50-95 on the images that are watched."""
    with _quiet_nncf(), no_telemetry():
        import nncf
        import openvino

        model = openvino.Core().read_model(str(source / "model.xml"))
        settings: dict[str, Any] = {"preset": nncf.QuantizationPreset.MIXED, "subset_size": len(calibration)}
        if recipe != "naive":
            head = in_head([op.get_friendly_name() for op in model.get_ordered_ops()])
            settings["ignored_scope"] = nncf.IgnoredScope(names=head, validate=False)
        dataset = nncf.Dataset(calibration)
        if recipe == "accuracy-aware":
            images, labels, spec = watch
            quantised = nncf.quantize_with_accuracy_control(
                model,
                calibration_dataset=dataset,
                validation_dataset=nncf.Dataset(list(range(len(images)))),
                validation_fn=_watcher(images, labels, spec),
                max_drop=max_drop / 100,
                **settings,
            )
        else:
            quantised = nncf.quantize(model, dataset, **settings)
        target.mkdir()
        # compress_to_fp16: the float part in half the bytes would be one more rounding, not asked for.
        openvino.save_model(quantised, str(target / "model.xml"), compress_to_fp16=False)
    (target / "metadata.yaml").write_bytes((source / "metadata.yaml").read_bytes())


def _watcher(images: list[Path], dataset: YoloDataset, spec: dict[str, Any]) -> Any:
    """NNCF's validation function: mAP50-95 of a compiled model on these images, by number."""
    labelled = ap.truth(dataset, images)
    pictures = [runner.read_image(path) for path in images]

    def validate(compiled: Any, numbers: Any) -> tuple[float, None]:
        seen: dict[int, Found] = {}
        for number in numbers:
            picture = pictures[number]
            raw = next(iter(compiled(runner.prepare(picture, spec["input"])).values()))
            seen[number] = runner.read_output(raw, spec, picture.shape, 0.001, every_label=True)
        matches = ap.match([labelled[n] for n in seen], list(seen.values()), len(dataset.names))
        return float(ap.figures(matches, list(dataset.names))["map50_95"] or 0.0), None

    return validate


@contextmanager
def _quiet_nncf() -> Iterator[None]:
    logger = logging.getLogger("nncf")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def watched(dataset: YoloDataset, chosen: list[Path]) -> list[Path]:
    """Training images that did not calibrate; the same ones again where there are no others."""
    others = sorted(set(dataset.files("train")) - set(chosen)) or chosen
    return [others[int(index)] for index in np.linspace(0, len(others) - 1, min(len(others), WATCHED_IMAGES))]


# --- Thresholds -----------------------------------------------------------------------------------


def refit(model: list[Found], artefact: list[Found], thresholds: dict[str, float]) -> dict[str, float]:
    """Thresholds at which the artefact shows as many boxes of each class as the model does at its own.

    Eight bits move scores a little, all in one direction; the operating point that was chosen moves with them.
    Where the model shows none of a class, or the artefact has too few, the threshold stays.
    """
    fitted = {}
    for kind, (name, threshold) in enumerate(thresholds.items()):
        wanted = sum(int((found.scores[found.classes == kind] >= threshold).sum()) for found in model)
        scores = np.sort(np.concatenate([found.scores[found.classes == kind] for found in artefact]))[::-1]
        if 0 < wanted < len(scores):
            threshold = round(float(scores[wanted - 1] + scores[wanted]) / 2, 6)
        fitted[name] = threshold
    return fitted

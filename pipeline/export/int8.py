"""Quantise to 8 bits: choose calibration images, and use recipes that preserve the scores.

Two mistakes are common: calibrating on a few unrelated images or on the images that evaluate the result, and using one
range for a tensor that holds both boxes (0 to 640) and scores (0 to 1), which rounds every score to zero. Here
calibration images come from the training split only (`calibration`), and the detection head stays in float.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline import logs
from pipeline.boxes import YoloDataset
from pipeline.device import runner
from pipeline.device.runner import Detections
from pipeline.export import ap
from pipeline.export.targets import no_telemetry

PLAIN = "head in float"
# For models that lose too much with the plain recipe. On face masks, mAP50-95 fell by 2.3 points with the plain recipe,
# by 1.5 with clipped ranges, by 1.2 with the first layers in float, and rose by 0.1 with both. Attention in float, and
# one scale per tensor, were worse than the plain recipe.
CAREFUL = "head and first two layers in float, the largest values clipped"
# For small objects: the layers down to stride 8. On boards with defects of 10 pixels, mAP50-95 fell by 4.4 points with
# the plain recipe, by 2.5 with CAREFUL and by 0.6 with this one (0.9 with clipped ranges); the file is 6 % larger.
SMALL_OBJECTS = "head and first five layers in float"
# Number of first layers in float, by recipe, in the order in which the recipes are tried. First layers have few
# channels, and every later layer inherits their rounding errors.
FIRST_LAYERS = {PLAIN: 0, CAREFUL: 2, SMALL_OBJECTS: 5}
PERCENTILE = 99.99  # of the absolute values; onnxruntime clips the rest


class Tensors(Protocol):
    """Calibration images as input tensors (1, 3, height, width), which may be made one at a time."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[NDArray[np.float32]]: ...


# --- ONNX -----------------------------------------------------------------------------------------


def quantise_onnx(source: Path, target: Path, calibration: Tensors, recipe: str) -> None:
    """Write a static Q/DQ model for both onnxruntime and TensorRT to `target`.

    TensorRT requires symmetric ranges (zero point 0) and float biases instead of an int32 DequantizeLinear. The
    `recipe` "naive" is onnxruntime's default, which quantises everything; it exists to show what that loses.
    """
    # onnxruntime always warns that pre-processing is missing, but Ultralytics' exporter has done it.
    logging.disable(logging.WARNING)
    try:
        _quantise_onnx(source, target, calibration, recipe)
    finally:
        logging.disable(logging.NOTSET)


def _quantise_onnx(source: Path, target: Path, calibration: Tensors, recipe: str) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # no types
        def __init__(self) -> None:
            self.remaining = self.stride = iter(logs.progress(calibration, "export: calibration"))

        def __len__(self) -> int:
            return len(calibration)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.stride = islice(self.remaining, end_index - start_index)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            tensor = next(self.stride, None)
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
        nodes_to_exclude=in_head(nodes) + in_layers(nodes, range(FIRST_LAYERS[recipe])),
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
            # One image at a time: for percentiles, onnxruntime keeps all activations until the end of a stride.
            "CalibStridedMinMax": 1,
        },
    )


def in_head(names: list[str]) -> list[str]:
    """Return the names in the last layer, which is the detection head."""
    last = max(_layers(names).values())
    return in_layers(names, [last])


def in_layers(names: list[str], wanted: Collection[int]) -> list[str]:
    return [name for name, layer in _layers(names).items() if layer in wanted]


def _layers(names: list[str]) -> dict[str, int]:
    """Map names to layer numbers: Ultralytics names nodes `/model.23/...`, `__module.model.23/...`."""
    return {name: int(found[1]) for name in names if (found := re.search(r"(?:^|[/.])model\.(\d+)(?:[/.]|$)", name))}


# --- OpenVINO -------------------------------------------------------------------------------------


def quantise_openvino(
    source: Path,
    target: Path,
    calibration: Tensors,
    recipe: str,
    watch: tuple[list[Path], YoloDataset, runner.Spec],
    max_drop: float,
) -> None:
    """Quantise with NNCF into the folder `target`. `max_drop` is in points of mAP50-95 on the images of `watch`."""
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
        # Compressing the float layers to 16 bits would round them too, which nobody asked for.
        openvino.save_model(quantised, str(target / "model.xml"), compress_to_fp16=False)
    (target / "metadata.yaml").write_bytes((source / "metadata.yaml").read_bytes())


def _watcher(images: list[Path], dataset: YoloDataset, spec: runner.Spec) -> Any:
    """Return NNCF's validation function, which computes mAP50-95 of a compiled model on images given by index."""
    labelled = ap.truth(dataset, images)

    def validate(compiled: Any, indices: Any) -> tuple[float, None]:
        seen: dict[int, Detections] = {}
        for index in indices:
            image = runner.read_image(images[index])  # each time, because large ones do not all fit into memory
            parts = []
            for left, top, right, bottom in (views := runner.views(image.shape, spec.get("tiles"))):
                part = image[top:bottom, left:right]
                raw = next(iter(compiled(runner.prepare(part, spec["input"])).values()))
                parts.append(runner.read_output(raw, spec, part.shape, spec["output"]["conf"], every_label=True))
            seen[index] = runner.merge(parts, views, spec.get("tiles"))
        matches = ap.match([labelled[index] for index in seen], list(seen.values()), len(dataset.names))
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


# --- Thresholds -----------------------------------------------------------------------------------


def refit(model: list[Detections], artefact: list[Detections], thresholds: dict[str, float]) -> dict[str, float]:
    """Return thresholds at which the artefact shows as many boxes per class as the model does at its own.

    Quantisation, another head and another size shift scores, and the operating point with them. If the model shows no
    box of a class, or the artefact has too few, the threshold stays as it is.
    """
    fitted = {}
    for kind, (name, threshold) in enumerate(thresholds.items()):
        wanted = sum(int((seen.scores[seen.classes == kind] >= threshold).sum()) for seen in model)
        scores = np.sort(np.concatenate([seen.scores[seen.classes == kind] for seen in artefact]))[::-1]
        if 0 < wanted < len(scores):
            threshold = round(float(scores[wanted - 1] + scores[wanted]) / 2, 6)
        fitted[name] = threshold
    return fitted

"""Published artefacts run on their own, a refused target affects no other, and chance does not count as a loss."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import Trained
from onnx import numpy_helper

from pipeline import export
from pipeline.config.export import Export, Limits8, Limits16, Limits32
from pipeline.device.runner import Detections
from pipeline.errors import ExportError
from pipeline.export import alone, ap, bundle, gate, targets
from pipeline.files import read_json
from pipeline.run import Run

CONF = 0.002  # as in conftest
ONNX = {"format": "onnx"}


def with_targets(*chosen: dict[str, Any], **more: Any) -> Export:
    return Export.model_validate({"targets": list(chosen), "conf": CONF, "images": 2, **more})


def forget_torchvision(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    patch.setattr(bundle, "packages_of", lambda spec: [bundle.PACKAGE[spec["format"]]])
    return {"format": "torchscript", "nms": True}


def with_code(patch: pytest.MonkeyPatch, line: bytes) -> dict[str, Any]:
    code = bundle.code()
    code["runner/letterbox.py"] = code["runner/letterbox.py"].replace(b"\nimport numpy", line + b"\nimport numpy")
    patch.setattr(bundle, "code", lambda: code)
    return ONNX


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], dict[str, Any]], str]] = {
    "a package missing from requirements.txt": (forget_torchvision, r"torchvision"),
    "a library of the export environment": (lambda patch: with_code(patch, b"\nimport torch"), r"No module named 'torch'"),
    "the project's own code": (lambda patch: with_code(patch, b"\nimport pipeline"), r"No module named 'pipeline'"),
    "code that ends the process": (lambda patch: with_code(patch, b"\nimport os; os._exit(7)"), r"ended with status 7"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bundle_that_fails_in_a_separate_process_is_refused(
    trained: Trained, copy_of: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    run, (plant, said) = copy_of(trained.run), FAULTS[fault]
    target = plant(monkeypatch)
    with pytest.raises(
        ExportError, match=rf"its bundle fails its self-test with only the packages .*: .*{said}"
    ) as error:
        export.main(with_targets(target), run, 0, "cpu")
    _, stale = str(error.value).splitlines()
    assert stale.startswith(f"{run.export} still holds the bundles of an earlier export; ")
    assert str(run.root / ".export") not in str(error.value)
    [entry] = read_json(run.export_refused)["artefacts"]
    assert entry["verdict"] == "refused" and "bundle" not in entry
    # No target passed, so the last export stays. Its manifest would make `make report` try this one again.
    assert not run.manifest.exists() and (run.export / "tiny-onnx-fp32.zip").is_file()


def test_missing_packages_include_indirect_requirements() -> None:
    lacks = alone.absent(["numpy", "onnxruntime"])
    assert {"torch", "ultralytics", "pipeline", "openvino", "yaml"} <= set(lacks)
    assert not {"numpy", "onnxruntime", "cv2"} & set(lacks)
    # PyTorch needs SymPy, which needs mpmath.
    assert not {"torch", "sympy", "mpmath"} & set(alone.absent(["numpy", "torch"]))


@pytest.mark.parametrize("first", [True, False])
def test_a_refused_target_does_not_affect_those_that_passed(
    trained: Trained, copy_of: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    run = copy_of(trained.run)
    shutil.rmtree(run.export)
    write = targets.write

    def spoil(target: Any, *arguments: Any) -> Path:
        path = write(target, *arguments)
        if target.imgsz == 96:
            model = onnx.load(str(path))
            tensor = [t for t in model.graph.initializer if ".cv3." in t.name and t.name.endswith("bias")][-1]
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.5), tensor.name))
            onnx.save(model, str(path))
        return path

    monkeypatch.setattr(targets, "write", spoil)
    spoilt = {**ONNX, "imgsz": 96}
    with pytest.raises(ExportError) as error:
        export.main(with_targets(*((spoilt, ONNX) if first else (ONNX, spoilt))), run, 0, "cpu")
    refused, kept = str(error.value).splitlines()
    assert refused.startswith("tiny-96.onnx: differs from") and "(export.limits.fp32.max_score)" in refused
    assert kept.startswith(f"tiny.onnx passed: in {run.export}; all figures are in {run.export_refused}")
    # Without a manifest, make tries again.
    assert sorted(path.name for path in run.export.iterdir()) == ["tiny-onnx-fp32.zip", "tiny.onnx"]
    verdicts = {entry["file"]: entry["verdict"] for entry in read_json(run.export_refused)["artefacts"]}
    assert verdicts == {"tiny.onnx": "passed", "tiny-96.onnx": "refused"}


@pytest.mark.parametrize(
    ("points", "interval", "limits", "proven"),
    [
        (2.39, [0.0, 2.94], Limits16(), False),  # of eight images: possibly no loss at all
        (2.39, [-1.0, 6.0], Limits16(), False),
        (2.39, [0.1, 2.94], Limits16(), True),
        (2.39, [0.1, 2.94], Limits8(), True),
        (0.05, [0.01, 0.09], Limits32(), None),
        (-3.0, [-4.0, -2.0], Limits32(), None),
        (None, None, Limits32(), None),
    ],
)
def test_the_interval_decides_what_counts_as_a_loss(
    points: float | None, interval: list[float] | None, limits: Any, proven: bool | None
) -> None:
    drop: Any = {"points": points, "interval": interval}
    line, counts = gate._lower(drop, limits)
    assert (bool(line), counts) == (proven is not None, bool(proven))


@pytest.mark.parametrize("worse", [1, 8])
def test_one_bad_image_of_eight_is_no_loss_but_all_eight_are(worse: int) -> None:
    """Eight images with one object each, of which the artefact misses some."""
    corners = np.array([[10.0, 10.0, 60.0, 60.0]])
    there = [Detections(corners, np.array([0.9]), np.array([0])) for _ in range(8)]
    # A box with an IoU of only 0.8 fails COCO's higher thresholds.
    moved = Detections(corners + np.array([5, 0, 5, 0]), np.array([0.9]), np.array([0]))
    after = [moved if number < worse else there[number] for number in range(8)]
    redrawn = [ap.redrawn(ap.match(there, found, 1)) for found in (there, after)]
    line, proven = gate._lower(ap.drop(*redrawn), Limits8())
    assert line and proven == (worse == 8)

"""Describe an export for its manifest: one entry per artefact, and the manifest itself."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline import files
from pipeline.config.export import Target
from pipeline.export import artefacts
from pipeline.export.gate import Gate, Verdict
from pipeline.records.manifest import Artefact, CalibrationImages, Manifest
from pipeline.run import Run

VERSIONS = (
    "ultralytics-opencv-headless",
    "torch",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "ncnn",
    "pnnx",
    "ai-edge-litert",
    "tensorrt-rtx-cu13",
)


def entry(
    target: Target,
    artefact: Path,
    imgsz: int,
    verdict: Verdict,
    thresholds: dict[str, float],
    refit: dict[str, float],
    validated: float | None,
) -> Artefact:
    """Return an artefact's entry in the manifest; `thresholds` are the model's, `refit` the artefact's own.

    `validated` is mAP50-95 of what was validated, if the artefact has another head or size.
    """
    made: Artefact = {
        "file": artefact.name,
        "sha256": artefacts.sha256(artefact),
        "bytes": artefacts.size(artefact),
        "format": target.format,
        "precision": target.precision,
        "imgsz": imgsz,
        "target": target.model_dump(mode="json"),
        "verdict": verdict.outcome,
        "breaches": verdict.breaches,
        "note": verdict.note,
        "parity": verdict.figures["parity"],
        "raw": verdict.figures["raw"],
        "ap": verdict.figures["ap"],
        "score_shift": verdict.figures["score_shift"],
        "limits": verdict.figures["limits"],
        "thresholds": {"model": thresholds, "artefact": refit},
    }
    after = verdict.figures["ap"]["artefact"]["map50_95"]
    if validated is not None and after is not None:
        made["validated_map50_95"] = validated
        loss = f"validated with mAP50-95 {validated:.3f}, here {after:.3f}"
        made["note"] = f"{verdict.note}; {loss}" if verdict.note else loss
    return made


def manifest(
    run: Run, names: list[str], imgsz: int, judge: Gate, calibrated: CalibrationImages | None, entries: list[Artefact]
) -> Manifest:
    """Return the manifest. `calibrated` is the proof of `calibration.prove_disjoint`; None without 8-bit artefacts."""
    return {
        "model": {"file": run.model.name, "sha256": files.sha256(run.model)},
        "classes": names,
        "imgsz": imgsz,
        "letterbox": "square, grey 114, centred; RGB, 0..1",
        "compared_on": {"split": "val", "images": [path.name for path in judge.images]},
        "calibration": calibrated,
        "artefacts": entries,
        "benchmark": None,  # `make bench-export` measures it
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    installed = {}
    for name in VERSIONS:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed

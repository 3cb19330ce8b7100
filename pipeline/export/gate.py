"""Compare an artefact with the validated model on real validation images.

The model runs in Ultralytics' own predictor, as in validation. The artefact runs in the runner of its bundle, so an
error of the runner (colour order, letterbox, scale) shows up as a difference.

The model always runs on the CPU in float32. On a GPU, cuDNN rounds the inputs of float32 convolutions to TF32 (10 bits
of mantissa), which changes scores by 0.001 to 0.002. `limits.fp32` allows less, so sound artefacts would be refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import logs, object_sizes, pixels
from pipeline.boxes import YoloDataset
from pipeline.config.export import Limits
from pipeline.device import runner
from pipeline.device.runner import Detections
from pipeline.errors import counted
from pipeline.export import ap
from pipeline.export.parity import compare
from pipeline.export.settings import AS_IT_COMES, Settings
from pipeline.metrics.matching import ClassMatches
from pipeline.records.manifest import Comparison, Drop, Figures, Outcome, RawFigures

Tensors = tuple[NDArray[np.float32], NDArray[np.float32]]  # input and output of the network
RAW_IMAGES = 8  # enough to reveal a wrong weight; the tensors take a few megabytes per image


@dataclass(frozen=True, slots=True)
class Seen:
    """One side's detections in all images: with one class per box, and with every class for average precision.

    `not_finite` names images for which the network's output is not finite; they count as images without detections.
    """

    single: list[Detections]
    every: list[Detections]
    not_finite: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reference:
    """The results of the model on all images. `raw` holds input and output tensors of the first images."""

    seen: Seen
    matches: list[ClassMatches]
    redrawn: NDArray[np.float64]
    raw: list[Tensors]


@dataclass(slots=True)
class Gate:
    """The validation images, their labels, and the model's results on them, cached per head and image size."""

    model: Path
    dataset: YoloDataset
    images: list[Path]
    conf: float
    settings: Settings = AS_IT_COMES
    labelled: list[Detections] = field(init=False)
    references: dict[tuple[bool | None, int], Reference] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.labelled = ap.truth(self.dataset, self.images)

    def reference(self, nms: bool | None, imgsz: int) -> Reference:
        """Return the model's results for the head selected by `nms`. Embedded NMS yields one class per box."""
        key = (nms, imgsz)
        if key not in self.references:
            if nms is True:
                plain = self.reference(None, imgsz)
                seen, raw = Seen(plain.seen.single, plain.seen.single), plain.raw
            else:
                seen, raw = _predict(self.model, self.images, imgsz, nms is False, self.settings)
            matches = self.match(seen)
            self.references[key] = Reference(seen, matches, ap.redrawn(matches), raw)
        return self.references[key]

    def match(self, seen: Seen) -> list[ClassMatches]:
        return ap.match(self.labelled, seen.every, len(self.dataset.names))

    def figures(self, matches: list[ClassMatches]) -> Figures:
        return ap.figures(matches, list(self.dataset.names))

    def see(self, model: runner.Model, description: str) -> Seen:
        """Run every image through the runner and return its detections."""
        seen = Seen([], [])
        for path in logs.progress(self.images, description):
            image = runner.read_image(path)
            try:
                single, every = model.look(image, self.settings.conf, (False, True))
            except FloatingPointError:
                single = every = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
                seen.not_finite.append(path.name)
            seen.single.append(single)
            seen.every.append(every)
        return seen

    def judge(self, model: runner.Model, nms: bool | None, limits: Limits, description: str) -> tuple[Verdict, Seen]:
        """Compare the artefact in the runner with the model; return the verdict and the artefact's detections."""
        reference = self.reference(nms, model.size)
        seen = self.see(model, description)
        conf = self.from_score(reference.seen)
        parity = compare(reference.seen.single, seen.single, conf, [path.name for path in self.images])
        matches = self.match(seen)
        names = list(self.dataset.names)
        drop = ap.drop(reference.redrawn, ap.redrawn(matches))
        layout = model.spec["output"]["layout"]
        figures: Comparison = {
            "parity": parity.as_json(),
            "raw": None if seen.not_finite or layout != "columns" else _raw(reference.raw, model),
            "ap": {
                "model": self.figures(reference.matches),
                "artefact": self.figures(matches),
                "drop": drop,
            },
            "score_shift": {name: parity.shift_of(index) for index, name in enumerate(names)},
            "limits": limits.model_dump(exclude_none=True),
        }
        lower, proven = _lower(drop, limits)
        broken = {**parity.broken(limits), **({"max_ap_drop": lower} if proven else {})}
        breaches = [f"{line} (export.limits.{limits.precision}.{key})" for key, line in broken.items()]
        if 0 < parity.boxes == parity.lost:  # with few right boxes, chance alone may explain the loss of mAP
            breaches.insert(0, f"it finds none of the {counted(parity.boxes, 'box', 'boxes')} that the model finds")
        if seen.not_finite:
            number = counted(len(seen.not_finite), "image")
            breaches.insert(0, f"its output is not finite for {number}, such as {seen.not_finite[0]}")
        chance = f"{lower}, which may be chance" if lower and not proven else ""
        notes = [note for note in (self._note(conf, parity.boxes, model.size), chance) if note]
        return Verdict(breaches, figures, parity.worst, "; ".join(notes)), seen

    def from_score(self, seen: Seen) -> float:
        """Return the lowest score to compare: `export.conf`, or half of the model's best score if none reaches it."""
        best = max(float(detections.scores.max(initial=0.0)) for detections in seen.single)
        return best / 2 if 0 < best < self.conf else self.conf

    def _note(self, conf: float, boxes: int, imgsz: int) -> str:
        if not boxes:
            tiling = self.settings.tiling
            why = object_sizes.too_small(self.dataset, imgsz, tiling and tiling["size"]) or "train longer"
            return f"the model finds nothing in these images, so nothing is proven; {why}"
        return "" if conf == self.conf else f"no box reaches {self.conf:g}, so those from {conf:.2g} were compared"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a comparison: `breaches` and `note` as text, `figures` for the manifest, `worst` images by name."""

    breaches: list[str]
    figures: Comparison
    worst: list[str]
    note: str

    @property
    def outcome(self) -> Outcome:
        """`passed`, `refused`, or `unproven` if there were no boxes to compare."""
        return "refused" if self.breaches else "passed" if self.figures["parity"]["boxes"] else "unproven"

    def in_a_line(self) -> str:
        worst = f"; worst images {', '.join(self.worst)}" if self.worst else ""
        return f"{', '.join(self.breaches)}{worst}"


def _lower(drop: Drop, limits: Limits) -> tuple[str, bool]:
    """Return a line about a loss beyond the limit, and whether its interval proves a loss; empty within the limit."""
    if limits.max_ap_drop is None or drop["points"] is None or drop["points"] <= limits.max_ap_drop:
        return "", False
    low, high = drop["interval"] or (drop["points"], drop["points"])
    line = f"mAP50-95 {drop['points']:.2f} points lower ({low:.2f} to {high:.2f}), {limits.max_ap_drop:g} allowed"
    return line, low > 0


def _raw(references: list[Tensors], model: runner.Model) -> RawFigures:
    """Compare output tensors for the model's own input tensors; boxes only for anchors with a score above 0.05."""
    box = score = 0.0
    for tensor, expected in references:
        output = model.forward(tensor)
        if model.spec["output"]["normalised"]:
            output = np.concatenate([output[:, :4] * model.size, output[:, 4:]], axis=1)
        likely = expected[0, 4:].max(axis=0) > 0.05
        score = max(score, float(np.abs(output[0, 4:] - expected[0, 4:]).max()))
        if likely.any():
            box = max(box, float(np.abs(output[0, :4, likely] - expected[0, :4, likely]).max()))
    return {"images": len(references), "max_box_px": round(box, 6), "max_score": round(score, 8), "from_score": 0.05}


def _predict(
    model_file: Path, images: list[Path], imgsz: int, nms_free: bool, validated: Settings = AS_IT_COMES
) -> tuple[Seen, list[Tensors]]:
    """Run the model in Ultralytics' predictor on the CPU, one square image or view at a time, as a device does."""
    from ultralytics import YOLO

    from pipeline.upstream import predictor

    model = YOLO(str(model_file), task="detect")
    seen = Seen([], [])
    raw: list[Tensors] = []
    settings = {"imgsz": imgsz, "conf": validated.conf, "iou": validated.iou, "max_det": validated.max_det}
    if nms_free:
        settings["nms"] = False
        model.model.model[-1].max_det = validated.max_det  # this head limits its detections itself
    for path in logs.progress(images, "export: model"):
        # Decoded without the runner, so that an error of its reader shows up too.
        [(single, every)] = predictor.detections(model, [pixels.read(path)], validated.tiling, "cpu", 1, **settings)
        seen.single.append(single)
        seen.every.append(every)
        if len(raw) < RAW_IMAGES and not nms_free:
            raw.append(tuple(tensor.float().cpu().numpy() for tensor in model.predictor.tensors))
    return seen, raw

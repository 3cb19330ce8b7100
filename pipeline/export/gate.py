"""Does an artefact do what the validated model does? Both are run on real validation images.

The model goes through Ultralytics' own predictor, as in validation; the artefact through the very runner that is
put into its bundle. So a mistake of the runner (colour order, letterbox, scale) is a difference, and is seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.boxes import YoloDataset
from pipeline.config import Limits
from pipeline.export import ap, runner
from pipeline.export.runner import Found

# As in validation: average precision needs the long tail of scores.
LOWEST, IOU, MAX_DET = 0.001, 0.7, 300
RAW_IMAGES = 8  # enough to see a wrong weight; every one is a few megabytes
WORST = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """What one side finds in all images: one class a box, and (for average precision) every class of a box."""

    single: list[Found]
    every: list[Found]


@dataclass(frozen=True, slots=True)
class Reference:
    """The model on all images. `raw` holds input and output tensors of the first images."""

    seen: Seen
    matches: list[ap.Matches]
    spread: ap.Spread
    raw: list[tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass(slots=True)
class Gate:
    """The validation images, their labels, and the model's findings on them, once per head and size."""

    model: Path
    dataset: YoloDataset
    images: list[Path]
    conf: float
    device: str
    labelled: list[Found] = field(init=False)
    references: dict[tuple[bool, int], Reference] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.labelled = ap.truth(self.dataset, self.images)

    def reference(self, nms: bool | None, imgsz: int) -> Reference:
        key = (nms is False, imgsz)
        if key not in self.references:
            seen, raw = _predict(self.model, self.images, imgsz, nms is False, self.device)
            matches = self.match(seen)
            self.references[key] = Reference(seen, matches, ap.spread(matches), raw)
        return self.references[key]

    def match(self, seen: Seen) -> list[ap.Matches]:
        return ap.match(self.labelled, seen.every, len(self.dataset.names))

    def figures(self, matches: list[ap.Matches]) -> dict[str, Any]:
        return ap.figures(matches, list(self.dataset.names))

    def see(self, model: runner.Model, description: str) -> Seen:
        """Every image through the runner."""
        seen = Seen([], [])
        for path in tqdm(self.images, description, unit="image", leave=False, delay=1, disable=None):
            picture = runner.read_image(path)
            raw = model.forward(runner.prepare(picture, model.spec["input"]))
            seen.single.append(model.read(raw, picture.shape, LOWEST))
            seen.every.append(model.read(raw, picture.shape, LOWEST, every_label=True))
        return seen

    def judge(self, model: runner.Model, nms: bool | None, limits: Limits, description: str) -> tuple[Verdict, Seen]:
        reference = self.reference(nms, model.size)
        seen = self.see(model, description)
        parity = compare(reference.seen.single, seen.single, self.conf, [path.name for path in self.images])
        matches = self.match(seen)
        names = list(self.dataset.names)
        drop = ap.drop(reference.spread, ap.spread(matches))
        figures = {
            "parity": parity.as_json(),
            "raw": _raw(reference.raw, model) if model.spec["output"]["layout"] == "columns" and nms is None else None,
            "ap": {
                "model": self.figures(reference.matches),
                "artefact": self.figures(matches),
                "drop": drop,
            },
            "score_shift": {name: parity.shift_of(index) for index, name in enumerate(names)},
            "limits": limits.model_dump(exclude_none=True),
        }
        return Verdict(parity.breaches(limits) + _ap_breaches(drop, limits), figures, parity.worst), seen


@dataclass(frozen=True, slots=True)
class Verdict:
    """`breaches` in words, empty where the artefact passed; `figures` for the manifest; `worst` images by name."""

    breaches: list[str]
    figures: dict[str, Any]
    worst: list[str]

    def in_a_line(self) -> str:
        worst = f"; worst images {', '.join(self.worst)}" if self.worst else ""
        return f"{', '.join(self.breaches)}{worst}"


@dataclass(slots=True)
class Parity:
    """How far an artefact is from the model over all images. Shifts are artefact less model, of paired boxes."""

    images: int = 0
    boxes: int = 0
    lost: int = 0
    extra: int = 0
    flipped: int = 0
    min_iou: float = 1.0
    max_box_px: float = 0.0
    max_score: float = 0.0
    shifts: list[float] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    badness: dict[str, float] = field(default_factory=dict)

    @property
    def changed(self) -> float:
        return (self.lost + self.extra + self.flipped) / self.boxes if self.boxes else 0.0

    @property
    def mean_shift(self) -> float:
        return float(np.mean(self.shifts)) if self.shifts else 0.0

    @property
    def worst(self) -> list[str]:
        return [name for name, bad in sorted(self.badness.items(), key=lambda item: -item[1])[:WORST] if bad > 0]

    def shift_of(self, kind: int) -> float | None:
        of_class = [shift for shift, other in zip(self.shifts, self.kinds, strict=True) if other == kind]
        return round(float(np.mean(of_class)), 6) if of_class else None

    def as_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "boxes": self.boxes,
            "lost": self.lost,
            "extra": self.extra,
            "flipped": self.flipped,
            "changed": round(self.changed, 6),
            "min_iou": round(self.min_iou, 6),
            "max_box_px": round(self.max_box_px, 6),
            "max_score": round(self.max_score, 8),
            "mean_score_shift": round(self.mean_shift, 8),
            "worst": self.worst,
        }

    def breaches(self, limits: Limits) -> list[str]:
        said = []
        if not self.boxes:
            said.append("the model found nothing to compare, so nothing is proven; train longer or lower export.conf")
        if limits.max_changed is not None and self.changed > limits.max_changed:
            said.append(
                f"{self.lost} boxes lost, {self.extra} invented and {self.flipped} of another class of {self.boxes}"
            )
        if limits.max_box_px is not None and self.max_box_px > limits.max_box_px:
            said.append(f"boxes up to {self.max_box_px:.3g} px apart, {limits.max_box_px:g} allowed")
        if limits.max_score is not None and self.max_score > limits.max_score:
            said.append(f"scores up to {self.max_score:.3g} apart, {limits.max_score:g} allowed")
        if limits.max_score_shift is not None and abs(self.mean_shift) > limits.max_score_shift:
            said.append(f"scores shifted by {self.mean_shift:+.3g} on average, {limits.max_score_shift:g} allowed")
        return said


def compare(reference: list[Found], found: list[Found], conf: float, names: list[str]) -> Parity:
    """Pair the boxes of both sides, image by image.

    A box counts from `conf` upwards; its partner on the other side may lie a tenth below. Each box takes the
    nearest free one of its class; what is left over takes one of another class, and is then flipped; pairs further
    apart than any rounding (IoU below 0.5) are not pairs.
    """
    parity = Parity(images=len(names))
    for ours, theirs, name in zip(reference, found, names, strict=True):
        ours, theirs = _above(ours, 0.9 * conf), _above(theirs, 0.9 * conf)
        pairs, flips = _pairs(ours, theirs)
        there = {i for i, _ in pairs + flips}
        partnered = {j for _, j in pairs + flips}
        lost = sum(ours.scores[i] >= conf and i not in there for i in range(len(ours)))
        extra = sum(theirs.scores[j] >= conf and j not in partnered for j in range(len(theirs)))
        flipped = sum(max(ours.scores[i], theirs.scores[j]) >= conf for i, j in flips)
        pairs = [(i, j) for i, j in pairs if max(ours.scores[i], theirs.scores[j]) >= conf]
        box_px = max((float(np.abs(ours.corners[i] - theirs.corners[j]).max()) for i, j in pairs), default=0.0)
        shifts = [float(theirs.scores[j] - ours.scores[i]) for i, j in pairs]
        score = max(map(abs, shifts), default=0.0)
        parity.boxes += int((ours.scores >= conf).sum())
        parity.lost, parity.extra, parity.flipped = parity.lost + lost, parity.extra + extra, parity.flipped + flipped
        parity.max_box_px, parity.max_score = max(parity.max_box_px, box_px), max(parity.max_score, score)
        parity.min_iou = min([parity.min_iou, *(runner.overlap(ours.corners[i], theirs.corners[j]) for i, j in pairs)])
        parity.shifts += shifts
        parity.kinds += [int(ours.classes[i]) for i, _ in pairs]
        parity.badness[name] = 1e3 * (lost + extra + flipped) + box_px + 100 * score
    return parity


def _above(found: Found, score: float) -> Found:
    keep = found.scores >= score
    return Found(found.corners[keep], found.scores[keep], found.classes[keep])


def _pairs(ours: Found, theirs: Found) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Pairs of the same class, and pairs of different ones among what is left."""
    iou = ap.overlaps(ours.corners, theirs.corners)
    free = np.ones(len(theirs), bool)
    same: list[tuple[int, int]] = []
    flipped: list[tuple[int, int]] = []
    taken: set[int] = set()
    for pairs in (same, flipped):
        for i in np.argsort(-ours.scores, kind="stable"):
            if int(i) in taken:
                continue
            near = free & (iou[i] >= 0.5)
            if pairs is same:
                near &= theirs.classes == ours.classes[i]
            if near.any():
                # By corners and score together: overlapping objects may lie equally near.
                far = np.abs(theirs.corners - ours.corners[i]).max(axis=1) + 10 * np.abs(theirs.scores - ours.scores[i])
                j = int(np.where(near, far, np.inf).argmin())
                pairs.append((int(i), j))
                taken.add(int(i))
                free[j] = False
    return same, flipped


def _ap_breaches(drop: dict[str, Any], limits: Limits) -> list[str]:
    if limits.max_ap_drop is None or drop["points"] is None or drop["points"] <= limits.max_ap_drop:
        return []
    low, high = drop["interval"] or (drop["points"], drop["points"])
    return [f"mAP50-95 {drop['points']:.2f} points lower ({low:.2f} to {high:.2f}), {limits.max_ap_drop:g} allowed"]


def _raw(references: list[tuple[Any, Any]], model: runner.Model) -> dict[str, Any]:
    """Output tensors on the very input tensors that the model had: boxes of the anchors that see something."""
    box = score = 0.0
    for tensor, expected in references:
        given = model.forward(tensor)
        if model.spec["output"]["normalised"]:
            given = np.concatenate([given[:, :4] * model.size, given[:, 4:]], axis=1)
        likely = expected[0, 4:].max(axis=0) > 0.05
        score = max(score, float(np.abs(given[0, 4:] - expected[0, 4:]).max()))
        if likely.any():
            box = max(box, float(np.abs(given[0, :4, likely] - expected[0, :4, likely]).max()))
    return {"images": len(references), "max_box_px": round(box, 6), "max_score": round(score, 8), "from_score": 0.05}


def _predict(
    model_file: Path, images: list[Path], imgsz: int, nms_free: bool, device: str
) -> tuple[Seen, list[tuple[Any, Any]]]:
    """The model through Ultralytics' predictor, one square image at a time as a device does."""
    from ultralytics import YOLO

    model = YOLO(str(model_file), task="detect")
    seen = Seen([], [])
    raw: list[tuple[Any, Any]] = []
    settings = {"imgsz": imgsz, "conf": LOWEST, "iou": IOU, "max_det": MAX_DET, **({"nms": False} if nms_free else {})}
    predictor = _predictor()
    for path in tqdm(images, "export: model", unit="image", leave=False, delay=1, disable=None):
        [single] = model.predict(
            str(path), predictor=predictor, rect=False, device=device or None, verbose=False, **settings
        )
        [every] = model.predictor.every
        seen.single.append(_found(single.boxes))
        seen.every.append(_found(every.boxes))
        if len(raw) < RAW_IMAGES and not nms_free:
            raw.append(model.predictor.raw)
    return seen, raw


def _found(boxes: Any) -> Found:
    boxes = boxes.cpu().numpy()
    return Found(boxes.xyxy.astype(float), boxes.conf.astype(float), boxes.cls.astype(int))


def _predictor() -> Any:
    from ultralytics.models.yolo.detect import DetectionPredictor
    from ultralytics.utils.nms import non_max_suppression

    class BothPredictor(DetectionPredictor):  # type: ignore[misc]  # Ultralytics has no types
        """Keeps the tensors, and the boxes with every class they may have."""

        def postprocess(self, preds: Any, img: Any, orig_imgs: Any, **kwargs: Any) -> Any:
            output = preds[0] if isinstance(preds, (list, tuple)) else preds
            self.raw = img.float().cpu().numpy(), output.float().cpu().numpy().copy()
            found = non_max_suppression(
                output.clone(),
                self.args.conf,
                self.args.iou,
                multi_label=True,
                max_det=self.args.max_det,
                end2end=output.shape[-1] == 6,
            )
            self.every = self.construct_results(found, img, orig_imgs, **kwargs)
            return super().postprocess(preds, img, orig_imgs, **kwargs)

    return BothPredictor

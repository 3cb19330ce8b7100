"""Write the sentences of the page: what was not measured and why, and figures that need an explanation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.metrics.precision_recall import Curve
from pipeline.records.coco import Prediction
from pipeline.records.metrics import Metrics, OperatingPoint, SplitFigures

NAMED = 5  # classes in a sentence; the tables have them all
# Kinds of errors as TIDE has them.
KINDS = {
    "background": "no object is there",
    "classification": "right place, wrong class",
    "localisation": "right class, box too far off",
    "both": "wrong class, and box too far off",
    "duplicate": "another prediction already found the object",
    "missed": "no prediction matches the object",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of error: its `cost` in mAP50, its `count` at the operating thresholds, and why it costs nothing."""

    name: str
    meaning: str
    cost: float | None
    count: int
    why: str


def kinds(figures: SplitFigures) -> list[Kind]:
    """Return the kinds of errors of a split, the most expensive first."""
    costs, counts = figures["error_costs"], figures["error_counts"]
    rows = [
        Kind(name, meaning, costs[name], counts[name], _why(name, costs[name], counts[name], figures))
        for name, meaning in KINDS.items()
    ]
    return sorted(rows, key=lambda kind: (-(kind.cost or 0.0), -kind.count))


def _why(name: str, cost: float | None, count: int, figures: SplitFigures) -> str:
    """Return why existing errors cost nothing; empty if they do cost something, or if there are none."""
    if not count or cost:
        return ""
    if not figures["objects"]:
        return "no objects, so AP is undefined"
    if cost is None:
        return "without them, no object would be left to find"
    if not figures["map50"]:
        return "no prediction is right, so AP is 0 in any case"
    if name == "missed":  # counted at the thresholds, whereas AP uses all scores
        return "found at lower scores, or no prediction of their class is right"
    return "no right prediction of their class scores lower"


def notices(split: str, metrics: Metrics, predictions: Sequence[Prediction]) -> list[str]:
    """Return what a reader must know before the figures of a split: other weights, no predictions or no objects.

    `predictions` are those of the split, one class per box.
    """
    figures, conf = metrics["splits"][split], metrics["settings"]["conf"]
    point, source, sentences = figures["operating_point"], metrics["weights"], []
    if source["instead_of"]:
        sentences.append(
            f"Trained from {source['name']} instead of {source['instead_of']}, which was not available. "
            "Weights trained on COCO are better."
        )
    if not figures["objects"]:
        sentences.append(
            f"No objects in the {split} split, so no average precision and no recall. "
            + ("Every detection there is wrong." if figures["predictions"] else "")
        )
    if not predictions:
        sentences.append(
            f"The model finds nothing above {conf:g} in the {split} split"
            + (". Train longer, or lower validate.conf." if figures["objects"] else ", as expected.")
        )
    elif figures["objects"] and not point["tp"] + point["fp"]:
        best = max(record["score"] for record in predictions)
        sentences.append(
            f"The model finds nothing at the operating thresholds: the best of its "
            f"{len(predictions):,} predictions scores {best:.3f}."
        )
    elif lost := [name for name, row in point["per_class"].items() if row["fn"] and not row["tp"]]:
        sentences.append(f"No object of {listed(lost)} is found at the operating thresholds.")
    return [sentence.strip() for sentence in sentences]


def without_objects(figures: SplitFigures) -> str:
    """Name the classes without objects in a split; empty if there are none, or if the split has no objects at all."""
    names = [name for name, row in figures["per_class"].items() if not row["objects"]]
    return f"No objects of {listed(names)}, so no average precision." if names and figures["objects"] else ""


def thresholds(point: OperatingPoint | None, split: str) -> str:
    """Say how the operating thresholds were chosen; `point` is `operating_point` in metrics.json."""
    if point is None:
        return "No val split to choose thresholds on: a default is used for every class."
    if not any(row["decided"] for row in point["per_class"].values()):
        return (
            f"The {point['chosen_on']} split has nothing to choose thresholds on; the metrics are of the {split} split."
        )
    [(goal, value)] = point["wanted"].items()
    wanted = "the best F1" if goal == "best" else f"{goal} {value}"
    return f"Chosen on {point['chosen_on']} for {wanted} at IoU {point['iou']}; the metrics are of the {split} split."


def not_drawn(curves: Sequence[Curve]) -> str:
    """Name the classes that have no curve, and say why."""
    empty = [curve for curve in curves if not curve.scores.size]
    reasons = {
        "no objects": [curve.name for curve in empty if not curve.objects],
        "no predictions": [curve.name for curve in empty if curve.objects],
    }
    parts = [
        f"{'any class' if len(names) == len(curves) else listed(names)} ({reason})"
        for reason, names in reasons.items()
        if names
    ]
    return f"No curve for {' or for '.join(parts)}." if parts else ""


def listed(names: Sequence[str]) -> str:
    """Return `a, b and c`, or the first few names and the number of the others."""
    shown = [*names] if len(names) <= NAMED + 1 else [*names[:NAMED], f"{len(names) - NAMED} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def counted(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"

"""Find labels that may be wrong: those that a confident model disagrees with.

The measures are those of FiftyOne's `compute_mistakenness`, but from existing matches: FiftyOne would match everything
again, which takes a second per thousand boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.inspect.contents import Evaluation, Label, Prediction

MATCHED = 0.5  # IoU at and below which FiftyOne's measure of bad placement is at its maximum


@dataclass(slots=True)
class Doubt:
    """Doubts about one label, 0 to 1: about its class and its placement; `spurious` if no prediction confirms it."""

    mistakenness: float | None = None
    mistakenness_loc: float | None = None
    spurious: bool = False

    @property
    def most(self) -> float:
        return max(self.mistakenness or 0.0, self.mistakenness_loc or 0.0, 0.5 if self.spurious else 0.0)


def of_labels(labels: list[Label], evaluation: Evaluation) -> list[Doubt]:
    return [_doubt(label, evaluation, number) for number, label in enumerate(labels)]


def _doubt(label: Label, evaluation: Evaluation, number: int) -> Doubt:
    outcome = evaluation.outcomes[number]
    if outcome.prediction is None:
        return Doubt(spurious=outcome.type == "missed")
    prediction = evaluation.predictions[outcome.prediction]
    placement = of_placement(prediction.score, prediction.iou)
    if outcome.type == "localisation":  # the right class, in another place
        return Doubt(mistakenness_loc=placement)
    return Doubt(of_class(prediction.score, prediction.name == label.name), placement)


def of_class(score: float, agrees: bool) -> float:
    """Return 0 if the model is sure of the label's class, 1 if it is sure of another one."""
    return (1 - score) / 2 if agrees else (1 + score) / 2


def of_placement(score: float, iou: float) -> float:
    """Return 0 if a sure prediction matches the label's box, 1 if it lies beside it, 0.5 if the model is unsure."""
    apart = min(1.0, (1 - iou) / (1 - MATCHED))
    return (score * (2 * apart - 1) + 1) / 2


def is_missing(prediction: Prediction, confident: float) -> bool:
    """Return whether this may be an unlabelled object: the model is sure, and no label is near."""
    return prediction.type == "background" and prediction.score >= confident

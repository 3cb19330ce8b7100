"""Labels that may be wrong themselves: what a confident model and a label disagree about.

The measures are those of FiftyOne's `compute_mistakenness`, taken from the matches there are; its own
would match everything anew, at a second for a thousand boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.inspect.contents import Evaluation, Label, Prediction

MATCHED = 0.5  # IoU below which FiftyOne's measure of bad placing is full


@dataclass(slots=True)
class Doubt:
    """About one label, 0..1: is its class wrong, is it badly placed, is there nothing at all (`spurious`)?"""

    mistakenness: float | None = None
    mistakenness_loc: float | None = None
    spurious: bool = False

    @property
    def most(self) -> float:
        return max(self.mistakenness or 0.0, self.mistakenness_loc or 0.0, 0.5 if self.spurious else 0.0)


def of_labels(labels: list[Label], evaluation: Evaluation) -> list[Doubt]:
    return [_doubt(label, evaluation, number) for number, label in enumerate(labels)]


def _doubt(label: Label, evaluation: Evaluation, number: int) -> Doubt:
    fate = evaluation.fates[number]
    if fate.found_by is None:
        return Doubt(spurious=fate.type == "missed")
    found = evaluation.predictions[fate.found_by]
    placing = of_placing(found.score, found.iou)
    if fate.type == "localisation":  # the right class, in another place
        return Doubt(mistakenness_loc=placing)
    return Doubt(of_class(found.score, found.name == label.name), placing)


def of_class(score: float, agrees: bool) -> float:
    """0 where the model is sure of the label, 1 where it is sure of another class."""
    return (1 - score) / 2 if agrees else (1 + score) / 2


def of_placing(score: float, iou: float) -> float:
    """0 where a sure prediction lies on the label, 1 where it lies beside it; 0.5 where the model is unsure."""
    apart = min(1.0, (1 - iou) / (1 - MATCHED))
    return (score * (2 * apart - 1) + 1) / 2


def is_missing(prediction: Prediction, confident: float) -> bool:
    """Is this an object that nobody labelled? The model is sure, and there is no label near."""
    return prediction.type == "background" and prediction.score >= confident

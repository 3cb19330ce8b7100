"""Fill the App's panels: Model Evaluation with the figures of `validate`, and Embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.cosine import Vectors
from pipeline.inspect.dataset import TRUTH, Model
from pipeline.records.metrics import Metrics

SIMILARITY, PLOT = "similarity", "embeddings"  # the App's keys for results from the embeddings


def register(
    dataset: Any, splits: Sequence[str], model: Model, classes: Sequence[str], iou: float, figures: Any
) -> None:
    """Register an evaluation for the App's Model Evaluation panel.

    The panel shows `figures` beside its own, which cover all validated splits together.
    """
    from fiftyone.utils.eval.coco import COCOEvaluationConfig
    from fiftyone.utils.eval.detection import DetectionResults

    view = dataset.match_tags(list(splits))
    config = COCOEvaluationConfig(model.predictions, TRUTH, iou=iou, classwise=False)
    method = config.build()
    method.register_run(view, model.eval)
    results = DetectionResults(
        view, config, model.eval, model.matches, classes=list(classes), custom_metrics=figures, backend=method
    )
    method.save_run_results(view, model.eval, results)


def figures_of(metrics: Metrics) -> dict[str, dict[str, str | float]]:
    """Return the headline figures of `metrics.json` as FiftyOne's custom metrics."""
    shown: dict[str, dict[str, str | float]] = {}
    for split, figures in metrics["splits"].items():
        for value, name in ((figures["map50_95"], "mAP50-95"), (figures["map50"], "mAP50")):
            if value is not None:
                label = f"{name} of {split}"
                shown[label] = {"key": label, "label": label, "value": value, "lower_is_better": False}
    return shown


def plot(dataset: Any, vectors: Vectors) -> None:
    """Fill the App's Embeddings panel and its similarity search. Rows are in the order of the samples."""
    import fiftyone.brain as brain

    if len(vectors) > 2:  # fewer points do not span a plane
        brain.compute_visualization(
            dataset, embeddings=vectors, method="pca", num_dims=2, brain_key=PLOT, verbose=False
        )
        # A copy, because FiftyOne subtracts the mean in place.
        brain.compute_similarity(dataset, embeddings=vectors.copy(), backend="sklearn", brain_key=SIMILARITY)

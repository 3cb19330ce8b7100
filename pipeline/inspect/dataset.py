"""Write the run as a FiftyOne dataset: fields, samples, evaluations, embeddings.

Samples are written to the database as documents, because creating, checking and converting FiftyOne's own objects takes
a millisecond per handful of boxes. Its `evaluate_detections` and `compute_mistakenness` would take as long again, only
to repeat the results of `validate`. A test compares the documents with those of `fo.Sample` and `fo.Detection`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from pipeline.inspect import doubts
from pipeline.inspect.contents import Evaluation, RunImage

TRUTH, SOURCE = "ground_truth", "source"
BEFORE = "labels_before"  # an image's labels when the dataset was built, to find later edits
BATCH = 200  # samples per message to the database
PAIRED = ("tp", "classification")  # outcomes of a label that a prediction overlaps

# (label, prediction, IoU, score, label id, prediction id); None for a missing partner
Match = tuple[str | None, str | None, float | None, float | None, str | None, str | None]


@dataclass(frozen=True, slots=True)
class Model:
    """The field names for one model's evaluation, and its matches once samples are added."""

    predictions: str = "predictions"
    eval: str = "eval"
    error: str = "error"
    matches: list[Match] = field(default_factory=list)

    @classmethod
    def of(cls, run: str) -> Model:
        """Return the names for another run's model: predictions_b, eval_b and error_b for the run `b`."""
        suffix = re.sub(r"\W", "_", run)
        return cls(f"predictions_{suffix}", f"eval_{suffix}", f"error_{suffix}")


@dataclass(frozen=True, slots=True)
class Similarity:
    """An image's uniqueness (0 to 1), its group of similar images, and whether that group spans splits."""

    uniqueness: float
    group: int | None
    across_splits: bool


def add_samples(
    dataset: Any,
    images: Sequence[RunImage],
    similarities: Sequence[Similarity],
    models: Sequence[Model],
    confident: float,
) -> None:
    """Add all images to an empty dataset. `models` are in the order of each image's `evaluations`."""
    import fiftyone as fo

    dataset.media_type = "image"
    _declare_fields(dataset, models)
    empty = fo.Detection(label="").to_dict()
    del empty["_id"]
    batch: list[dict[str, Any]] = []
    for image, similarity in zip(images, similarities, strict=True):
        batch.append(_document(dataset, empty, image, similarity, models, confident))
        if len(batch) == BATCH:
            dataset._sample_collection.insert_many(batch)
            batch = []
    if batch:
        dataset._sample_collection.insert_many(batch)


def _declare_fields(dataset: Any, models: Sequence[Model]) -> None:
    """Declare every field with its type, because documents declare none and the App shows only declared fields."""
    import fiftyone as fo

    kinds: dict[str, type] = {}
    for path in (TRUTH, *(model.predictions for model in models)):
        dataset.add_sample_field(path, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    for model in models:
        kinds |= {f"{model.eval}_{kind}": fo.IntField for kind in ("tp", "fp", "fn")}
        for path in (TRUTH, model.predictions):
            kinds |= {
                f"{path}.detections.{model.eval}": fo.StringField,
                f"{path}.detections.{model.eval}_id": fo.StringField,
                f"{path}.detections.{model.eval}_iou": fo.FloatField,
                f"{path}.detections.{model.error}": fo.StringField,
            }
    kinds |= {
        SOURCE: fo.StringField,
        BEFORE: fo.StringField,
        "hardness": fo.FloatField,
        "mistakenness": fo.FloatField,
        "possible_missing": fo.IntField,
        "possible_spurious": fo.IntField,
        "uniqueness": fo.FloatField,
        "similar_group": fo.IntField,
        "similar_across_splits": fo.BooleanField,
        f"{TRUTH}.detections.mistakenness": fo.FloatField,
        f"{TRUTH}.detections.mistakenness_loc": fo.FloatField,
        f"{TRUTH}.detections.possible_spurious": fo.BooleanField,
        f"{Model().predictions}.detections.possible_missing": fo.BooleanField,
    }
    for path, kind in kinds.items():
        dataset.add_sample_field(path, kind)


def _document(
    dataset: Any, empty: Any, image: RunImage, similarity: Similarity, models: Sequence[Model], confident: float
) -> dict[str, Any]:
    import fiftyone as fo

    width, height = image.size
    now = datetime.now(timezone.utc)
    sample = fo.Sample(
        filepath=str(image.path.resolve()),
        tags=[image.split],
        metadata=fo.ImageMetadata(width=width, height=height),
    ).to_mongo_dict()
    document = {key: value for key, value in sample.items() if value is not None}
    document |= {"_dataset_id": dataset._doc.id, "created_at": now, "last_modified_at": now}
    document |= {SOURCE: image.source, "uniqueness": similarity.uniqueness}
    document["similar_across_splits"] = similarity.across_splits
    if similarity.group is not None:
        document["similar_group"] = similarity.group
    truth = [_detection(empty, label.name, label.bbox, image.size) for label in image.labels]
    document[TRUTH] = {"_cls": "Detections", "detections": truth}
    document[BEFORE] = json.dumps([[str(label["_id"]), label["label"], *label["bounding_box"]] for label in truth])
    for model, evaluation in zip(models, image.evaluations, strict=False):  # none if the split was not validated
        predictions = [
            _detection(empty, prediction.name, prediction.bbox, image.size) | {"confidence": prediction.score}
            for prediction in evaluation.predictions
        ]
        _judge(model, image, evaluation, truth, predictions)
        document[model.predictions] = {"_cls": "Detections", "detections": predictions}
        document |= {f"{model.eval}_{kind}": number for kind, number in evaluation.counts.items()}
    if image.evaluations:
        document |= _doubt(image, truth, document[models[0].predictions]["detections"], confident)
    return document


def _detection(
    empty: Any, label: str, bbox: tuple[float, float, float, float], size: tuple[int, int]
) -> dict[str, Any]:
    """Return a document with the box in FiftyOne's form: [x, y, width, height] like COCO's, but from 0 to 1."""
    from bson import ObjectId

    x, y, width, height = bbox
    box = [x / size[0], y / size[1], width / size[0], height / size[1]]
    return {**empty, "_id": ObjectId(), "label": label, "bounding_box": box}


def _judge(
    model: Model,
    image: RunImage,
    evaluation: Evaluation,
    truth: list[dict[str, Any]],
    predictions: list[dict[str, Any]],
) -> None:
    """Write the outcome of each object into its document, under FiftyOne's field names, and add the matches.

    A label and an overlapping prediction of another class are partners too, as with `classwise=False`, because the
    confusion matrix needs them.
    """
    partner: dict[int, int] = {}  # index of a prediction -> index of its label
    for number, outcome in enumerate(evaluation.outcomes):
        document, label = truth[number], image.labels[number].name
        document[model.eval], document[f"{model.eval}_id"] = ("tp" if outcome.type == "tp" else "fn"), ""
        if outcome.type != "tp":
            document[model.error] = outcome.type
        if outcome.prediction is not None:
            document[f"{model.eval}_iou"] = evaluation.predictions[outcome.prediction].iou
        if outcome.prediction is None or outcome.type not in PAIRED:
            model.matches.append((label, None, None, None, str(document["_id"]), None))
            continue
        match, matched = evaluation.predictions[outcome.prediction], predictions[outcome.prediction]
        partner[outcome.prediction] = number
        document[f"{model.eval}_id"] = str(matched["_id"])
        model.matches.append((label, match.name, match.iou, match.score, str(document["_id"]), str(matched["_id"])))
    for number, prediction in enumerate(evaluation.predictions):
        document = predictions[number]
        document[model.eval] = "tp" if prediction.type == "tp" else "fp"
        document[f"{model.eval}_iou"] = prediction.iou
        document[f"{model.eval}_id"] = str(truth[partner[number]]["_id"]) if number in partner else ""
        if prediction.type != "tp":
            document[model.error] = prediction.type
        if number not in partner:
            model.matches.append((None, prediction.name, None, prediction.score, None, str(document["_id"])))


def _doubt(
    image: RunImage, truth: list[dict[str, Any]], predictions: list[dict[str, Any]], confident: float
) -> dict[str, float]:
    """Mark labels that may be wrong in their documents; return the image's fields."""
    evaluation = image.evaluations[0]
    most, missing, spurious = 0.0, 0, 0
    for document, doubt in zip(truth, doubts.of_labels(image.labels, evaluation), strict=True):
        for key in ("mistakenness", "mistakenness_loc"):
            if (value := getattr(doubt, key)) is not None:
                document[key] = value
        if doubt.spurious:
            document["possible_spurious"] = True
            spurious += 1
        most = max(most, doubt.most)
    for document, prediction in zip(predictions, evaluation.predictions, strict=True):
        if doubts.is_missing(prediction, confident):
            document["possible_missing"] = True
            missing += 1
            most = max(most, doubts.of_class(prediction.score, agrees=False))
    counts = evaluation.counts
    return {
        "mistakenness": most,
        "possible_missing": missing,
        "possible_spurious": spurious,
        # The share of labelled and predicted objects without a match.
        "hardness": 1 - counts["tp"] / total if (total := sum(counts.values())) else 0.0,
    }

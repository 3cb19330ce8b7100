"""The run as a FiftyOne data set: fields, samples, evaluations, embeddings.

Samples are handed to the database as documents. FiftyOne's own objects take a millisecond for a handful
of boxes to make, to check and to convert; its `evaluate_detections` and `compute_mistakenness` take as
long again, and would only find what `validate` has found. A test holds the documents against what
`fo.Sample` and `fo.Detection` make of the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from pipeline.inspect import doubts
from pipeline.inspect.contents import Evaluation, Picture
from pipeline.inspect.embeddings import Vectors
from pipeline.records.metrics import Metrics

TRUTH, SOURCE = "ground_truth", "source"
SIMILARITY, PLOT = "similarity", "embeddings"  # keys of what the embeddings give the App
BATCH = 200  # samples in one message to the database
PAIRED = ("tp", "classification")  # fates of a label that a prediction lies on

Match = tuple[Any, ...]  # (label, prediction, IoU, score, id of the label, id of the prediction), None for no partner


@dataclass(frozen=True, slots=True)
class Model:
    """The names under which the judgement of one model goes, and its matches once samples were added."""

    predictions: str = "predictions"
    eval: str = "eval"
    error: str = "error"
    matches: list[Match] = field(default_factory=list)

    @classmethod
    def of(cls, run: str) -> Model:
        """A model compared with: predictions_b, eval_b and error_b for the run `b`."""
        suffix = re.sub(r"\W", "_", run)
        return cls(f"predictions_{suffix}", f"eval_{suffix}", f"error_{suffix}")


@dataclass(frozen=True, slots=True)
class Similarity:
    """What the embeddings tell of an image: 0..1, its group of similar images, and whether that spans splits."""

    uniqueness: float
    group: int | None
    across_splits: bool


def add_samples(
    dataset: Any,
    pictures: Sequence[Picture],
    similarities: Sequence[Similarity],
    models: Sequence[Model],
    confident: float,
) -> None:
    """Put all images into an empty data set. `models` are in the order of each picture's `evaluations`."""
    import fiftyone as fo

    dataset.media_type = "image"
    _declare_fields(dataset, models)
    empty = fo.Detection(label="").to_dict()
    del empty["_id"]
    batch: list[dict[str, Any]] = []
    for picture, similarity in zip(pictures, similarities, strict=True):
        batch.append(_document(dataset, empty, picture, similarity, models, confident))
        if len(batch) == BATCH:
            dataset._sample_collection.insert_many(batch)
            batch = []
    if batch:
        dataset._sample_collection.insert_many(batch)


def _declare_fields(dataset: Any, models: Sequence[Model]) -> None:
    """Every field by name and kind: documents bring none with them, and the App shows what is declared."""
    import fiftyone as fo

    kinds: dict[str, Any] = {}
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
    dataset: Any, empty: Any, picture: Picture, similarity: Similarity, models: Sequence[Model], confident: float
) -> dict[str, Any]:
    import fiftyone as fo

    width, height = picture.size
    now = datetime.now(timezone.utc)
    sample = fo.Sample(
        filepath=str(picture.path.resolve()),
        tags=[picture.split],
        metadata=fo.ImageMetadata(width=width, height=height),
    ).to_mongo_dict()
    document = {key: value for key, value in sample.items() if value is not None}
    document |= {"_dataset_id": dataset._doc.id, "created_at": now, "last_modified_at": now}
    document |= {SOURCE: picture.source, "uniqueness": similarity.uniqueness}
    document["similar_across_splits"] = similarity.across_splits
    if similarity.group is not None:
        document["similar_group"] = similarity.group
    truth = [_detection(empty, label.name, label.bbox, picture.size) for label in picture.labels]
    document[TRUTH] = {"_cls": "Detections", "detections": truth}
    for model, evaluation in zip(models, picture.evaluations, strict=False):  # none where the split was not validated
        predictions = [
            _detection(empty, found.name, found.bbox, picture.size) | {"confidence": found.score}
            for found in evaluation.predictions
        ]
        _judge(model, picture, evaluation, truth, predictions)
        document[model.predictions] = {"_cls": "Detections", "detections": predictions}
        document |= {f"{model.eval}_{kind}": number for kind, number in evaluation.counts.items()}
    if picture.evaluations:
        document |= _doubt(picture, truth, document[models[0].predictions]["detections"], confident)
    return document


def _detection(
    empty: Any, label: str, bbox: tuple[float, float, float, float], size: tuple[int, int]
) -> dict[str, Any]:
    """COCO's pixels to FiftyOne's 0..1; both are [x, y, width, height] from the top left."""
    from bson import ObjectId

    x, y, width, height = bbox
    box = [x / size[0], y / size[1], width / size[0], height / size[1]]
    return {**empty, "_id": ObjectId(), "label": label, "bounding_box": box}


def _judge(
    model: Model,
    picture: Picture,
    evaluation: Evaluation,
    truth: list[dict[str, Any]],
    predictions: list[dict[str, Any]],
) -> None:
    """Write what became of each object on it, by the names of FiftyOne's own evaluation, and note the matches.

    A label and the prediction of another class that lies on it are partners too, as with `classwise=False`:
    that is what fills the confusion matrix.
    """
    partner: dict[int, int] = {}  # of a prediction: the number of its label
    for number, fate in enumerate(evaluation.fates):
        thing, label = truth[number], picture.labels[number].name
        thing[model.eval], thing[f"{model.eval}_id"] = ("tp" if fate.type == "tp" else "fn"), ""
        if fate.type != "tp":
            thing[model.error] = fate.type
        if fate.found_by is not None:
            thing[f"{model.eval}_iou"] = evaluation.predictions[fate.found_by].iou
        if fate.found_by is None or fate.type not in PAIRED:
            model.matches.append((label, None, None, None, str(thing["_id"]), None))
            continue
        found, other = evaluation.predictions[fate.found_by], predictions[fate.found_by]
        partner[fate.found_by] = number
        thing[f"{model.eval}_id"] = str(other["_id"])
        model.matches.append((label, found.name, found.iou, found.score, str(thing["_id"]), str(other["_id"])))
    for number, found in enumerate(evaluation.predictions):
        thing = predictions[number]
        thing[model.eval], thing[f"{model.eval}_iou"] = ("tp" if found.type == "tp" else "fp"), found.iou
        thing[f"{model.eval}_id"] = str(truth[partner[number]]["_id"]) if number in partner else ""
        if found.type != "tp":
            thing[model.error] = found.type
        if number not in partner:
            model.matches.append((None, found.name, None, found.score, None, str(thing["_id"])))


def _doubt(
    picture: Picture, truth: list[dict[str, Any]], predictions: list[dict[str, Any]], confident: float
) -> dict[str, Any]:
    """Mark the labels that may be wrong; gives the fields of the image."""
    evaluation = picture.evaluations[0]
    most, missing, spurious = 0.0, 0, 0
    for thing, doubt in zip(truth, doubts.of_labels(picture.labels, evaluation), strict=True):
        for key in ("mistakenness", "mistakenness_loc"):
            if (value := getattr(doubt, key)) is not None:
                thing[key] = value
        if doubt.spurious:
            thing["possible_spurious"] = True
            spurious += 1
        most = max(most, doubt.most)
    for thing, found in zip(predictions, evaluation.predictions, strict=True):
        if doubts.is_missing(found, confident):
            thing["possible_missing"] = True
            missing += 1
            most = max(most, doubts.of_class(found.score, agrees=False))
    counts = evaluation.counts
    return {
        "mistakenness": most,
        "possible_missing": missing,
        "possible_spurious": spurious,
        # The share of objects, labelled or predicted, that are not found.
        "hardness": 1 - counts["tp"] / total if (total := sum(counts.values())) else 0.0,
    }


def register(
    dataset: Any, splits: Sequence[str], model: Model, classes: Sequence[str], iou: float, figures: Any
) -> None:
    """Make an evaluation known to the App's Model Evaluation panel.

    `figures` are shown beside its own, which are of all validated splits together.
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


def figures_of(metrics: Metrics) -> dict[str, dict[str, Any]]:
    """The headline figures of `metrics.json`, in the form of FiftyOne's custom metrics."""
    shown: dict[str, dict[str, Any]] = {}
    for split, figures in metrics["splits"].items():
        for value, name in ((figures["map50_95"], "mAP50-95"), (figures["map50"], "mAP50")):
            if value is not None:
                label = f"{name} of {split}"
                shown[label] = {"key": label, "label": label, "value": value, "lower_is_better": False}
    return shown


def plot(dataset: Any, vectors: Vectors) -> None:
    """The App's Embeddings panel, and its search for images like one. Rows are in the order of the samples."""
    import fiftyone.brain as brain

    if len(vectors) > 2:  # of fewer there is no plane to project on
        brain.compute_visualization(
            dataset, embeddings=vectors, method="pca", num_dims=2, brain_key=PLOT, verbose=False
        )
        # A copy, as it takes the mean off what it is given, in place.
        brain.compute_similarity(dataset, embeddings=vectors.copy(), backend="sklearn", brain_key=SIMILARITY)

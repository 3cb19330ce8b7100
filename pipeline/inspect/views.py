"""Save views in the order in which people need them, and set the App's colours and sidebar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.inspect.dataset import TRUTH, Model

PATCHES = "evaluation-patches"
# Correct objects get calm colours, errors get striking ones.
RIGHT_LABEL, RIGHT_PREDICTION = "#2e9e5b", "#7fd6a2"
MISSED, INVENTED, NOT_JUDGED = "#ff9f1c", "#ff3b5c", "#4ea8de"


def save(dataset: Any, splits: Sequence[str], confident: float) -> None:
    """Save the views. `splits` are the validated ones."""
    from fiftyone import ViewField as F

    model = Model()
    labels, predictions = F(f"{TRUTH}.detections"), F(f"{model.predictions}.detections")
    invented = F(model.eval) == "fp"
    sure = invented & (F("confidence") >= confident)
    other_class = F(model.error).is_in(["classification", "both"])
    doubtful = (1 + confident) / 2  # the doubt from a contradicting prediction with this score
    in_doubt = (
        (F("mistakenness") >= doubtful) | (F("mistakenness_loc") >= doubtful) | F("possible_spurious").is_in([True])
    )
    doubted = dataset.filter_labels(TRUTH, in_doubt, only_matches=False).filter_labels(
        model.predictions, F("possible_missing").is_in([True]), only_matches=False
    )
    for name, description, view in (
        (
            "most-false-positives",
            "images by their number of wrong predictions",
            dataset.match(F(f"{model.eval}_fp") > 0).sort_by(f"{model.eval}_fp", reverse=True),
        ),
        (
            "confident-false-positives",
            f"wrong predictions with a score of at least {confident:g}, most confident first",
            dataset.filter_labels(model.predictions, sure).sort_by(
                predictions.map(F("confidence")).max(), reverse=True
            ),
        ),
        (
            "missed-objects",
            "undetected objects",
            dataset.filter_labels(TRUTH, F(model.error) == "missed").sort_by(labels.length(), reverse=True),
        ),
        (
            "wrong-class",
            "predictions that overlap an object of another class",
            dataset.filter_labels(model.predictions, other_class).sort_by(predictions.length(), reverse=True),
        ),
        (
            "badly-placed",
            "predictions of the right class that lie beside their object",
            dataset.filter_labels(model.predictions, F(model.error) == "localisation").sort_by(
                predictions.length(), reverse=True
            ),
        ),
        (
            "possible-label-errors",
            "labels of val and test that may be wrong; tag them with wrong, missing, drop or relabel",
            doubted.match((labels.length() > 0) | (predictions.length() > 0)).sort_by("mistakenness", reverse=True),
        ),
        (
            "hardest-images",
            "validated images by their share of labelled and predicted objects without a match",
            dataset.match(F("hardness") > 0).sort_by([("hardness", -1), (f"{model.eval}_fn", -1)]),
        ),
        (
            "similar-across-splits",
            "groups of images that look alike to the model but are in different splits",
            dataset.match(F("similar_across_splits").is_in([True])).sort_by([("similar_group", 1), ("filepath", 1)]),
        ),
        (
            PATCHES,
            "every object by itself: found, wrong, missed",
            dataset.match_tags(list(splits)).to_evaluation_patches(model.eval).sort_by("type"),  # fn, fp, tp
        ),
    ):
        dataset.save_view(name, view, description=description)


def arrange(dataset: Any, models: Sequence[Model]) -> None:
    """Colour objects by their outcome, and order the sidebar by what people look at first."""
    import fiftyone as fo

    fields = [
        {
            "path": TRUTH,
            "fieldColor": NOT_JUDGED,
            "colorByAttribute": models[0].eval,
            "valueColors": [
                {"value": "tp", "color": RIGHT_LABEL},
                {"value": "fn", "color": MISSED},
                {"value": "None", "color": NOT_JUDGED},
            ],
        }
    ]
    fields += [
        {
            "path": model.predictions,
            "fieldColor": RIGHT_PREDICTION,
            "colorByAttribute": model.eval,
            "valueColors": [{"value": "tp", "color": RIGHT_PREDICTION}, {"value": "fp", "color": INVENTED}],
        }
        for model in models
    ]
    dataset.app_config.color_scheme = fo.ColorScheme(color_by="value", fields=fields)
    groups = [
        fo.SidebarGroupDocument(name="tags", expanded=True),
        fo.SidebarGroupDocument(name="labels", paths=[TRUTH, *(model.predictions for model in models)], expanded=True),
        *(
            fo.SidebarGroupDocument(
                name=f"counts of {model.predictions}",
                paths=[f"{model.eval}_{kind}" for kind in ("fp", "fn", "tp")],
                expanded=model is models[0],
            )
            for model in models
        ),
        fo.SidebarGroupDocument(
            name="labels in doubt", paths=["mistakenness", "possible_missing", "possible_spurious"], expanded=True
        ),
        fo.SidebarGroupDocument(
            name="images", paths=["hardness", "uniqueness", "similar_group", "similar_across_splits"], expanded=True
        ),
        fo.SidebarGroupDocument(name="metadata", expanded=False),
        fo.SidebarGroupDocument(name="other", expanded=False),
    ]
    dataset.app_config.sidebar_groups = groups
    dataset.save()

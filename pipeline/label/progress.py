"""Track the labelling: the figures at each batch, and the expected gain of the next one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.label.belief import EXACT, RIGHT, Floats
from pipeline.labels import file as labels
from pipeline.metrics import bootstrap
from pipeline.metrics.matching import IOU_THRESHOLDS, take
from pipeline.records import label as records
from pipeline.records import label_rounds, metrics
from pipeline.records.base import write_record
from pipeline.records.label import Candidate, Next
from pipeline.records.label_rounds import OnPool, Round, Rounds
from pipeline.run import Run

Labels = Mapping[str, Sequence[tuple[str, list[float]]]]  # SHA-256 of an image -> class and bbox of each label


def saved(run: Run) -> Labels:
    """Return the labels that were made with `make label`. Raises ConfigError or DataError for a bad file."""
    images = [image for _, image in labels.together(labels.files_of(run))]
    return {image.sha256: [(label.label, list(label.bbox)) for label in image.labels] for image in images}


def record(run: Run, batch: Next, images: int, boxes: int, back: Labels) -> list[Round]:
    """Add the current figures to the rounds so far. Call it before the new `batch` replaces the last one."""
    rounds, model = label_rounds.read(run), batch["model"]["sha256"]
    before = _batch(run)
    labelled = [image for image in before if image["sha256"] in back]
    figure = metrics.read(run)["splits"].get("val") if _is_of_this_model(run, model) else None
    now: Round = {
        "model": model,
        "images": images,
        "boxes": boxes,
        "minutes": round((rounds[-1]["minutes"] if rounds else 0) + sum(image["minutes"] for image in labelled), 1),
        "map50_95": figure["map50_95"] if figure else None,
        "interval": figure["intervals"]["map50_95"] if figure else None,
        "on_pool": on_pool([image for image in labelled if image["by"] == "random"], back),
        "batch": len(batch["images"]),
        "gain": None,
    }
    if rounds and not labelled and (rounds[-1]["model"], rounds[-1]["images"]) == (model, images):
        now["on_pool"], rounds = rounds[-1]["on_pool"], rounds[:-1]  # the last batch was chosen again
    rounds.append(now)
    now["gain"] = _expected_gain(rounds)
    write_record(run.label_rounds, Rounds, {"rounds": rounds})
    return rounds


def _batch(run: Run) -> list[Candidate]:
    """Return the images of the last batch; none if its file is invalid, because it is about to be replaced."""
    try:
        return records.read(run)["images"]
    except DataError:
        return []


def _is_of_this_model(run: Run, model: str) -> bool:
    if not run.metrics.is_file() or not run.model.is_file() or files.sha256(run.model) != model:
        return False
    return run.metrics.stat().st_mtime >= run.model.stat().st_mtime


def on_pool(drawn: Sequence[Candidate], back: Labels) -> OnPool | None:
    """Compare boxes drawn beforehand with the labels; None without images."""
    if not drawn:
        return None
    counts = np.array([_compared(image, back[image["sha256"]]) for image in drawn])  # right, exact, drawn, objects
    right, exact, boxes, objects = counts.sum(axis=0).tolist()
    interval = None
    if len(counts) >= bootstrap.MIN_IMAGES:
        draws = np.random.default_rng(bootstrap.SEED).integers(0, len(counts), (bootstrap.RESAMPLES, len(counts)))
        sums = counts[draws].sum(axis=1)
        f1 = 2 * sums[:, 0] / np.maximum(sums[:, 2] + sums[:, 3], 1)
        interval = [round(end, 4) for end in bootstrap.percentiles(f1) or ()]
    return {
        "images": len(counts),
        "right": right,
        "wrong": boxes - right,
        "missed": objects - right,
        "f1": round(2 * right / (boxes + objects), 4) if boxes + objects else None,
        "interval": interval,
        "untouched": round(exact / boxes, 4) if boxes else None,
    }


def _compared(image: Candidate, objects: Sequence[tuple[str, list[float]]]) -> tuple[int, int, int, int]:
    right = exact = 0
    for name in {label for label, _ in objects}:
        boxes = [box["bbox"] for box in image["boxes"] if box["label"] == name]  # the best ones first
        theirs = [bbox for label, bbox in objects if label == name]
        taken = take(_array(boxes), _array(theirs), IOU_THRESHOLDS)
        right, exact = right + int((taken[RIGHT] >= 0).sum()), exact + int((taken[EXACT] >= 0).sum())
    return right, exact, len(image["boxes"]), len(objects)


def _array(boxes: Sequence[Sequence[float]]) -> Floats:
    return np.array(boxes, np.float64).reshape(-1, 4)


def in_words(now: Round) -> str:
    """Return a line about the last round; empty before the first result."""
    parts = [f"{now['images']} images and {now['boxes']} boxes are labelled"]
    if now["map50_95"] is not None:
        low, high = now["interval"] or (None, None)
        between = f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else ""
        parts.append(f"val mAP50-95 {now['map50_95']:.3f}{between}")
    if now["gain"]:
        parts.append(f"the next batch may add {now['gain']:+.3f}")
    if (seen := now["on_pool"]) and seen["f1"] is not None:
        ends = seen["interval"]
        between = f" ({ends[0]:.2f} to {ends[1]:.2f})" if ends else ""
        parts.append(
            f"on {seen['images']} images drawn at random from the pool the last boxes had F1 {seen['f1']:.2f}{between}"
        )
    return ", ".join(parts) if len(parts) > 1 else ""


def _expected_gain(rounds: Sequence[Round]) -> float | None:
    """Return the expected gain of the next batch, from a line through the last three points over the log of images.

    None with fewer than two sizes, because one point has no slope.
    """
    points = {one["images"]: one["map50_95"] for one in rounds if one["map50_95"] is not None and one["images"]}
    if len(points) < 2:
        return None
    sizes = sorted(points)[-3:]
    slope = float(np.polyfit([math.log(size) for size in sizes], [float(points[size] or 0) for size in sizes], 1)[0])
    return round(max(slope, 0.0) * math.log((sizes[-1] + rounds[-1]["batch"]) / sizes[-1]), 4)

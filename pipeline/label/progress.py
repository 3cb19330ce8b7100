"""Track the labelling: the figures at each batch, and the expected gain of the next one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.label.belief import EXACT, RIGHT, Floats
from pipeline.labels.content import Image
from pipeline.metrics import bootstrap
from pipeline.metrics.matching import IOU_THRESHOLDS, take
from pipeline.records import label_corrected, label_rounds, metrics
from pipeline.records.base import write_record
from pipeline.records.label import Next
from pipeline.records.label_corrected import Chosen, Corrected
from pipeline.records.label_rounds import OnPool, Round, Rounds
from pipeline.run import Run

Labels = Mapping[str, Sequence[tuple[str, list[float]]]]  # SHA-256 of an image -> class and bbox of each label


def by_digest(images: Sequence[Image]) -> Labels:
    """Return the labels that were made with `make label` by the content of their images."""
    return {image.sha256: [(label.label, list(label.bbox)) for label in image.labels] for image in images}


def note(run: Run, batch: Next) -> None:
    """Record that labels of a batch were saved, because the next choice overwrites `next.json`."""
    images: list[Chosen] = [
        {"sha256": image["sha256"], "by": image["by"], "minutes": image["minutes"], "boxes": image["boxes"]}
        for image in batch["images"]
    ]
    this: label_corrected.Batch = {"model": batch["model"]["sha256"], "images": images}
    earlier = [one for one in label_corrected.read(run) if one != this]
    write_record(run.label_corrected, Corrected, {"batches": [*earlier, this]})


def record(run: Run, batch: Next, images: int, boxes: int, back: Labels) -> tuple[list[Round], tuple[int, int]]:
    """Add the current figures to the rounds so far.

    Return the rounds, and how many images of the last batch saved were drawn at random: those with labels, and all.
    """
    rounds, model = label_rounds.read(run), batch["model"]["sha256"]
    batches = label_corrected.read(run)
    minutes = {image["sha256"]: image["minutes"] for one in batches for image in one["images"]}
    drawn = [image for one in batches[-1:] for image in one["images"] if image["by"] == "random"]
    done = [image for image in drawn if image["sha256"] in back]
    known = metrics.read(run) if run.metrics.is_file() else None
    figure = known["splits"].get("val") if known and known["model_sha256"] == model else None
    now: Round = {
        "model": model,
        "images": images,
        "boxes": boxes,
        "minutes": round(sum(time for digest, time in minutes.items() if digest in back), 1),
        "map50_95": figure["map50_95"] if figure else None,
        "interval": figure["intervals"]["map50_95"] if figure else None,
        "on_pool": on_pool(drawn, back) if len(done) == len(drawn) else None,
        "batch": len(batch["images"]),
        "gain": None,
    }
    if rounds and (rounds[-1]["model"], rounds[-1]["images"], rounds[-1]["minutes"]) == (model, images, now["minutes"]):
        rounds = rounds[:-1]  # the last batch was chosen again
    rounds.append(now)
    now["gain"] = _expected_gain(rounds)
    write_record(run.label_rounds, Rounds, {"rounds": rounds})
    return rounds, (len(done), len(drawn))


def on_pool(drawn: Sequence[Chosen], back: Labels) -> OnPool | None:
    """Compare pre-drawn boxes with the labels; None without images."""
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
        "f1": round(2 * right / (boxes + objects), 4) if boxes else None,
        "interval": interval if boxes else None,
        "untouched": round(exact / boxes, 4) if boxes else None,
    }


def _compared(image: Chosen, objects: Sequence[tuple[str, list[float]]]) -> tuple[int, int, int, int]:
    right = exact = 0
    for name in {label for label, _ in objects}:
        boxes = [box["bbox"] for box in image["boxes"] if box["label"] == name]  # the best ones first
        theirs = [bbox for label, bbox in objects if label == name]
        taken = take(_array(boxes), _array(theirs), IOU_THRESHOLDS)
        right, exact = right + int((taken[RIGHT] >= 0).sum()), exact + int((taken[EXACT] >= 0).sum())
    return right, exact, len(image["boxes"]), len(objects)


def _array(boxes: Sequence[Sequence[float]]) -> Floats:
    return np.array(boxes, np.float64).reshape(-1, 4)


def in_words(now: Round, drawn: tuple[int, int]) -> str:
    """Return a line about the last round; empty before the first result. `drawn` is as `record` returns it."""
    parts = [f"the training split has {now['images']} images and {now['boxes']} boxes"]
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
    elif drawn[0] < drawn[1]:
        parts.append(f"{drawn[0]} of {drawn[1]} images drawn at random are saved; F1 on the pool needs all of them")
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

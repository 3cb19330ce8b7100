"""Measure accuracy over labels: how much the choice of images matters, and what boxes drawn beforehand save.

python benchmarks/label.py bccd facemask apple boards     (after `make convert` of each; prints the results so far)
python benchmarks/label.py bccd --model trained           (the project's own training instead; hours)

A simulated annotator has the real labels. All strategies begin with the same five images, drawn at random, and go on to
10, 20, 40 and 80; each batch is chosen with the model trained on the labels so far. `random`, `uncertain` and
`different` use that criterion alone; `both` is the default of `make label`, but with a random share of 0.2, the default
when this was measured. Each result is a line of benchmarks/label.jsonl, so a stopped benchmark continues where it was;
delete lines to measure them again.

The model `linear` is the smallest detector that learns: at each cell of a grid of 16 pixels, ridge regression from the
features of the COCO backbone (320 pixels, frozen) to classes and sides. Fitting takes a tenth of a second, so many
seeds are affordable. It is less accurate than a trained model, and shows which images teach more, not how good a model
gets. `trained` is 200 steps of the project's own training, with the backbone frozen. Only `trained` also predicts on
the mirrored images. Scores are calibrated on a quarter as many val images as there are labelled ones.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from label_models import Linear, Set, Trained, read

from pipeline import cosine
from pipeline.config.label import Cost
from pipeline.label import belief, choose, plan
from pipeline.label.store import Store
from pipeline.metrics import coco
from pipeline.metrics.iou import pairwise_iou
from pipeline.records.coco import GroundTruth, Prediction

LINES = Path(__file__).parent / "label.jsonl"
SIZES = (5, 10, 20, 40, 80)
WAYS: dict[str, tuple[tuple[str, ...], float]] = {
    "random": ((), 1.0),
    "uncertain": (("uncertain",), 0.0),
    "different": (("different",), 0.0),
    "both": (("uncertain", "different"), 0.2),
}
COST = Cost()


def judge(one: Set, seen: list[Any], indices: list[int]) -> dict[str, float]:
    truth: GroundTruth = {
        "images": [],
        "annotations": [],
        "categories": [{"id": index, "name": name} for index, name in enumerate(one.data.names)],
    }
    found: list[Prediction] = []
    for number, index in enumerate(indices):
        file = one.files[index]
        truth["images"].append({"id": number, "file_name": str(number), "width": file.width, "height": file.height})
        for row in one.labels[index].tolist():
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": number,
                    "category_id": int(row[5]),
                    "bbox": row[:4],
                    "area": row[2] * row[3],
                    "iscrowd": 0,
                }
            )
        found += [
            {"image_id": number, "category_id": int(row[5]), "bbox": row[:4], "score": row[4]}
            for row in seen[number].tolist()
        ]
    figures = coco.evaluate(truth, found)
    return {"map50": figures["map50"] or 0.0, "map50_95": figures["map50_95"] or 0.0}


def corrected(one: Set, seen: list[Any], indices: list[int], threshold: float) -> dict[str, float]:
    """Return how many boxes drawn beforehand are kept or moved, and the minutes with and without them."""
    counts = dict.fromkeys(("drawn", "untouched", "moved", "objects"), 0)
    for boxes, index in zip(seen, indices, strict=True):
        drawn = boxes[boxes[:, 4] >= threshold]
        drawn = drawn[np.argsort(-drawn[:, 4], kind="stable")]
        labels = one.labels[index]
        overlap = pairwise_iou(drawn[:, :4].astype(float), labels[:, :4].astype(float))
        overlap *= drawn[:, None, 5] == labels[None, :, 5]
        free = np.ones(len(labels), bool)
        for row in overlap:
            if len(labels) and (row * free).max() >= 0.5:
                best = int((row * free).argmax())
                free[best] = False
                counts["untouched" if row[best] >= 0.75 else "moved"] += 1
        counts["drawn"] += len(drawn)
        counts["objects"] += len(labels)
    right = counts["untouched"] + counts["moved"]
    seconds = counts["untouched"] * COST.check + counts["moved"] * (COST.check + COST.fix)
    seconds += (counts["drawn"] - right) * COST.remove + (counts["objects"] - right) * COST.draw
    looking = COST.image * len(indices)
    return {
        **counts,
        "minutes": (looking + seconds) / 60,
        "minutes_by_hand": (looking + counts["objects"] * COST.draw) / 60,
    }


def follow(one: Set, model: Any, kind: str, way: str, seed: int, done: set[tuple[Any, ...]]) -> None:
    """Label batch after batch, and append a line of results for each."""
    by, share = WAYS[way]
    pool, test = one.of["pool"], one.of["test"]
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(pool)[: SIZES[0]].tolist()
    val = rng.permutation(one.of["val"]).tolist()
    vectors = cosine.standardised(model.vectors[pool])
    before: dict[str, Any] = {}
    for size, following in zip(SIZES, (*SIZES[1:], 0), strict=True):
        fitted = model.fit(chosen)
        calibrating = val[: max(size // 4, 2)]
        trust = belief.of(model.see(fitted, calibrating), [one.labels[i] for i in calibrating], len(one.data.names))
        threshold = belief.threshold(trust, COST)
        line = {
            "set": one.name,
            "model": kind,
            "way": way,
            "seed": seed,
            "images": size,
            "boxes": sum(len(one.labels[index]) for index in chosen),
            **judge(one, model.see(fitted, test), test),
            "batch": before,
        }
        if (one.name, kind, way, seed, size) not in done:
            with LINES.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, sort_keys=True) + "\n")
        if not following:
            return
        free = [index for index in pool if index not in set(chosen)]
        seen = model.see(fitted, free)
        mirrored = model.see_mirrored(fitted, free) if kind == "trained" and by else [None] * len(free)
        works = [plan.work(a, b, trust, threshold, COST) for a, b in zip(seen, mirrored, strict=True)]
        place = {index: number for number, index in enumerate(pool)}
        candidates = choose.Candidates(
            vectors=vectors[[place[index] for index in free]],
            unsure=np.array([work.unsure for work in works]),
            rare=np.zeros(len(free)),
            minutes=np.array([work.seconds for work in works]) / 60,
        )
        labelled = vectors[[place[index] for index in chosen]]
        picks = choose.choose(candidates, labelled, following - size, by, share, False, seed)
        at = {index: number for number, index in enumerate(free)}
        batch = [free[pick.image] for pick in picks]
        before = corrected(one, [seen[at[index]] for index in batch], batch, threshold)
        chosen += batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--model", choices=("linear", "trained"), default="linear")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    known = [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()] if LINES.is_file() else []
    done = {tuple(line[key] for key in ("set", "model", "way", "seed", "images")) for line in known}
    for name in given.sets:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder) / "seen.sqlite")
            one = read(name, store)
            model = Linear(one) if given.model == "linear" else None
            for seed in range(given.seeds):
                for way in WAYS:
                    if (name, given.model, way, seed, SIZES[-1]) not in done:
                        follow(one, model or Trained(one, store, seed), given.model, way, seed, done)
            if model and (name, "linear", "all", 0, 0) not in done:
                figures = judge(one, model.see(model.fit(one.of["pool"]), one.of["test"]), one.of["test"])
                boxes = sum(len(one.labels[index]) for index in one.of["pool"])
                line = {"set": name, "model": "linear", "way": "all", "seed": 0, "images": 0, "boxes": boxes, **figures}
                with LINES.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()

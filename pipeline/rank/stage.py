"""Rank source weights, and estimate how deep to freeze, before any training.

    sources    loads each of the weights, without running code from them
    judge      scores one model
    table      what the screen shows

It changes no config: the ranking is an estimate from frozen features. benchmarks/rank.md says how often it was right.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.boxes import YoloDataset
from pipeline.config.rank import Rank
from pipeline.config.training import Train
from pipeline.probing import sample
from pipeline.rank import judge, sources, table
from pipeline.records import tiles as tiles_record
from pipeline.records.base import write_record
from pipeline.records.ranking import Ranking, Source
from pipeline.run import Run
from pipeline.upstream import environment

IMAGES = 200  # the most training images to look at


def main(config: Rank, train: Train, run: Run, seed: int, device: str) -> str:
    """Score each of the weights on training images, or on their tiles if the run has tiles, and write `run.ranking`.

    Raises WeightsError for a file that is not a detector, DataError if the images hold nothing to separate.
    """
    environment.prepare()
    torch_device = environment.torch_device(device)
    seen = run.augmented if tiles_record.read(run) else run.dataset
    data = YoloDataset.read(seen / "data.yaml")
    scenes = sample.draw(data, IMAGES, seed)
    weights = sources.find(config, train)  # all of them, before the first is scored
    judged = [
        judge.source(candidate, scenes, data.names, train.imgsz, config.layers, seed, torch_device)
        for candidate in weights
    ]
    labels = np.concatenate([scene.labels for scene in scenes])
    names = judge.with_background(data.names)
    record: Ranking = {
        "sources": _in_order(judged),
        "images": len(scenes),
        "boxes": {name: int((labels == number).sum()) for number, name in enumerate(names)},
        "imgsz": train.imgsz,
        "seed": seed,
    }
    table.show(record)
    write_record(run.ranking, Ranking, record)
    first = record["sources"][0]
    depth = f", freeze at most {first['depth']['freeze']} layers" if first["depth"] else ""
    return f"{Path(first['weights']['name']).name} first of {len(judged)}{depth} -> {run.ranking}"


def _in_order(judged: list[Source]) -> list[Source]:
    """Set each source's mean place, and sort by it; of equal ones the better probe comes first."""
    scores = [(source["log_me"], source["h_score"], source["probe"]) for source in judged]
    for source, own in zip(judged, scores, strict=True):
        places = [1 + sum(other[kind] > own[kind] for other in scores) for kind in range(len(own))]
        source["place"] = sum(places) / len(places)
    return sorted(judged, key=lambda source: (source["place"], -source["probe"]))

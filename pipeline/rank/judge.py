"""Score one source of weights."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import WeightsError
from pipeline.probing import scores, separability
from pipeline.probing.sample import Scene
from pipeline.rank.sources import Weights
from pipeline.records.ranking import Depth, Source
from pipeline.upstream import checkpoints


def source(
    weights: Weights, scenes: Sequence[Scene], names: Sequence[str], imgsz: int, layers: bool, seed: int, device: Any
) -> Source:
    """Score weights on the boxes of all scenes. Random weights, those of a .yaml, are drawn with `seed`.

    Raises WeightsError if the model outputs NaN or infinity.
    """
    from pipeline.probing import features

    begin = time.perf_counter()
    model = _load(weights.path, seed).to(device)
    taken = features.backbone(model)
    stages = features.stages(model) if layers else []
    rows = features.of_boxes(model, scenes, sorted({*taken, *stages}), imgsz, f"rank: {weights.path.name}")
    if not all(np.isfinite(part).all() for part in rows.values()):
        raise WeightsError(f"{weights.name}: its layers output NaN or infinity; remove it from rank.weights")
    labels, images = separability.numbers(scenes)
    concatenated = np.concatenate([rows[layer] for layer in taken], axis=1)
    probe = scores.ridge_probe(concatenated, labels, images)
    return {
        "weights": {"name": weights.name, "sha256": checkpoints.digest(weights.path), "instead_of": weights.instead_of},
        "place": 1,
        "log_me": scores.log_me(concatenated, labels),
        "h_score": scores.h_score(concatenated, labels),
        "probe": probe.accuracy,
        "per_class": dict(zip(with_background(names), probe.per_class, strict=False)),
        "layers": taken,
        "depth": _depth({layer: rows[layer] for layer in stages}, labels, images, model) if layers else None,
        "seconds": round(time.perf_counter() - begin, 1),
    }


def _load(path: Path, seed: int) -> Any:
    import torch

    torch.manual_seed(seed)
    return checkpoints.source_model(path, "rank.weights").eval()


def _depth(rows: Mapping[int, Any], labels: Any, images: Any, model: Any) -> Depth:
    accuracy = separability.by_layer(rows, labels, images)
    freeze = separability.depth(accuracy, len(model.yaml["backbone"]))
    return {"accuracy": {str(layer): value for layer, value in accuracy.items()}, "freeze": freeze}


def with_background(names: Sequence[str]) -> list[str]:
    """Return the class names, and one more for background."""
    return [*names, "background" if "background" not in names else "no object"]

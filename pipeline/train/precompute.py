"""Compute the features of a data set once and cache them on disk.

The config and the free disk space decide whether, never a measured speed: features are kept in half precision, so the
decision changes the model. Import it late, with `features`.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import files, logs
from pipeline.errors import PipelineError
from pipeline.records.training import CachedFeatures
from pipeline.train import features
from pipeline.train.features import Features, FixedDataset, Shortened
from pipeline.train.plan import FeatureCache

SPARE = 200 * 2**20  # bytes that stay free on the disk
PACKAGES = ("torch", "ultralytics-opencv-headless", "opencv-python-headless")  # compute, read and resize


def attach(dataset: FixedDataset, model: Shortened, cache: FeatureCache, split: str) -> CachedFeatures:
    """Attach cached features to the data set, computing them first if needed; on a full disk do without.

    `split` is "train" or "val". Returns the decision and its reason, for `train.json`. Raises PipelineError if
    `cache_features: true` cannot be fulfilled.
    """
    decision = _decide(dataset, model, cache, split)
    model.cached = {**model.cached, split: decision["cached"]}
    return decision


def _decide(dataset: FixedDataset, model: Shortened, cache: FeatureCache, split: str) -> CachedFeatures:
    model.eval()
    file = cache.folder / f"{_key(dataset, model, cache.cut)[:16]}.bin"
    index = file.with_suffix(".json")
    layers = features.needed(model, cache.cut)
    if index.is_file() and file.is_file():
        known = files.read_json(index)
        dataset.features = Features(file, cache.cut, layers, known["shapes"], known["sizes"])
        return {"cached": True, "reason": "known from an earlier training", "file": file.name}
    cache.folder.mkdir(parents=True, exist_ok=True)
    batches = _batches(dataset)
    shapes = [array.shape[1:] for array in _forward(dataset, model, cache.cut, batches[0])]
    total = len(dataset) * sum(map(math.prod, shapes)) * features.DTYPE.itemsize
    free = shutil.disk_usage(cache.folder).free
    if total + SPARE > free:
        short = f"features of {split} need {total / 1e9:.1f} GB, and {cache.folder} has {free / 1e9:.1f} GB free"
        if cache.mode is True:
            raise PipelineError(f"train.cache_features: {short}; free some space, lower train.imgsz, or write auto")
        return {"cached": False, "reason": short}
    _compute(dataset, model, cache.cut, batches, file, f"train: features of {split}")
    sizes = [dataset.sizes[number] for number in range(len(dataset))]
    files.write_json(index, {"shapes": shapes, "sizes": sizes})
    dataset.features = Features(file, cache.cut, layers, shapes, sizes)
    return {"cached": True, "reason": f"computed once: {total / 1e6:.0f} MB", "file": file.name}


def _key(dataset: FixedDataset, model: Any, cut: int) -> str:
    """Hash everything that features depend on: code, versions, layers before the cut, images, their size and order."""
    code = [files.sha256(Path(path)) for path in (__file__, features.__file__)]
    versions = [version(package) for package in PACKAGES]
    settings = f"{cut} {dataset.imgsz} {features.DTYPE} {code} {versions} {_structure(model, cut)}\n"
    digest = hashlib.sha256(settings.encode())
    state = model.state_dict()
    for name in sorted(state):
        if int(name.split(".")[1]) < cut:
            digest.update(name.encode() + state[name].detach().float().cpu().contiguous().numpy().tobytes())
    for image in dataset.im_files:
        digest.update(f"{files.sha256(Path(image))}\n".encode())
    return digest.hexdigest()


def _structure(model: Any, cut: int) -> list[Any]:
    """Return the structure before the cut that weights do not show: wiring, activations, strides, outputs in use."""
    layers = [*model.yaml["backbone"], *model.yaml["head"]][:cut]
    return [layers, repr(model.model[:cut]), features.needed(model, cut)]


def _batches(dataset: FixedDataset) -> list[list[int]]:
    """Return image numbers in order, batched as in training: a convolution's last bit may depend on the batch size."""
    size = dataset.batch_size
    return [list(range(start, min(start + size, len(dataset)))) for start in range(0, len(dataset), size)]


def _forward(dataset: FixedDataset, model: Any, cut: int, batch: list[int]) -> list[NDArray[Any]]:
    """Compute the features of some images: an array (n, height, width, channels) per layer."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        images = torch.stack([dataset[index]["img"] for index in batch]).to(device).float() / 255
        return [tensor.permute(0, 2, 3, 1).cpu().numpy() for tensor in features.prefix(model, images, cut).values()]


def _compute(
    dataset: FixedDataset, model: Any, cut: int, batches: list[list[int]], file: Path, description: str
) -> None:
    """Compute the features of all images and write them to `file`."""
    with (
        files.replacing(file) as partial,
        partial.open("wb") as out,
        logs.progress(description=description, total=len(dataset)) as bar,
    ):
        for batch in batches:
            arrays = [
                np.ascontiguousarray(tensor.astype(features.DTYPE)) for tensor in _forward(dataset, model, cut, batch)
            ]
            for place in range(len(batch)):
                for array in arrays:
                    out.write(array[place].data)
            bar.update(len(batch))

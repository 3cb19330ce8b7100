"""Compute the features of a dataset once and cache them on disk.

The config and the free disk space decide whether, never a measured speed: features are kept in half precision, so the
decision changes the model. Import it late, with `features`.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline import files, logs
from pipeline.errors import FULL_DISK_NUMBERS, PipelineError
from pipeline.probing import wiring
from pipeline.records.training import CachedFeatures
from pipeline.train import features
from pipeline.train.features import Features, FixedDataset, Shortened
from pipeline.train.plan import FeatureCache

SPARE = 200 * 2**20  # bytes that stay free on the disk
REMEDY = "free some space, lower train.imgsz"
PACKAGES = ("torch", "ultralytics-opencv-headless", "opencv-python-headless")  # compute, read and resize
USED_ONCE: CachedFeatures = {"cached": False, "reason": "the phase evaluates this split at most once"}


class _Impossible(Exception):
    """Why features cannot be cached, and what to do about it."""


def attach(
    dataset: FixedDataset, model: Shortened, cache: FeatureCache, split: str, before: CachedFeatures | None = None
) -> CachedFeatures:
    """Attach cached features to the dataset, computing them first if needed; on a full disk do without.

    `split` is "train" or "val". A resumed phase keeps its decision `before` the kill. Returns the decision and its
    reason, for `train.json`. Raises PipelineError if features must be cached but cannot be.
    """
    if before and not before["cached"]:
        decision = before
    else:
        try:
            decision = _attached(dataset, model, cache, split)
        except _Impossible as error:
            reason, remedy = error.args
            if cache.mode is True or before:
                raise PipelineError(f"train.cache_features: {reason}; {remedy}, or write false") from None
            decision = {"cached": False, "reason": reason}
    model.cached = {**model.cached, split: decision["cached"]}
    return decision


def _attached(dataset: FixedDataset, model: Shortened, cache: FeatureCache, split: str) -> CachedFeatures:
    model.eval()
    file = cache.folder / f"{_key(dataset, model, cache.cut)[:16]}.bin"
    index = file.with_suffix(".json")
    layers = wiring.taken(model, cache.cut)
    if index.is_file() and file.is_file():
        known = files.read_json(index)
        dataset.features = Features(file, cache.cut, layers, known["shapes"], known["sizes"])
        return {"cached": True, "reason": "known from an earlier training", "file": file.name}
    cache.folder.mkdir(parents=True, exist_ok=True)
    batches = _batches(dataset)
    shapes = [array.shape[1:] for array in _forward(dataset, model, cache.cut, batches[0])]
    total = _check_room(shapes, len(dataset), cache.folder, split)
    try:
        _compute(dataset, model, cache.cut, batches, file, f"train: features of {split}")
        sizes = [dataset.sizes[number] for number in range(len(dataset))]
        files.write_json(index, {"shapes": shapes, "sizes": sizes})
    except OSError as error:  # a quota, or another program that filled the disk
        if error.errno not in FULL_DISK_NUMBERS:
            raise
        file.unlink(missing_ok=True)
        reason = f"features of {split} need {total / 1e9:.1f} GB, but {cache.folder}: {error.strerror}"
        raise _Impossible(reason, REMEDY) from None
    dataset.features = Features(file, cache.cut, layers, shapes, sizes)
    return {"cached": True, "reason": f"computed once: {total / 1e6:.0f} MB", "file": file.name}


def _check_room(shapes: Sequence[tuple[int, ...]], images: int, folder: Path, split: str) -> int:
    """Return the bytes that all features need. Raises _Impossible if the disk has less to spare."""
    total = images * sum(map(math.prod, shapes)) * features.DTYPE.itemsize
    if total + SPARE > (free := shutil.disk_usage(folder).free):
        reason = f"features of {split} need {total / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free"
        raise _Impossible(reason, REMEDY)
    return total


def _key(dataset: FixedDataset, model: Any, cut: int) -> str:
    """Hash all that features depend on: code, versions, machine, layers before the cut, images, their size, order."""
    code = [files.sha256(Path(path)) for path in (__file__, features.__file__, wiring.__file__)]
    versions = [version(package) for package in PACKAGES]
    # Kind of device, threads and batch size change the last bits.
    machine = f"{next(model.parameters()).device.type} {torch.get_num_threads()} {dataset.batch_size}"
    settings = f"{cut} {dataset.imgsz} {features.DTYPE} {code} {versions} {machine} {_structure(model, cut)}\n"
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
    return [layers, repr(model.model[:cut]), wiring.taken(model, cut)]


def _batches(dataset: FixedDataset) -> list[list[int]]:
    """Return image numbers in order, batched as in training: a convolution's last bit may depend on the batch size."""
    size = dataset.batch_size
    return [list(range(start, min(start + size, len(dataset)))) for start in range(0, len(dataset), size)]


def _forward(dataset: FixedDataset, model: Any, cut: int, batch: list[int]) -> list[NDArray[Any]]:
    """Compute the features of some images: an array (n, height, width, channels) per layer."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        images = torch.stack([dataset[index]["img"] for index in batch]).to(device).float() / 255
        outputs = features.prefix(model, images, cut).values()
        if not all(isinstance(output, torch.Tensor) for output in outputs):
            raise _Impossible("a frozen layer of this model has several outputs", "freeze fewer layers")
        return [tensor.permute(0, 2, 3, 1).cpu().numpy() for tensor in outputs]


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

"""What the frozen first layers make of each image, computed once and kept on disk.

With fixed inputs those layers give the same tensors in every epoch. So each image goes through them once; from then
on an epoch begins behind them. Features lie as one memory-mapped file of half precision, channels last, and the
operating system keeps in memory what fits.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from ultralytics.data import YOLODataset
from ultralytics.models.yolo.detect import DetectionValidator
from ultralytics.nn.tasks import DetectionModel

from pipeline import files
from pipeline.errors import PipelineError

DTYPE = np.dtype(np.float16)  # boxes move by less than 0.3 px; 8 bits would move them by 5
SPARE = 200 * 2**20  # bytes that stay free on the disk
TRIED = 2  # batches on which computing and reading are timed


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a phase asks for: features of the layers before `cut`, in `folder`, if that pays over so many epochs."""

    cut: int
    cache: Literal["auto"] | bool
    epochs: int
    folder: Path


class Shortened(DetectionModel):  # type: ignore[misc]  # Ultralytics has no types
    """A detection model that begins behind the cut where the images bring their features along."""

    def _predict_once(self, x: Any, profile: bool = False, embed: Any = None) -> Any:
        if not hasattr(x, "features"):
            return super()._predict_once(x, profile, embed)
        cut, known = x.features
        y: dict[int, Any] = dict(known)
        x = y.get(cut - 1)
        for layer in self.model[cut:]:
            x = y[layer.i] = layer(_inputs(layer, x, y))
        return x


def _sources(layer: Any) -> list[int]:
    return [layer.f] if isinstance(layer.f, int) else list(layer.f)


def _inputs(layer: Any, x: Any, y: dict[int, Any]) -> Any:
    """What a layer takes, by Ultralytics' rule (nn/tasks.py, `_predict_once`): -1 is the output just before it."""
    if layer.f == -1:
        return x
    return y[layer.f] if isinstance(layer.f, int) else [x if j == -1 else y[j] for j in layer.f]


def needed(model: Any, cut: int) -> list[int]:
    """The layers before the cut whose outputs those behind it take."""
    found = {j for layer in model.model[cut:] for j in _sources(layer) if 0 <= j < cut}
    return sorted(found | ({cut - 1} if -1 in _sources(model.model[cut]) else set()))


def prefix(model: Any, images: torch.Tensor, cut: int) -> dict[int, torch.Tensor]:
    """Outputs of the layers before the cut that are needed behind it; `images` as (n, 3, h, w) of 0 to 1."""
    y: dict[int, Any] = {}
    x: Any = images
    for layer in model.model[:cut]:
        x = y[layer.i] = layer(_inputs(layer, x, y))
    return {index: y[index] for index in needed(model, cut)}


class FixedDataset(YOLODataset):  # type: ignore[misc]
    """Every image as validation sees it, the same in each epoch; once its features are known it is not read again."""

    features: Features | None
    sizes: dict[int, tuple[tuple[int, int], tuple[int, int]]]

    @classmethod
    def of(cls, dataset: YOLODataset) -> FixedDataset:
        """A data set of Ultralytics' without augmentation, made one of these."""
        dataset.__class__ = cls
        dataset.features, dataset.sizes = None, {}
        assert isinstance(dataset, cls)
        return dataset

    def load_image(self, i: int, *args: Any, **kwargs: Any) -> Any:
        if self.features is None:
            image, original, resized = super().load_image(i, *args, **kwargs)
            self.sizes[i] = original, resized
        else:
            original, resized = map(tuple, self.features.sizes[i])
            image = np.zeros((*resized, self.channels), np.uint8)
        return image, original, resized

    def __getitem__(self, index: int) -> Any:
        return {**super().__getitem__(index), "index": index}

    def picture(self, index: int) -> Any:
        """The image itself, for people, as a tensor of Ultralytics'."""
        kept, self.features = self.features, None
        try:
            return self[index]["img"]
        finally:
            self.features = kept

    def sides(self, index: int) -> tuple[int, int]:
        """Height and width as the model gets them."""
        height, width = self.batch_shapes[self.batch[index]] if self.rect else (self.imgsz, self.imgsz)
        return int(height), int(width)


class FixedValidator(DetectionValidator):  # type: ignore[misc]
    def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
        return with_features(super().preprocess(batch), self.dataloader.dataset)

    def plot_val_samples(self, batch: dict[str, Any], ni: int) -> None:
        super().plot_val_samples(with_pictures(batch, self.dataloader.dataset), ni)

    def plot_predictions(self, batch: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super().plot_predictions(with_pictures(batch, self.dataloader.dataset), *args, **kwargs)


def with_features(batch: dict[str, Any], dataset: FixedDataset) -> dict[str, Any]:
    """The batch, with the features of its images as an attribute of its image tensor."""
    if dataset.features is not None:
        images = batch["img"]
        images.features = dataset.features.cut, dataset.features.of(batch["index"], images.device, images.dtype)
    return batch


def with_pictures(batch: dict[str, Any], dataset: FixedDataset) -> dict[str, Any]:
    """The batch, with the images that its features came from, for people."""
    return {**batch, "img": torch.stack([dataset.picture(index) for index in batch["index"]]) / 255}


@dataclass(frozen=True)
class Features:
    """Features of all images of a data set, image by image, layer by layer, as (height, width, channels).

    `sizes` are those of each image, as received and as resized.
    """

    file: Path
    cut: int
    layers: Sequence[int]
    shapes: Sequence[Sequence[tuple[int, int, int]]]
    sizes: Sequence[Any]

    @cached_property
    def _flat(self) -> NDArray[Any]:
        return np.memmap(self.file, DTYPE, mode="r")

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        sizes = [sum(math.prod(shape) for shape in shapes) for shapes in self.shapes]
        return np.concatenate([[0], np.cumsum(sizes)])

    def of(self, indices: Iterable[int], device: Any, dtype: torch.dtype) -> dict[int, torch.Tensor]:
        """Layer -> (n, channels, height, width), laid out channels last."""
        per_layer: list[list[NDArray[Any]]] = [[] for _ in self.layers]
        for index in indices:
            start = int(self._starts[index])
            for place, shape in enumerate(self.shapes[index]):
                end = start + math.prod(shape)
                per_layer[place].append(self._flat[start:end].reshape(shape))
                start = end
        tensors = [torch.from_numpy(np.stack(arrays)).to(device).to(dtype).permute(0, 3, 1, 2) for arrays in per_layer]
        return dict(zip(self.layers, tensors, strict=True))


def attach(dataset: FixedDataset, model: Any, wanted: Wanted, what: str) -> dict[str, Any]:
    """Give the data set its features, from an earlier run or computed now, or leave it to compute them each time.

    Gives what was decided and why, for `train.json`. Raises PipelineError where `cache: true` cannot be had.
    """
    model.eval()
    file = wanted.folder / f"{_key(dataset, model, wanted.cut)[:16]}.bin"
    index = file.with_suffix(".json")
    layers = needed(model, wanted.cut)
    if index.is_file() and file.is_file():
        known = files.read_json(index)
        shapes = _shapes(dataset, known["sample"])
        dataset.features = Features(file, wanted.cut, layers, shapes, known["sizes"])
        return {"cached": True, "reason": "known from an earlier training", "file": file.name}
    wanted.folder.mkdir(parents=True, exist_ok=True)
    batches = _batches(dataset)
    compute, sample = _timed(dataset, model, wanted.cut, batches[:TRIED])
    shapes = _shapes(dataset, sample)
    total = sum(math.prod(shape) for image in shapes for shape in image) * DTYPE.itemsize
    free = shutil.disk_usage(wanted.folder).free
    if total + SPARE > free:
        short = f"features of {what} need {total / 1e9:.1f} GB, and {wanted.folder} has {free / 1e9:.1f} GB free"
        if wanted.cache is True:
            raise PipelineError(f"train.cache_features: {short}; make room, lower train.imgsz, or write auto")
        return {"cached": False, "reason": short}
    read = _reading(wanted.folder, sum(math.prod(shape) for shape in shapes[0]))
    figures = f"{1000 * compute:.1f} ms to compute an image, {1000 * read:.1f} ms to read its features"
    if wanted.cache == "auto" and (wanted.epochs - 1) * compute <= wanted.epochs * read:
        return {"cached": False, "reason": f"{figures}: not worth it over {wanted.epochs} epochs"}
    _compute(dataset, model, wanted.cut, batches, file, f"train: features of {what}")
    sizes = [dataset.sizes[number] for number in range(len(dataset))]
    files.write_json(index, {"sample": sample, "sizes": sizes})
    dataset.features = Features(file, wanted.cut, layers, shapes, sizes)
    return {"cached": True, "reason": figures, "file": file.name}


def _key(dataset: FixedDataset, model: Any, cut: int) -> str:
    """Of all that features depend on: weights before the cut, images, their size and order, and the versions."""
    digest = hashlib.sha256(f"{cut} {DTYPE} {version('torch')} {version('ultralytics-opencv-headless')}\n".encode())
    state = model.state_dict()
    for name in sorted(state):
        if int(name.split(".")[1]) < cut:
            digest.update(name.encode() + state[name].detach().float().cpu().contiguous().numpy().tobytes())
    for index, image in enumerate(dataset.im_files):
        digest.update(f"{files.sha256(Path(image))} {dataset.sides(index)}\n".encode())
    return digest.hexdigest()


def _batches(dataset: FixedDataset) -> list[list[int]]:
    """Images in their order, as many together as train together: a convolution's last bit may depend on that."""
    if dataset.rect:
        return [np.flatnonzero(dataset.batch == number).tolist() for number in range(int(dataset.batch.max()) + 1)]
    size = dataset.batch_size
    return [list(range(start, min(start + size, len(dataset)))) for start in range(0, len(dataset), size)]


def _forward(dataset: FixedDataset, model: Any, cut: int, batch: list[int]) -> list[NDArray[Any]]:
    """Features of some images, a layer each, as (n, height, width, channels)."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        images = torch.stack([dataset[index]["img"] for index in batch]).to(device).float() / 255
        return [tensor.permute(0, 2, 3, 1).cpu().numpy() for tensor in prefix(model, images, cut).values()]


def _timed(dataset: FixedDataset, model: Any, cut: int, batches: list[list[int]]) -> tuple[float, dict[str, Any]]:
    """Seconds for an image, and of one input the sides and the shapes of its features."""
    _forward(dataset, model, cut, batches[0])  # the first one also sets up
    start = time.perf_counter()
    for batch in batches:
        found = _forward(dataset, model, cut, batch)
    seconds = (time.perf_counter() - start) / sum(map(len, batches))
    return seconds, {"sides": dataset.sides(batches[-1][0]), "shapes": [tensor.shape[1:] for tensor in found]}


def _shapes(dataset: FixedDataset, sample: dict[str, Any]) -> list[list[tuple[int, int, int]]]:
    """Of the features of each image: they shrink by whole factors, so one image tells of all."""
    height, width = sample["sides"]
    sides = map(dataset.sides, range(len(dataset)))
    return [[(h * own // height, w * wide // width, deep) for h, w, deep in sample["shapes"]] for own, wide in sides]


def _reading(folder: Path, elements: int) -> float:
    """Seconds to read the features of an image from this disk, not from memory, and to make numbers of them."""
    scratch = folder / ".speed.partial"
    try:
        with scratch.open("wb") as file:
            file.write(np.zeros(TRIED * elements, DTYPE).tobytes())
            file.flush()
            os.fsync(file.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        torch.from_numpy(np.fromfile(scratch, DTYPE)).float()
        return (time.perf_counter() - start) / TRIED
    finally:
        scratch.unlink(missing_ok=True)


def _compute(
    dataset: FixedDataset, model: Any, cut: int, batches: list[list[int]], file: Path, description: str
) -> None:
    """Write the features of all images."""
    partial = files.aside(file)
    try:
        with partial.open("wb") as out, tqdm(total=len(dataset), desc=description, unit="image", disable=None) as bar:
            for batch in batches:
                found = [np.ascontiguousarray(tensor.astype(DTYPE)) for tensor in _forward(dataset, model, cut, batch)]
                for place in range(len(batch)):
                    for tensor in found:
                        out.write(tensor[place].data)
                bar.update(len(batch))
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)

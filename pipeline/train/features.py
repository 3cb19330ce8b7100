"""Train on cached features: the outputs of the frozen first layers, computed once per image and kept on disk.

With fixed inputs those layers give the same tensors in every epoch. So each image passes through them once
(`precompute`), and every epoch skips them. All features are in one memory-mapped file, in half precision, channels
last; the operating system keeps in memory what fits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics.data import YOLODataset
from ultralytics.nn.tasks import DetectionModel

from pipeline.errors import PipelineError
from pipeline.probing import wiring
from pipeline.train.gain import KeepingValidator

DTYPE = np.dtype(np.float16)  # boxes move by less than 0.3 px; 8 bits would move them by 5


class Shortened(DetectionModel):  # type: ignore[misc]  # Ultralytics has no types
    """A detection model that skips the layers before the cut when its input carries their features.

    `cached` says for "train" and "val" whether features exist. Images are blank then, and an input without features
    raises PipelineError.
    """

    cached: Mapping[str, bool] = {}

    def _predict_once(self, x: Any, profile: bool = False, embed: Any = None) -> Any:
        if not hasattr(x, "features"):
            self._refuse_blank_images()
            return super()._predict_once(x, profile, embed)
        cut, known = x.features
        return wiring.run(self.model[cut:], dict(known))

    def _refuse_blank_images(self) -> None:
        split = "train" if self.training else "val"
        if self.cached.get(split):
            raise PipelineError(
                f"the cached features of the {split} images did not reach the model, which would see blank images; "
                "this is a bug in the pipeline: please report it, and set train.cache_features: false meanwhile"
            )


@contextmanager
def ordinary(model: Shortened) -> Iterator[None]:
    """Turn the model into a plain DetectionModel while it is saved."""
    cached = model.__dict__.pop("cached")
    model.__class__ = DetectionModel
    try:
        yield
    finally:
        model.__class__ = Shortened
        model.cached = cached


def prefix(model: Any, images: torch.Tensor, cut: int) -> dict[int, torch.Tensor]:
    """Compute the outputs of the layers before the cut that later layers take; `images` are (n, 3, h, w), 0 to 1."""
    outputs: dict[int, Any] = {-1: images}
    wiring.run(model.model[:cut], outputs)
    return {number: outputs[number] for number in wiring.taken(model, cut)}


class FixedDataset(YOLODataset):  # type: ignore[misc]
    """A dataset without augmentation, whose images are not read again once their features are cached."""

    features: Features | None
    sizes: dict[int, tuple[tuple[int, int], tuple[int, int]]]

    @classmethod
    def of(cls, dataset: YOLODataset) -> FixedDataset:
        """Convert an Ultralytics dataset without augmentation into a FixedDataset, in place."""
        assert type(dataset) is YOLODataset
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

    def image(self, index: int) -> Any:
        """Read the image itself, for plots: a uint8 tensor (3, height, width)."""
        reading = copy(self)  # a thread may be loading the next batch
        reading.features = None
        return reading[index]["img"]


class FixedValidator(KeepingValidator):
    """Ultralytics' validator, whose batches carry cached features and whose plots show images."""

    def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
        return with_features(super().preprocess(batch), self.dataloader.dataset)

    def plot_val_samples(self, batch: dict[str, Any], ni: int) -> None:
        super().plot_val_samples(with_images(batch, self.dataloader.dataset), ni)

    def plot_predictions(self, batch: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super().plot_predictions(with_images(batch, self.dataloader.dataset), *args, **kwargs)


def with_features(batch: dict[str, Any], dataset: FixedDataset) -> dict[str, Any]:
    """Attach the features of a batch, if they are cached, to its image tensor."""
    if dataset.features is not None:
        images = batch["img"]
        images.features = dataset.features.cut, dataset.features.of(batch["index"], images.device, images.dtype)
    return batch


def with_images(batch: dict[str, Any], dataset: FixedDataset) -> dict[str, Any]:
    """Return the batch with the images that its features were computed from, for plots."""
    return {**batch, "img": torch.stack([dataset.image(index) for index in batch["index"]]) / 255}


@dataclass(frozen=True)
class Features:
    """The features of all images of a dataset, stored image by image, layer by layer, as (height, width, channels).

    `shapes` holds the shape of each layer's features, `sizes` the (height, width) of each image in pixels, before and
    after resizing.
    """

    file: Path
    cut: int
    layers: Sequence[int]
    shapes: Sequence[tuple[int, int, int]]
    sizes: Sequence[Any]

    @cached_property
    def _per_image(self) -> NDArray[Any]:
        return np.memmap(self.file, DTYPE, mode="r").reshape(len(self.sizes), -1)

    def of(self, indices: Iterable[int], device: Any, dtype: torch.dtype) -> dict[int, torch.Tensor]:
        """Read the features of some images: layer -> (n, channels, height, width), laid out channels last."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])
        parts = np.split(self._per_image[list(indices)], ends[:-1], axis=1)
        tensors = [
            torch.from_numpy(part.reshape(-1, *shape)).to(device).to(dtype).permute(0, 3, 1, 2)
            for part, shape in zip(parts, self.shapes, strict=True)
        ]
        return dict(zip(self.layers, tensors, strict=True))

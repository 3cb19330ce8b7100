"""Run the model on an image: its boxes, those of the mirrored image, and one vector for the whole image.

It predicts as `validate` does, with `tiles` through the same views, so the boxes are those of the detector that
`metrics.json` measures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipeline import files, logs, parallel, pixels
from pipeline.device.runner import tiles
from pipeline.device.runner.base import Detections
from pipeline.errors import WeightsError
from pipeline.label import showing
from pipeline.label.store import Array, File, Store
from pipeline.records.tiles import Tiling
from pipeline.run import Run
from pipeline.upstream import checkpoints, environment

BATCH = 8  # images, or views of one image
MOST_PIXELS = 1 << 25  # of a batch: 100 MB, and as much again for mirrored images
CONF = 0.01  # most of an image's 300 boxes score less, and together they are hardly one object


class Seen(NamedTuple):
    """A model's output for an image. Boxes are rows of x, y, width, height in pixels, score, class of the dataset."""

    boxes: Array  # [boxes, 6]
    vector: Array  # [channels]


@dataclass
class Model:
    """A detector. `classes` maps its classes to those of the dataset; -1 if the dataset lacks a class.

    `iou` and `max_det` are those of `validate`. `bits` are the dataset's, to scale images with more than 8.
    """

    file: Path
    names: tuple[str, ...]
    device: str
    tiling: Tiling | None = None
    iou: float = 0.7
    max_det: int = 300
    bits: int | None = None
    imgsz: int = 0
    sha256: str = ""
    classes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        environment.prepare()
        environment.check_device(self.device)
        from ultralytics import YOLO

        from pipeline.probing import features  # late: it imports torch

        checkpoint = checkpoints.load_for_boxes(self.file)[0]
        self.imgsz = int(checkpoint.args.get("imgsz", 640)) if isinstance(checkpoint.args, dict) else 640
        self.sha256 = files.sha256(self.file)
        names = checkpoint.names  # a list in an open-vocabulary model whose classes were set
        self.classes = matched(list(map(str, names.values() if isinstance(names, dict) else names)), self.names)
        self.yolo = YOLO(str(self.file), task="detect")
        self.vectors: list[Any] = []
        vectors = self.vectors

        # A plain function, because Ultralytics copies it with the model.
        def pool(_module: Any, _inputs: Any, output: Any) -> None:
            vectors.append(output.mean(dim=(2, 3)).float().cpu().numpy())

        outputs = features.backbone(self.yolo.model)
        for index in outputs:
            self.yolo.model.model[index].register_forward_hook(pool)
        self.layers = len(outputs)

    @property
    def known(self) -> list[str]:
        """Return the dataset's classes that the model knows."""
        return [name for index, name in enumerate(self.names) if index in self.classes]

    def see(self, images: Sequence[File], store: Store, description: str) -> list[Seen | None]:
        """Return what the model sees in each image, and run it only on images that the store lacks.

        None stands for an image that has disappeared or that OpenCV cannot decode.
        """
        found = self._look(images, store, description, False)
        return [Seen(known["boxes"], known["vector"]) if known else None for known in found]

    def see_mirrored(self, images: Sequence[File], store: Store, description: str) -> list[Array | None]:
        """Return the boxes of the mirrored images, mirrored back; None as in `see`."""
        return [known["boxes"] if known else None for known in self._look(images, store, description, True)]

    def _look(
        self, images: Sequence[File], store: Store, description: str, mirrored: bool
    ) -> list[dict[str, Array] | None]:
        # Class names are part of the key, because with others the same model's boxes have other classes.
        views = [self.tiling["size"], self.tiling["overlap"], self.tiling["whole"]] if self.tiling else ""
        way = f"{self.imgsz} {self.iou} {self.max_det} {views} {'mirrored ' * mirrored}{'/'.join(self.names)}"

        def look(missing: Sequence[int]) -> Iterator[tuple[int, Mapping[str, Array]]]:
            bar = logs.progress(description=description, total=len(missing))
            with ThreadPoolExecutor(parallel.cores()) as pool, bar:  # OpenCV releases the GIL while it decodes
                for batch in _batches(missing, images):
                    decoded = list(pool.map(lambda index: showing.decode(images[index], self.bits), batch))
                    read = {index: image for index, image in zip(batch, decoded, strict=True) if image is not None}
                    yield from zip(read, self._predict(list(read.values()), mirrored), strict=True)
                    bar.update(len(batch))

        keys = [f"{file.sha256} {self.sha256} {showing.bits_of(file, self.bits) or ''} {way}" for file in images]
        return store.seen(keys, look)

    def _predict(self, images: list[pixels.Image], mirrored: bool) -> Iterator[dict[str, Array]]:
        shown = [cv2.flip(image, 1) for image in images] if mirrored else images
        for image, (found, vector) in zip(images, self._outputs(shown), strict=True):
            yield {"boxes": self._boxes(found, image.shape[1] if mirrored else 0), "vector": vector}

    def _outputs(self, images: list[pixels.Image]) -> Iterable[tuple[Detections, Array]]:
        """Yield the detections and the vector of each image; that of an image in views is their mean."""
        from pipeline.upstream import predictor  # late: it imports torch

        settings = {"imgsz": self.imgsz, "conf": CONF, "iou": self.iou, "max_det": self.max_det}
        for group in [[image] for image in images] if self.tiling else filter(None, [images]):
            self.vectors.clear()
            found = predictor.detections(self.yolo, group, self.tiling, self.device, BATCH, **settings)
            views = sum(len(tiles.views(image.shape, self.tiling)) for image in group)
            rows = self._vectors(math.ceil(views / BATCH))
            vectors = [rows.mean(axis=0)] if self.tiling else rows
            yield from ((best, vector) for (best, _), vector in zip(found, vectors, strict=True))

    def _vectors(self, passes: int) -> Array:
        """Return a row for each input of the last passes: the predictor runs on an empty image before its first one."""
        last = self.vectors[-passes * self.layers :]
        starts = range(0, len(last), self.layers)
        return np.concatenate([np.concatenate(last[start : start + self.layers], axis=1) for start in starts])

    def _boxes(self, found: Detections, mirrored_width: int) -> Array:
        sides = found.corners[:, 2:] - found.corners[:, :2]
        classes = np.array(self.classes)[found.classes]
        rows = np.column_stack([found.corners[:, :2], sides, found.scores, classes]).astype(np.float32)
        if mirrored_width:
            rows[:, 0] = mirrored_width - rows[:, 0] - rows[:, 2]
        return rows[rows[:, 5] >= 0]


def _batches(indices: Sequence[int], images: Sequence[File]) -> Iterator[list[int]]:
    """Yield at most BATCH indices at a time, and fewer if the images are large."""
    batch: list[int] = []
    size = 0
    for index in indices:
        more = images[index].width * images[index].height
        if batch and (len(batch) == BATCH or size + more > MOST_PIXELS):
            yield batch
            batch, size = [], 0
        batch.append(index)
        size += more
    if batch:
        yield batch


def matched(theirs: Sequence[str], ours: Sequence[str]) -> list[int]:
    """Return for each class of a model the index of the same class of the dataset, or -1.

    Spelling decides; without regard to case only among the rest, and only if one class of each side fits.
    """
    exact = {name: index for index, name in enumerate(ours)}
    rest = Counter(name.casefold() for name in ours if name not in set(theirs))
    others = Counter(name.casefold() for name in dict.fromkeys(theirs) if name not in exact)
    folded = {
        name.casefold(): index
        for index, name in enumerate(ours)
        if name not in set(theirs) and rest[name.casefold()] == others[name.casefold()] == 1
    }
    return [exact.get(name, folded.get(name.casefold(), -1)) for name in theirs]


def find(weights: str | None, run: Run) -> Path:
    """Return the model's file: the run's own, or the one that `label.weights` names. Raises WeightsError."""
    if weights is None:
        if run.model.is_file():
            return run.model
        raise WeightsError(
            f"{run.model}: does not exist; `make train` writes it, or set label.weights to another model"
        )
    if found := checkpoints.locate(weights):
        return found
    raise WeightsError(
        f"{weights}: no such file; correct label.weights, or put the file there or in {checkpoints.HOME}"
    )

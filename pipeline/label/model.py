"""Run the model on an image: its boxes, those of the mirrored image, and one vector for the whole image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipeline import files, logs, parallel, pixels
from pipeline.errors import WeightsError
from pipeline.label.store import Array, File, Store
from pipeline.run import Run
from pipeline.upstream import checkpoints, environment

BATCH = 8
CONF = 0.01  # most of an image's 300 boxes score less, and together they are hardly one object
IOU = 0.7  # as `validate` by default
MAX_DET = 100


class Seen(NamedTuple):
    """A model's output for an image. Boxes are rows of x, y, width, height in pixels, score, class of the data set."""

    boxes: Array  # [boxes, 6]
    vector: Array  # [channels]


@dataclass
class Model:
    """A detector. `classes` maps its classes to those of the data set; -1 if the data set lacks a class."""

    file: Path
    names: tuple[str, ...]
    device: str
    imgsz: int = 0
    sha256: str = ""
    classes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        environment.prepare()
        environment.check_device(self.device)
        from ultralytics import YOLO

        from pipeline.probing import features  # late: it imports torch

        checkpoint = checkpoints.load(self.file)[0]
        self.imgsz = int(checkpoint.args.get("imgsz", 640)) if isinstance(checkpoint.args, dict) else 640
        self.sha256 = files.sha256(self.file)
        ours = {name.casefold(): index for index, name in enumerate(self.names)}
        names = checkpoint.names  # a list in an open-vocabulary model whose classes were set
        theirs = names.values() if isinstance(names, dict) else names
        self.classes = [ours.get(str(name).casefold(), -1) for name in theirs]
        self.yolo = YOLO(str(self.file), task="detect")
        self.vectors: list[Any] = []
        vectors = self.vectors

        # A plain function, because Ultralytics copies it with the model.
        def pool(_module: Any, _inputs: Any, output: Any) -> None:
            vectors.append(output.mean(dim=(2, 3)).float().cpu().numpy())

        outputs = features.backbone(self.yolo.model)
        for index in outputs:
            self.yolo.model.model[index].register_forward_hook(pool)
        self.outputs = len(outputs)

    @property
    def known(self) -> list[str]:
        """Return the data set's classes that the model knows."""
        return [name for index, name in enumerate(self.names) if index in self.classes]

    def see(self, images: Sequence[File], store: Store, description: str) -> list[Seen]:
        """Return what the model sees in each image, and run it only on images that the store lacks."""
        return [Seen(known["boxes"], known["vector"]) for known in self._look(images, store, description, False)]

    def see_mirrored(self, images: Sequence[File], store: Store, description: str) -> list[Array]:
        """Return the boxes of the mirrored images, mirrored back."""
        return [known["boxes"] for known in self._look(images, store, description, True)]

    def _look(self, images: Sequence[File], store: Store, description: str, mirrored: bool) -> list[dict[str, Array]]:
        # Class names are part of the key, because with others the same model's boxes have other classes.
        seen_by = f"{self.sha256} {self.imgsz} {'mirrored ' * mirrored}{'/'.join(self.names)}"

        def look(missing: Sequence[int]) -> Iterator[tuple[int, Mapping[str, Array]]]:
            bar = logs.progress(description=description, total=len(missing))
            with ThreadPoolExecutor(parallel.cores()) as pool, bar:  # OpenCV releases the GIL while it decodes
                for first in range(0, len(missing), BATCH):
                    batch = missing[first : first + BATCH]
                    decoded = list(pool.map(lambda index: pixels.read(images[index].path), batch))
                    yield from zip(batch, self._predict(decoded, mirrored), strict=True)
                    bar.update(len(batch))

        return store.seen([f"{file.sha256} {seen_by}" for file in images], look)

    def _predict(self, images: list[pixels.Image], mirrored: bool) -> Iterator[dict[str, Array]]:
        shown = [cv2.flip(image, 1) for image in images] if mirrored else images
        settings = {"imgsz": self.imgsz, "conf": CONF, "iou": IOU, "max_det": MAX_DET, "rect": False}
        self.vectors.clear()
        results = self.yolo.predict(shown, device=self.device or None, verbose=False, **settings)
        # The last ones, because the predictor runs on an empty image before its first batch.
        vectors = np.concatenate(self.vectors[-self.outputs :], axis=1)
        for image, result, vector in zip(images, results, vectors, strict=True):
            yield {"boxes": self._boxes(result, image.shape[1] if mirrored else 0), "vector": vector}

    def _boxes(self, result: Any, mirrored_width: int) -> Array:
        rows: Array = result.boxes.data.cpu().numpy().astype(np.float32)[:, :6]
        rows[:, 5] = np.array(self.classes, np.float32)[rows[:, 5].astype(int)]
        rows = rows[rows[:, 5] >= 0]
        rows[:, 2:4] -= rows[:, :2]
        if mirrored_width:
            rows[:, 0] = mirrored_width - rows[:, 0] - rows[:, 2]
        return rows


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

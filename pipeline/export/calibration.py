"""Choose the images for 8-bit calibration, and prove that the result is not evaluated on them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import files, logs
from pipeline.boxes import YoloDataset
from pipeline.config.export import Calibration
from pipeline.device import runner
from pipeline.errors import DataError
from pipeline.export import choice
from pipeline.records.manifest import CalibrationImages, HashedFile

# The number of training images outside calibration on which accuracy-aware quantisation checks average precision.
WATCHED_IMAGES = 64


def choose(dataset: YoloDataset, settings: Calibration, seed: int) -> list[Path]:
    """Choose calibration images from the training split. Classes take turns, so that rare ones are included.

    Raises DataError if the training split has no images, or too few that show a class.
    """
    images = dataset.files("train")
    if not images:
        raise DataError(
            f"{dataset.images.get('train', 'train')}: no training images for 8-bit calibration; "
            "give the train split some"
        )
    images_with: dict[int, list[int]] = {kind: [] for kind in range(len(dataset.names))}
    for index, path in enumerate(images):
        label = dataset.label_file(path)
        lines = label.read_text(encoding="utf-8").splitlines() if label.is_file() else []
        for kind in {int(float(line.split()[0])) for line in lines if line.strip()}:
            images_with[kind].append(index)
    for kind, indices in images_with.items():
        if len(indices) < settings.per_class:
            raise DataError(
                f"{dataset.images['train']}: {len(indices)} training images show {dataset.names[kind]!r}, too few for "
                f"8-bit calibration (export.calibration.per_class: {settings.per_class}); add some, or lower it"
            )
    random = np.random.default_rng(seed)
    queues = [list(random.permutation(indices)) for indices in images_with.values()]
    queues.append(list(random.permutation(len(images))))
    chosen: dict[int, None] = {}
    while len(chosen) < min(settings.images, len(images)):
        for queue in queues:
            while queue and int(queue[-1]) in chosen:
                queue.pop()
            if queue and len(chosen) < settings.images:
                chosen[int(queue.pop())] = None
    return [images[index] for index in chosen]


def prove_disjoint(chosen: list[Path], dataset: YoloDataset) -> CalibrationImages:
    """Check by pixels that no calibration image is also in val or test, under any name.

    Returns the record for the manifest. Raises DataError, which names a pair of equal images.
    """
    evaluated = {
        _pixels(path): path
        for split in ("val", "test")
        for path in logs.progress(dataset.files(split), f"export: {split}")
    }
    listed: list[HashedFile] = []
    for path in chosen:
        twin = evaluated.get(_pixels(path))
        if twin is not None:
            raise DataError(
                f"{path}: this calibration image is the same as {twin}, on which the result is evaluated; "
                "remove one of them from its split (convert.leaks: move does that)"
            )
        listed.append({"file": path.name, "sha256": files.sha256(path)})
    return {"split": "train", "disjoint_from": ["val", "test"], "compared_with": len(evaluated), "images": listed}


def _pixels(path: Path) -> str:
    image = runner.read_image(path)
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()


def tensors(images: list[Path], spec: runner.Spec) -> list[NDArray[np.float32]]:
    """Return the model's input tensors (1, 3, height, width) of the images, as the runner prepares them.

    A large image gives one tile, at another position for each image, so that there are no more tensors than without
    tiles.
    """
    prepared = []
    for number, path in enumerate(images):
        image = runner.read_image(path)
        views = runner.views(image.shape, spec.get("tiles"))
        left, top, right, bottom = views[number % len(views)]
        prepared.append(runner.prepare(image[top:bottom, left:right], spec["input"]))
    return prepared


def watched(dataset: YoloDataset, chosen: list[Path]) -> list[Path]:
    """Return up to WATCHED_IMAGES training images outside calibration, or calibration images if there are no others."""
    others = sorted(set(dataset.files("train")) - set(chosen)) or chosen
    return choice.spread(others, WATCHED_IMAGES)

"""Choose the images for 8-bit calibration, and prove that the result is not evaluated on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline import files, logs, pixels
from pipeline.boxes import YoloDataset, read_labels
from pipeline.config.export import Calibration
from pipeline.device import runner
from pipeline.device.runner.base import Tiles
from pipeline.errors import DataError, counted
from pipeline.export import choice
from pipeline.pixels import Image
from pipeline.records.manifest import CalibrationImages, HashedFile

# The number of training images outside calibration on which accuracy-aware quantisation checks average precision.
WATCHED_IMAGES = 64
Chosen = dict[Path, int | None]  # images with the class whose turn it was; None where it was the turn of all images


def choose(dataset: YoloDataset, settings: Calibration, seed: int) -> Chosen:
    """Choose calibration images from the training split. Classes take turns, so that rare ones are included.

    A class that no training image shows gets no turn: the model has not learned it either. Raises DataError if the
    training split has no images, or too few that show a class.
    """
    images = dataset.files("train")
    if not images:
        raise DataError(
            f"{dataset.images.get('train', 'train')}: no training images for 8-bit calibration; "
            "give the train split some, or remove the 8-bit targets"
        )
    images_with = _showing(dataset, images)
    for kind, indices in images_with.items():
        if 0 < len(indices) < settings.per_class:
            few = counted(len(indices), "training image")
            raise DataError(
                f"{dataset.images['train']}: {few} with {dataset.names[kind]!r}, too few for 8-bit calibration "
                f"(export.calibration.per_class: {settings.per_class}); label more of them, lower the number, or "
                "remove the 8-bit targets"
            )
    random = np.random.default_rng(seed)
    queues: dict[int | None, list[int]] = {
        kind: random.permutation(indices).tolist() for kind, indices in images_with.items()
    }
    queues[None] = random.permutation(len(images)).tolist()
    chosen: dict[int, int | None] = {}
    while len(chosen) < min(settings.images, len(images)):
        for turn, queue in queues.items():
            while queue and queue[-1] in chosen:
                queue.pop()
            if queue and len(chosen) < settings.images:
                chosen[queue.pop()] = turn
    return {images[index]: kind for index, kind in chosen.items()}


def _showing(dataset: YoloDataset, images: list[Path]) -> dict[int, list[int]]:
    """Return the indices of the images that show each class."""
    found: dict[int, list[int]] = {kind: [] for kind in range(len(dataset.names))}
    for index, path in enumerate(images):
        for kind in _kinds(dataset.label_file(path), dataset.names):
            found[kind].append(index)
    return found


@cache  # several draws of calibration images
def _kinds(label: Path, names: tuple[str, ...]) -> frozenset[int]:
    return frozenset(names.index(box.label) for box in read_labels(label, names, 1, 1))


def prove_disjoint(chosen: Chosen, dataset: YoloDataset) -> CalibrationImages:
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
    images_with = _showing(dataset, dataset.files("train"))
    return {
        "split": "train",
        "disjoint_from": ["val", "test"],
        "compared_with": len(evaluated),
        "images": listed,
        "classes_without_images": [dataset.names[kind] for kind, indices in images_with.items() if not indices],
    }


@cache  # every draw of calibration images is compared with all of val and test
def _pixels(path: Path) -> str:
    image = runner.read_image(path)
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()


def parts(chosen: Chosen, dataset: YoloDataset, tiles: Tiles | None) -> Iterator[Image]:
    """Yield what is shown of each image: all of it or, of an image larger than a tile, one view.

    That is the tile with the most labels of the class whose turn it was. Where it was the turn of all images, the views
    are spread over image and background. So there are as many parts as without tiles.
    """
    for number, (path, kind) in enumerate(chosen.items()):
        image = runner.read_image(path)
        views = runner.views(image.shape, tiles)
        view = views[number * len(views) // len(chosen)]
        if tiles and len(views) > 1 and kind is not None:
            centres = _centres(dataset, path, kind)
            # Without the view of the whole image, which has all labels.
            view = max(views[: len(views) - tiles["whole"]], key=lambda tile: _inside(centres, tile))
        left, top, right, bottom = view
        yield image[top:bottom, left:right]


def _centres(dataset: YoloDataset, path: Path, kind: int) -> NDArray[np.float64]:
    _, boxes = dataset.labelled(path)
    name = dataset.names[kind]
    centres = [((box.xmin + box.xmax) / 2, (box.ymin + box.ymax) / 2) for box in boxes if box.label == name]
    return np.array(centres, float).reshape(-1, 2)


def _inside(points: NDArray[np.float64], tile: tuple[int, int, int, int]) -> int:
    return int(((points >= tile[:2]) & (points <= tile[2:])).all(axis=1).sum())


@dataclass(frozen=True)
class Tensors:
    """The model's input tensors (1, 3, height, width) of the images, as the runner prepares them.

    Each pass reads the images again: 128 tensors of 1280 pixels would take 2.5 GB.
    """

    chosen: Chosen
    dataset: YoloDataset
    spec: runner.Spec

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for part in parts(self.chosen, self.dataset, self.spec.get("tiles")):
            yield runner.prepare(part, self.spec["input"])


def as_files(chosen: Chosen, dataset: YoloDataset, tiles: Tiles | None, folder: Path) -> list[Path]:
    """Return image files that show what `parts` yields: with tiles PNG in `folder`, else the images themselves."""
    if not tiles:
        return list(chosen)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, part in enumerate(parts(chosen, dataset, tiles)):
        written.append(folder / f"{number}.png")
        written[-1].write_bytes(pixels.png(part))
    return written


def watched(dataset: YoloDataset, chosen: Chosen) -> list[Path]:
    """Return up to WATCHED_IMAGES training images outside calibration, or calibration images if there are no others."""
    others = sorted(set(dataset.files("train")) - chosen.keys()) or list(chosen)
    return choice.spread(others, WATCHED_IMAGES)

"""Choose images and boxes to measure, and draw boxes of background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.boxes import YoloDataset, read_labels
from pipeline.errors import DataError
from pipeline.metrics.iou import from_corners, pairwise_iou

ROWS = 4000  # boxes in all, so that scores take about a second
FEWEST = 20  # the least number of boxes to keep of each class, if it has as many
OVERLAP = 0.1  # highest IoU of background with an object
TRIES = 20  # places to try per box of background


@dataclass(frozen=True, slots=True)
class Scene:
    """An image with some of its boxes: corners [n, 4] as shares of width and height, and class numbers [n].

    The class after the last is background.
    """

    image: Path
    corners: NDArray[np.float64]
    labels: NDArray[np.intp]


def draw(data: YoloDataset, images: int, seed: int) -> list[Scene]:
    """Return at most `images` training images with their boxes and as many boxes of background.

    The classes take turns in choosing an image, so that rare ones occur. Classes with very many boxes are subsampled.
    Raises DataError if there is nothing to separate.
    """
    random = np.random.default_rng(seed)
    scenes = [_read(data, path) for path in data.files("train")]
    folder = data.images.get("train")
    if not any(len(scene.labels) for scene in scenes):
        raise DataError(f"{folder}: no boxes in the training images to rank weights by; label some objects")
    chosen = _by_turns([scenes[number] for number in random.permutation(len(scenes))], images, len(data.names))
    full = _thinned(_with_background(chosen, len(data.names), random), random)
    if len(np.unique(np.concatenate([scene.labels for scene in full]))) < 2:
        raise DataError(
            f"{folder}: there is one class, and its boxes leave no room for background to compare it with; "
            "add another class, or images with smaller objects"
        )
    return full


def _read(data: YoloDataset, image: Path) -> Scene:
    boxes = read_labels(data.label_file(image), data.names, 1, 1)  # as shares of the image
    corners = np.array([(box.xmin, box.ymin, box.xmax, box.ymax) for box in boxes], np.float64).reshape(-1, 4)
    return Scene(image, corners, np.array([data.names.index(box.label) for box in boxes], np.intp))


def _by_turns(scenes: Sequence[Scene], limit: int, classes: int) -> list[Scene]:
    waiting = [[number for number, scene in enumerate(scenes) if label in scene.labels] for label in range(classes)]
    waiting.append([number for number, scene in enumerate(scenes) if not len(scene.labels)])
    chosen: dict[int, None] = {}
    while len(chosen) < min(limit, len(scenes)):
        for queue in waiting:
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue and len(chosen) < limit:
                chosen[queue.pop(0)] = None
    return [scenes[number] for number in sorted(chosen)]


def _with_background(scenes: Sequence[Scene], background: int, random: np.random.Generator) -> list[Scene]:
    """Add background boxes with the sizes of random objects: as many as an image has objects, or as a typical image."""
    corners = np.concatenate([scene.corners for scene in scenes])
    sides = corners[:, 2:] - corners[:, :2]
    typical = max(1, round(len(corners) / len(scenes)))
    full = []
    for scene in scenes:
        wanted = len(scene.labels) or typical
        size = np.clip(sides[random.integers(len(sides), size=wanted * TRIES)], 0, 1)
        low = random.random(size.shape) * (1 - size)
        places = np.concatenate([low, low + size], axis=1)
        overlap = pairwise_iou(from_corners(places), from_corners(scene.corners)).max(axis=1, initial=0)
        places = places[overlap < OVERLAP][:wanted]
        labels = np.concatenate([scene.labels, np.full(len(places), background, np.intp)])
        full.append(Scene(scene.image, np.concatenate([scene.corners, places]), labels))
    return full


def _thinned(scenes: Sequence[Scene], random: np.random.Generator) -> list[Scene]:
    labels = np.concatenate([scene.labels for scene in scenes])
    most = max(FEWEST, ROWS // len(np.unique(labels)))
    kept = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        kept[random.permutation(np.flatnonzero(labels == label))[:most]] = True
    ends = np.cumsum([len(scene.labels) for scene in scenes])[:-1]
    pairs = zip(scenes, np.split(kept, ends), strict=True)
    return [Scene(scene.image, scene.corners[keep], scene.labels[keep]) for scene, keep in pairs if keep.any()]

"""Compute one embedding per image from the end of the model's own backbone.

No other model is needed, so nothing is downloaded, and images are similar if they look alike to the detector.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline import files, logs, parallel, pixels
from pipeline.cosine import Vectors
from pipeline.image_files import duplicates
from pipeline.upstream import checkpoints, environment

# Side in pixels of the square that an image is fitted into. Smaller than in training: the vector is a mean over the
# whole image, and copies stand out better at 160 than at 320 (BCCD, face masks).
SIDE = 160
BATCH = 16
NEIGHBOURS = 5
UNIQUENESS_WEIGHTS = (0.6, 0.3, 0.1)
BLOCK = 1024  # rows compared with all others at a time
ROUNDING = 1e-6  # error of the product of two float32 unit vectors
GREY = 114  # padding around the image, as in Ultralytics' training


def of(images: Sequence[Path], model_file: Path, device: str, cache: Path) -> Vectors:
    """Return one row per image: the output of the backbone's last layer, averaged over the image.

    `cache` keeps the rows for the next call with the same model and images. Raises DataError for an image that cannot
    be decoded, and WeightsError for an invalid model file.
    """
    made_from = json.dumps([SIDE, files.sha256(model_file), [_state(path) for path in images]])
    if (cached := _read(cache, made_from)) is not None:
        return cached
    environment.prepare()
    torch_device = environment.torch_device(device)
    import torch

    model = checkpoints.load(model_file)[0].to(torch_device)
    last = len(model.yaml["backbone"]) - 1
    rows: list[Vectors] = []
    with torch.inference_mode():
        for batch in _batches(images):
            inputs = torch.from_numpy(batch).to(torch_device).float() / 255
            # Ultralytics averages over height and width, and skips the rest of the model.
            rows += [vector.float().cpu().numpy() for vector in model.predict(inputs, embed=[last])]
    vectors = np.stack(rows) if rows else np.empty((0, 0), np.float32)
    with files.replacing(cache) as partial, partial.open("wb") as file:
        np.savez(file, vectors=vectors, made_from=np.array(made_from))
    return vectors


def neighbours(vectors: Vectors) -> tuple[NDArray[np.intp], Vectors]:
    """Return the indices of the nearest other rows, nearest first, and their cosine distances (0 to 2).

    `vectors` are standardised. Each row gets at most NEIGHBOURS, so that a video of one scene, whose images are all
    alike, needs no more memory than any other set.
    """
    count = len(vectors)
    number = max(0, min(NEIGHBOURS, count - 1))
    indices = np.empty((count, number), np.intp)
    distances = np.empty((count, number), np.float32)
    for first in range(0, count, BLOCK):
        block = 1 - vectors[first : first + BLOCK] @ vectors.T
        block[np.arange(len(block)), np.arange(first, first + len(block))] = np.inf  # no row is its own neighbour
        nearest = np.argpartition(block, number - 1, axis=1)[:, :number] if number else indices[: len(block)]
        order = np.argsort(np.take_along_axis(block, nearest, 1), axis=1, kind="stable")
        indices[first : first + BLOCK] = np.take_along_axis(nearest, order, 1)
        distances[first : first + BLOCK] = np.take_along_axis(block, indices[first : first + BLOCK], 1)
    return indices, distances


def uniqueness(distances: Vectors) -> list[float]:
    """Return 0 to 1 per image: the weighted distance to its three nearest images, of which the nearest weighs most.

    Weights and scale are those of FiftyOne's `compute_uniqueness`, which skips the nearest image, so that each of two
    copies looks unique. With three or fewer images, each gets 1.
    """
    if distances.shape[1] < len(UNIQUENESS_WEIGHTS):
        return [1.0] * len(distances)
    means = distances[:, : len(UNIQUENESS_WEIGHTS)] @ np.asarray(UNIQUENESS_WEIGHTS, np.float32)
    top = float(means.max())
    return [float(mean) / top if top > 0 else 0.0 for mean in means]


def similar_groups(indices: NDArray[np.intp], distances: Vectors, similarity: float) -> list[int | None]:
    """Return the group number (from 1) of each row of `neighbours`; None for a row that resembles no other.

    Rows with a cosine similarity of at least `similarity` share a group, directly or through other rows.
    """
    close = np.argwhere(distances <= 1 - similarity + ROUNDING)
    pairs = [(row, int(indices[row, column])) for row, column in close.tolist()]
    clusters = duplicates.clusters(len(indices), pairs)
    grouped = {row for pair in pairs for row in pair}
    numbers: dict[int, int] = {}
    for row in sorted(grouped):
        numbers.setdefault(clusters[row], len(numbers) + 1)
    return [numbers[cluster] if row in grouped else None for row, cluster in enumerate(clusters)]


def _state(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path), stat.st_size, stat.st_mtime_ns


def _read(cache: Path, made_from: str) -> Vectors | None:
    """Return the cached vectors if they were computed from the same input; None otherwise, or for a damaged file."""
    try:
        with np.load(cache, allow_pickle=False) as kept:
            return np.asarray(kept["vectors"], np.float32) if str(kept["made_from"]) == made_from else None
    except Exception:  # zipfile, numpy and the disk raise errors of many types
        return None


def _batches(images: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """Yield batches of RGB images, uint8 [image, channel, row, column]."""
    bar = logs.progress(description="inspect: embeddings", total=len(images))
    with ThreadPoolExecutor(parallel.cores()) as pool, bar:  # OpenCV releases the GIL while it decodes
        for first in range(0, len(images), BATCH):
            fitted = list(pool.map(_fitted, images[first : first + BATCH]))
            yield np.ascontiguousarray(np.stack(fitted)[..., ::-1].transpose(0, 3, 1, 2))
            bar.update(len(fitted))


def _fitted(path: Path) -> pixels.Image:
    image = pixels.read(path)
    scale = SIDE / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    square = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    square[top : top + height, left : left + width] = cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    return square

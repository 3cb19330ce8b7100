"""What the model itself sees of an image: one vector from the end of its backbone.

No other model is asked, so nothing is downloaded, and images that are alike are alike to the detector.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline import files, logs, parallel, pixels
from pipeline.upstream import checkpoints, environment

# Side of the square that an image is fitted into. Smaller than in training: the vector is a mean over the
# whole image, and copies of an image stand out better from others at 160 than at 320 (BCCD, face masks).
SIDE = 160
BATCH = 16
NEIGHBOURS = 5
UNIQUENESS_WEIGHTS = (0.6, 0.3, 0.1)
BLOCK = 1024  # rows compared with all others at a time
ROUNDING = 1e-6  # of a product of 32-bit vectors of length 1
GREY = 114  # around the image, as Ultralytics pads in training

Vectors = NDArray[np.float32]


def of(images: Sequence[Path], model_file: Path, device: str, cache: Path) -> Vectors:
    """One row per image: the last layer of the backbone, averaged over the image.

    `cache` keeps them for the next call with the same model and the same images. Raises DataError for an
    image that cannot be decoded, WeightsError for a model that is none.
    """
    made_from = json.dumps([SIDE, files.sha256(model_file), [_state(path) for path in images]])
    if (kept := _read(cache, made_from)) is not None:
        return kept
    environment.prepare()
    where = environment.torch_device(device)
    import torch

    model = checkpoints.load(model_file)[0].to(where)
    last = len(model.yaml["backbone"]) - 1
    rows: list[Vectors] = []
    with torch.inference_mode():
        for batch in _batches(images):
            inputs = torch.from_numpy(batch).to(where).float() / 255
            # Ultralytics averages over height and width, and leaves the rest of the model out.
            rows += [vector.float().cpu().numpy() for vector in model.predict(inputs, embed=[last])]
    vectors = np.stack(rows) if rows else np.empty((0, 0), np.float32)
    partial = files.aside(cache)
    try:
        with partial.open("wb") as file:
            np.savez(file, vectors=vectors, made_from=np.array(made_from))
        os.replace(partial, cache)
    finally:
        partial.unlink(missing_ok=True)
    return vectors


def standardised(vectors: Vectors) -> Vectors:
    """Each column with mean 0 and deviation 1, each row of length 1, so that a product is a cosine.

    As they come, all vectors of one data set point the same way: unrelated blood smears have a cosine
    of 0.98. What they have in common is taken off first.
    """
    if not len(vectors):
        return vectors
    centred = vectors - vectors.mean(axis=0)
    deviation = centred.std(axis=0)
    centred /= np.where(deviation > 0, deviation, 1)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.where(lengths > 0, lengths, 1), np.float32)


def neighbours(vectors: Vectors) -> tuple[NDArray[np.intp], Vectors]:
    """The nearest other rows of each row, nearest first, and their cosine distances (0 to 2).

    `vectors` are standardised. At most NEIGHBOURS of them, so that a film of one scene, where every image
    is like every other, takes no more memory than any other set.
    """
    count = len(vectors)
    number = max(0, min(NEIGHBOURS, count - 1))
    indices = np.empty((count, number), np.intp)
    distances = np.empty((count, number), np.float32)
    for first in range(0, count, BLOCK):
        block = 1 - vectors[first : first + BLOCK] @ vectors.T
        block[np.arange(len(block)), np.arange(first, first + len(block))] = np.inf  # not its own neighbour
        nearest = np.argpartition(block, number - 1, axis=1)[:, :number] if number else indices[: len(block)]
        order = np.argsort(np.take_along_axis(block, nearest, 1), axis=1, kind="stable")
        indices[first : first + BLOCK] = np.take_along_axis(nearest, order, 1)
        distances[first : first + BLOCK] = np.take_along_axis(block, indices[first : first + BLOCK], 1)
    return indices, distances


def uniqueness(distances: Vectors) -> list[float]:
    """0..1 for each row of `neighbours`: how far its three nearest are, the nearest weighing most.

    Weights and scale are those of FiftyOne's `compute_uniqueness`, which however passes over the nearest, so
    that one of two copies looks unique. Of three or fewer images each is.
    """
    if distances.shape[1] < len(UNIQUENESS_WEIGHTS):
        return [1.0] * len(distances)
    means = distances[:, : len(UNIQUENESS_WEIGHTS)] @ np.asarray(UNIQUENESS_WEIGHTS, np.float32)
    top = float(means.max())
    return [float(mean) / top if top > 0 else 0.0 for mean in means]


def similar_groups(indices: NDArray[np.intp], distances: Vectors, similarity: float) -> list[int | None]:
    """The number of the group that each row of `neighbours` is in, None for a row like no other.

    Rows whose cosine is at least `similarity` are in one group, and so are those that hang together by others.
    """
    parent = list(range(len(indices)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    close = np.argwhere(distances <= 1 - similarity + ROUNDING)
    for row, column in close.tolist():
        one, other = sorted((root(row), root(int(indices[row, column]))))
        parent[other] = one
    grouped = {row for row, column in close.tolist()} | {int(indices[row, column]) for row, column in close.tolist()}
    numbers = {head: number for number, head in enumerate(sorted({root(row) for row in grouped}), start=1)}
    return [numbers[root(row)] if row in grouped else None for row in range(len(indices))]


def _state(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path), stat.st_size, stat.st_mtime_ns


def _read(cache: Path, made_from: str) -> Vectors | None:
    """Earlier vectors, if they are of the same; a damaged file is as good as none."""
    try:
        with np.load(cache, allow_pickle=False) as kept:
            return np.asarray(kept["vectors"], np.float32) if str(kept["made_from"]) == made_from else None
    except Exception:  # zipfile, numpy and the disk have a dozen ways to say no
        return None


def _batches(images: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """Batches of RGB images, [image, channel, row, column]."""
    bar = logs.progress(description="inspect: embeddings", total=len(images))
    with ThreadPoolExecutor(parallel.cores()) as pool, bar:  # OpenCV lets go of the interpreter while it decodes
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

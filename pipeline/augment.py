"""Offline copies of the training images. Validation and test images are referred to, never touched."""

from __future__ import annotations

import hashlib
import inspect
import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks the network for its own version on import

import albumentations as A
import numpy as np
from tqdm import tqdm

from pipeline import files, pixels
from pipeline.boxes import Box, YoloDataset, read_labels, write_data_yaml, write_labels
from pipeline.config import Augment
from pipeline.errors import ConfigError, DataError, PipelineError, did_you_mean
from pipeline.pixels import Picture
from pipeline.run import Run

JPEG_QUALITY = 95  # of copies; originals keep their bytes
PREVIEW_TILES, PREVIEW_TILE_PIXELS = 12, 320


def main(config: Augment, run: Run, seed: int) -> str:
    """Write `run.augmented`: every training image, and `copies` transformed ones of each.

    Raises ConfigError for a transform or an argument that Albumentations does not have.
    """
    _refuse_shadowed_albumentations()
    compose = _compose(config) if config.transforms else None
    dataset = YoloDataset.read(run.dataset / "data.yaml")
    originals = dataset.files("train")
    written = lost = 0
    preview: list[Picture] = []
    with files.new_folder(run.augmented) as folder:
        images, labels = folder / "images" / "train", folder / "labels" / "train"
        for place in (images, labels):
            place.mkdir(parents=True)
        for original in tqdm(originals, "augment", unit="image", leave=False, delay=1, disable=None):
            label_file = dataset.label_file(original)
            files.link_or_copy(original, images / original.name)
            files.link_or_copy(label_file, labels / label_file.name)
            if compose is None:
                continue
            picture = pixels.read(original)
            height, width = picture.shape[:2]
            boxes = read_labels(label_file, dataset.names, width, height)
            for copy in range(config.copies):
                name = f"{original.stem}-copy{copy}"
                if (images / f"{name}.jpg").exists():
                    raise DataError(
                        f"{original}: a copy of it would be called {name}.jpg, as another image is; rename one"
                    )
                compose.set_random_seed(_seed(seed, original.stem, copy))
                changed, kept = _apply(compose, picture, boxes)
                lost += len(boxes) - len(kept)
                (images / f"{name}.jpg").write_bytes(pixels.jpeg(changed, JPEG_QUALITY))
                write_labels(labels / f"{name}.txt", kept, dataset.names, changed.shape[1::-1])
                written += 1
                if len(preview) < PREVIEW_TILES:
                    preview.append(_preview_tile(changed, kept))
        if preview:
            (folder / "preview.jpg").write_bytes(pixels.jpeg(_sheet(preview), JPEG_QUALITY))
        # Relative, so that the run can be moved as a whole.
        folders = {"train": "images/train"}
        folders |= {split: f"../{run.dataset.name}/images/{split}" for split in dataset.images if split != "train"}
        write_data_yaml(folder / "data.yaml", folders, dataset.names)
    dropped = f" ({lost} boxes left the picture or became too small to see)" if lost else ""
    return f"{len(originals)} training images + {written} copies -> {run.augmented}{dropped}"


def _refuse_shadowed_albumentations() -> None:
    try:
        found = version("albumentationsx")
    except PackageNotFoundError:
        return
    raise PipelineError(
        f"albumentationsx {found} is installed over albumentations, and differs from it; "
        "delete .venv and run `make` again, or uninstall both and install albumentations"
    )


def _compose(config: Augment) -> A.Compose:
    mistakes: list[str] = []
    transforms = []
    for number, entry in enumerate(config.transforms):
        [(name, arguments)] = entry.items()
        try:
            transforms.append(_transform(name, arguments))
        except ConfigError as error:
            mistakes.append(f"augment.transforms.{number}: {error}")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    # Boxes as [xmin, ymin, xmax, ymax] in pixels; `clip` because rounding may put one a hair outside.
    boxes = A.BboxParams(
        "pascal_voc", ["indices"], min_visibility=config.min_visibility, min_width=1, min_height=1, clip=True
    )
    return A.Compose(transforms, bbox_params=boxes)


def _transform(name: str, arguments: dict[str, Any]) -> A.BasicTransform:
    known = {
        key: value
        for key, value in vars(A).items()
        if inspect.isclass(value)
        and issubclass(value, A.BasicTransform)
        and value.__module__.startswith("albumentations.augmentations")
    }
    if name not in known:
        raise ConfigError(f"{name} is not an Albumentations transform{did_you_mean(name, known)}")
    accepted = [key for key in inspect.signature(known[name]).parameters if key != "self"]
    if unknown := [key for key in arguments if key not in accepted]:
        raise ConfigError(
            f"{name}: no argument {unknown[0]!r}{did_you_mean(unknown[0], accepted)}; it takes {', '.join(accepted)}"
        )
    try:
        return known[name](**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: {_last_words(error)}") from None


def _last_words(error: Exception) -> str:
    """Albumentations checks with pydantic, whose message spreads over lines; the finding is the third."""
    lines = str(error).splitlines()
    return " ".join((lines[1] + ":" + lines[2] if len(lines) > 2 else lines[0]).split())


def _seed(seed: int, stem: str, copy: int) -> int:
    """One seed for each image and copy, so that neither order nor other images change its bytes."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stem}/{copy}".encode()).digest()[:4], "big")


def _apply(compose: A.Compose, picture: Picture, boxes: tuple[Box, ...]) -> tuple[Picture, list[Box]]:
    corners = np.array([[box.xmin, box.ymin, box.xmax, box.ymax] for box in boxes]).reshape(-1, 4)
    result = compose(image=picture, bboxes=corners, indices=np.arange(len(boxes)))
    kept = []
    for corner, index in zip(result["bboxes"], result["indices"], strict=True):
        xmin, ymin, xmax, ymax = (float(side) for side in corner[:4])
        kept.append(Box(boxes[int(index)].label, xmin, ymin, xmax, ymax))
    return result["image"], kept


def _preview_tile(picture: Picture, boxes: list[Box]) -> Picture:
    small, scale = pixels.fit(picture, PREVIEW_TILE_PIXELS)
    for box in boxes:
        corners = (box.xmin * scale, box.ymin * scale, box.xmax * scale, box.ymax * scale)
        pixels.draw_box(small, corners, (0, 255, 255), box.label)
    tile = np.full((PREVIEW_TILE_PIXELS, PREVIEW_TILE_PIXELS, 3), 32, np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small
    return tile


def _sheet(tiles: list[Picture], columns: int = 4) -> Picture:
    tiles = tiles + [np.full_like(tiles[0], 32)] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[row : row + columns]) for row in range(0, len(tiles), columns)])

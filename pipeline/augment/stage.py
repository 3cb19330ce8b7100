"""Write transformed copies of the training images. With `tiles`, cut the images of train and val; test stays whole."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline import files, parallel, pixels
from pipeline.augment import account, balance, preview
from pipeline.augment.account import Copy, Lost, Original
from pipeline.boxes import Box, YoloDataset, read_labels, write_data_yaml, write_labels
from pipeline.config.data import Augment
from pipeline.config.tiles import Tiles
from pipeline.errors import DataError, PipelineError
from pipeline.run import Run
from pipeline.tiling import split

# Import `check` and `transforms` late: Albumentations takes two seconds, which is wasted if there are no copies.
JPEG_QUALITY, PREVIEW_QUALITY = 95, 88  # for copies and the preview; originals keep their bytes


@dataclass(frozen=True, slots=True)
class Job:
    """A training image, and how many copies to make of it."""

    image: Path
    copies: int

    def names(self) -> list[str]:
        return [f"{self.image.stem}-copy{number}" for number in range(self.copies)]


def main(
    config: Augment,
    run: Run,
    seed: int,
    workers: int | None = None,
    tiles: Tiles | None = None,
    imgsz: int = 640,
) -> str:
    """Write every training image and its transformed copies to `run.augmented`, the same for any `workers`.

    With `tiles`, training and val images are cut first; whole images are fitted into `imgsz`. Raises ConfigError for
    invalid transforms, DataError for images that the transforms cannot handle.
    """
    _refuse_shadowed_albumentations()
    whole = YoloDataset.read(run.dataset / "data.yaml")
    if config.transforms:
        _check(config, whole, imgsz if tiles else None)
    with files.new_folder(run.augmented) as folder:
        # Relative paths, so that the run can be moved as a whole.
        folders = {split: f"../{run.dataset.name}/images/{split}" for split in whole.images}
        folders["train"] = "images/train"
        dataset, tiled = whole, ""
        if tiles:
            cutting = split.cut(tiles, whole, imgsz, seed, folder, workers)
            dataset, tiled = cutting.dataset, cutting.words
            folders |= {name: f"images/{name}" for name in dataset.images}
        jobs, factors = _jobs(config, dataset, seed)
        copies = sum(job.copies for job in jobs)
        if not copies:
            processes = 0  # linking files is faster than starting processes
        elif (processes := parallel.processes(workers, len(jobs))) > 1:
            parallel.start(preload=["pipeline.augment.transforms"])
        for kind in ("images", "labels"):
            (folder / kind / "train").mkdir(parents=True, exist_ok=True)
        writer = CopyWriter(config, dataset.names, seed, folder)
        records = list(parallel.ordered(writer, jobs, processes, "augment"))
        made = account.make(records, dataset.names, factors)
        files.write_json(folder / "augment.json", made)
        if copies:
            sheet = preview.sheet(folder / "images" / "train", records, dataset.names)
            (folder / "preview.jpg").write_bytes(pixels.jpeg(sheet, PREVIEW_QUALITY))
        write_data_yaml(folder / "data.yaml", folders, dataset.names)
    why = f"fewer than {parallel.FEWEST_ITEMS} training images" if copies else "no copies to make"
    no_effect = "" if tiles else parallel.no_effect(workers, processes, why)
    return tiled + account.last_line(made, run.augmented) + no_effect


def _refuse_shadowed_albumentations() -> None:
    try:
        shadowing = version("albumentationsx")
    except PackageNotFoundError:
        return
    raise PipelineError(
        f"albumentationsx {shadowing} is installed over albumentations, and differs from it; "
        "delete .venv and run the same command again, or uninstall both and install albumentations"
    )


def _jobs(config: Augment, dataset: YoloDataset, seed: int) -> tuple[list[Job], dict[str, float]]:
    """Return a job for each training image, and the repeat factor of each class; {} without `balance`."""
    images = dataset.files("train")
    factors: dict[str, float] = {}
    jobs = [Job(image, config.copies) for image in images]
    if config.balance:
        classes = [set(_labels(dataset.label_file(image), dataset.names)) for image in images]
        factors = balance.repeat_factors(classes)
        jobs = [
            Job(image, balance.copies(held, factors, config.copies, _seed(seed, image.stem, "copies")))
            for image, held in zip(images, classes, strict=True)
        ]
    stems = {image.stem for image in images}
    for job in jobs:
        for name in job.names():
            if name in stems:
                raise DataError(
                    f"{job.image}: one of its copies would be called {name}, as another image is; rename one"
                )
    return jobs, factors


def _labels(path: Path, names: Sequence[str]) -> dict[str, int]:
    """Count the boxes of each class in a label file, without reading the image for its size."""
    return _count(read_labels(path, names, width=1, height=1))


def _seed(seed: int, stem: str, purpose: int | str) -> int:
    """Return a seed for one image and copy, so that its bytes do not depend on the order or on other images."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{stem}/{purpose}".encode()).digest()[:4], "big")


def _check(config: Augment, dataset: YoloDataset, side: int | None) -> None:
    """Check the transforms on the first image; with tiles, on a corner of it, `side` pixels wide."""
    from pipeline.augment import check

    path = dataset.files("train")[0]
    image = pixels.read(path)[:side, :side]
    boxes = () if side else read_labels(dataset.label_file(path), dataset.names, image.shape[1], image.shape[0])
    check.check(config.transforms, dataset.names, image, boxes)


# --- One image ------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _compose(config: str, names: tuple[str, ...]) -> Any:
    """Build the transforms once per process."""
    from pipeline.augment import transforms

    return transforms.compose(Augment.model_validate_json(config), names)


@dataclass(frozen=True, slots=True)
class CopyWriter:
    """A picklable function that writes an image and its copies, and returns a record of their boxes."""

    config: Augment
    names: tuple[str, ...]
    seed: int
    folder: Path

    def __call__(self, job: Job) -> Original:
        """Write one image and its copies. Raises DataError if the transforms cannot handle the image."""
        images, labels = self.folder / "images" / "train", self.folder / "labels" / "train"
        label_file = YoloDataset.label_file(job.image)
        if job.image.parent != images:  # tiles are there already
            files.link_or_copy(job.image, images / job.image.name)
            files.link_or_copy(label_file, labels / label_file.name)
        if not job.copies:
            return {"file": job.image.name, "boxes": _labels(label_file, self.names), "copies": []}
        from pipeline.augment import transforms

        image = pixels.read(job.image)
        boxes = read_labels(label_file, self.names, image.shape[1], image.shape[0])
        compose = _compose(self.config.model_dump_json(), self.names)
        copies: list[Copy] = []
        for number, name in enumerate(job.names()):
            try:
                done = transforms.apply(compose, image, boxes, _seed(self.seed, job.image.stem, number))
                encoded = pixels.jpeg(done.image, JPEG_QUALITY)
            except Exception as error:  # Albumentations, OpenCV and NumPy raise many types
                raise DataError(
                    f"{job.image}: {transforms.words(error)}; change augment.transforms, or leave the image out"
                ) from None
            (images / f"{name}.jpg").write_bytes(encoded)
            height, width = done.image.shape[:2]
            write_labels(labels / f"{name}.txt", done.boxes, self.names, (width, height))
            lost: list[Lost] = [
                {"box": boxes[index].id, "class": boxes[index].label, "visible": share and round(share, 3)}
                for index, share in done.lost.items()
            ]
            copies.append({"file": f"{name}.jpg", "boxes": _count(done.boxes), "lost": lost})
        return {"file": job.image.name, "boxes": _count(boxes), "copies": copies}


def _count(boxes: Iterable[Box]) -> dict[str, int]:
    return dict(Counter(box.label for box in boxes))

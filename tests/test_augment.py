from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import Trained

from pipeline import augment
from pipeline.boxes import Box, YoloDataset, read_labels, write_data_yaml, write_labels
from pipeline.config import Augment
from pipeline.errors import ConfigError, DataError
from pipeline.run import Run

SIZE = (200, 160)  # width, height


def painted(run: Run, images: int = 3) -> dict[str, Box]:
    """A data set of grey pictures with one bright rectangle each, and its exact box."""
    rng = np.random.default_rng(0)
    boxes = {}
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (run.dataset / kind / split).mkdir(parents=True)
        for index in range(images):
            width, height = SIZE
            x, y = int(rng.integers(60, 100)), int(rng.integers(50, 80))
            box = Box("patch", x, y, x + 40, y + 30)
            picture = np.full((height, width, 3), 90, np.uint8)
            picture[y : y + 30, x : x + 40] = 250
            name = f"{split}{index}"
            cv2.imwrite(str(run.dataset / "images" / split / f"{name}.png"), picture)
            write_labels(run.dataset / "labels" / split / f"{name}.txt", [box], ["patch"], SIZE)
            boxes[name] = box
    write_data_yaml(run.dataset / "data.yaml", {"train": "images/train", "val": "images/val"}, ["patch"])
    return boxes


def do(run: Run, seed: int = 0, **settings: Any) -> YoloDataset:
    augment.main(Augment.model_validate(settings), run, seed)
    return YoloDataset.read(run.augmented / "data.yaml")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


GEOMETRIC: list[dict[str, Any]] = [
    {"HorizontalFlip": {"p": 1.0}},
    {"VerticalFlip": {"p": 1.0}},
    {"RandomRotate90": {"p": 1.0}},
    {"Affine": {"scale": [0.7, 1.2], "translate_percent": 0.1, "p": 1.0}},
    {"RandomResizedCrop": {"size": [160, 200], "scale": [0.7, 1.0], "p": 1.0}},
    {"Perspective": {"scale": 0.04, "p": 1.0}},
]


@pytest.mark.parametrize("transform", GEOMETRIC, ids=lambda transform: next(iter(transform)))
def test_boxes_follow_the_pixels(run: Run, transform: dict[str, Any]) -> None:
    painted(run)
    dataset = do(run, copies=4, transforms=[transform], min_visibility=0.0)
    copies = [path for path in dataset.files("train") if "-copy" in path.name]
    assert len(copies) == 12
    moved = 0
    for path in copies:
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert picture is not None
        height, width = picture.shape
        boxes = read_labels(dataset.label_file(path), dataset.names, width, height)
        rows, columns = np.nonzero(picture > 170)
        assert len(boxes) == 1 and len(rows)
        seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        # Interpolation and JPEG blur an edge by one pixel; a perspective box is drawn around a quadrangle.
        np.testing.assert_allclose((boxes[0].xmin, boxes[0].ymin, boxes[0].xmax, boxes[0].ymax), seen, atol=2.5)
        original = read_labels(
            dataset.label_file(path.with_name(path.name.split("-copy")[0] + ".png")), dataset.names, *SIZE
        )
        moved += boxes[0].xmin != original[0].xmin or boxes[0].ymin != original[0].ymin
    assert moved


def test_originals_keep_their_bytes_and_val_is_only_referred_to(run: Run) -> None:
    painted(run)
    before = tree(run.dataset)
    dataset = do(run, copies=2, transforms=[{"HorizontalFlip": {"p": 1.0}}])
    assert tree(run.dataset) == before
    assert len(dataset.files("train")) == 9
    for name in ("train0", "train1", "train2"):
        assert (run.augmented / "images" / "train" / f"{name}.png").read_bytes() == before[f"images/train/{name}.png"]
    assert dataset.images["val"].resolve() == (run.dataset / "images" / "val").resolve()
    assert not (run.augmented / "images" / "val").exists()
    assert (run.augmented / "preview.jpg").is_file()


def test_same_seed_same_bytes_whatever_else_is_there(run: Run, tmp_path: Path) -> None:
    transforms = [{"RandomRotate90": {"p": 1.0}}, {"RandomBrightnessContrast": {"p": 1.0}}, {"GaussNoise": {"p": 1.0}}]
    other = Run(tmp_path / "runs" / "more")
    painted(run)
    painted(other, images=5)
    do(run, copies=2, transforms=transforms)
    first = tree(run.augmented / "images")
    do(run, copies=2, transforms=transforms)
    assert tree(run.augmented / "images") == first
    do(run, seed=1, copies=2, transforms=transforms)
    changed = tree(run.augmented / "images")
    assert all(changed[name] != first[name] for name in first if "copy" in name)
    assert first["train/train0-copy0.jpg"] != first["train/train0-copy1.jpg"]
    do(other, copies=2, transforms=transforms)
    more = tree(other.augmented / "images")
    assert more["train/train0-copy1.jpg"] == first["train/train0-copy1.jpg"]


def test_each_image_has_its_own_dice(run: Run) -> None:
    painted(run, images=6)
    dataset = do(run, copies=1, transforms=[{"RandomBrightnessContrast": {"p": 1.0}}])
    corners = {int(cv2.imread(str(path))[0, 0, 0]) for path in dataset.files("train") if "-copy" in path.name}  # type: ignore[index]
    assert len(corners) > 2


def test_no_copies(run: Run) -> None:
    painted(run)
    dataset = do(run, copies=0)
    assert [path.name for path in dataset.files("train")] == ["train0.png", "train1.png", "train2.png"]
    assert not (run.augmented / "preview.jpg").exists()


def test_a_box_that_leaves_the_picture_is_counted(run: Run) -> None:
    painted(run)
    settings = Augment.model_validate(
        {"copies": 1, "transforms": [{"Crop": {"x_min": 0, "y_min": 0, "x_max": 30, "y_max": 30, "p": 1.0}}]}
    )
    assert "(3 boxes left the picture or became too small to see)" in augment.main(settings, run, 0)
    assert (run.augmented / "labels" / "train" / "train0-copy0.txt").read_text() == ""


@pytest.mark.parametrize(
    ("transforms", "said"),
    [
        ([{"HorizontalFlp": {}}], r"transforms\.0: HorizontalFlp is not an Albumentations transform; did you mean 'HorizontalFlip'\?"),
        ([{"Compose": {}}], r"transforms\.0: Compose is not an Albumentations transform"),
        ([{"HorizontalFlip": {}}, {"Blur": {"blur_limits": 3}}], r"transforms\.1: Blur: no argument 'blur_limits'; did you mean 'blur_limit'\?"),
        ([{"HorizontalFlip": {"p": 2}}], r"transforms\.0: HorizontalFlip: p:.*less than or equal to 1"),
        ([{"RandomCrop": {}}], r"transforms\.0: RandomCrop: "),
    ],
)  # fmt: skip
def test_a_wrong_transform_is_refused_before_work_starts(run: Run, transforms: list[Any], said: str) -> None:
    painted(run)
    with pytest.raises(ConfigError, match=said) as error:
        do(run, copies=1, transforms=transforms)
    assert "\n" not in str(error.value)
    assert not run.augmented.exists()


def test_a_copy_that_would_overwrite_an_image(run: Run) -> None:
    painted(run)
    for kind, suffix in (("images", ".png"), ("labels", ".txt")):
        folder = run.dataset / kind / "train"
        (folder / f"train0-copy0{suffix}").write_bytes((folder / f"train1{suffix}").read_bytes())
        (folder / f"train0-copy0{suffix}").rename(folder / f"train0-copy0{'.jpg' if kind == 'images' else suffix}")
    with pytest.raises(DataError, match="train0-copy0"):
        do(run, copies=1, transforms=[{"HorizontalFlip": {}}])
    assert not run.augmented.exists()


def test_no_data_set_yet(run: Run) -> None:
    with pytest.raises(DataError, match="not there; `make` runs the stage"):
        do(run)


def test_a_moved_run_still_finds_its_images(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    moved = copy_of(trained.run)
    dataset = YoloDataset.read(moved.augmented / "data.yaml")
    for split in ("train", "val", "test"):
        assert all(path.resolve().is_relative_to(moved.root) for path in dataset.files(split))

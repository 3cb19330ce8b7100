"""Datasets and models for benchmarks/label.py."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipeline import pixels, train
from pipeline.boxes import YoloDataset, read_labels, write_data_yaml
from pipeline.config.training import Train
from pipeline.label.model import Model
from pipeline.label.store import File, Store
from pipeline.metrics.iou import pairwise_iou
from pipeline.run import Run
from pipeline.upstream import checkpoints, environment

CACHE = Path("runs/bench-label")
SIDE, STRIDE = 320, 16
VAL, TEST = 40, 100  # maximum number of images
RIDGE = 1e-3
POSITIVE = 20.0  # weight of a cell in an object, because far more cells have none
NEAR = 0.3  # share of an object's sides: cells within that distance of its centre learn it
CELLS = 60  # candidates per image, before NMS


class Set(NamedTuple):
    """All images of a dataset: files, labels (rows of x, y, width, height, 1, class), and indices by split."""

    name: str
    data: YoloDataset
    files: list[File]
    labels: list[np.ndarray[Any, Any]]
    of: dict[str, list[int]]  # pool, val, test -> indices


def read(name: str, store: Store) -> Set:
    data = YoloDataset.read(Path("runs") / name / "dataset" / "data.yaml")
    splits = {"pool": data.files("train"), "val": data.files("val"), "test": data.files("test")}
    if len(splits["test"]) < 40:  # too few: add val to test, and calibrate on a quarter of the pool
        splits["test"], splits["val"] = splits["test"] + splits["val"], splits["pool"][3::4]
        splits["pool"] = [path for index, path in enumerate(splits["pool"]) if index % 4 != 3]
    splits |= {"val": splits["val"][:VAL], "test": splits["test"][:TEST]}
    paths = [path for of_split in splits.values() for path in of_split]
    files = store.files(paths, 0, name)
    labels = []
    for file in files:
        boxes = read_labels(data.label_file(file.path), data.names, file.width, file.height)
        rows = [(box.xmin, box.ymin, box.width, box.height, 1, data.names.index(box.label)) for box in boxes]
        labels.append(np.array(rows, np.float32).reshape(-1, 6))
    begin, of = 0, {}
    for split, of_split in splits.items():
        of[split], begin = list(range(begin, begin + len(of_split))), begin + len(of_split)
    return Set(name, data, files, labels, of)


class Linear:
    """A linear detector on features of the frozen backbone, computed once per image; a fitted model is a matrix."""

    def __init__(self, one: Set) -> None:
        self.set, self.classes = one, len(one.data.names)
        CACHE.mkdir(parents=True, exist_ok=True)
        kept = CACHE / f"{one.name}.npz"
        if not kept.is_file():
            features, vectors = self._features()
            np.savez(kept, features=features, vectors=vectors)
        with np.load(kept) as arrays:
            self.features, self.vectors = arrays["features"], arrays["vectors"]
        self.scales = [SIDE / max(file.width, file.height) for file in one.files]
        self.grams = [self._sums(index) for index in range(len(one.files))]

    def _features(self) -> tuple[Any, Any]:
        environment.prepare()
        import torch

        from pipeline.probing.features import backbone

        model = checkpoints.load(checkpoints.find(checkpoints.COCO))[0]
        wanted = backbone(model)
        outputs: dict[int, Any] = {}
        for index in wanted:
            model.model[index].register_forward_hook(lambda _m, _i, out, index=index: outputs.update({index: out}))
        features, vectors = [], []
        for file in self.set.files:
            image = pixels.fit(pixels.read(file.path), SIDE, enlarge=99)[0]
            square = np.full((SIDE, SIDE, 3), 114, np.uint8)
            square[: image.shape[0], : image.shape[1]] = image
            with torch.inference_mode():
                model(torch.from_numpy(square[..., ::-1].transpose(2, 0, 1).copy())[None].float() / 255)
            maps = [outputs[index][0].numpy() for index in wanted]
            vectors.append(np.concatenate([one.mean((1, 2)) for one in maps]))
            cells = SIDE // STRIDE
            same = [cv2.resize(one.transpose(1, 2, 0), (cells, cells), interpolation=cv2.INTER_AREA) for one in maps]
            features.append(np.concatenate(same, axis=2).reshape(cells * cells, -1).astype(np.float16))
        return np.stack(features), np.stack(vectors)

    def _of(self, index: int) -> Any:
        rows = self.features[index].astype(np.float32)
        return np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1)

    def _sums(self, index: int) -> tuple[Any, ...]:
        """Return one image's sums for the least-squares fits; those of several images are added up."""
        rows, cells = self._of(index), SIDE // STRIDE
        middles = (np.indices((cells, cells))[::-1].reshape(2, -1).T + 0.5) * STRIDE  # x, y
        target = np.zeros((len(rows), self.classes), np.float32)
        sides = np.zeros((len(rows), 4), np.float32)
        taken = np.full(len(rows), np.inf)
        for x, y, width, height, _, label in (self.set.labels[index] * [*[self.scales[index]] * 4, 1, 1]).tolist():
            middle = np.array([x + width / 2, y + height / 2])
            away = np.abs(middles - middle)
            reach = np.maximum(np.array([width, height]) * NEAR, STRIDE / 2)
            inside = (away <= reach).all(1) & (width * height < taken)
            taken[inside] = width * height
            target[inside] = np.eye(self.classes)[int(label)]
            sides[inside, :2] = (middle - middles[inside]) / STRIDE
            sides[inside, 2:] = np.log(np.maximum([width, height], 1))
        positive = target.any(1)
        weighted = rows * np.where(positive, POSITIVE, 1)[:, None]
        own = rows[positive]
        return weighted.T @ rows, weighted.T @ target, own.T @ own, own.T @ sides[positive], int(positive.sum())

    def fit(self, chosen: list[int]) -> Any:
        a, b, c, d, _ = (sum(part) for part in zip(*(self.grams[index] for index in chosen), strict=True))
        eye = np.eye(len(a))
        classes = np.linalg.solve(a + eye * RIDGE * np.trace(a) / len(a), b)
        return np.concatenate([classes, np.linalg.solve(c + eye * RIDGE * 10 * np.trace(c) / len(c), d)], axis=1)

    def see(self, fitted: Any, indices: list[int]) -> list[Any]:
        return [self._detect(self._of(index) @ fitted.astype(np.float32), index) for index in indices]

    def _detect(self, out: Any, index: int) -> Any:
        cells = SIDE // STRIDE
        found = []
        for label in range(self.classes):
            score = np.clip(out[:, label].reshape(cells, cells), 0, 0.999).astype(np.float32)
            peak = (score >= cv2.dilate(score, np.ones((3, 3)))) & (score > 0.02)
            y, x = np.nonzero(peak)
            at = y * cells + x
            places = np.clip(out[at, self.classes :], [-9, -9, 1, 1], [9, 9, np.log(SIDE), np.log(SIDE)])
            middle = (np.stack([x, y], 1) + 0.5 + places[:, :2]) * STRIDE
            sides = np.exp(places[:, 2:])
            found.append(np.column_stack([middle - sides / 2, sides, score[y, x], np.full(len(x), label)]))
        rows = np.concatenate(found)
        rows = rows[np.argsort(-rows[:, 4], kind="stable")[:CELLS]]
        overlap = pairwise_iou(rows[:, :4], rows[:, :4]) >= 0.5
        kept: list[int] = []
        for row in range(len(rows)):
            if not overlap[row, kept].any():
                kept.append(row)
        rows = rows[kept].astype(np.float32)
        rows[:, :4] /= self.scales[index]
        return rows


class Trained:
    """The project's own training."""

    def __init__(self, one: Set, store: Store, seed: int) -> None:
        self.set, self.store, self.seed = one, store, seed
        start = Model(Path("data/weights/yolo26n.pt"), one.data.names, "cpu")
        start.imgsz = SIDE
        self.vectors = np.stack([seen.vector for seen in start.see(one.files, store, one.name) if seen])

    def fit(self, chosen: list[int]) -> Any:
        run = Run(CACHE / "trained")
        shutil.rmtree(run.root, ignore_errors=True)
        for split, indices in (("train", chosen), ("val", self.set.of["val"][:4])):
            for index in indices:
                path = self.set.files[index].path
                for kind, file in (("images", path), ("labels", self.set.data.label_file(path))):
                    (run.augmented / kind / split).mkdir(parents=True, exist_ok=True)
                    (run.augmented / kind / split / file.name).symlink_to(file.resolve())
        write_data_yaml(
            run.augmented / "data.yaml", {"train": "images/train", "val": "images/val"}, self.set.data.names
        )
        phase = {"epochs": max(200 * 4 // len(chosen), 2), "freeze": "backbone"}
        config = Train.model_validate({"imgsz": SIDE, "batch": 4, "phases": [phase], "args": {"val": False}})
        train.main(config, run, self.seed, "cpu", 0)
        return Model(run.model, self.set.data.names, "cpu")

    def see(self, fitted: Any, indices: list[int]) -> list[Any]:
        seen = fitted.see([self.set.files[index] for index in indices], self.store, "see")
        return [one.boxes for one in seen]

    def see_mirrored(self, fitted: Any, indices: list[int]) -> list[Any]:
        seen: list[Any] = fitted.see_mirrored([self.set.files[index] for index in indices], self.store, "mirror")
        return seen

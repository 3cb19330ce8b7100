"""Train starter weights for machines that cannot download COCO's: YOLO26n from random weights, on drawn scenes.

They use no photographs and no manual labels. `families.py` draws the objects, and `scenes.py` composes the scenes.
"""

from __future__ import annotations

import shutil
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline import files, parallel, pixels
from pipeline.boxes import Box, write_data_yaml, write_labels
from pipeline.extras.starter.scenes import CLASSES, draw_scene
from pipeline.upstream import checkpoints, environment

TARGET = checkpoints.HOME / checkpoints.STARTER
WORK = Path(".cache/starter")  # scenes and training state; may be deleted once the weights exist
SCENES = {"train": 20_000, "val": 400}
SIDE = 160  # pixels; training on such a scene takes a quarter of the time of one of 320
EPOCHS = 6
SEED = 2026
BATCH = 16
# From 10,000 steps Ultralytics chooses MuSGD, whose steps take twice as long on a CPU. The scenes are varied enough
# without mosaic, which needs four of them per image.
ARGS: dict[str, Any] = {
    "optimizer": "AdamW",
    "lr0": 0.001,
    "momentum": 0.9,
    "nbs": BATCH,
    "warmup_epochs": 0.3,
    "mosaic": 0.0,
    "scale": 0.4,
    "plots": False,
    "deterministic": False,
    "patience": 0,
}


def main(device: str, workers: int | None, seed: int = SEED, epochs: int = EPOCHS, work: Path = WORK) -> str:
    """Draw the scenes, train on them, and write `data/weights/starter-yolo26n.pt` and the README beside it.

    After a kill the next call resumes from the last finished epoch.
    """
    environment.prepare()
    environment.check_device(device)
    scenes = work / f"scenes-{seed}"
    if not scenes.is_dir():
        draw(scenes, seed, SCENES, workers)
    trained, hours, fitness = _train(scenes, work / f"train-{seed}", device, seed, epochs)
    _publish(trained)
    digest = files.sha256(TARGET)
    files.write_text(TARGET.parent / "README.md", _readme(seed, epochs, hours, fitness, digest, device))
    return f"{epochs} epochs in {hours:.1f} h, mAP50-95 {fitness:.3f} on held-out scenes -> {TARGET}"


def draw(folder: Path, seed: int, splits: dict[str, int], workers: int | None) -> None:
    """Draw an Ultralytics dataset; `splits` holds numbers of scenes. `workers` does not affect the result."""
    with files.new_folder(folder) as new:
        for number, (split, count) in enumerate(splits.items()):
            for kind in ("images", "labels"):
                (new / kind / split).mkdir(parents=True)
            places = [(seed, number, index) for index in range(count)]
            drawn = parallel.ordered(partial(_scene, SIDE), places, workers, f"starter: {split}")
            for index, (image, boxes) in enumerate(drawn):
                (new / "images" / split / f"{index:06d}.jpg").write_bytes(image)
                write_labels(new / "labels" / split / f"{index:06d}.txt", boxes, CLASSES, (SIDE, SIDE))
        write_data_yaml(new / "data.yaml", {split: f"images/{split}" for split in splits}, CLASSES)


def _scene(side: int, place: tuple[int, int, int]) -> tuple[bytes, list[Box]]:
    """Draw one scene; return it as JPEG with a random quality like a camera's, and its boxes in pixels."""
    cv2.setNumThreads(1)  # worker processes already share the cores
    rng = np.random.default_rng(place)
    image, objects = draw_scene(rng, side)
    boxes = [Box(CLASSES[label], x, y, x + w, y + h) for label, (x, y, w, h) in objects]
    return pixels.jpeg(image, quality=int(rng.integers(60, 96))), boxes


def _train(scenes: Path, folder: Path, device: str, seed: int, epochs: int) -> tuple[Path, float, float]:
    """Train; return the last epoch's checkpoint, the hours of all attempts, and its mAP50-95."""
    from ultralytics import YOLO

    from pipeline.extras.starter.trainer import trainer_class

    resume, progress = folder / "resume.pt", folder / "progress.json"
    where = {"data": str((scenes / "data.yaml").resolve()), "save_dir": str(folder.resolve()), "device": device or None}
    resumed = resume.is_file()
    trainer = trainer_class(resume, progress, files.read_json(progress)["seconds"] if resumed else 0.0)
    model = YOLO(str(resume) if resumed else "yolo26n.yaml", task="detect")
    if not resumed:
        shutil.rmtree(folder, ignore_errors=True)
        settings = {"imgsz": SIDE, "batch": BATCH, "epochs": epochs, "seed": seed, "exist_ok": True}
        model.train(trainer, **{**ARGS, **settings}, **where)
    elif model.ckpt["epoch"] + 1 < epochs:  # `progress` may be an epoch ahead of it
        model.train(trainer, resume=True, **where)
    done = files.read_json(progress)
    return resume, done["seconds"] / 3600, done["fitness"]


def _publish(checkpoint: Path) -> None:
    """Write the averaged model to TARGET in half precision, without optimizer state and paths of this machine."""
    import torch
    from ultralytics.nn.tasks import DetectionModel

    model, content = checkpoints.load(checkpoint)
    assert isinstance(model, DetectionModel)
    arguments = {key: content["train_args"][key] for key in ("imgsz", "batch", "epochs", "seed", *ARGS)}
    model.args = arguments
    kept = {key: content[key] for key in ("date", "version", "license", "docs")}
    with files.replacing(TARGET) as partial:
        torch.save({**kept, "epoch": -1, "model": model.half(), "train_args": arguments}, partial)
        checkpoints.load(partial)


def _readme(seed: int, epochs: int, hours: float, fitness: float, digest: str, device: str) -> str:
    packages = ("ultralytics-opencv-headless", "torch", "numpy", "opencv-python-headless")
    facts = {
        "command": "`make starter-weights`, which wrote this page too",
        "scenes": f"{SCENES['train']:,} of {SIDE} x {SIDE} pixels, {len(CLASSES)} classes, seed {seed}; "
        f"{SCENES['val']} more held out",
        "training": f"{epochs} epochs, {hours:.1f} hours on {environment.device_name(device)}, "
        f"threads: {environment.threads()}",
        "on the scenes held out": f"mAP50-95 {fitness:.3f}",
        "versions": ", ".join(f"{name} {version(name)}" for name in packages),
        "sha256": f"`{digest}`",
        "licence": "AGPL-3.0, as Ultralytics, whose model and trainer made it",
    }
    return f"""# data/weights

This folder holds source weights; git ignores all but one.

`{checkpoints.STARTER}` is YOLO26n trained from random weights on drawn scenes, without photographs and without labels
made by hand. A config with `train.fallback: starter-yolo26n.pt` uses it if `yolo26n.pt`, trained on COCO, is not here
and cannot be downloaded. COCO weights do better: if you can get that file, put it here.

| | |
|---|---|
""" + "".join(f"| {name} | {fact} |\n" for name, fact in facts.items())

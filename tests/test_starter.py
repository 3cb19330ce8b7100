"""Starter weights: scenes are labelled with what is visible, and a killed training resumes."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import ROOT

from pipeline import files
from pipeline.extras.starter import families, raster, scenes
from pipeline.extras.starter import training as starter
from pipeline.upstream import checkpoints, environment

SIDE = 96


@pytest.fixture(autouse=True)
def prepared() -> None:
    environment.prepare()


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_any_number_of_processes_draws_the_same_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starter, "SIDE", SIDE)
    for name, workers, seed in (("one", 0, 7), ("two", 2, 7), ("other", 0, 8)):
        starter.draw(tmp_path / name, seed, {"train": 130, "val": 3}, workers)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert digests(tmp_path / "one").keys() == digests(tmp_path / "other").keys()
    assert digests(tmp_path / "one") != digests(tmp_path / "other")
    train = {digest for name, digest in digests(tmp_path / "one").items() if "images/train" in name}
    assert len(train) == 130


def test_boxes_frame_what_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each object is painted in its own grey, so that the image shows where it is visible."""
    painted = 0

    def flat(rng: Any, image: Any, window: Any, masks: Any) -> None:
        nonlocal painted
        painted += 1
        image[window][masks[0][1] > 127] = painted

    monkeypatch.setattr(scenes, "BOARDS", 0)
    monkeypatch.setattr(scenes, "_paint", flat)
    monkeypatch.setattr(scenes, "_background", lambda rng, side: np.zeros((side, side, 3), np.float32))
    monkeypatch.setattr(scenes, "_photograph", lambda rng, image: image.astype(np.uint8))
    hidden = labelled = 0
    for number in range(60):
        painted = 0
        image, objects = scenes.draw_scene(np.random.default_rng([3, number]), 160)
        seen = []
        for shade in range(1, painted + 1):
            x, y, width, height = cv2.boundingRect((image[..., 0] == shade).astype(np.uint8))
            if min(width, height) >= 3:
                seen.append([x, y, width, height])
        assert [box for _, box in objects] == seen
        assert all(0 <= label < len(families.FAMILIES) for label, _ in objects)
        hidden += painted - len(seen)
        labelled += len(seen)
    assert labelled > 200 and hidden < 0.02 * labelled  # hardly anything in the image has no box


def test_every_class_is_drawn_and_no_box_leaves_its_image() -> None:
    found = set()
    for number in range(400):
        image, objects = scenes.draw_scene(np.random.default_rng([4, number]), SIDE)
        height, width = image.shape[:2]
        for label, (x, y, w, h) in objects:
            found.add(scenes.CLASSES[label])
            assert x >= 0 and y >= 0 and x + w <= width and y + h <= height and min(w, h) >= 3
    assert found == set(scenes.CLASSES)


def test_a_body_fills_its_frame() -> None:
    rng = np.random.default_rng(0)
    for name, draw in families.FAMILIES.items():
        if name in ("glyph", "crescent") or name.startswith("fractal"):
            continue  # images keep their margins, and a crescent lacks the part cut away
        for _ in range(8):
            tone, mask = raster.raster(draw(rng), 64, scenes._matrix(rng))[0]
            _, _, width, height = cv2.boundingRect((mask > 127).astype(np.uint8))
            # A pixel of margin on each side, and one for rounding at half-covered edges.
            assert tone == 0 and 58 <= max(width, height) <= 64, name


PARTS = """
import os, signal, sys
from pathlib import Path
from pipeline.extras.starter import training as starter
starter.SCENES, starter.SIDE, starter.BATCH = {"train": 16, "val": 4}, 64, 8
seen = 0

def watch(name, arguments):
    global seen
    if name == "open" and str(arguments[0]).endswith("weights/last.pt"):
        seen += 1
        if seen == int(os.environ["KILL"]):
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
print(starter.main("cpu", 0, seed=5, epochs=3, work=Path("work")))
"""


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_end(tmp_path: Path) -> None:
    """Ultralytics opens last.pt for writing once per epoch: killed in the second epoch, then left alone."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for kill, epochs in ((2, 1), (0, 3)):
        command = [sys.executable, "-c", PARTS]
        options: dict[str, Any] = {"cwd": tmp_path, "capture_output": True, "text": True, "check": False}
        done = subprocess.run(command, env={**environment, "KILL": str(kill)}, **options)
        assert files.read_json(tmp_path / "work" / "train-5" / "progress.json")["epochs"] == epochs, done.stderr
    assert done.returncode == 0
    path = tmp_path / checkpoints.HOME / checkpoints.STARTER
    model, checkpoint = checkpoints.load(path)
    assert tuple(model.names.values()) == scenes.CLASSES
    assert path.stat().st_size < 6e6
    assert str(tmp_path).encode() not in path.read_bytes() and "git" not in checkpoint
    assert str(Path(tmp_path).name) not in str(checkpoint["train_args"])
    assert files.sha256(path) in (path.parent / "README.md").read_text()


def test_the_projects_starter_weights_are_valid() -> None:
    path = ROOT / checkpoints.HOME / checkpoints.STARTER
    assert path.stat().st_size < 6e6
    said = re.search(r"sha256 \| `([0-9a-f]{64})`", (path.parent / "README.md").read_text())
    assert said is not None and said[1] == files.sha256(path)
    model, _ = checkpoints.load(path)
    assert tuple(model.names.values()) == scenes.CLASSES

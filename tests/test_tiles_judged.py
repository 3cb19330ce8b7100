"""Real stages on tiles: whole images are validated, judged and packed as the device sees them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from conftest import IMGSZ, Trained

from pipeline import augment, export, files, pixels, validate
from pipeline.boxes import YoloDataset
from pipeline.config.tiles import Tiles
from pipeline.export import bundle
from pipeline.run import Run

SIZE, SHARED = 160, 40


@pytest.fixture
def tiled(trained: Trained, copy_of: Callable[[Run], Run]) -> Run:
    run = copy_of(trained.run)
    config = trained.config
    augment.main(config.augment, run, config.seed, None, Tiles(size=SIZE, overlap=SHARED / SIZE), IMGSZ)
    return run


def seen_by_hand(model: Any, picture: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """What the model finds in each tile, and then in the image, moved into it: rows of corners, score, class."""
    side = picture.shape[0]
    starts = [*range(0, side - SIZE, SIZE - SHARED), side - SIZE]
    seen = []
    for left, top, edge in [*((x, y, SIZE) for y in starts for x in starts), (0, 0, side)]:
        part = np.ascontiguousarray(picture[top : top + edge, left : left + edge])
        [result] = model.predict(part, imgsz=IMGSZ, rect=False, conf=0.001, device="cpu", verbose=False)
        seen.append(result.boxes.data.numpy().astype(float) + np.array([left, top, left, top, 0, 0]))
    return seen


def test_validate_and_export_speak_of_whole_images(tiled: Run, trained: Trained) -> None:
    from ultralytics import YOLO

    said = validate.main(trained.config.validate_, tiled, "cpu")
    assert "whole images through tiles of 160 px" in said
    dataset = YoloDataset.read(tiled.dataset / "data.yaml")
    truth = files.read_json(tiled.ground_truth("val"))
    assert {(image["width"], image["height"]) for image in truth["images"]} == {
        pixels.read(dataset.files("val")[0]).shape[1::-1]
    }
    found = files.read_json(tiled.single_label("val"))
    assert found != files.read_json(trained.run.single_label("val"))
    seen = seen_by_hand(YOLO(str(tiled.model), task="detect"), pixels.read(dataset.files("val")[0]))
    first = np.array([[*one["bbox"], one["score"], one["category_id"]] for one in found if one["image_id"] == 1])
    first[:, 2:4] += first[:, :2]
    apart = np.abs(first[:, None] - np.concatenate(seen)[None]).max(axis=2)
    # Each is a box of a view, or joined from some that edges cut. What the first tile alone can see is there.
    assert (apart.min(axis=1) < 0.01).mean() > 0.5
    alone = seen[0][(seen[0][:, 2:4] < SIZE - SHARED).all(axis=1)]
    alone = alone[(alone[:, 2:4] - alone[:, :2] < SHARED / 2).all(axis=1)]
    assert len(alone) and (np.abs(alone[:, None] - first[None]).max(axis=2).min(axis=1) < 0.01).all()

    export.main(trained.config.export, tiled, trained.config.seed, "cpu")
    [entry] = files.read_json(tiled.manifest)["artefacts"]
    assert entry["verdict"] == "passed" and entry["parity"]["lost"] == entry["parity"]["extra"] == 0
    folder = bundle.unpack(tiled.export / entry["bundle"], tiled.root / "device")
    assert json.loads((folder / "model.json").read_text())["tiles"] == {"size": 160, "overlap": 0.25, "whole": True}
    assert max(pixels.read(folder / "golden" / "1.png").shape) == 2 * SIZE - SHARED
    done = subprocess.run([sys.executable, str(folder / "run.py"), "--selftest"], capture_output=True, text=True)
    assert (done.stdout[:16], done.stderr, done.returncode) == ("selftest passed:", "", 0)

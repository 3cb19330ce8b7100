"""Real stages on tiles: whole images are validated, judged and bundled as the device sees them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import IMGSZ, settings, train_tiny

from pipeline import augment, convert, export, files, pixels, report, validate
from pipeline.boxes import YoloDataset
from pipeline.config.experiment import Config
from pipeline.export import bundle
from pipeline.run import Run

SIZE, SHARED = 160, 40


@pytest.fixture
def tiled(tiles: Path, start: Path, run: Run) -> tuple[Config, Run]:
    """A model trained on tiles for one epoch."""
    plan = {"size": SIZE, "overlap": SHARED / SIZE}
    config = Config.model_validate(settings(tiles, start, tiles=plan, augment={"copies": 0, "transforms": []}))
    convert.main(config.convert, run, config.seed)
    augment.main(config.augment, run, config.seed, None, config.tiles, IMGSZ)
    train_tiny(run, start)
    return config, run


def seen_by_hand(model: Any, image: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Detections in each tile, then in the whole image, in image coordinates: rows of corners, score, class."""
    side = image.shape[0]
    starts = [*range(0, side - SIZE, SIZE - SHARED), side - SIZE]
    seen = []
    for left, top, edge in [*((x, y, SIZE) for y in starts for x in starts), (0, 0, side)]:
        part = np.ascontiguousarray(image[top : top + edge, left : left + edge])
        [result] = model.predict(part, imgsz=IMGSZ, rect=False, conf=0.001, device="cpu", verbose=False)
        seen.append(result.boxes.data.numpy().astype(float) + np.array([left, top, left, top, 0, 0]))
    return seen


def test_validate_and_export_report_on_whole_images(tiled: tuple[Config, Run]) -> None:
    from ultralytics import YOLO

    config, run = tiled
    said = validate.main(config.validate_, run, "cpu")
    assert "whole images through tiles of 160 px" in said
    report.main(config.report, run)
    page = (run.report / "index.html").read_text(encoding="utf-8")
    assert (
        "a large image in tiles of 160 px that overlap by 0.25 and as a whole; all metrics are of whole images" in page
    )
    dataset = YoloDataset.read(run.dataset / "data.yaml")
    truth = files.read_json(run.ground_truth("val"))
    assert {(image["width"], image["height"]) for image in truth["images"]} == {
        pixels.read(dataset.files("val")[0]).shape[1::-1]
    }
    found = files.read_json(run.single_label("val"))
    seen = seen_by_hand(YOLO(str(run.model), task="detect"), pixels.read(dataset.files("val")[0]))
    first = np.array([[*one["bbox"], one["score"], one["category_id"]] for one in found if one["image_id"] == 1])
    first[:, 2:4] += first[:, :2]
    apart = np.abs(first[:, None] - np.concatenate(seen)[None]).max(axis=2)
    # Each is a box of a view or joined from cut ones, and almost every box of a tile is in one of them.
    assert (apart.min(axis=1) < 0.01).mean() > 0.5
    rows = np.concatenate(seen[:-1])
    rows = rows[(rows[:, 2:4] > rows[:, :2]).all(axis=1)]  # a barely trained model predicts some without area
    shared = np.minimum(rows[:, None, 2:4], first[None, :, 2:4]) - np.maximum(rows[:, None, :2], first[None, :, :2])
    covered = np.prod(np.clip(shared, 0, None), axis=2) / np.prod(rows[:, 2:4] - rows[:, :2], axis=1)[:, None]
    covered *= rows[:, None, 5] == first[None, :, 5]
    assert len(rows) and len(first) < len(rows) and (covered.max(axis=1) > 0.49).mean() > 0.95

    export.main(config.export, run, config.seed, "cpu")
    [entry] = files.read_json(run.manifest)["artefacts"]
    assert entry["verdict"] == "passed" and entry["parity"]["lost"] == entry["parity"]["extra"] == 0
    folder = bundle.unpack(run.export / entry["bundle"], run.root / "device")
    assert json.loads((folder / "model.json").read_text())["tiles"] == {"size": 160, "overlap": 0.25, "whole": True}
    assert max(pixels.read(folder / "golden" / "1.png").shape) == 2 * SIZE - SHARED
    done = subprocess.run([sys.executable, str(folder / "run.py"), "--selftest"], capture_output=True, text=True)
    assert (done.stdout[:16], done.stderr, done.returncode) == ("selftest passed:", "", 0)

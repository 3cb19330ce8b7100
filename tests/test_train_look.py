"""The probe of the training images that decides whether the backbone is frozen first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import IMGSZ

from pipeline import convert, files
from pipeline.boxes import YoloDataset
from pipeline.config.data import Convert
from pipeline.run import Run
from pipeline.train import look
from pipeline.upstream import checkpoints, environment


@pytest.fixture
def data(source: Path, tmp_path: Path) -> YoloDataset:
    run = Run(tmp_path / "runs" / "tiny")
    convert.main(Convert(source=source), run, 0)
    return YoloDataset.read(run.dataset / "data.yaml")


def share_kept(data: YoloDataset, start: Path, record: Path) -> float | None:
    environment.prepare()
    model: Any = checkpoints.load(start)[0]
    return look.share_kept(model, data, IMGSZ, 0, record)


def keep_images(data: YoloDataset, number: int) -> None:
    for image in data.files("train")[number:]:
        data.label_file(image).unlink()
        image.unlink()


def test_the_share_and_the_accuracy_by_layer_are_kept(data: YoloDataset, start: Path, tmp_path: Path) -> None:
    record = tmp_path / "look.json"
    share = share_kept(data, start, record)
    written = files.read_json(record)
    last = written["accuracy"][str(max(layer for layer in map(int, written["accuracy"]) if layer < 11))]
    assert share == written["kept"]
    # All three are rounded to three digits, and accuracies are about 0.2: 0.0005 / 0.2 * (1 + share) + 0.0005.
    assert share == pytest.approx(last / max(written["accuracy"].values()), abs=0.005)
    files.write_json(record, {**written, "kept": 0.123})
    assert share_kept(data, start, record) == 0.123  # a resumed training does not probe again


@pytest.mark.parametrize("images", [1, 2])
def test_an_unusable_probe_gives_no_result(data: YoloDataset, start: Path, tmp_path: Path, images: int) -> None:
    keep_images(data, images)
    for number, image in enumerate(data.files("train")):  # no class in both; the boxes leave no room for background
        data.label_file(image).write_text(f"{number} 0.5 0.5 0.96 0.96\n{number} 0.5 0.5 0.9 0.9\n")
    if images == 1:
        data.label_file(data.files("train")[0]).write_text("0 0.5 0.5 0.2 0.2\n")  # with background, two "classes"
    assert share_kept(data, start, tmp_path / "look.json") is None


def test_no_boxes_give_no_result(data: YoloDataset, start: Path, tmp_path: Path) -> None:
    for image in data.files("train"):
        data.label_file(image).write_text("")
    assert share_kept(data, start, tmp_path / "look.json") is None

"""The probe of the training images that decides whether the backbone is frozen first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import IMGSZ, Trained, train_tiny

from pipeline import convert
from pipeline.boxes import YoloDataset
from pipeline.config.data import Convert
from pipeline.errors import ConfigError
from pipeline.run import Run
from pipeline.train import look, resume
from pipeline.upstream import checkpoints, environment


@pytest.fixture
def data(source: Path, tmp_path: Path) -> YoloDataset:
    run = Run(tmp_path / "runs" / "tiny")
    convert.main(Convert(source=source), run, 0)
    return YoloDataset.read(run.dataset / "data.yaml")


def measure(data: YoloDataset, start: Path) -> Any:
    environment.prepare()
    return look.measure(checkpoints.load(start)[0], data, IMGSZ, 0)


def keep_images(data: YoloDataset, number: int) -> None:
    for image in data.files("train")[number:]:
        data.label_file(image).unlink()
        image.unlink()


def test_the_share_is_that_of_the_accuracy_at_the_last_layer(data: YoloDataset, start: Path) -> None:
    found = measure(data, start)
    last = found["accuracy"][str(max(layer for layer in map(int, found["accuracy"]) if layer < 11))]
    # All three are rounded to three digits, and accuracies are about 0.2: 0.0005 / 0.2 * (1 + share) + 0.0005.
    assert found["kept"] == pytest.approx(last / max(found["accuracy"].values()), abs=0.005)


def test_unfinished_training_measures_only_once(run: Run) -> None:
    def measure(value: Any) -> Any:
        return resume.measured(run, {"seed": 1}, "look.json", lambda: value)

    assert measure({"kept": 0.1}) == {"kept": 0.1}
    resume.continue_or_clear(run, {"seed": 1}, {"look.json": {"kept": 0.1}, "minutes.json": None})
    assert measure({"kept": 0.9}) == {"kept": 0.1} and not (run.train / "minutes.json").exists()
    resume.continue_or_clear(run, {"seed": 2}, {})
    assert measure({"kept": 0.9}) == {"kept": 0.9}


@pytest.mark.parametrize("found", [{"kept": 0.1, "accuracy": {}}, None])
def test_a_refusal_after_the_probe_keeps_the_old_training(
    trained: Trained, copy_of: Callable[[Run], Run], start: Path, monkeypatch: pytest.MonkeyPatch, found: Any
) -> None:
    """The probe found features that do not suit the images, or could not measure them: the backbone is not frozen."""
    run = copy_of(trained.run)
    before = sorted(run.train.rglob("*"))
    monkeypatch.setattr(look, "measure", lambda *_: found)
    with pytest.raises(ConfigError, match=r"train\.cache_features: no phase freezes at least its first 5 layers"):
        train_tiny(run, start, phases=None, cache_features=True)
    assert sorted(run.train.rglob("*")) == before


@pytest.mark.parametrize("images", [1, 2])
def test_an_unusable_probe_gives_no_result(data: YoloDataset, start: Path, images: int) -> None:
    keep_images(data, images)
    for number, image in enumerate(data.files("train")):  # no class in both; the boxes leave no room for background
        data.label_file(image).write_text(f"{number} 0.5 0.5 0.96 0.96\n{number} 0.5 0.5 0.9 0.9\n")
    if images == 1:
        data.label_file(data.files("train")[0]).write_text("0 0.5 0.5 0.2 0.2\n")  # with background, two "classes"
    assert measure(data, start) is None


@pytest.mark.parametrize("again", [False, True])
def test_classes_that_occur_in_one_image_each_give_no_result(data: YoloDataset, start: Path, again: bool) -> None:
    """Otherwise background alone would be judged. With `again`, one class is in a second image."""
    keep_images(data, 6)
    for number, image in enumerate(data.files("train")):
        data.label_file(image).write_text(
            f"{number} 0.3 0.3 0.1 0.1\n" + "0 0.7 0.7 0.1 0.1\n" * (again and number == 2)
        )
    assert (measure(data, start) is None) != again


def test_no_boxes_give_no_result(data: YoloDataset, start: Path) -> None:
    for image in data.files("train"):
        data.label_file(image).write_text("")
    assert measure(data, start) is None

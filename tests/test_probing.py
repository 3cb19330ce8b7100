"""Which boxes are probed, the features of each layer for them, and how real weights score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import COCO_WEIGHTS, IMGSZ

from pipeline import convert
from pipeline.boxes import YoloDataset
from pipeline.config.data import Convert
from pipeline.errors import DataError
from pipeline.probing import sample, scores, separability
from pipeline.run import Run
from pipeline.upstream import checkpoints, environment


def dataset(folder: Path, source: Path) -> YoloDataset:
    run = Run(folder / "runs" / "tiny")
    convert.main(Convert(source=source), run, 0)
    return YoloDataset.read(run.dataset / "data.yaml")


def test_background_is_where_no_object_is(source: Path, tmp_path: Path) -> None:
    data = dataset(tmp_path, source)
    scenes = sample.draw(data, 100, 0)
    assert len(scenes) == len(data.files("train"))
    found = 0
    for scene in scenes:
        nothing = scene.labels == len(data.names)
        found += int(nothing.sum())
        assert ((scene.corners >= 0) & (scene.corners <= 1 + 1e-9)).all()
        for xmin, ymin, xmax, ymax in scene.corners[nothing]:  # checked box by box
            for left, top, right, low in scene.corners[~nothing]:
                shared = max(0, min(xmax, right) - max(xmin, left)) * max(0, min(ymax, low) - max(ymin, top))
                areas = (xmax - xmin) * (ymax - ymin) + (right - left) * (low - top)
                assert shared < sample.OVERLAP * (areas - shared)
    assert found > 0
    again = sample.draw(data, 100, 0)
    assert all((one.corners == other.corners).all() for one, other in zip(scenes, again, strict=True))


def test_the_drawn_images_cover_every_class(source: Path, tmp_path: Path) -> None:
    data = dataset(tmp_path, source)
    all_of_them = {label for scene in sample.draw(data, 100, 0) for label in scene.labels}
    few = sample.draw(data, len(data.names), 0)
    assert {label for scene in few for label in scene.labels} == all_of_them


def only(data: YoloDataset, line: str) -> YoloDataset:
    for image in data.files("train"):
        data.label_file(image).write_text(line)
    return data


def test_without_boxes_ranking_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no boxes in the training images"):
        sample.draw(only(dataset(tmp_path, source), ""), 10, 0)


def test_one_class_that_fills_its_images_cannot_be_ranked(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is one class, and its boxes leave no room for background"):
        sample.draw(only(dataset(tmp_path, source), "0 0.5 0.5 1 1\n"), 10, 0)


def test_one_class_is_ranked_against_background(source: Path, tmp_path: Path) -> None:
    data = only(dataset(tmp_path, source), "0 0.3 0.3 0.2 0.2\n")
    scenes = sample.draw(data, 10, 0)
    assert {label for scene in scenes for label in scene.labels} == {0, len(data.names)}


@pytest.mark.parametrize(
    ("family", "backbone", "stages"),
    [
        ("yolo26n", [4, 6, 10], [2, 4, 6, 10, 13, 16, 19, 22]),
        ("yolo11n", [4, 6, 10], [2, 4, 6, 10, 13, 16, 19, 22]),
        ("yolov8n", [4, 6, 9], [2, 4, 6, 9, 12, 15, 18, 21]),
    ],
)
def test_layers_are_taken_from_the_model(family: str, backbone: list[int], stages: list[int]) -> None:
    environment.prepare()
    from pipeline.probing import features

    model = checkpoints.untrained(Path(f"{family}.yaml"), "").eval()
    assert (features.backbone(model), features.stages(model)) == (backbone, stages)


def test_layers_with_several_outputs_are_left_out() -> None:
    """As in YOLOv9e, whose backbone has such layers."""
    environment.prepare()
    from ultralytics.nn.tasks import DetectionModel

    from pipeline.probing import features

    layers = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 1]], [1, 1, "CBLinear", [[16]]]]
    backbone = [*layers, [1, 1, "Conv", [16, 3, 1]]]
    head = [[[2, -1], 1, "CBFuse", [[0]]], [[4], 1, "Detect", ["nc"]]]
    model = DetectionModel({"nc": 6, "backbone": backbone, "head": head}, verbose=False).eval()
    assert features.stages(model) == [1, 4]


def test_features_equal_the_models_own(source: Path, tmp_path: Path, start: Path) -> None:
    """A box over the whole image has the mean of Ultralytics' own layer output, up to how cells are sampled."""
    environment.prepare()
    import torch

    from pipeline.probing import features, wiring

    scene = sample.draw(dataset(tmp_path, source), 1, 0)[0]
    whole = sample.Scene(scene.image, np.array([[0.0, 0, 1, 1]]), np.array([0]))
    model = checkpoints.load(start)[0]
    image, _ = features._fitted(whole, IMGSZ)
    seen: list[Any] = []
    hook = model.model[4].register_forward_hook(lambda *given: seen.append(given[2]))
    with torch.inference_mode():
        model(image)
    hook.remove()
    assert torch.equal(wiring.run(model.model[:5], {-1: image}), seen[0])
    rows = features.of_boxes(model, [whole], [4], IMGSZ, "test")[4]
    mean = seen[0].mean(dim=(2, 3)).numpy()
    assert np.corrcoef(rows[0], mean[0])[0, 1] > 0.9


@pytest.mark.skipif(not COCO_WEIGHTS.is_file(), reason="COCO weights are not in data/weights")
def test_coco_weights_beat_random_ones(source: Path, tmp_path: Path) -> None:
    environment.prepare()
    import torch

    from pipeline.probing import features

    scenes = sample.draw(dataset(tmp_path, source), 8, 0)
    labels, images = separability.numbers(scenes)
    torch.manual_seed(0)
    random = checkpoints.untrained(Path("yolo26n.yaml"), "").eval()
    found = []
    for model in (checkpoints.load(COCO_WEIGHTS)[0], random):
        rows = features.of_boxes(model, scenes, features.backbone(model), 320, "test")
        together = np.concatenate(list(rows.values()), axis=1)
        probe = scores.ridge_probe(together, labels, images).accuracy
        found.append((scores.log_me(together, labels), scores.h_score(together, labels), probe))
    assert all(coco > other for coco, other in zip(*found, strict=True))
    assert set(separability.separability(random, scenes, IMGSZ)) == {2, 4, 6, 10, 13, 16, 19, 22}

"""Two runs on the same images: what is called better, what is noise, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Trained, pipeline_process
from detections import Predictions, Truth, by_pycocotools, noisy

from pipeline.errors import DataError
from pipeline.files import read_json, write_json
from pipeline.run import Run
from pipeline.validate import compare

FIGURES = {"map50_95", "map50", "map75", "ar100"}


def written(folder: Path, truth: Truth, predictions: Predictions) -> Run:
    """The parts of a validated run that a comparison reads."""
    run = Run(folder)
    write_json(run.ground_truth("test"), truth)
    write_json(run.predictions("test"), predictions)
    write_json(run.metrics, {})
    return run


def worse(predictions: Predictions, share: float) -> Predictions:
    """The predictions without this share of them."""
    rng = np.random.default_rng(1)
    return [record for record in predictions if rng.random() >= share]


@pytest.fixture
def drawn() -> tuple[Truth, Predictions]:
    return noisy(0, images=60)


def compared(tmp_path: Path, ours: tuple[Truth, Predictions], theirs: tuple[Truth, Predictions]) -> dict[str, Any]:
    run = written(tmp_path / "a", *ours)
    compare.main(run, written(tmp_path / "b", *theirs))
    said: dict[str, Any] = read_json(run.comparison)["splits"]["test"]
    return said


@pytest.mark.parametrize(("kept_by", "verdict"), [("this", "better"), ("other", "worse")])
def test_losing_a_third_of_the_predictions_is_not_noise(
    tmp_path: Path, drawn: tuple[Truth, Predictions], kept_by: str, verdict: str
) -> None:
    truth, predictions = drawn
    both = [(truth, predictions), (truth, worse(predictions, 0.33))]
    said = compared(tmp_path, *(both if kept_by == "this" else both[::-1]))
    assert set(said["figures"]) == FIGURES
    for name, figure in said["figures"].items():
        assert figure["verdict"] == verdict, name
        assert figure["run"] == pytest.approx(by_pycocotools(*both[kept_by == "other"])[name], abs=1e-6)
        assert figure["against"] == pytest.approx(by_pycocotools(*both[kept_by == "this"])[name], abs=1e-6)
        assert figure["difference"] == pytest.approx(figure["run"] - figure["against"], abs=2e-6)
        assert figure["interval"][0] < figure["difference"] < figure["interval"][1]


def test_equal_predictions_are_not_different(tmp_path: Path, drawn: tuple[Truth, Predictions]) -> None:
    said = compared(tmp_path, drawn, drawn)
    for figure in (*said["figures"].values(), *(one for row in said["per_class"].values() for one in row.values())):
        assert (figure["difference"], figure["interval"], figure["verdict"]) == (0.0, [0.0, 0.0], "inside noise")


def shaken(seed: int, predictions: Predictions) -> Predictions:
    """Predictions with slightly noisy scores, as from a model neither better nor worse."""
    rng = np.random.default_rng(seed)
    return [{**record, "score": float(np.clip(record["score"] + rng.normal(0, 0.1), 0, 1))} for record in predictions]


def test_equal_models_are_called_different_no_more_often_than_expected(drawn: tuple[Truth, Predictions]) -> None:
    """Of 40 pairs of equally good models, about 2 have a 95 % interval without zero, and at most 5 (99 %)."""
    truth, predictions = drawn
    verdicts = [
        compare.differences(truth, shaken(2 * seed, predictions), shaken(2 * seed + 1, predictions))
        for seed in range(40)
    ]
    assert sum(one["figures"]["map50_95"]["verdict"] != "inside noise" for one in verdicts) <= 5


def test_pairing_detects_what_two_intervals_do_not(tmp_path: Path, drawn: tuple[Truth, Predictions]) -> None:
    """Losing a tenth of the predictions: far less than images differ among themselves, but clear in pairs."""
    from pipeline.metrics.bootstrap import intervals
    from pipeline.metrics.matching import match

    truth, predictions = drawn
    said = compared(tmp_path, drawn, (truth, worse(predictions, 0.1)))["figures"]["map50_95"]
    low = intervals(match(truth, predictions), ["a", "b", "c"])["map50_95"][0]
    assert said["against"] > low and said["verdict"] == "better"


def test_ids_and_order_of_the_other_run_do_not_matter(tmp_path: Path, drawn: tuple[Truth, Predictions]) -> None:
    truth, predictions = drawn
    last = len(truth["images"]) + 1
    turned = {
        "images": [{**image, "id": last - image["id"]} for image in truth["images"]][::-1],
        "categories": [{**category, "id": category["id"] + 7} for category in truth["categories"]][::-1],
        "annotations": [
            {**record, "image_id": last - record["image_id"], "category_id": record["category_id"] + 7}
            for record in truth["annotations"]
        ],
    }
    found = [
        {**record, "image_id": last - record["image_id"], "category_id": record["category_id"] + 7}
        for record in predictions
    ]
    said = compared(tmp_path, drawn, (turned, found))
    assert {figure["difference"] for figure in said["figures"].values()} == {0.0}


def changed(truth: Truth, where: str) -> Truth:
    truth = json.loads(json.dumps(truth))
    if where == "box":
        truth["annotations"][0]["bbox"][2] += 0.5
    elif where == "class":
        truth["annotations"][0]["category_id"] ^= 1
    elif where == "image":
        truth["images"][0]["file_name"] = "another.jpg"
    elif where == "missing label":
        truth["annotations"].pop()
    else:
        truth["categories"].append({"id": 9, "name": "z"})
    return truth


@pytest.mark.parametrize("where", ["box", "class", "image", "missing label", "names"])
def test_other_data_is_refused(tmp_path: Path, drawn: tuple[Truth, Predictions], where: str) -> None:
    truth, predictions = drawn
    run = written(tmp_path / "a", truth, predictions)
    other = written(tmp_path / "b", changed(truth, where), predictions)
    with pytest.raises(
        DataError,
        match=r"its test split has other images or labels than .*convert both from the same source and validate them again$",
    ):
        compare.main(run, other)
    assert not run.comparison.exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"image_id": 999}, "prediction 1 is of image 999, which is not in the split"),
        ({"category_id": 77}, "prediction 1 is of class 77, which is not in the dataset"),
        ({"score": float("nan")}, "prediction 1 has a score or box that is not a number"),
        ({"score": "high"}, "prediction 1 has a score or box that is not a number"),
        ({"bbox": [1, 2, 3]}, "prediction 1 has a score or box that is not a number"),
        ({"bbox": [1, 2, 3, float("inf")]}, "prediction 1 has a score or box that is not a number"),
        ({"bbox": None}, "prediction 1 has a score or box that is not a number"),
        (None, "prediction 1 is not a COCO result"),
    ],
)
def test_impossible_predictions_are_refused(
    tmp_path: Path, drawn: tuple[Truth, Predictions], change: Any, complaint: str
) -> None:
    truth, predictions = drawn
    other = written(tmp_path / "b", truth, predictions)
    spoilt = {**predictions[0], **change} if change else "nonsense"
    other.predictions("test").write_text(json.dumps([spoilt, *predictions[1:]]))
    with pytest.raises(DataError) as error:
        compare.main(written(tmp_path / "a", truth, predictions), other)
    assert str(error.value) == (
        f"{other.predictions('test')}: {complaint}; delete metrics.json and run `make validate` again"
    )


def test_a_damaged_file_is_refused(tmp_path: Path, drawn: tuple[Truth, Predictions]) -> None:
    run, other = written(tmp_path / "a", *drawn), written(tmp_path / "b", *drawn)
    other.predictions("test").write_text("[{")
    with pytest.raises(DataError, match=r"test\.json: damaged"):
        compare.main(run, other)
    other.predictions("test").write_text("[]")
    other.ground_truth("test").write_text("[]")
    with pytest.raises(DataError, match=r"test_ground_truth\.json: not a COCO dataset"):
        compare.main(run, other)


def test_no_predictions_count_as_worse(tmp_path: Path, drawn: tuple[Truth, Predictions]) -> None:
    said = compared(tmp_path, (drawn[0], []), drawn)
    assert (said["figures"]["map50"]["run"], said["figures"]["map50"]["verdict"]) == (0.0, "worse")


def test_splits_that_do_not_match_are_refused(tmp_path: Path, drawn: tuple[Truth, Predictions]) -> None:
    run, other = written(tmp_path / "a", *drawn), written(tmp_path / "b", *drawn)
    write_json(run.ground_truth("val"), drawn[0])
    with pytest.raises(DataError, match=r"was measured on test, .* on val and test; give both the same splits$"):
        compare.main(run, other)


def test_the_command_line_compares_without_a_model(
    trained: Trained, copy_of: Callable[[Run], Run], tmp_path: Path
) -> None:
    """`--against` compares what both runs have on disk and predicts nothing."""
    run = copy_of(trained.run)
    (run.root.parent / "tiny.yaml").write_text("convert: {source: x}\n")
    other = Run(run.root.parent / "other")
    for path in (run.ground_truth("val"), run.ground_truth("test"), run.predictions("val"), run.predictions("test")):
        write_json(other.predictions_folder / path.name, read_json(path))
    write_json(other.metrics, {})
    run.model.unlink()
    command = ("validate", "--config", "runs/tiny.yaml", "--against")
    done = pipeline_process(*command, "runs/other", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    each = "mAP50-95 cannot be told apart, fewer than 5 images with objects"
    limits = "(intervals cover the choice of images, not the seed: one training each)"
    expected = f"validate: against runs/other: val {each}, test {each} {limits} -> runs/tiny/comparison.json\n"
    assert done.stdout == expected
    assert read_json(run.comparison)["against"] == "runs/other"
    for against, line in (
        ("runs/nobody", "error: runs/nobody/metrics.json: does not exist; `make validate CONFIG=configs/nobody.yaml` writes it, and the predictions to compare"),
        ("runs/tiny", "error: --against runs/tiny: is the same run; name another one"),
    ):  # fmt: skip
        done = pipeline_process(*command, against, cwd=tmp_path)
        assert (done.returncode, done.stderr.strip()) == (1, line)

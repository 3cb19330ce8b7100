"""The stage as a whole; its parts have their own files, test_validate_*.py."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import COCO_WEIGHTS, IMGSZ, Trained
from PIL import Image
from stand_ins import write_training
from test_device_received import xmp_png

from pipeline import validate
from pipeline.config.judging import Validate
from pipeline.errors import DataError
from pipeline.files import read_json, sha256
from pipeline.metrics.coco import evaluate
from pipeline.pixels import jpeg, read
from pipeline.run import Run
from pipeline.upstream import checkpoints, environment
from pipeline.validate import cost, predict, retention


@pytest.fixture(autouse=True)
def few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time few predictions: latency is not tested here."""
    monkeypatch.setattr(cost, "WARM_UP", 0)
    monkeypatch.setattr(cost, "RUNS", 3)


needs_coco_weights = pytest.mark.skipif(not COCO_WEIGHTS.is_file(), reason="data/weights/yolo26n.pt is missing")


def leaves(value: Any) -> list[Any]:
    if isinstance(value, (dict, list)):
        return [leaf for part in (value.values() if isinstance(value, dict) else value) for leaf in leaves(part)]
    return [value]


def test_metrics_are_complete_and_finite(trained: Trained) -> None:
    metrics = read_json(trained.run.metrics)
    assert set(metrics) == {
        *("model_sha256", "weights", "splits", "operating_point", "cost", "retention", "imgsz", "settings")
    }
    assert metrics["model_sha256"] == sha256(trained.run.model)
    assert all(math.isfinite(leaf) for leaf in leaves(metrics) if isinstance(leaf, float))
    assert set(metrics["splits"]) == {"val", "test"}
    for split, figures in metrics["splits"].items():
        truth, predictions = read_json(trained.run.ground_truth(split)), read_json(trained.run.predictions(split))
        assert figures["images"] == len(truth["images"]) == 3
        assert figures["predictions"] == len(predictions) > 0
        assert evaluate(truth, predictions).items() <= figures.items()
        assert {record["image_id"] for record in predictions} <= {image["id"] for image in truth["images"]}
        assert set(figures["per_class"]) == {category["name"] for category in truth["categories"]}
        assert figures["intervals"]["map50_95"] is None  # of three images
        assert np.array(figures["confusion"]["matrix"])[:-1].sum() == figures["objects"]
        assert figures["reconciliation"] is None  # not requested


def test_errors_refer_to_what_a_device_would_show(trained: Trained) -> None:
    thresholds = read_json(trained.run.metrics)["operating_point"]["thresholds"]
    for split in ("val", "test"):
        truth, said = read_json(trained.run.ground_truth(split)), read_json(trained.run.errors(split))
        assert said["thresholds"] == thresholds
        names = [category["name"] for category in truth["categories"]]
        shown = [
            record
            for record in read_json(trained.run.single_label(split))
            if record["score"] >= thresholds[names[record["category_id"]]]
        ]
        assert (
            len(shown)
            == len(said["predictions"])
            == said["counts"]["tp"]
            + sum(
                said["counts"][kind] for kind in ("classification", "localisation", "both", "duplicate", "background")
            )
        )
        figures = read_json(trained.run.metrics)["splits"][split]
        assert figures["error_counts"] == said["counts"]
        judged = figures["operating_point"]
        assert (judged["tp"], judged["tp"] + judged["fp"]) == (said["counts"]["tp"], len(said["predictions"]))
        assert judged["tp"] + judged["fn"] == figures["objects"]
        assert len(said["objects"]) == len(truth["annotations"])


def test_predictions_are_in_original_pixels(trained: Trained) -> None:
    """Single-label predictions equal Ultralytics' `model.predict`, image by image and box by box."""
    from ultralytics import YOLO

    model = YOLO(str(trained.run.model))
    truth, predictions = read_json(trained.run.ground_truth("test")), read_json(trained.run.single_label("test"))
    for image in truth["images"]:
        ours = [record for record in predictions if record["image_id"] == image["id"]]
        path = trained.run.dataset / "images" / "test" / image["file_name"]
        [result] = model.predict(str(path), imgsz=64, conf=0.001, iou=0.7, rect=False, device="cpu", verbose=False)
        xyxy = result.boxes.xyxy.numpy()
        assert len(ours) == len(xyxy) > 0
        assert [record["category_id"] for record in ours] == result.boxes.cls.int().tolist()
        boxes = np.array([record["bbox"] for record in ours])
        # 0.05 px: other batch sizes sum in another order, and 64 px are scaled up to 320.
        np.testing.assert_allclose(boxes[:, :2], xyxy[:, :2], atol=0.05)
        np.testing.assert_allclose(boxes[:, :2] + boxes[:, 2:], xyxy[:, 2:], atol=0.05)
        np.testing.assert_allclose([record["score"] for record in ours], result.boxes.conf.numpy(), atol=1e-4)


def test_an_orientation_that_only_pillow_obeys_changes_nothing(trained: Trained, tmp_path: Path) -> None:
    from ultralytics import YOLO

    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8))
    plain, turned = tmp_path / "plain.png", tmp_path / "turned.png"
    photograph.save(plain)
    xmp_png(photograph, turned)
    model = YOLO(str(trained.run.model), task="detect")
    found = predict.predict(model, [plain, turned], IMGSZ, Validate(), "cpu", "test").single_label
    sides: dict[int, list[Any]] = {1: [], 2: []}
    for record in found:
        sides[record["image_id"]].append({**record, "image_id": 0})
    assert sides[1] and sides[1] == sides[2]


def test_a_box_is_listed_with_every_class_above_the_threshold(trained: Trained) -> None:
    """As in Ultralytics' validation; keeping only the best class would cost average precision."""
    every, single = read_json(trained.run.predictions("test")), read_json(trained.run.single_label("test"))
    classes: dict[tuple[Any, ...], set[int]] = {}
    for record in every:
        classes.setdefault((record["image_id"], *record["bbox"]), set()).add(record["category_id"])
    assert max(map(len, classes.values())) > 1 and len(every) > len(single)


def people(folder: Path, names: list[str]) -> Path:
    """A dataset labelled with COCO classes: Ultralytics' own photograph of a bus, with boxes by hand."""
    environment.prepare()
    from ultralytics.utils import ASSETS

    corners = {
        "bus": [(22, 231, 805, 757)],
        "person": [(48, 398, 246, 903), (669, 392, 810, 877), (221, 405, 345, 858)],
    }
    (folder / "images" / "val").mkdir(parents=True)
    (folder / "labels" / "val").mkdir(parents=True)
    shutil.copy(ASSETS / "bus.jpg", folder / "images" / "val")
    lines = [
        f"{names.index(name)} {(x1 + x2) / 2 / 810} {(y1 + y2) / 2 / 1080} {(x2 - x1) / 810} {(y2 - y1) / 1080}\n"
        for name, boxes in corners.items()
        if name in names
        for x1, y1, x2, y2 in boxes
    ]
    (folder / "labels" / "val" / "bus.txt").write_text("".join(lines))
    (folder / "data.yaml").write_text(yaml.safe_dump({"val": "images/val", "names": dict(enumerate(names))}))
    return folder / "data.yaml"


@pytest.fixture
def photographs(tmp_path: Path) -> Run:
    """A run with a capable model: COCO weights, and Ultralytics' photograph of a bus as val and test."""
    from pipeline.upstream import checkpoints

    run = Run(tmp_path / "runs" / "photographs")
    names = list(checkpoints.load(COCO_WEIGHTS)[0].names.values())
    people(run.dataset, names)
    for kind in ("images", "labels"):
        shutil.copytree(run.dataset / kind / "val", run.dataset / kind / "test")
    with (run.dataset / "data.yaml").open("a") as file:
        file.write("test: images/test\n")
    shutil.copy(COCO_WEIGHTS, run.model)
    write_training(run, {"name": "yolo26n.yaml", "sha256": None, "instead_of": None})
    return run


@needs_coco_weights
@pytest.mark.slow
def test_nothing_is_chosen_on_test(photographs: Run) -> None:
    """With another test image and labels, every choice and everything about val stays identical."""
    run = photographs
    validate.main(Validate(), run, "cpu")
    before, errors = read_json(run.metrics), read_json(run.errors("val"))
    assert {row["why"] for name, row in before["operating_point"]["per_class"].items() if row["objects"]} == {"best F1"}
    assert before["splits"]["test"] == before["splits"]["val"]  # the same photograph
    judged, counts = before["splits"]["val"]["operating_point"], errors["counts"]
    assert (judged["tp"], judged["tp"] + judged["fp"]) == (counts["tp"], len(errors["predictions"])) > (2, 2)
    assert np.trace(before["splits"]["val"]["confusion"]["matrix"]) == counts["tp"]
    image = run.dataset / "images" / "test" / "bus.jpg"
    digest = sha256(run.model)
    image.write_bytes(jpeg(read(image)[:, ::-1].copy(), quality=50))
    (run.dataset / "labels" / "test" / "bus.txt").write_text("7 0.5 0.5 0.9 0.9\n")
    validate.main(Validate(), run, "cpu")
    after = read_json(run.metrics)
    assert after["splits"]["test"] != before["splits"]["test"]
    assert after["operating_point"] == before["operating_point"]
    assert after["splits"]["val"] == before["splits"]["val"]
    assert read_json(run.errors("val")) == errors
    assert read_json(run.errors("test"))["thresholds"] == before["operating_point"]["thresholds"]
    assert sha256(run.model) == digest


@needs_coco_weights
@pytest.mark.slow
def test_wanted_changes_only_the_thresholds(photographs: Run) -> None:
    said = {}
    for wanted in (None, {"precision": 1.0}, {"recall": 1.0}):
        validate.main(Validate.model_validate({"wanted": wanted}), photographs, "cpu")
        said[next(iter(wanted or {"best": 0}))] = read_json(photographs.metrics)
    for name, metrics in said.items():
        assert next(iter(metrics["operating_point"]["wanted"])) == name
        assert metrics["splits"]["test"]["map50_95"] == said["best"]["splits"]["test"]["map50_95"] > 0.5
    assert said["precision"]["splits"]["val"]["operating_point"]["per_class"]["person"]["precision"] == 1
    assert said["recall"]["splits"]["val"]["operating_point"]["per_class"]["person"]["recall"] == 1
    thresholds = {name: metrics["operating_point"]["thresholds"]["person"] for name, metrics in said.items()}
    assert thresholds["recall"] <= thresholds["best"]


def drop_split(run: Run, split: str) -> None:
    path = run.dataset / "data.yaml"
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines() if not line.startswith(f"{split}:")))


def test_without_val_nothing_is_chosen(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    drop_split(run, "val")
    validate.main(Validate(reconcile=("ultralytics",)), run, "cpu")
    metrics = read_json(run.metrics)
    reconciled = metrics["splits"]["test"]["reconciliation"]
    assert reconciled["remaining"]["ultralytics"]["map50"] == pytest.approx(0, abs=1e-3)
    assert reconciled["figures"]["fiftyone"] is None
    assert metrics["operating_point"] is None and set(metrics["splits"]) == {"test"}
    assert set(read_json(run.errors("test"))["thresholds"].values()) == {0.25}
    drop_split(run, "test")
    with pytest.raises(DataError, match=r"has neither a val nor a test split to validate on; set convert\.split$"):
        validate.main(Validate(), run, "cpu")


def test_a_split_without_labels_has_no_figures(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    for label in (run.dataset / "labels" / "test").iterdir():
        label.write_text("")
    run.comparison.write_text("{}")
    said = validate.main(Validate(reconcile=("ultralytics",)), run, "cpu")
    assert not run.comparison.exists()  # it described the previous figures
    figures = read_json(run.metrics)["splits"]["test"]
    assert "test no objects, so no average precision" in said
    assert (figures["map50_95"], figures["reconciliation"], figures["intervals"]["map50"]) == (None, None, None)
    assert figures["operating_point"]["recall"] is None and figures["error_counts"]["missed"] == 0


def test_an_unfinished_run_is_reported(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    run.model.unlink()
    with pytest.raises(DataError, match=r"model\.pt: does not exist; `make train` writes it"):
        validate.main(Validate(), run, "cpu")


def test_an_interrupted_validation_leaves_no_record(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    """The record of the previous one would make `make` take the stage for finished, without its predictions."""
    run = copy_of(trained.run)
    image = max((run.dataset / "images/test").iterdir())
    image.unlink()
    image.touch()
    with pytest.raises(DataError, match=image.name):
        validate.main(Validate(), run, "cpu")
    assert not run.metrics.exists()


def test_the_last_line_names_the_figures_that_it_replaces(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    record = read_json(run.metrics)
    record["splits"]["val"]["map50_95"] = 0.123
    del record["splits"]["test"]  # as if the config had no test split then
    run.metrics.write_text(json.dumps(record))
    val, test = validate.main(Validate(), run, "cpu").split(", test ")
    assert val.endswith(", before 0.123") and "before" not in test
    run.metrics.write_text("{}")  # as an older version would have written it
    assert "before" not in validate.main(Validate(), run, "cpu")


def test_against_measures_a_changed_model_first(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    run.model.write_bytes(run.model.read_bytes() + b" ")
    assert validate.main(Validate(), run, "cpu", against=trained.run.root).startswith("val mAP50")
    assert read_json(run.metrics)["model_sha256"] == sha256(run.model)
    assert validate.main(Validate(), run, "cpu", against=trained.run.root).startswith("against ")


@needs_coco_weights
def test_retention_compares_old_classes_before_and_after(
    trained: Trained, copy_of: Callable[[Run], Run], tmp_path: Path
) -> None:
    """A new head has forgotten the old classes; the source model itself has lost nothing."""
    run = copy_of(trained.run)
    assert read_json(run.metrics)["retention"] is None  # no class in common
    config = Validate(retention=people(tmp_path / "people", ["person", "bus", "comet"]))
    validate.main(config, run, "cpu")
    [forgotten] = read_json(run.metrics)["retention"]["sets"]
    assert (forgotten["images_of"], forgotten["images"]) == (str(config.retention), 1)
    assert {name: row["after"] for name, row in forgotten["classes"].items()} == {"person": None, "bus": None}
    shutil.copy(COCO_WEIGHTS, run.model)
    names = checkpoints.load(COCO_WEIGHTS)[0].names
    (run.dataset / "data.yaml").write_text(f"val: images/val\nnames: {json.dumps(names)}\n")
    validate.main(config, run, "cpu")
    sets = read_json(run.metrics)["retention"]["sets"]
    assert [one["images_of"] for one in sets] == ["val", str(config.retention)]
    kept = sets[1]["classes"]
    assert {name: row["objects"] for name, row in kept.items()} == {"person": 3, "bus": 1}
    assert all(row["before"] == row["after"] > 0.5 for row in kept.values())


@needs_coco_weights
@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (None, "does not exist; name the data.yaml of a labelled set, or null"),
        (["comet"], "no labelled object of a class that yolo26n.pt knows; name a set with its classes, or null"),
    ],
)
def test_a_useless_retention_set_is_refused_before_predicting(
    trained: Trained, copy_of: Callable[[Run], Run], tmp_path: Path, names: list[str] | None, complaint: str
) -> None:
    path = people(tmp_path / "people", names) if names else tmp_path / "nowhere" / "data.yaml"
    run = copy_of(trained.run)
    shutil.rmtree(run.predictions_folder)
    with pytest.raises(DataError) as error:
        validate.main(Validate(retention=path), run, "cpu")
    assert str(error.value) == f"validate.retention: {path}: {complaint}"
    assert not run.predictions_folder.exists()


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("labels/val/bus.txt", b"0 0.5 0.5 wide 0.5\n", r"bus\.txt: line 1: not numbers: .*; correct it"),
        (
            "labels/val/bus.txt",
            b"0 0.5 0.5 nan 0.5\n",
            r"bus\.txt: line 1: coordinates are not finite numbers; correct it",
        ),
        ("images/val/bus.jpg", b"", r"bus\.jpg: missing or not an image; restore it, or remove its labels"),
        ("images/val/bus.jpg", None, r"bus\.jpg: missing or not an image; restore it, or remove its labels"),
    ],
)
def test_a_damaged_retention_set_is_refused(name: str, content: bytes | None, complaint: str, tmp_path: Path) -> None:
    path = people(tmp_path, ["bus", "person"])
    assert len(retention.labelled_set(path)[1]) == 1
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"^validate\.retention: .*{complaint}$"):
        retention.labelled_set(path)


def test_a_retention_set_is_the_one_that_the_config_names(tmp_path: Path) -> None:
    """A data.yaml beside it describes another set."""
    path = people(tmp_path, ["bus", "person"])
    night = path.rename(path.with_name("night.yaml"))
    (tmp_path / "data.yaml").write_text("val: images/day\nnames: [lamp, tree]\n")
    truth, images = retention.labelled_set(night)
    assert [category["name"] for category in truth["categories"]] == ["bus", "person"] and len(images) == 1


@needs_coco_weights
def test_a_fallback_given_by_its_path_is_compared(
    trained: Trained, copy_of: Callable[[Run], Run], tmp_path: Path
) -> None:
    run = copy_of(trained.run)
    fallback = tmp_path / "other.pt"
    shutil.copy(COCO_WEIGHTS, fallback)
    record, params = read_json(run.train_record), read_json(run.params("train"))
    record["weights"] |= {"name": "other.pt", "sha256": sha256(fallback)}
    params["train"] |= {"weights": "missing.pt", "fallback": str(fallback)}
    run.train_record.write_text(json.dumps(record))
    run.params("train").write_text(json.dumps(params))
    found = retention.baseline(Validate(), run)
    assert isinstance(found, retention.Baseline) and found.file == fallback


@needs_coco_weights
def test_changed_source_weights_are_not_compared(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    record = read_json(run.train_record)
    record["weights"]["sha256"] = "0" * 64
    run.train_record.write_text(json.dumps(record))
    why = "the source weights yolo26n.pt are no longer in data/weights, or have changed"
    assert retention.baseline(Validate(), run) == why
    assert retention.measure(Validate(), why, None, 64, "cpu", {}) == {"skipped": why}


@needs_coco_weights
def test_cost_matches_the_published_figures(trained: Trained) -> None:
    """Ultralytics publishes 2.4 million parameters and 5.4 GFLOPs at 640 for YOLO26n."""
    from ultralytics import YOLO

    image = next((trained.run.dataset / "images" / "val").iterdir())
    said = cost.measure(YOLO(str(COCO_WEIGHTS)), [image], 640, "cpu")
    # To the published digits; Ultralytics has since counted slightly differently (5.48).
    assert said["parameters"] == pytest.approx(2.4e6, abs=0.05e6) and said["gflops"] == pytest.approx(5.4, abs=0.1)
    latency = said["latency"]
    assert 0 < latency["median_ms"] <= latency["p95_ms"] and latency["device"] and latency["batch"] == 1


def test_the_record_states_what_latency_includes(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three parts that Ultralytics times, none of which reads a file, as named in the record."""
    from ultralytics import YOLO

    latency = read_json(trained.run.metrics)["cost"]["latency"]
    assert latency["includes"] == "letterbox, network and non-maximum suppression, without reading the file"
    image = read(next((trained.run.dataset / "images" / "val").iterdir()))
    [result] = YOLO(str(trained.run.model)).predict(image, imgsz=64, device="cpu", verbose=False)
    assert set(result.speed) == {"preprocess", "inference", "postprocess"}

    class Timed(YOLO):  # type: ignore[misc]
        calls = 0

        def predict(self, *arguments: Any, **options: Any) -> Any:
            self.calls += 1
            results = super().predict(*arguments, **options)
            slow = 100 if self.calls <= cost.WARM_UP else 1
            results[0].speed = {"preprocess": 1.0, "inference": 2.0 * slow, "postprocess": 4.0}
            return results

    monkeypatch.setattr(cost, "WARM_UP", 2)
    path = next((trained.run.dataset / "images" / "val").iterdir())
    latency = cost.measure(Timed(str(trained.run.model)), [path], 64, "cpu")["latency"]
    assert (latency["median_ms"], latency["p95_ms"]) == (7, 7)  # the slow first ones do not count

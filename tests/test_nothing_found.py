"""Finding nothing is a result: models without detections, splits and classes without objects, splits of one image.

All through the real stages, on real predictions of three models: `something` is the trained one, with an object
labelled where its score is highest; `unsure` is the same with all scores lowered to 0.1, and `nothing` finds nothing.
"""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from conftest import IMGSZ, Trained, needs_database, read_coco, write_coco
from test_report import Page

from pipeline import convert, export, history, inspect, report, train, validate
from pipeline.config.data import Convert
from pipeline.config.export import Export
from pipeline.config.judging import Inspect, Report, Validate
from pipeline.config.training import Train
from pipeline.errors import DataError, ExportError, counted
from pipeline.export import bench, bundle
from pipeline.files import read_json, write_json
from pipeline.run import Run
from pipeline.upstream import environment
from pipeline.validate import cost

VAL = ("empty", "one", "all", "lacking")
TEST = ("missing", *VAL)
MODELS = ("nothing", "something")
AP = ("map50_95", "map50", "map75", "ar100")


@dataclass(frozen=True)
class World:
    """What all runs in this file are built from; `lacking` is the class absent from `lacking` splits."""

    models: dict[str, Path]
    source: Path
    lacking: str

    def labels(self, split: str, kind: str) -> dict[str, Any]:
        data = read_coco(self.source, split)
        if kind == "one":
            data["images"] = data["images"][:1]
        kept = {image["id"] for image in data["images"]}
        absent = [category["id"] for category in data["categories"] if category["name"] == self.lacking]
        data["annotations"] = [
            {**box, "ignore": int(kind == "empty")}  # with an empty list, the images would be set aside
            for box in data["annotations"]
            if box["image_id"] in kept and (kind != "lacking" or box["category_id"] not in absent)
        ]
        return data


@pytest.fixture(scope="module")
def world(trained: Trained, tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Each validated image with an object of every class, and one where the model's score is highest."""
    folder = tmp_path_factory.mktemp("world")
    source = Path(shutil.copytree(tiles, folder / "source"))
    surest: list[dict[str, Any]] = []
    for split in ("val", "test"):
        data = read_coco(source, split)
        ids = {category["name"]: category["id"] for category in data["categories"]}
        truth, found = read_json(trained.run.ground_truth(split)), read_json(trained.run.single_label(split))
        name_of = {image["id"]: image["file_name"] for image in truth["images"]}
        data["annotations"] = []
        for image in data["images"]:
            best = max(
                (record for record in found if name_of[record["image_id"]] == image["file_name"]),
                key=lambda record: record["score"],
            )
            surest.append({**best, "name": truth["categories"][best["category_id"]]["name"]})
            # In a row along the upper edge, where no model finds them.
            boxes = [(ids[name], [5 + 50 * number, 3, 12, 12]) for number, name in enumerate(ids)]
            for kind, bbox in [*boxes, (ids[surest[-1]["name"]], best["bbox"])]:
                data["annotations"].append(
                    {"id": len(data["annotations"]) + 1, "image_id": image["id"], "category_id": kind, "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0}
                )  # fmt: skip
        write_coco(source, split, data)
    environment.prepare()
    from ultralytics import YOLO

    models = {"something": trained.run.model}
    best = max(record["score"] for record in surest)
    for name, shift in (("unsure", math.log(best / (1 - best) / (0.1 / 0.9))), ("nothing", 40)):
        model = YOLO(str(trained.run.model), task="detect")
        head = model.model.model[-1]
        for branch in (*head.cv3, *head.one2one_cv3):
            branch[-1].bias.data -= shift
        models[name] = folder / f"{name}.pt"
        model.save(models[name])
    # The first images are alone in some splits, and must keep what is found there.
    lacking = next(name for name in ids if name not in (surest[0]["name"], surest[3]["name"]))
    return World(models, source, lacking)


@pytest.fixture
def made(world: World, trained: Trained, tmp_path: Path) -> Callable[..., Run]:
    """A run converted with the given kinds of splits, with the given model in place of a trained one."""

    def make(val: str, test: str, model: str, name: str = "tiny") -> Run:
        source = Path(shutil.copytree(world.source, tmp_path / f"source-{name}"))
        run = Run(tmp_path / "runs" / name)
        for split, kind in (("val", val), ("test", test)):
            images = [] if kind == "missing" else world.labels(split, kind)["images"]
            for path in (source / "images").glob(f"{split}*"):
                if path.name not in {image["file_name"] for image in images}:
                    path.unlink()
            if kind == "missing":
                (source / "annotations" / f"{split}.json").unlink()
            else:
                write_coco(source, split, world.labels(split, kind))
        convert.main(Convert(source=source, near_duplicates=False), run, 0)
        shutil.copytree(trained.run.train, run.train)
        shutil.copy(world.models[model], run.model)
        # Random weights, so that there is nothing to retain.
        record = read_json(trained.run.train_record)
        write_json(run.train_record, {**record, "weights": {**record["weights"], "sha256": None}})
        return run

    return make


@pytest.fixture(autouse=True)
def measured_once(monkeypatch: pytest.MonkeyPatch, world: World, cache: dict[str, Any]) -> None:
    """Measure a model's cost once: it does not depend on the labels."""
    measure = cost.measure
    monkeypatch.setattr(cost, "WARM_UP", 0)
    monkeypatch.setattr(cost, "RUNS", 1)
    monkeypatch.setattr(
        cost, "measure", lambda *given: cache["cost"] if "cost" in cache else cache.setdefault("cost", measure(*given))
    )


@pytest.fixture(scope="module")
def cache() -> dict[str, Any]:
    return {}


def words(run: Run) -> str:
    return " ".join(Page(run).text.split())


@pytest.mark.parametrize(("val", "test", "model"), list(product(VAL, TEST, MODELS)))
def test_every_combination_ends_in_a_report(
    world: World, made: Callable[..., Run], val: str, test: str, model: str
) -> None:
    run = made(val, test, model)
    said = validate.main(Validate(), run, "cpu")
    report.main(Report(), run)
    text = words(run)
    metrics = read_json(run.metrics)
    kinds = {"val": val} | ({} if test == "missing" else {"test": test})
    assert set(metrics["splits"]) == set(kinds)
    for split, kind in kinds.items():
        figures, point = metrics["splits"][split], metrics["splits"][split]["operating_point"]
        if kind == "empty":
            # Not measured is not 0.
            assert {figures[key] for key in AP} == {point["recall"], point["f1"]} == {None}
            assert set(figures["error_costs"].values()) == {None}
            assert {row[key] for row in figures["per_class"].values() for key in ("map50", "ar100")} == {None}
            assert f"{split} no objects, so no average precision" in said
        elif model == "nothing":
            # Measured: none of them found. Precision is undefined without predictions.
            assert [figures[key] for key in AP] == [0] * 4
            assert (point["recall"], point["f1"], point["precision"]) == (0, 0, None)
            assert f"{split} mAP50 0.000 mAP50-95 0.000, nothing found above 0.001" in said
        else:
            assert figures["map50"] > 0 and f"{split} mAP50 {figures['map50']:.3f}" in said
        assert (figures["per_class"][world.lacking]["map50"] is None) == (kind in ("empty", "lacking"))
        assert figures["calibration"]["ece"] is None or figures["calibration"]["predictions"] > 0

    split, kind = list(kinds.items())[-1]
    figures = metrics["splits"][split]
    assert not re.search(r"\b(None|nan|inf|Undefined)\b", text)
    assert (f"No objects in the {split} split, so no average precision" in text) == (kind == "empty")
    assert (f"The model finds nothing above 0.001 in the {split} split" in text) == (model == "nothing")
    assert (f"No objects of {world.lacking}, so no average precision" in text) == (kind == "lacking")
    shown = {key: "–" if figures[key] is None else f"{figures[key]:.3f}" for key in AP}
    for key, label in zip(AP, ("mAP50-95", "mAP50", "mAP75", "AR100"), strict=True):
        assert re.search(
            rf"(?<!\S){re.escape(shown[key])}{label}{'no objects' if kind == 'empty' else 'no interval'}", text
        )
    assert ("no mAP was measured; the model is that of the last epoch" in text) == (val == "empty")
    if model == "nothing":
        assert "nothing to measure" in text  # calibration
        why = "" if kind == "empty" else "not measured: without them, no object would be left to find"
        assert f"missedno prediction matches the object{why}–" in text
    assert ("The val split has nothing to choose thresholds on" in text) == (val == "empty" or model == "nothing")


def test_a_missing_val_split_is_refused_by_convert(world: World, tmp_path: Path) -> None:
    """Training chooses its best epoch on val, so the first stage already requires it."""
    source = Path(shutil.copytree(world.source, tmp_path / "source"))
    (source / "annotations" / "val.json").unlink()
    for path in (source / "images").glob("val*"):
        path.unlink()
    with pytest.raises(DataError, match=r"source: no image in the val split; set ratios in convert\.split"):
        convert.main(Convert(source=source), Run(tmp_path / "runs" / "tiny"), 0)


def test_a_missing_split_leaves_nothing_to_compare(made: Callable[..., Run], trained: Trained) -> None:
    run = made("one", "missing", "something")
    shutil.copytree(trained.run.predictions_folder, run.predictions_folder)
    validate.main(Validate(), run, "cpu")
    assert {path.name.split(".")[0].split("_")[0] for path in run.predictions_folder.iterdir()} == {"val"}


def test_no_predictions_reach_the_thresholds(made: Callable[..., Run]) -> None:
    """Val gives no basis for a choice, and the default is above every score."""
    run = made("empty", "all", "unsure")
    validate.main(Validate(), run, "cpu")
    metrics, found = read_json(run.metrics), read_json(run.single_label("test"))
    best = max(record["score"] for record in found)
    assert metrics["splits"]["test"]["operating_point"]["precision"] is None
    report.main(Report(), run)
    assert f"nothing at the operating thresholds: the best of its {len(found)} predictions scores {best:.3f}" in words(
        run
    )


# --- Other stages ---------------------------------------------------------------------------------


def test_training_on_a_val_split_without_objects_has_no_map(world: World, made: Callable[..., Run]) -> None:
    """Ultralytics then records a mAP of 0, which was never measured."""
    run = made("empty", "all", "something")
    shutil.rmtree(run.train)
    shutil.copytree(run.dataset, run.augmented)
    base = {"weights": str(world.models["something"]), "imgsz": IMGSZ, "args": {"plots": False}}
    config = Train.model_validate({**base, "phases": [{"epochs": 1}, {"epochs": 1}]})
    assert ", val mAP50-95 unknown in phase 2, nothing frozen -> " in train.main(config, run, 0, "cpu")
    assert [phase["best_fitness"] for phase in read_json(run.train_record)["phases"]] == [None, None]
    epochs, _ = history.read(run)
    measured = [{key for key, value in row.items() if value is not None} for row in epochs]
    assert len(epochs) == 2 and all("train/cls_loss" in keys and "val/cls_loss" in keys for keys in measured)
    assert not any(key.startswith("metrics/") for keys in measured for key in keys)
    assert (run.train / "curves.png").is_file()
    validate.main(Validate(), run, "cpu")
    report.main(Report(), run)
    assert "no mAP was measured; the model is that of the last epoch" in words(run)


@pytest.mark.parametrize("val", ["empty", "all"])
def test_a_model_that_finds_nothing_is_not_exported(made: Callable[..., Run], val: str) -> None:
    """Nothing was compared, so nothing is proven or published, but the stage completes."""
    run = made(val, "missing", "nothing")
    validate.main(Validate(), run, "cpu")
    said = export.main(Export(images=2), run, 0, "cpu")
    why = "the model finds nothing in these images, so nothing is proven; train longer"
    assert said == f"tiny.onnx not handed out: {why} -> {run.export}"
    assert [path.name for path in run.export.iterdir()] == ["manifest.json"]
    [entry] = read_json(run.manifest)["artefacts"]
    assert (entry["verdict"], entry["breaches"], entry["note"]) == ("unproven", [], why)
    assert (entry["parity"]["boxes"], entry["parity"]["max_box_px"], entry["parity"]["mean_score_shift"]) == (0, None, None)  # fmt: skip
    assert entry["ap"]["artefact"]["map50_95"] == (None if val == "empty" else 0)
    report.main(Report(), run)
    assert why in words(run) and "tiny.onnx (not handed out)" in words(run)
    with pytest.raises(ExportError, match=r"manifest\.json: has no verified model that runs here"):
        bench.main(run)


@pytest.mark.parametrize("val", ["empty", "all"])
def test_a_model_with_low_scores_is_exported(made: Callable[..., Run], tmp_path: Path, val: str) -> None:
    """No box reaches `export.conf`, so the boxes there are are compared and test the device."""
    run = made(val, "missing", "unsure")
    validate.main(Validate(), run, "cpu")
    best = max(record["score"] for record in read_json(run.single_label("val")))
    said = export.main(Export(), run, 0, "cpu")
    [entry] = read_json(run.manifest)["artefacts"]
    # Half of the best: single and batched predictions differ in the last digits.
    assert entry["parity"]["from_score"] == pytest.approx(best / 2, rel=1e-3) and entry["parity"]["boxes"] > 0
    assert f"no box reaches 0.25, so those from {best / 2:.2g} were compared" in said
    report.main(Report(), run)
    assert entry["note"] in words(run)
    folder = bundle.unpack(run.export / entry["bundle"], tmp_path)
    assert sum(len(golden["scores"]) for golden in read_json(folder / "golden" / "expected.json")) > 0
    done = subprocess.run([sys.executable, "run.py", "--selftest"], cwd=folder, capture_output=True, text=True, check=True)  # fmt: skip
    assert re.match(r"selftest passed: \d images, [1-9]\d* objects", done.stdout)


def test_boxes_only_the_artefact_finds_are_a_breach(made: Callable[..., Run], world: World) -> None:
    from pipeline.boxes import YoloDataset
    from pipeline.config.export import Limits32
    from pipeline.device import runner
    from pipeline.export import targets
    from pipeline.export.gate import Gate

    run = made("one", "missing", "something")
    export.main(Export(conf=0.002), run, 0, "cpu")
    dataset = YoloDataset.read(run.dataset / "data.yaml")
    spec = targets.spec(Export().targets[0], run.export / "tiny.onnx", run.export, dataset.names, IMGSZ, dict.fromkeys(dataset.names, 0.002))  # fmt: skip
    gate = Gate(world.models["nothing"], dataset, dataset.files("val"), 0.002)
    verdict, _ = gate.judge(runner.Model(run.export, spec, 1), None, Limits32(), "test")
    assert verdict.outcome == "refused" and re.match(r"of \d+ boxes, 0 lost, [1-9]\d* invented", verdict.breaches[0])


@needs_database
@pytest.mark.usefixtures("own_database")
@pytest.mark.parametrize(
    ("val", "test", "model", "missed_on"),
    [("all", "empty", "nothing", 3), ("empty", "missing", "something", 0), ("one", "lacking", "nothing", 4)],
)
def test_inspect_shows_runs_without_detections(
    made: Callable[..., Run], val: str, test: str, model: str, missed_on: int
) -> None:
    import fiftyone as fo

    run = made(val, test, model)
    validate.main(Validate(reconcile=("ultralytics", "fiftyone")), run, "cpu")
    objects = sum(figures["objects"] for figures in read_json(run.metrics)["splits"].values())
    try:
        said = inspect.main(Inspect(), run, "cpu")
        dataset = fo.load_dataset(run.name)
        shown = {view: len(dataset.load_saved_view(view)) for view in dataset.list_saved_views()}
        missed = dict.fromkeys(("missed-objects", "possible-label-errors", "hardest-images"), missed_on)
        assert shown == {**dict.fromkeys(shown, 0), **missed, "evaluation-patches": objects}
        validated = dataset.match_tags(["val", "test"])
        assert validated.count("ground_truth.detections") == objects
        if model == "nothing":
            assert f" 0 of {counted(objects, 'object')} found, 0 wrong predictions" in said
            assert validated.count("predictions.detections") == 0
    finally:
        fo.delete_datasets(f"{run.name}*")


def test_unmeasured_splits_are_not_compared_with_another_run(made: Callable[..., Run]) -> None:
    """A split without objects is not measured, which is not the same as noise."""
    run, other = made("lacking", "empty", "nothing"), made("lacking", "empty", "something", "other")
    for one in (run, other):
        validate.main(Validate(), one, "cpu")
    said = validate.main(Validate(), run, "cpu", other.root)
    assert "test mAP50-95 not measured, no objects" in said
    assert "val mAP50-95 cannot be told apart, fewer than 5 images" in said
    report.main(Report(), run, other.root)
    assert "mAP50-95not measured––––" in words(run)

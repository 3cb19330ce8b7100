"""The run in a real FiftyOne with its real database, in a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Trained, needs_database

from pipeline import convert, database, fixes, inspect
from pipeline.config import Inspect
from pipeline.errors import DataError, PipelineError
from pipeline.files import read_json, write_json
from pipeline.run import Run
from pipeline.validate import error_types

pytestmark = pytest.mark.usefixtures("own_database")


@pytest.fixture
def handmade(trained: Trained, copy_of: Callable[[Run], Run]) -> Run:
    """Test predictions made by hand: a hit, a miss, one invented with confidence, and a hint of one below the floor."""
    run = copy_of(trained.run)
    truth = read_json(run.ground_truth("test"))
    truth["annotations"] = [
        {"id": i, "image_id": i, "category_id": 0, "bbox": [32, 64, 80, 40], "area": 3200, "iscrowd": 0} for i in (1, 2)
    ]
    write_json(run.ground_truth("test"), truth)
    write_json(
        run.predictions("test"),
        [
            {"image_id": 1, "category_id": 0, "bbox": [32, 64, 80, 40], "score": 0.9},
            {"image_id": 3, "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.8},
            {"image_id": 3, "category_id": 1, "bbox": [90, 90, 20, 20], "score": 0.01},
        ],
    )
    write_json(run.predictions("val"), [])
    for split in ("val", "test"):  # what validate would have made of them
        truth, found = read_json(run.ground_truth(split)), read_json(run.predictions(split))
        thresholds = {category["name"]: 0.25 for category in truth["categories"]}
        write_json(run.single_label(split), found)
        kept = error_types.kept(found, list(thresholds.values()))
        write_json(run.errors(split), error_types.record(truth, kept, thresholds))
    return run


def build(run: Run) -> Any:
    inspect.main(Inspect(), run)
    import fiftyone as fo

    return fo.load_dataset(run.name)


@needs_database
def test_every_object_is_there_and_judged(handmade: Run) -> None:
    dataset = build(handmade)
    assert dataset.persistent
    assert dataset.count_sample_tags() == {"train": 8, "val": 3, "test": 3}
    receipt = read_json(handmade.receipt)
    assert dataset.match_tags("train").count("ground_truth.detections") == receipt["splits"]["train"]["boxes"]
    test = dataset.match_tags("test").sort_by("filepath")
    assert test.values("eval_tp") == [1, 0, 0]
    assert test.values("eval_fn") == [0, 1, 0]
    assert test.values("eval_fp") == [0, 0, 1]
    # Relative [x, y, width, height] of 320 px.
    assert test.first().ground_truth.detections[0].bounding_box == pytest.approx([0.1, 0.2, 0.25, 0.125])
    assert test.first().predictions.detections[0].confidence == pytest.approx(0.9)
    assert test.first().ground_truth.detections[0].label == "open"
    assert Path(test.first().filepath).is_file()


@needs_database
def test_saved_views_lead_to_the_mistakes(handmade: Run) -> None:
    dataset = build(handmade)
    assert dataset.list_saved_views() == [
        "most-false-positives",
        "confident-false-positives",
        "missed-objects",
        "wrong-class",
        "badly-placed",
        "possible-label-errors",
        "hardest-images",
        "near-duplicates-across-splits",
        "evaluation-patches",
    ]
    confident = dataset.load_saved_view("confident-false-positives").match_tags("test")
    assert confident.count("predictions.detections") == 1
    assert dataset.load_saved_view("missed-objects").match_tags("test").count("ground_truth.detections") == 1


@needs_database
def test_a_second_build_replaces_the_first(handmade: Run) -> None:
    import fiftyone as fo

    first = len(build(handmade))
    assert len(build(handmade)) == first
    assert fo.list_datasets().count(handmade.name) == 1


@needs_database
def test_corrections_come_back_and_are_converted(handmade: Run, trained: Trained) -> None:
    """Tagged in the App, saved as text, applied by the next convert, each with its line in the receipt."""
    dataset = build(handmade)
    train = dataset.match_tags("train").sort_by("filepath")
    wrong, dropped = train.skip(1).first(), train.first()
    dropped.tags.append("drop")
    dropped.save()
    wrong.ground_truth.detections[0].tags.append("wrong")
    wrong.save()
    missing = next(
        sample for sample in dataset.match_tags("test") if len(sample.predictions.detections) and not sample.eval_tp
    )
    missing.predictions.detections[0].tags.append("missing")
    missing.save()
    assert "3 corrections ->" in inspect.save_fixes(handmade)
    saved = fixes.load(fixes.file_of(handmade))
    assert saved.images == {Path(dropped.filepath).name: "drop"}
    assert {(fix.image, fix.action, fix.label) for fix in saved.boxes} == {
        (Path(wrong.filepath).name, "remove", wrong.ground_truth.detections[0].label),
        (Path(missing.filepath).name, "add", missing.predictions.detections[0].label),
    }
    before = read_json(handmade.receipt)
    convert.main(trained.config.convert, handmade, trained.config.seed)
    after = read_json(handmade.receipt)
    assert all(line["applied"] for line in after["fixes"]) and len(after["fixes"]) == 3
    assert after["splits"]["train"]["images"] == before["splits"]["train"]["images"] - 1
    assert after["splits"]["test"]["boxes"] == before["splits"]["test"]["boxes"] + 1
    assert "nothing new to save" in inspect.save_fixes(handmade)


@needs_database
def test_predictions_of_an_unknown_image(handmade: Run) -> None:
    errors = read_json(handmade.errors("test"))
    errors["predictions"][0]["image_id"] = 99
    write_json(handmade.errors("test"), errors)
    with pytest.raises(DataError, match=r"test_errors\.json: .*`make validate` again"):
        inspect.main(Inspect(), handmade)


@needs_database
def test_the_app_answers_on_this_machine_alone_and_ends(handmade: Run, tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text("convert: {source: nowhere}\n")
    command = [sys.executable, "-m", "pipeline", "inspect", "--config", str(config), "--port", "5163"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = next(line for line in process.stdout if line.startswith("inspect: http")).split()[1]
        assert address == "http://127.0.0.1:5163/datasets/tiny"
        with urllib.request.urlopen(address, timeout=30) as page:
            assert b"FiftyOne" in page.read()
        listening = Path("/proc/net/tcp")
        if listening.is_file():  # local address in hex, state 0A: listening
            rows = [row.split() for row in listening.read_text().splitlines()[1:]]
            assert [row[1] for row in rows if row[3] == "0A" and row[1].endswith(":142B")] == ["0100007F:142B"]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


def test_no_database(handmade: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """FiftyOne's installer leaves none, and says nothing, where it could not download it."""

    class Spec:
        origin = str(tmp_path / "fiftyone" / "__init__.py")

    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    monkeypatch.setattr(database, "find_spec", lambda name: Spec)
    with pytest.raises(PipelineError, match=r"database is missing.*; `make database` installs it"):
        inspect.main(Inspect(), handmade)


def test_a_shared_database_that_does_not_answer(handmade: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://127.0.0.1:9")
    with pytest.raises(PipelineError, match=r"FIFTYONE_DATABASE_URI: no answer from 127\.0\.0\.1:9"):
        inspect.main(Inspect(), handmade)


def test_nothing_to_inspect(run: Run) -> None:
    with pytest.raises(DataError, match=r"data\.yaml: not there; `make` runs the stage that writes it"):
        inspect.main(Inspect(), run)

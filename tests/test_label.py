"""What to label next: the command on real images with a real model."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import COCO_WEIGHTS, pipeline_process

from pipeline import convert, files, options, pixels
from pipeline.boxes import Box, YoloDataset, write_labels
from pipeline.config.data import Convert
from pipeline.config.label import Label
from pipeline.errors import ConfigError, DataError, WeightsError
from pipeline.extras.sample import dataset as sample
from pipeline.label import choose, layouts, plan, pool, stage
from pipeline.label.stage import main
from pipeline.labels import file as labels
from pipeline.labels.content import Image, Labels
from pipeline.records import label as record
from pipeline.run import Run
from pipeline.upstream import environment

# --- The command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, start: Path) -> Path:
    """A model with the sample's class names; what it detects as them does not matter here."""
    environment.prepare()
    from ultralytics import YOLO

    yolo = YOLO(str(start), task="detect")
    # Every model class maps to one of ours, so that all classes get boxes.
    yolo.model.names = {index: sample.CLASSES[index % len(sample.CLASSES)] for index in yolo.model.names}
    yolo.ckpt = {**(yolo.ckpt or {}), "train_args": {"imgsz": 160}}
    path = tmp_path_factory.mktemp("model") / "model.pt"
    yolo.save(path)
    return path


@pytest.fixture
def converted(tiles: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with a data set and a model, and a pool of new tiles beside the source."""
    monkeypatch.chdir(tmp_path)
    run = Run(Path("runs/tiny"))
    shutil.copytree(tiles, "source")
    convert.main(Convert(source=Path("source")), run, 0)
    shutil.copy(model, run.model)
    sample.main(seed=7, folder=Path("drawn"), splits={"train": 14})
    shutil.copytree("drawn/images", "pool")
    return run


def chosen(run: Run, **settings: Any) -> record.Next:
    config = Label.model_validate({"pool": "pool", "batch": 6, **settings})
    said = main(config, Path("source"), run, 0, "cpu", 0)
    assert str(run.label_next) in said
    return record.read(run)


def test_a_batch_has_boxes_reasons_and_a_contact_sheet(converted: Run) -> None:
    found = chosen(converted)
    assert len({image["path"] for image in found["images"]}) == 6
    assert [image["by"] for image in found["images"]].count("random") == 1
    assert found["pool_images"] == 14 and found["left_out"] == {} and found["problems"] == {}
    assert found["minutes"] == pytest.approx(sum(image["minutes"] for image in found["images"]), abs=0.1)
    for image in found["images"]:
        height, width = pixels.read(Path(image["path"])).shape[:2]
        assert (image["width"], image["height"]) == (width, height)
        assert image["sha256"] == files.sha256(Path(image["path"]))
        assert image["reasons"]
        for box in image["boxes"]:
            x, y, w, h = box["bbox"]
            assert x >= 0 and y >= 0 and x + w <= width + 0.01 and y + h <= height + 0.01 and min(w, h) > 0
            assert box["label"] in sample.CLASSES
            assert (box["kind"] == "sure") == (box["score"] >= found["sure"])
    sheet = pixels.read(converted.label / "sheet.jpg")
    assert sheet.shape[0] > sheet.shape[1] / 4 and np.ptp(sheet) > 100


def test_boxes_equal_the_models_predictions(converted: Run) -> None:
    """Against Ultralytics' own prediction, with val labels set to what the model predicts."""
    from ultralytics import YOLO

    yolo, compared = YOLO(str(converted.model), task="detect"), 0
    dataset = YoloDataset.read(converted.dataset / "data.yaml")
    for path in dataset.files("val"):
        [result] = yolo.predict(path, imgsz=160, conf=0.01, max_det=20, rect=False, verbose=False)
        boxes = [
            Box(sample.CLASSES[int(row[5]) % len(sample.CLASSES)], *row[:4])
            for row in result.boxes.data.cpu().numpy().tolist()
        ]
        write_labels(dataset.label_file(path), boxes, dataset.names, result.orig_shape[::-1])
    found = chosen(converted)
    for image in found["images"]:
        [result] = yolo.predict(image["path"], imgsz=160, conf=0.01, iou=0.7, max_det=100, rect=False, verbose=False)
        theirs = {tuple(corners) for corners in result.boxes.xyxy.cpu().numpy().round(1).tolist()}
        for box in image["boxes"]:
            x, y, w, h = box["bbox"]
            # Ours are rounded after subtracting the corner.
            assert min(np.abs(np.array(other) - (x, y, x + w, y + h)).max() for other in theirs) < 0.2
            compared += 1
    assert compared > 5


def test_a_second_run_gives_the_same_batch_from_the_cache(converted: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = chosen(converted)
    monkeypatch.setattr("pipeline.label.model.Model._predict", None)  # nothing is predicted again
    monkeypatch.setattr("pipeline.image_files.reading.check", None)
    assert chosen(converted) == first


def test_only_new_images_of_a_pool_are_predicted(converted: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.label.model import Model

    chosen(converted, by=["different"])
    sample.main(seed=8, folder=Path("more"), splits={"train": 2})
    for path in Path("more/images").iterdir():
        shutil.copy(path, Path("pool", f"new-{path.name}"))
    looks: list[int] = []
    predict = Model._predict

    def counted(self: Model, images: Any, m: Any) -> Any:
        looks.append(len(images))
        return predict(self, images, m)

    monkeypatch.setattr(Model, "_predict", counted)
    assert chosen(converted, by=["different"])["pool_images"] == 16
    assert sum(looks) == 2


def test_a_damaged_cache_is_rebuilt(converted: Run) -> None:
    first = chosen(converted)
    (converted.label / "seen.sqlite").write_bytes(b"SQLite format 3\0" + b"nonsense" * 500)
    assert chosen(converted) == first


def test_images_that_need_no_labels_are_left_out_and_counted(converted: Run) -> None:
    new = sorted(Path("pool").iterdir())
    own = sorted(Path("source/images").glob("*train*")) or sorted(Path("source/images").iterdir())
    shutil.copy(own[0], "pool/again.png")
    brighter = np.clip(pixels.read(own[1]).astype(int) + 6, 0, 255).astype(np.uint8)
    cv2.imwrite("pool/brighter.png", brighter)
    shutil.copy(new[0], "pool/zz-copy.png")
    cv2.imwrite("pool/zz-flipped.png", pixels.read(new[1])[:, ::-1])
    Path("pool/torn.jpg").write_bytes(new[2].read_bytes()[:200])
    Path("pool/notes.txt").write_text("no image")
    Path("pool/gone.png").symlink_to("nowhere.png")
    found = chosen(converted, batch=100)
    assert found["left_out"] == {
        pool.LABELLED: 1,
        pool.LIKE_LABELLED: 1,
        pool.TWICE: 1,
        pool.LIKE_OTHER: 1,
        pool.DAMAGED: 2,
    }
    assert set(found["problems"]) == {"torn.jpg", "gone.png"}
    assert {Path(image["path"]) for image in found["images"]} == set(new)


def test_labels_not_yet_converted_count(converted: Run) -> None:
    taken = sorted(Path("pool").iterdir())[:3]
    images = tuple(Image(str(path), (256, 256), files.sha256(path), ()) for path in taken)
    labels.save(Path("data/labels/tiny.json"), Labels(tuple(sample.CLASSES), images))
    found = chosen(converted, batch=100)
    assert found["left_out"] == {pool.LABELLED: 3} and len(found["images"]) == 11


def test_linked_folders_and_rotated_images_are_handled(converted: Run) -> None:
    from PIL import Image

    shutil.rmtree("pool")
    Path("pool").mkdir()
    Path("pool/linked").symlink_to(Path("drawn/images").absolute())
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    with Image.open(sorted(Path("more-or-less", "..", "drawn/images").resolve().iterdir())[0]) as image:
        image.convert("RGB").resize((200, 120)).save("pool/turned.jpg", exif=exif)
    found = chosen(converted, batch=100)
    turned = next((image for image in found["images"] if image["path"].endswith("turned.jpg")), None)
    assert found["pool_images"] == 15
    if turned:  # unless it counts as a near-duplicate of its original
        assert (turned["width"], turned["height"]) == (120, 200)


@pytest.mark.skipif(not COCO_WEIGHTS.is_file(), reason="needs a model of other classes")
def test_a_model_with_other_classes_chooses_by_difference_and_draws_no_boxes(
    converted: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    converted.model.unlink()
    found = chosen(converted, weights=str(COCO_WEIGHTS))
    assert "knows no class of the data set" in capsys.readouterr().out
    assert found["model"]["classes"] == []
    assert {image["by"] for image in found["images"]} == {"different", "random"}
    assert not any(image["boxes"] for image in found["images"])


def test_rare_classes_are_found_by_label_counts(converted: Run) -> None:
    dataset = YoloDataset.read(converted.dataset / "data.yaml")
    lines = [line for path in dataset.files("train") for line in dataset.label_file(path).read_text().splitlines()]
    counts = [sum(int(line.split()[0]) == index for line in lines) for index in range(len(dataset.names))]
    rare = stage._rare(True, dataset, dataset.files("train"))
    assert all(counts[index] <= sorted(counts)[len(rare) - 1] for index in rare) and rare
    assert stage._rare((dataset.names[1],), dataset, []) == [1]


# --- Refusals -------------------------------------------------------------------------------------


def refused(run: Run, kind: type[Exception], words: str, **settings: Any) -> None:
    with pytest.raises(kind, match=words) as caught:
        chosen(run, **settings)
    assert len(str(caught.value).splitlines()) == 1 and ";" in str(caught.value)
    assert not run.label_next.exists()


def test_pools_without_images_to_label_are_refused(converted: Run) -> None:
    Path("empty").mkdir()
    Path("empty/readme.md").touch()
    refused(converted, DataError, "empty: holds no image", pool="empty")
    refused(converted, DataError, "nowhere: no such folder", pool="nowhere")
    Path("torn").mkdir()
    for number in range(3):
        Path(f"torn/{number}.jpg").write_bytes(b"\xff\xd8\xff" + bytes(number))
    refused(converted, DataError, r"torn: no image is left to label \(3 cannot be read\)", pool="torn")
    shutil.copytree("source/images", "known")
    refused(converted, DataError, "no image is left to label .*labelled already", pool="known")


@pytest.mark.parametrize("where", ["source", "source/images", "source/../source/new", ".", "link"])
def test_pools_inside_or_around_the_source_are_refused(converted: Run, where: str) -> None:
    Path("source/new").mkdir()
    Path("link").symlink_to("source/images")
    refused(converted, DataError, "label.pool .*convert.source", pool=where)


def test_an_unknown_class_is_refused(converted: Run) -> None:
    wrong = sample.CLASSES[0][:-1]
    refused(converted, ConfigError, f"label.rare: no class '{wrong}'.*did you mean '{sample.CLASSES[0]}'", rare=[wrong])
    refused(converted, ConfigError, "no class 'zebra' in the data set; classes are", rare=["zebra"])


def test_missing_or_invalid_models_are_refused(converted: Run) -> None:
    refused(converted, WeightsError, "nowhere.pt: no such file", weights="nowhere.pt")
    Path("bad.pt").write_bytes(b"nonsense")
    refused(converted, WeightsError, "bad.pt: not an Ultralytics checkpoint", weights="bad.pt")
    converted.model.unlink()
    refused(converted, WeightsError, "model.pt: does not exist; `make train` writes it")


def test_a_batch_larger_than_the_pool_takes_all_images_and_reports_it(converted: Run) -> None:
    config = Label.model_validate({"pool": "pool", "batch": 500})
    assert "14 images to label next (500 wanted, no more are left)" in main(config, Path("source"), converted, 0, "", 0)


def test_the_command_line_chooses_lays_out_and_saves(converted: Run, tmp_path: Path) -> None:
    Path("tiny.yaml").write_text("convert: {source: source}\n")
    done = pipeline_process("label", "--no-app", "--config", "tiny.yaml", cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr == "error: tiny: the config has no `label`; add `label: {pool: FOLDER}`, a folder of images\n"
    Path("tiny.yaml").write_text("convert: {source: source}\nlabel: {pool: pool, batch: 3, by: different}\n")
    done = pipeline_process("label", "--config", "tiny.yaml", "--as", "coco", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("label: 3 images to label next (2 by different, 1 by random) of 14; ")
    assert len(json.loads(converted.label_next.read_text())["images"]) == 3
    assert len([*(converted.label / "coco" / "images").iterdir()]) == 3
    done = pipeline_process("label", "--config", "tiny.yaml", "--save", "--as", "coco", "--all", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(labels.load(Path("data/labels/tiny.json")).images) == 3
    assert set(options.TOOLS) == set(layouts.LAYOUTS)


def test_a_record_of_an_older_version_is_refused(converted: Run) -> None:
    chosen(converted)
    data = files.read_json(converted.label_next)
    del data["images"][0]["boxes"]
    files.write_json(converted.label_next, data)
    with pytest.raises(DataError, match="written by an older version; run `make label` again"):
        record.read(converted)


def test_every_reason_has_a_text() -> None:
    work = plan.Work(boxes=4, wrong=1, missed=2, unlike_mirror=3, seconds=60, by_hand=90)
    for by, known in itertools.product(("uncertain", "different", "rare", "random"), ([], ["short"])):
        assert all(stage._reasons(choose.Pick(0, by, 5), work, 3, ["short"], known))  # type: ignore[arg-type]

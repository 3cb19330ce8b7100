"""What to label next: the command on real images with a real model."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import COCO_WEIGHTS, command_line, pipeline_process

from pipeline import convert, files, options, pixels
from pipeline.boxes import Box, YoloDataset, write_labels
from pipeline.config.data import Convert
from pipeline.config.experiment import Config
from pipeline.config.judging import Validate
from pipeline.config.label import Label
from pipeline.errors import ConfigError, DataError, WeightsError
from pipeline.extras.sample import dataset as sample
from pipeline.label import belief, choose, layouts, plan, pool, showing, stage, tools, words
from pipeline.label import model as detector
from pipeline.label.stage import main
from pipeline.label.store import File, Store
from pipeline.labels import file as labels
from pipeline.labels.content import Image, Labels
from pipeline.records import label as record
from pipeline.run import Run
from pipeline.upstream import environment
from pipeline.validate import predict

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
    """A run with a dataset and a model, and a pool of new tiles beside the source."""
    monkeypatch.chdir(tmp_path)
    run = Run(Path("runs/tiny"))
    shutil.copytree(tiles, "source")
    convert.main(Convert(source=Path("source")), run, 0)
    shutil.copy(model, run.model)
    sample.main(seed=7, folder=Path("drawn"), splits={"train": 14})
    shutil.copytree("drawn/images", "pool")
    return run


def configured(convert: dict[str, Any] | None = None, **settings: Any) -> Config:
    sections = {"convert": {"source": "source", **(convert or {})}, "label": {"pool": "pool", "batch": 6, **settings}}
    return Config.model_validate(sections)


def chosen(run: Run, **settings: Any) -> record.Next:
    said = main(configured(**settings), run, "cpu", 0)
    assert str(run.label_next) in said
    return record.read(run)


def test_a_batch_has_boxes_reasons_and_a_contact_sheet(converted: Run) -> None:
    found = chosen(converted)
    assert len({image["path"] for image in found["images"]}) == 6
    assert [image["by"] for image in found["images"]].count("random") == 2
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
        [result] = yolo.predict(image["path"], imgsz=160, conf=0.01, iou=0.7, max_det=300, rect=False, verbose=False)
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


def test_the_cache_forgets_other_models(converted: Run) -> None:
    from ultralytics import YOLO

    def models() -> set[str]:
        store = Store(converted.label / "seen.sqlite")
        keys = [key for (key,) in store.database.execute("select key from seen")]
        store.close()
        return {key.split()[1] for key in keys}

    first = chosen(converted)["model"]["sha256"]
    assert models() == {first}
    yolo = YOLO(str(converted.model), task="detect")
    yolo.ckpt = {**(yolo.ckpt or {}), "date": "another"}
    yolo.save(converted.model)
    second = chosen(converted)["model"]["sha256"]
    assert first != second and models() == {second}


def test_what_is_cached_is_unpacked_once(tmp_path: Path) -> None:
    store, keys = Store(tmp_path / "seen.sqlite"), ["a", "b", "c"]
    store.seen(keys[:2], lambda missing: ((index, {"boxes": np.zeros(3, np.float32)}) for index in missing))
    said: list[str] = []
    store.database.set_trace_callback(said.append)
    a, b, c = store.seen(keys, lambda missing: [(index, {"boxes": np.ones(3, np.float32)}) for index in missing])
    assert a is not None and b is not None and c is not None and (a["boxes"][0], c["boxes"][0]) == (0, 1)
    assert sum("arrays from seen" in line for line in said) == 3


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


def test_an_image_that_changed_after_it_was_labelled_is_offered_again(converted: Run) -> None:
    taken, changed, *_ = sorted(Path("pool").iterdir())
    images = (
        Image(str(taken), (256, 256), files.sha256(taken), ()),
        Image(str(changed), (256, 256), "0" * 64, ()),
    )
    labels.save(Path("data/labels/tiny.json"), Labels(tuple(sample.CLASSES), images))
    found = chosen(converted, batch=100)
    assert found["left_out"] == {pool.LABELLED: 1}
    assert str(changed) in [image["path"] for image in found["images"]]


def test_images_that_convert_would_leave_out_are_not_offered(converted: Run) -> None:
    """Val and test have the numbers 0000 to 0002, and so have three images of the pool."""
    group_by = r"_(\d+)\."
    found = chosen(converted, batch=100, by=["different"], convert={"group_by": group_by})
    assert found["left_out"] == {pool.JUDGED: 3}
    assert not any(Path(image["path"]).stem[-4:] in ("0000", "0001", "0002") for image in found["images"])


def test_an_image_named_like_another_one_is_left_out(converted: Run) -> None:
    first, second, third, *_ = sorted(Path("pool").iterdir())
    second.rename(first.with_suffix(".png"))
    third.rename(first.with_name(first.name.upper()))
    assert chosen(converted, batch=100, by=["different"])["left_out"] == {pool.NAMESAKES: 2}


def test_one_odd_file_does_not_stop_the_choice(converted: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image as Pillow

    odd, gone, *_ = sorted(Path("pool").iterdir())
    with Pillow.open(odd) as image:
        image.save("pool/odd.tga")  # which OpenCV cannot decode
    odd.unlink()
    Path("pool", os.fsdecode(b"caf\xe9.jpg")).write_bytes(gone.read_bytes())
    decode = showing.decode

    def without_one(file: File, bits: int | None) -> Any:
        if file.path == gone:
            gone.unlink(missing_ok=True)
        return decode(file, bits)

    monkeypatch.setattr(showing, "decode", without_one)
    found = chosen(converted, batch=100)
    assert set(found["problems"]) == {"caf\\udce9.jpg", gone.name}
    assert found["left_out"] == {pool.DAMAGED: 2} and found["pool_images"] == 15
    [tga] = [image for image in found["images"] if image["path"].endswith("odd.tga")]
    assert np.ptp(pixels.read(Path(tga["shown"]))) > 50


def test_deep_images_are_seen_and_shown_as_convert_scales_them(converted: Run) -> None:
    """12 bits in files of 16: shifted right by 4, they are the images that they were made from."""
    plain = {path.stem: pixels.read(path) for path in Path("pool").iterdir()}
    for path in list(Path("pool").iterdir()):
        path.unlink()
    for name, image in plain.items():
        cv2.imwrite(f"pool/{name}.png", image.astype(np.uint16) << 4)
    found = chosen(converted, batch=3)
    for one in found["images"]:
        assert np.array_equal(pixels.read(Path(one["shown"])), plain[Path(one["path"]).stem])
    tools.lay_out(converted, "labelme")
    for path in (converted.label / "labelme" / "images").glob("*.png"):
        assert np.array_equal(pixels.read(path), plain[path.stem])
    store = Store(Path("fresh.sqlite"))
    files_ = store.files([Path(image["path"]) for image in found["images"]], 0, "")
    model = detector.Model(converted.model, tuple(sample.CLASSES), "cpu", bits=12)
    again = model._predict([plain[file.path.stem] for file in files_], False)
    for seen, expected in zip(model.see(files_, store, ""), again, strict=True):
        assert seen is not None and np.array_equal(seen.boxes, expected["boxes"])


def test_one_bright_image_does_not_darken_the_others(converted: Run) -> None:
    """A pool of 12 bits with one image of 16: each is scaled by its own bits."""
    plain = {path.stem: pixels.read(path) for path in Path("pool").iterdir()}
    for path in list(Path("pool").iterdir()):
        path.unlink()
    for number, (name, image) in enumerate(plain.items()):
        cv2.imwrite(f"pool/{name}.png", image.astype(np.uint16) << (8 if number == 3 else 4))
    found = chosen(converted, batch=100)["images"]
    assert len(found) == len(plain)
    for one in found:
        assert np.array_equal(pixels.read(Path(one["shown"])), plain[Path(one["path"]).stem])


def test_deep_images_are_scaled_by_the_bits_of_the_dataset_if_they_fit() -> None:
    dark, bright, usual = (File(Path("a.png"), peak=peak) for peak in (1000, 40_000, 0))
    assert [showing.bits_of(file, 12) for file in (dark, bright, usual)] == [12, 16, None]
    assert [showing.bits_of(file, None) for file in (dark, bright, usual)] == [10, 16, None]


def test_with_tiles_the_boxes_are_those_that_validate_finds(converted: Run) -> None:
    small = [pixels.read(path) for path in sorted(Path("pool").iterdir())[:9]]
    cv2.imwrite("large.png", np.vstack([np.hstack(small[row : row + 3]) for row in (0, 3, 6)]))
    tiling: Any = {"size": 400, "overlap": 0.2, "whole": True, "reason": ""}
    store = Store(converted.label / "seen.sqlite")
    one = detector.Model(converted.model, tuple(sample.CLASSES), "cpu", tiling)
    paths = [Path("large.png"), sorted(Path("pool").iterdir())[0]]
    found = one.see(store.files(paths, 0, ""), store, "")
    yolo, settings = one.yolo, Validate(conf=detector.CONF)
    theirs = predict.predict(yolo, paths[:1], one.imgsz, settings, "cpu", "", tiling).single_label
    large, small_one = found
    assert large is not None and small_one is not None and large.vector.shape == small_one.vector.shape
    assert large.boxes[:, :4] == pytest.approx(np.array([box["bbox"] for box in theirs]), abs=0.01)
    assert len(theirs) > 5
    plain = detector.Model(converted.model, tuple(sample.CLASSES), "cpu").see(store.files(paths, 0, ""), store, "")
    assert plain[0] is not None and plain[0].boxes.shape != large.boxes.shape


def test_a_run_without_its_tiles_is_refused(converted: Run) -> None:
    config = Config.model_validate({"convert": {"source": "source"}, "label": {"pool": "pool"}, "tiles": {}})
    with pytest.raises(DataError, match=r"tiles\.json: does not exist; `make augment` writes it"):
        main(config, converted, "cpu", 0)


def test_a_long_series_of_near_duplicates_leaves_one(converted: Run) -> None:
    """`near_duplicates` lists all pairs of small clusters only."""
    first = pixels.read(sorted(Path("pool").iterdir())[0]).astype(int)
    for number in range(40):
        cv2.imwrite(f"pool/z{number:02}.png", np.clip(first + number // 4, 0, 255).astype(np.uint8) ^ (number % 4))
    store = Store(converted.label / "seen.sqlite")
    found = pool.read(Path("pool"), converted, Convert(source=Path("source")), [], [], store, 0)
    assert len(found.candidates) == 14 and sum(found.left_out.values()) == 40


def test_problems_are_not_cached(tmp_path: Path) -> None:
    store, path = Store(tmp_path / "seen.sqlite"), tmp_path / "a.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    good, status = path.read_bytes(), path.stat()
    for content, is_good in ((bytes(len(good)), False), (good, True)):
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        [file] = store.files([path], 0, "")
        assert bool(file.problem) != is_good


def test_a_cache_that_cannot_be_written_is_an_error_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "seen.sqlite").mkdir()
    with pytest.raises(OSError, match=r"seen\.sqlite"):
        Store(tmp_path / "seen.sqlite")


def test_large_images_are_decoded_a_few_at_a_time() -> None:
    sides = [4000] * 3 + [100] * 20
    images = [File(Path("a"), width=side, height=side) for side in sides]
    batches = list(detector._batches(range(len(images)), images))
    assert [index for batch in batches for index in batch] == list(range(len(images)))
    assert batches[0] == [0, 1] and max(map(len, batches)) == detector.BATCH


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        (["car", "bus"], ["bus", "car"], [1, 0]),
        (["Car", "bus"], ["car", "Bus"], [0, 1]),
        (["car", "Car"], ["Car", "car"], [1, 0]),
        (["CAR"], ["Car", "car"], [-1]),
        (["Car", "car"], ["CAR"], [-1, -1]),
        (["car", "CAR"], ["car"], [0, -1]),
        (["cat"], ["dog"], [-1]),
    ],
)
def test_classes_match_by_their_exact_names_first(theirs: list[str], ours: list[str], expected: list[int]) -> None:
    assert detector.matched(theirs, ours) == expected


def test_a_model_of_other_classes_falls_back_to_difference(converted: Run, model: Path) -> None:
    from ultralytics import YOLO

    yolo = YOLO(str(model), task="detect")
    yolo.model.names = {index: f"other {index}" for index in yolo.model.names}
    yolo.save("other.pt")
    found = chosen(converted, weights="other.pt", by=["uncertain"])
    assert {image["by"] for image in found["images"]} == {"different", "random"}
    assert found["model"]["classes"] == [] and not any(image["boxes"] for image in found["images"])


@pytest.mark.parametrize("name", ["yoloe-26n", "yoloe-v8s-seg"])
def test_open_vocabulary_models_draw_boxes_of_their_prompts(
    converted: Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights and random vectors for the words: the boxes are those of Ultralytics' own prediction."""
    import torch
    from ultralytics import YOLO, YOLOE

    monkeypatch.setattr(detector, "CONF", 1e-4)  # random weights score 1.6e-4
    torch.manual_seed(0)  # of the random weights: with others, equal scores may come in another order
    prompted = YOLOE(f"{name}.yaml")
    words = torch.randn(1, 2, 512, generator=torch.Generator().manual_seed(0))
    prompted.set_classes(["short", "mousebite"], torch.nn.functional.normalize(words, dim=-1))
    prompted.save("prompted.pt")
    found = chosen(converted, weights="prompted.pt")
    assert found["model"]["classes"] == ["short", "mousebite"]

    seen = detector.Model(Path("prompted.pt"), ("mousebite", "short"), "cpu")
    image = pixels.read(min(Path("pool").iterdir()))
    boxes = next(iter(seen._predict([image], False)))["boxes"]
    theirs = YOLO("prompted.pt").predict(image, conf=1e-4, rect=False, verbose=False)[0].boxes.data.numpy()
    solid = theirs[(theirs[:, 2:4] > theirs[:, :2]).all(axis=1)]
    assert len(boxes) == len(solid) > 20
    assert boxes[:, 4] == pytest.approx(solid[:, 4]) and boxes[:, 5].tolist() == (1 - solid[:, 5]).tolist()
    assert boxes[:, :2] == pytest.approx(solid[:, :2], abs=1e-3)  # pixels; we suppress in 64 bits, they in 32


def test_models_without_boxes_are_refused(converted: Run) -> None:
    from ultralytics import RTDETR, YOLO

    for name, said in (
        ("yolo26n-cls", "a model for classification, not for detection"),
        ("yolo26n-obb", "a model for oriented boxes, not for detection"),
        ("rtdetr-l", "an RT-DETR model"),
    ):
        (RTDETR if name == "rtdetr-l" else YOLO)(f"{name}.yaml").save(f"{name}.pt")
        refused(converted, WeightsError, f"{name}.pt: {said}", weights=f"{name}.pt")


def test_linked_folders_and_rotated_images_are_handled(converted: Run) -> None:
    from PIL import Image

    shutil.rmtree("pool")
    Path("pool").mkdir()
    Path("pool/linked").symlink_to(Path("drawn/images").absolute())
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    noise = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)  # like no drawn tile
    Image.fromarray(noise).resize((200, 120)).save("pool/turned.jpg", exif=exif)
    found = chosen(converted, batch=100)
    assert found["pool_images"] == 15
    [turned] = [image for image in found["images"] if image["path"].endswith("turned.jpg")]
    assert (turned["width"], turned["height"]) == (120, 200)


@pytest.mark.skipif(not COCO_WEIGHTS.is_file(), reason="needs a model of other classes")
def test_a_model_with_other_classes_chooses_by_difference_and_draws_no_boxes(
    converted: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    converted.model.unlink()
    found = chosen(converted, weights=str(COCO_WEIGHTS))
    assert "knows no class of the dataset" in capsys.readouterr().out
    assert found["model"]["classes"] == []
    assert {image["by"] for image in found["images"]} == {"different", "random"}
    assert not any(image["boxes"] for image in found["images"])


def test_images_are_mirrored_in_the_order_of_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubt per minute: five objects to draw take longer than four wrong boxes to delete."""
    monkeypatch.setattr(stage, "MIRRORED", 1)
    looked: list[File] = []

    class Mirror:
        known = ("open",)

        def see_mirrored(self, images: list[File], _store: object, _description: str) -> list[Any]:
            looked.extend(images)
            return [np.empty((0, 6), np.float32) for _ in images]

    def seen(score: float, count: int) -> Any:
        boxes = np.zeros((count, 6), np.float32)
        boxes[:, 4] = score
        return detector.Seen(boxes, np.empty(1, np.float32))

    # Of the first, 10 x 0.49 are missed; of the second, 8 x 0.49 are wrong.
    config = Label(pool=Path("pool"), batch=1)
    images = [seen(0.49, 10), seen(0.51, 8)]
    slow, quick = File(Path("slow.png")), File(Path("quick.png"))
    works = [plan.work(one.boxes, None, belief.Belief(), 0.5, config.cost) for one in images]
    assert works[0].unsure > works[1].unsure and works[0].seconds > 1.5 * works[1].seconds
    stage._works(config, [slow, quick], images, Mirror(), None, belief.Belief(), 0.5)  # type: ignore[arg-type]
    assert looked == [quick]


def test_rare_classes_are_found_by_label_counts(converted: Run) -> None:
    dataset = YoloDataset.read(converted.dataset / "data.yaml")
    train = dataset.files("train")
    assert stage._rare((dataset.names[1],), dataset, []) == [1]
    give_labels(dataset, train[0], [10, 4, 5, 10, 10, 10])
    for path in train[1:]:
        dataset.label_file(path).write_text("")
    assert stage._rare(True, dataset, train) == [1]  # of a mean of 8.2


def test_without_a_rare_class_the_choice_is_the_usual_one(converted: Run, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = YoloDataset.read(converted.dataset / "data.yaml")
    for path in dataset.files("train"):
        give_labels(dataset, path, [5, 4, 5, 5, 5, 5])
    usual = chosen(converted)["images"]
    assert "has no effect" not in capsys.readouterr().out
    assert chosen(converted, rare=True)["images"] == usual
    assert "`rare: true` has no effect, because no class has fewer than half" in capsys.readouterr().out


def give_labels(dataset: YoloDataset, image: Path, counts: list[int]) -> None:
    """Replace the labels of an image; `counts` are the new ones of each class."""
    assert len(counts) == len(dataset.names)
    numbers = (number for number, count in enumerate(counts) for _ in range(count))
    dataset.label_file(image).write_text("".join(f"{number} 0.5 0.5 0.1 0.1\n" for number in numbers))


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
    refused(converted, DataError, r"torn: no image is left to label \(3 cannot be used\)", pool="torn")
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
    refused(converted, ConfigError, "no class 'zebra' in the dataset; classes are", rare=["zebra"])


def test_missing_or_invalid_models_are_refused(converted: Run) -> None:
    refused(converted, WeightsError, "nowhere.pt: no such file", weights="nowhere.pt")
    Path("bad.pt").write_bytes(b"nonsense")
    refused(converted, WeightsError, "bad.pt: not an Ultralytics checkpoint", weights="bad.pt")
    converted.model.unlink()
    refused(converted, WeightsError, "model.pt: does not exist; `make train` writes it")


def test_a_batch_larger_than_the_pool_takes_all_images_and_reports_it(converted: Run) -> None:
    said = main(configured(batch=500), converted, "", 0)
    assert "14 images to label next (500 wanted, no more are left)" in said


def test_the_command_line_chooses_lays_out_and_saves(
    converted: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("tiny.yaml").write_text("convert: {source: source}\n")
    said = "error: tiny: the config has no `label`; add `label: {pool: FOLDER}`, a folder of images\n"
    assert command_line(capsys, "label", "--no-app", "--config", "tiny.yaml") == (1, "", said)
    Path("tiny.yaml").write_text("convert: {source: source}\nlabel: {pool: pool, batch: 3, by: different}\n")
    done = pipeline_process("label", "--config", "tiny.yaml", "--as", "coco", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("label: 3 images to label next (2 different, 1 drawn at random) of 14; ")
    assert len(json.loads(converted.label_next.read_text())["images"]) == 3
    assert len([*(converted.label / "coco" / "images").iterdir()]) == 3
    done = pipeline_process("label", "--config", "tiny.yaml", "--save", "--as", "coco", "--all", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(labels.load(Path("data/labels/tiny.json")).images) == 3
    assert set(options.TOOLS) == set(layouts.LAYOUTS)
    status, out, said = command_line(capsys, "label", "--config", "tiny.yaml", "--as", "coco")
    assert status == 1 and out == ""  # before the choice
    assert "label/coco: already exists, perhaps with corrected labels" in said
    done = pipeline_process("label", "--config", "tiny.yaml", "--open", "--as", "yolo", cwd=tmp_path)
    assert "3 images with" in done.stdout
    assert "to label next" not in done.stdout
    _, _, said = command_line(capsys, "label", "--config", "tiny.yaml", "--all")
    assert said == "error: --all: has an effect only on what is saved; add --save\n"


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
        assert all(words.reasons(choose.Pick(0, by, 5), work, 3, ["short"], known))  # type: ignore[arg-type]

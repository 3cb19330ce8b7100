"""Every setting that changes a box is in model.json, and run.py obeys it on images as received."""

from __future__ import annotations

import io
import json
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import handmade
import numpy as np
import pytest
import tifffile
from conftest import Trained, settings
from PIL import Image, ImageOps

from pipeline import convert, export, validate
from pipeline.boxes import YoloDataset
from pipeline.config.experiment import Config
from pipeline.config.export import Export
from pipeline.config.judging import Validate
from pipeline.device import runner
from pipeline.device.runner import RunnerError, headers, images, selftest
from pipeline.errors import DataError, ExportError
from pipeline.export import bundle, texts
from pipeline.export import settings as export_settings
from pipeline.files import read_json
from pipeline.run import Run

CELLS = {(0, 0): 0, (0, 1): 0, (2, 3): 1, (3, 0): 2}


def device(folder: Path, **options: Any) -> tuple[runner.Model, Path]:
    unpacked = handmade.bundled(folder, **options)
    return runner.Model(unpacked, read_json(unpacked / "model.json"), 1), unpacked


# --- Worked by hand -------------------------------------------------------------------------------


@pytest.mark.parametrize(("iou", "boxes"), [(0.1, 3), (0.19, 3), (0.21, 4), (0.7, 4)])
def test_boxes_suppress_each_other_at_the_given_iou(tmp_path: Path, iou: float, boxes: int) -> None:
    """24-pixel boxes 16 apart share 8 x 24 of 2 x 576 - 192, an IoU of 0.2."""
    model, _ = device(tmp_path, spread=1.5, output={"iou": iou})
    assert len(model.detect(handmade.image(64, CELLS))) == boxes


@pytest.mark.parametrize("most", [1, 7, 300, 399, 1000])
def test_a_device_finds_no_more_objects_than_validation_allows(tmp_path: Path, most: int) -> None:
    model, _ = device(tmp_path, size=320, output={"max_det": most})
    everywhere = {(row, column): row % 3 for row in range(20) for column in range(20)}
    assert len(model.detect(handmade.image(320, everywhere))) == min(most, 400)


def test_each_class_has_its_threshold_and_names_keep_their_order(tmp_path: Path) -> None:
    names = ("zebra", "antelope", "cow")
    model, _ = device(tmp_path, names=names, thresholds={"zebra": 0.4, "cow": 0.9})
    image = handmade.image(64, CELLS) // 2  # gives scores of 0.5
    assert [model.spec["classes"][kind] for kind in model.detect(image).classes] == ["zebra", "zebra"]


def png16(values: np.ndarray[Any, Any]) -> bytes:
    return cv2.imencode(".png", values)[1].tobytes()


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("kind", [".png", ".tif"])
def test_sixteen_bits_become_eight_by_the_factor_of_training(tmp_path: Path, bits: int, kind: str) -> None:
    _, unpacked = device(tmp_path, input={"bits": bits})
    values = handmade.image(64, CELLS).astype(np.uint16) << (bits - 8)
    file = tmp_path / f"deep{kind}"
    file.write_bytes(cv2.imencode(kind, values)[1].tobytes())
    done = subprocess.run([sys.executable, unpacked / "run.py", file], capture_output=True, text=True, check=False)
    assert (len(json.loads(done.stdout)["objects"]), done.stderr, done.returncode) == (4, "", 0)
    # Anything brighter than in training is white and does not wrap around.
    file.write_bytes(cv2.imencode(kind, np.full((64, 64, 3), min(1 << bits, 65535), np.uint16))[1].tobytes())
    assert (runner.read_image(file, bits) == 255).all()


def test_sixteen_bit_images_are_refused_if_training_saw_none(tmp_path: Path) -> None:
    _, unpacked = device(tmp_path)
    (tmp_path / "deep.png").write_bytes(png16(handmade.image(64, CELLS).astype(np.uint16) << 4))
    command = [sys.executable, unpacked / "run.py", tmp_path / "deep.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "" and done.returncode == 1
    assert (
        done.stderr
        == f"error: {tmp_path}/deep.png: 16 bits, but the model was trained on 8-bit images; save it with 8\n"
    )


def test_pillow_alone_reads_16_bit_grey_and_refuses_16_bit_colour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)  # 12 bits
    (tmp_path / "grey.png").write_bytes(png16(grey))
    (tmp_path / "colour.png").write_bytes(png16(np.stack([grey] * 3, axis=2)))
    tifffile.imwrite(tmp_path / "grey.tif", grey)
    tifffile.imwrite(tmp_path / "colour.tif", np.stack([grey] * 3, axis=2), photometric="rgb")
    tifffile.imwrite(tmp_path / "float.tif", grey.astype(np.float32) / 4095)
    expected = runner.read_image(tmp_path / "grey.png", 12)
    monkeypatch.setattr(images, "cv2", None)
    for name in ("grey.png", "grey.tif"):
        assert (runner.read_image(tmp_path / name, 12) == expected).all()
    with pytest.raises(RunnerError, match=r"colour\.png: 16 bits in colour, which Pillow cannot read"):
        runner.read_image(tmp_path / "colour.png", 12)
    for name in ("colour.tif", "float.tif"):  # Pillow opens these as if they had 8 bits
        with pytest.raises(RunnerError, match=f"{name}: more than 8 bits in a form that Pillow cannot read; save it"):
            runner.read_image(tmp_path / name, 12)


@pytest.mark.parametrize("reader", ["OpenCV", "Pillow"])
def test_too_large_an_image_is_refused_with_what_to_do(
    tmp_path: Path, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reader == "Pillow":
        monkeypatch.setattr(images, "cv2", None)
    header = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 54) + struct.pack(
        "<IiiHHIIiiII", 40, 40_000, 40_000, 1, 24, *[0] * 6
    )
    (tmp_path / "huge.bmp").write_bytes(header + bytes(100))
    with pytest.raises(RunnerError, match=r"huge\.bmp: more than 1,074 million pixels; cut it into pieces"):
        runner.read_image(tmp_path / "huge.bmp")


@pytest.mark.parametrize("reader", ["OpenCV", "an OpenCV that obeys EXIF in no PNG or WebP", "Pillow"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_images_are_rotated_as_exif_says(
    kind: str, turn: int, reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow's own rotation is the oracle."""
    image = Image.fromarray(cv2.resize(handmade.image(64, CELLS), (60, 90), interpolation=cv2.INTER_NEAREST))
    exif = Image.Exif()
    exif[headers.EXIF_ORIENTATION] = turn
    encoded = io.BytesIO()
    image.save(encoded, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {"quality": 95}))
    file = tmp_path / "turned"
    file.write_bytes(encoded.getvalue())
    with Image.open(file) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))[:, :, ::-1]
    if reader == "Pillow":
        monkeypatch.setattr(images, "cv2", None)
    elif reader != "OpenCV" and kind in ("PNG", "WEBP"):
        decode = cv2.imdecode
        monkeypatch.setattr(cv2, "imdecode", lambda data, flags: decode(data, flags | cv2.IMREAD_IGNORE_ORIENTATION))
    found = runner.read_image(file)
    assert found.shape == expected.shape
    # Two JPEG decoders round differently.
    assert np.abs(found.astype(int) - expected).max() <= (4 if kind == "JPEG" else 0)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"II",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\3\0\1\0\0\0\x63\0\0\0",
    ],
)
def test_damaged_exif_rotates_nothing(exif: bytes) -> None:
    assert headers.orientation(headers.PNG + chunk(b"eXIf", exif)) == 1
    assert headers.orientation(b"RIFF\0\0\0\0WEBPEXIF" + struct.pack("<I", len(exif)) + exif) == 1


def test_a_truncated_jpeg_is_detected_despite_its_whole_preview() -> None:
    """OpenCV 4.5 would fill the rest with grey."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8))
    preview, whole = io.BytesIO(), io.BytesIO()
    image.resize((20, 20)).save(preview, "JPEG")
    exif = b"Exif\0\0" + preview.getvalue()
    image.save(whole, "JPEG", exif=exif)
    data = whole.getvalue()
    assert exif in data and not headers.is_cut_short(data) and not headers.is_cut_short(data + b"\0trailer")
    assert all(headers.is_cut_short(data[:end]) for end in range(3, len(data) - 1))


def test_boxes_without_area_are_dropped_and_suppress_nothing() -> None:
    good, inside_out, nothing = [20, 20, 10, 10], [20, 20, -30, 30], [20, 20, 0, 5]
    boxes = np.array([good, inside_out, nothing, [-40, 20, 10, 10]], np.float32).T
    raw = np.concatenate([boxes, np.array([[0.5, 0.9, 0.9, 0.9]], np.float32)])[None]
    spec = {
        "input": {"size": 64, "fit": "stretch"},
        "output": {"layout": "columns", "normalised": False, "conf": 0.001, "iou": 0.5, "max_det": 9},
    }
    found = runner.read_output(raw, spec, (64, 64, 3), 0.1)
    assert found.corners.tolist() == [[15, 15, 25, 25]] and found.scores.tolist() == [0.5]
    rows = np.array([[[15, 15, 25, 25, 0.5, 0], [25, 25, 15, 15, 0.9, 0]]], np.float32)
    spec["output"]["layout"] = "rows"
    assert runner.read_output(rows, spec, (64, 64, 3), 0.1).corners.tolist() == [[15, 15, 25, 25]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(0, 0, 0), (0, 4, 1), (0, 5, 2)])
@pytest.mark.parametrize("layout", ["columns", "rows"])
def test_an_output_that_is_not_finite_is_an_error(layout: str, place: tuple[int, ...], value: float) -> None:
    raw = np.zeros((1, 6, 6), np.float32)
    raw[place] = value
    spec = {
        "input": {"size": 64, "fit": "stretch"},
        "output": {"layout": layout, "normalised": False, "conf": 0.001, "iou": 0.5, "max_det": 9},
    }
    with pytest.raises(FloatingPointError, match="the model's output is not finite; export it with another precision"):
        runner.read_output(raw, spec, (64, 64, 3), 0.1)


def test_a_device_reports_an_output_that_is_not_finite(tmp_path: Path) -> None:
    """It is no image without objects."""
    _, unpacked = device(tmp_path)
    handmade.model(unpacked / "cells.onnx", 64, np.nan)
    said = "the model's output is not finite; export it with another precision"
    file = unpacked / "golden" / "1.png"
    done = subprocess.run([sys.executable, unpacked / "run.py", file], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", f"error: {file}: {said}\n", 1)
    with pytest.raises(RunnerError, match=rf"selftest FAILED: golden/1\.png: {said}"):
        selftest.compare(runner.Model(unpacked, read_json(unpacked / "model.json"), 1), unpacked)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("layout", ["columns", "rows"])
def test_a_score_equal_to_the_threshold_is_shown(tmp_path: Path, layout: str, threshold: float) -> None:
    """Validation counts it. Many such numbers are smaller in 32 bits than in 64."""
    model, _ = device(tmp_path, thresholds=dict.fromkeys(handmade.NAMES, threshold))
    row = [20, 20, 30, 30, threshold, 0] if layout == "rows" else [25, 25, 10, 10, threshold, 0, 0]
    model.spec["output"]["layout"] = layout
    raw = np.array([[row] if layout == "rows" else [[value] for value in row]], np.float32)
    model.forward = lambda tensor: raw
    assert len(model.detect(handmade.image(64, {}))) == len(model.detect_all(handmade.image(64, {}), threshold)) == 1
    assert [len(found) for found in model.look(handmade.image(64, {}), threshold, (False, True))] == [1, 1]


@pytest.mark.parametrize("reader", ["OpenCV", "Pillow"])
@pytest.mark.parametrize("name", ["Ölfleck", "裂纹", "शून्य", "a\nb", "😀"])
def test_names_the_font_lacks_are_drawn_by_number(name: str, reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reader == "Pillow":
        monkeypatch.setattr(images, "cv2", None)
    found = runner.Detections(np.array([[20.0, 20, 40, 40]]), np.array([0.9]), np.array([1]))
    by_number = images.draw(np.zeros((64, 64, 3), np.uint8), found, ["x", "#1"])
    assert (images.draw(np.zeros((64, 64, 3), np.uint8), found, ["x", name]) == by_number).all()
    assert (images.draw(np.zeros((64, 64, 3), np.uint8), found, ["x", "y"]) != by_number).any()


@pytest.mark.parametrize(("layout", "format_name", "needed"), [
    ("columns", "onnx", ["onnxruntime"]), ("columns", "torchscript", ["torch"]), ("rows", "torchscript", ["torch", "torchvision"]),
])  # fmt: skip
def test_requirements_match_the_imports(layout: str, format_name: str, needed: list[str]) -> None:
    assert bundle.packages_of({"format": format_name, "output": {"layout": layout}}) == needed


def test_requirements_go_into_the_bundle(tmp_path: Path) -> None:
    _, unpacked = device(tmp_path)
    lines = (unpacked / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["numpy", "opencv-python-headless", "onnxruntime"]
    assert "requirements.txt" in (unpacked / "SHA256SUMS").read_text(encoding="utf-8")


def test_pip_leaves_the_tensorrt_of_a_jetson_alone() -> None:
    lines = texts.requirements(
        bundle.packages_of({"format": "engine", "output": {"layout": "columns"}}), {}
    ).splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["numpy", "opencv-python-headless"]
    [where] = [line for line in lines if "pip install tensorrt" in line]
    assert where.startswith("# TensorRT 10 or later. JetPack 6.1 or later has it")


@pytest.mark.parametrize(("allowed", "passes"), [(0.05, True), (0.03, False)])
def test_scores_may_fall_as_far_as_the_limit(tmp_path: Path, allowed: float, passes: bool) -> None:
    """Expected are 0.107, found are 0.067, less than 0.8 times the score of 0.1 from which boxes are listed."""
    model, unpacked = device(tmp_path)
    file, golden = tmp_path / "dark.png", unpacked / "golden"
    file.write_bytes(png16(handmade.image(64, CELLS) // 15))
    shutil.rmtree(golden)
    bundle.golden(model, [file], golden, 0.05)
    [expected] = read_json(golden / "expected.json")
    expected.update(lowest=0.1, scores=[score + 0.04 for score in expected["scores"]])
    (golden / "expected.json").write_text(json.dumps([expected]))
    model.spec["selftest"]["max_score"] = allowed
    if passes:
        assert selftest.compare(model, unpacked)[0] == len(CELLS)
    else:
        with pytest.raises(RunnerError, match="selftest FAILED"):
            selftest.compare(model, unpacked)


def test_golden_images_expect_nothing_that_a_device_does_not_show(tmp_path: Path) -> None:
    """Three of four objects score 0.4, below validation's `conf`."""
    model, unpacked = device(tmp_path, output={"conf": 0.5})
    image = handmade.image(64, CELLS)
    image[:, :32] = image[:, :32] * 0.4
    (tmp_path / "mixed.png").write_bytes(png16(image))
    shutil.rmtree(unpacked / "golden")
    bundle.golden(model, [tmp_path / "mixed.png"], unpacked / "golden", 0.01)
    assert selftest.compare(model, unpacked)[0] == 1


def test_a_selftest_that_compares_nothing_fails(tmp_path: Path) -> None:
    model, unpacked = device(tmp_path)
    (tmp_path / "black.png").write_bytes(png16(handmade.image(64, {})))
    with pytest.raises(ExportError, match="it finds nothing in its golden images, so its self-test would compare noth"):
        bundle.golden(model, [tmp_path / "black.png"], tmp_path / "nothing", 0.5)
    [expected] = read_json(unpacked / "golden" / "expected.json")
    expected.update(corners=[], scores=[], classes=[])
    (unpacked / "golden" / "1.png").write_bytes((tmp_path / "black.png").read_bytes())
    (unpacked / "golden" / "expected.json").write_text(json.dumps([expected]))
    with pytest.raises(RunnerError, match="selftest FAILED: the bundle expects no object in any golden image"):
        selftest.compare(model, unpacked)


# --- From a real run ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"iou": 0.2}, {"iou": 1.0}, {"max_det": 5}, {"conf": 0.02}, {"iou": 0.3, "max_det": 40, "conf": 0.005}],
    ids=lambda changes: "+".join(changes) or "none",
)
def test_a_bundle_detects_what_was_validated(
    trained: Trained, copy_of: Callable[[Run], Run], changes: dict[str, Any]
) -> None:
    """Predictions from validate against lines from the bundle in a separate process."""
    run = copy_of(trained.run)
    validate.main(Validate.model_validate({**changes}), run, "cpu")
    metrics = read_json(run.metrics)
    low = dict.fromkeys(metrics["operating_point"]["thresholds"], 0.03)  # after sixteen images all scores are low
    point = metrics["operating_point"]
    per_class = {name: {**value, "decided": True, "why": "set by hand"} for name, value in point["per_class"].items()}
    point = {**point, "thresholds": low, "per_class": per_class}
    run.metrics.write_text(json.dumps({**metrics, "operating_point": point}))
    export.main(Export.model_validate({"conf": 0.002, "images": 2}), run, 0, "cpu")
    unpacked = bundle.unpack(run.export / "tiny-onnx-fp32.zip", run.root / "device")
    spec = read_json(unpacked / "model.json")
    wanted = Validate.model_validate(changes)
    assert all(spec["output"][key] == getattr(wanted, key) for key in ("conf", "iou", "max_det"))
    paths = YoloDataset.read(run.dataset / "data.yaml").files("val")
    sources = read_json(run.receipt)["sources"]
    received = [str(trained.config.convert.source / sources[f"val/{path.name}"]) for path in paths]
    done = subprocess.run([sys.executable, unpacked / "run.py", *received], capture_output=True, text=True, check=True)
    truth = read_json(run.ground_truth("val"))
    names = {category["id"]: category["name"] for category in truth["categories"]}
    predicted = [one for one in read_json(run.single_label("val")) if one["score"] >= 0.03]
    assert predicted
    for number, line in enumerate(done.stdout.splitlines(), start=1):
        ours = sorted([one["class"], round(one["score"], 3)] for one in json.loads(line)["objects"])
        theirs = sorted(
            [names[one["category_id"]], round(one["score"], 3)] for one in predicted if one["image_id"] == number
        )
        assert [kind for kind, _ in ours] == [kind for kind, _ in theirs]
        # Other batch sizes sum in another order; scores are rounded to three places here.
        assert np.allclose([score for _, score in ours], [score for _, score in theirs], atol=2e-3)


def test_classes_in_another_order_are_refused(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    file = run.dataset / "data.yaml"
    names = read_json(trained.run.manifest)["classes"]
    text = file.read_text(encoding="utf-8").replace(names[0], "#").replace(names[1], names[0]).replace("#", names[1])
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"model\.pt: its classes are .*, but those of .*; train again"):
        export.main(trained.config.export, run, 0, "cpu")
    before = run.metrics.read_bytes(), run.ground_truth("val").read_bytes()
    with pytest.raises(DataError, match=r"model\.pt: its classes are .*, but those of .*; train again"):
        validate.main(Validate(), run, "cpu")
    assert before == (run.metrics.read_bytes(), run.ground_truth("val").read_bytes())


def test_golden_images_are_as_received(tmp_path: Path) -> None:
    """A 12-bit image and one rotated by EXIF, without its location; reading them differently fails the selftest."""
    model, unpacked = device(tmp_path, input={"bits": 12})
    image = handmade.image(64, CELLS)
    copies = [tmp_path / f"{name}.png" for name in ("plain", "deep", "turned")]
    for copy in copies:
        copy.write_bytes(png16(image))
    received = {copy: tmp_path / f"received_{copy.name}" for copy in copies[1:]}
    received[copies[1]].write_bytes(png16(image.astype(np.uint16) << 4))
    exif = Image.Exif()
    exif[headers.EXIF_ORIENTATION] = 6
    exif.get_ifd(0x8825)[1] = "N"  # the location
    Image.fromarray(np.rot90(image)[:, :, ::-1]).save(received[copies[2]], exif=exif)
    shutil.rmtree(unpacked / "golden")
    bundle.golden(model, [*copies[:1] * 3, *copies[1:]], unpacked / "golden", 0.5, received)
    assert cv2.imread(str(unpacked / "golden" / "4.png"), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    with Image.open(unpacked / "golden" / "5.png") as turned:
        assert dict(turned.getexif()) == {headers.EXIF_ORIENTATION: 6}
    expected = read_json(unpacked / "golden" / "expected.json")
    assert len(expected) == 5 and len({json.dumps(sorted(map(str, one["corners"]))) for one in expected}) == 1
    spec = read_json(unpacked / "model.json")
    check = selftest.compare
    assert check(runner.Model(unpacked, spec, 1), unpacked)[0] == 20
    for bits, said in ((16, r"selftest FAILED: golden/4\.png"), (None, r"4\.png: 16 bits, but the model was trained")):
        spec["input"]["bits"] = bits
        with pytest.raises(RunnerError, match=said):
            check(runner.Model(unpacked, spec, 1), unpacked)


def test_images_as_received_give_the_pixels_convert_made(source: Path, run: Run) -> None:
    """Half of the source in 12 of 16 bits, all rotated by EXIF: run.py sees what training saw."""
    factor = 16
    for number, path in enumerate(sorted((source / "images").iterdir())):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        turn = number % 8 + 1
        lying = cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE) if turn >= 5 else image
        data = bundle._png(lying.astype(np.uint16) * factor + 7 if number % 2 else lying, turn)
        path.write_bytes(data)
    convert.main(Config.model_validate(settings(source)).convert, run, 0)
    receipt = read_json(run.receipt)
    assert receipt["bits"] == export_settings.of(run).bits == 12
    dataset = YoloDataset.read(run.dataset / "data.yaml")
    copies = [path for split in ("train", "val", "test") for path in dataset.files(split)]
    assert len(copies) == 14
    for copy in copies:
        received = source / receipt["sources"][f"{copy.parent.name}/{copy.name}"]
        assert (runner.read_image(received, 12) == runner.read_image(copy)).all()
    known = export_settings.received(run, dataset.files("val"))
    assert known and all(path.is_file() for path in known.values())


def test_torchscript_with_built_in_nms_runs_in_a_separate_process(
    trained: Trained, copy_of: Callable[[Run], Run]
) -> None:
    """torchvision is loaded here anyway, but not on a device. `validate`'s settings are part of the graph."""
    run = copy_of(trained.run)
    metrics = read_json(run.metrics)
    metrics["settings"] |= {"iou": 0.3, "max_det": 7}
    run.metrics.write_text(json.dumps(metrics))
    target = {"format": "torchscript", "nms": True}
    export.main(Export.model_validate({"targets": [target], "conf": 0.002, "images": 2}), run, 0, "cpu")
    [entry] = read_json(run.manifest)["artefacts"]
    unpacked = bundle.unpack(run.export / entry["bundle"], run.root / "device")
    done = subprocess.run(
        [sys.executable, unpacked / "run.py", "--selftest"], capture_output=True, text=True, check=False
    )
    assert (done.stdout[:16], done.stderr, done.returncode) == ("selftest passed:", "", 0)
    assert "torchvision" in (unpacked / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert all(len(one["scores"]) <= 7 for one in read_json(unpacked / "golden" / "expected.json"))

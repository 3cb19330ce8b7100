"""INT8: where the calibration images come from, and what quantising everything loses."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import ROOT, Trained
from numpy.typing import NDArray

from pipeline import export, pixels
from pipeline.boxes import YoloDataset
from pipeline.config.export import Calibration, Export, Target
from pipeline.device import runner
from pipeline.device.runner import Detections
from pipeline.errors import DataError, ExportError
from pipeline.export import calibration, int8, targets
from pipeline.files import read_json, sha256
from pipeline.run import Run

CONF = 0.002


def config(target: dict[str, Any], **more: Any) -> Export:
    calibration = {"images": 6, "per_class": 1, "draws": 2}
    return Export.model_validate({"targets": [target], "conf": CONF, "images": 3, "calibration": calibration, **more})


def dataset_of(run: Run) -> YoloDataset:
    return YoloDataset.read(run.dataset / "data.yaml")


@pytest.fixture
def many(tmp_path: Path) -> YoloDataset:
    """200 training images, with the last class in only five of them."""
    for split, number in (("train", 200), ("val", 4)):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "labels" / split).mkdir(parents=True)
        for index in range(number):
            (tmp_path / "images" / split / f"{index:03d}.jpg").touch()
            kinds = [0, *([1] if index % 3 == 0 else []), *([2] if index % 40 == 7 else [])]
            lines = "".join(f"{kind} 0.5 0.5 0.1 0.1\n" for kind in kinds)
            (tmp_path / "labels" / split / f"{index:03d}.txt").write_text(lines)
    return YoloDataset(("often", "third", "rare"), {split: tmp_path / "images" / split for split in ("train", "val")})


def test_calibration_images_cover_every_class_and_are_seeded(many: YoloDataset) -> None:
    settings = Calibration(images=30)
    chosen = calibration.choose(many, settings, 0)
    assert len(chosen) == len(set(chosen)) == 30
    assert {path.parent.name for path in chosen} == {"train"}
    kinds = Counter(line[0] for path in chosen for line in many.label_file(path).read_text().splitlines())
    # A plain draw of 30 of 200 would show 0.75 of the rare ones on average.
    assert kinds["2"] == 5 and kinds["1"] >= 10
    assert calibration.choose(many, settings, 0) == chosen != calibration.choose(many, settings, 1)


@pytest.fixture
def large(tmp_path: Path) -> YoloDataset:
    """Ten images of 300 x 200, with objects of two classes at the bottom."""
    for kind in ("images", "labels"):
        (tmp_path / kind / "train").mkdir(parents=True)
    image = np.zeros((200, 300, 3), np.uint8)
    image[150:] = 200
    for number in range(10):
        (tmp_path / "images" / "train" / f"{number}.png").write_bytes(pixels.png(image))
        line = "0 0.2 0.9 0.02 0.02\n1 0.8 0.9 0.02 0.02\n"
        (tmp_path / "labels" / "train" / f"{number}.txt").write_text(line)
    return YoloDataset(("left", "right"), {"train": tmp_path / "images" / "train"})


@pytest.mark.parametrize("whole", [True, False])
def test_calibration_sees_tiles_with_objects(large: YoloDataset, tmp_path: Path, whole: bool) -> None:
    """Tiles that follow one another from the top would show black only."""
    tiles: Any = {"size": 64, "overlap": 0.25, "whole": whole}
    chosen = calibration.choose(large, Calibration(images=10), 0)
    seen = list(calibration.parts(chosen, large, tiles))
    assert {kind for kind in chosen.values()} == {0, 1, None}
    for part, kind in zip(seen, chosen.values(), strict=True):
        assert kind is None or (part.shape == (64, 64, 3) and part.max() == 200)
    assert any(part.max() == 0 for part, kind in zip(seen, chosen.values(), strict=True) if kind is None)
    files = calibration.as_files(chosen, large, tiles, tmp_path / "shown")
    assert all((pixels.read(path) == part).all() for path, part in zip(files, seen, strict=True))
    assert calibration.as_files(chosen, large, None, tmp_path / "none") == list(chosen)


def test_too_few_images_of_a_class_are_refused(many: YoloDataset) -> None:
    with pytest.raises(DataError, match=r"5 training images with 'rare', too few .*per_class: 6\)"):
        calibration.choose(many, Calibration(per_class=6), 0)


def test_a_class_without_training_images_is_left_out(large: YoloDataset) -> None:
    """The model has not learned it, so 8 bits lose nothing of it."""
    dataset = YoloDataset((*large.names, "toaster"), large.images)
    chosen = calibration.choose(dataset, Calibration(images=6), 0)
    assert len(chosen) == 6 and set(chosen.values()) == {0, 1, None}
    assert calibration.prove_disjoint(chosen, dataset)["classes_without_images"] == ["toaster"]
    assert calibration.prove_disjoint(chosen, large)["classes_without_images"] == []


def test_too_few_calibration_images_are_refused_before_any_target(
    trained: Trained, copy_of: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Target] = []
    monkeypatch.setattr(targets, "write", lambda target, *_: written.append(target))
    wanted = Export.model_validate(
        {"targets": [{"format": "onnx"}, {"format": "onnx", "quantize": 8}], "calibration": {"per_class": 1000}}
    )
    with pytest.raises(DataError, match="too few for 8-bit calibration"):
        export.main(wanted, copy_of(trained.run), 0, "cpu")
    assert written == []


def test_no_training_images_are_refused(many: YoloDataset) -> None:
    for path in many.files("train"):
        path.unlink()
    with pytest.raises(DataError, match="no training images for 8-bit calibration"):
        calibration.choose(many, Calibration(), 0)


def test_a_planted_overlap_is_refused(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    """A test image among the training images, with another name and file type."""
    from PIL import Image

    run = copy_of(trained.run)
    dataset = dataset_of(run)
    twin, spied = dataset.files("train")[0], dataset.files("test")[1]
    twin.unlink()
    with Image.open(spied) as image:
        image.save(twin.with_suffix(".png"))
    shutil.move(dataset.label_file(twin), dataset.label_file(twin.with_suffix(".png")))
    before = read_json(run.manifest)
    with pytest.raises(DataError, match=rf"{twin.stem}\.png: this calibration image is the same as .*{spied.name}"):
        export.main(config({"format": "onnx", "quantize": 8}, calibration={"per_class": 1}), run, 0, "cpu")
    assert read_json(run.manifest) == before and not list(run.root.glob(".export*"))


def test_images_are_compared_with_each_draw_but_read_once(large: YoloDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = YoloDataset(large.names, {**large.images, "val": large.images["train"].with_name("val")})
    dataset.images["val"].mkdir()
    random = np.random.default_rng(0)
    for number in range(3):
        (dataset.images["val"] / f"{number}.png").write_bytes(pixels.png(random.integers(0, 255, (9, 9, 3), np.uint8)))
    original, reads = runner.read_image, Counter[Path]()

    def read(path: Path) -> Any:
        reads[path] += 1
        return original(path)

    monkeypatch.setattr(runner, "read_image", read)
    for seed in range(3):
        chosen = calibration.choose(dataset, Calibration(images=4), seed)
        assert calibration.prove_disjoint(chosen, dataset)["compared_with"] == 3
    assert len(reads) > 3 and set(reads.values()) == {1}


def test_onnx_int8_keeps_the_head_in_float(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    export.main(config({"format": "onnx", "quantize": 8}), run, 3, "cpu")
    manifest = read_json(run.manifest)
    [entry] = manifest["artefacts"]
    assert entry["file"] == "tiny-int8.onnx" and entry["verdict"] == "passed"
    assert entry["bytes"] < 0.5 * read_json(trained.run.manifest)["artefacts"][0]["bytes"]
    assert [tried["recipe"] for tried in entry["tried"]] == [int8.PLAIN]
    assert [draw["seed"] for draw in entry["calibration"]["draws"]] == [3, 4]
    # Listed with their hashes, all from the training split.
    dataset = dataset_of(run)
    listed = {image["file"]: image["sha256"] for image in manifest["calibration"]["images"]}
    assert len(listed) == 6
    assert listed.items() <= {path.name: sha256(path) for path in dataset.files("train")}.items()
    model = onnx.load(str(run.export / "tiny-int8.onnx"))
    # TensorRT's rules: zero points are zero, and no bias passes through a DequantizeLinear.
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    scaled = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(scaled) > 100
    assert not any(tensors[node.input[2]].any() for node in scaled)
    assert not [
        node
        for node in scaled
        if node.op_type == "DequantizeLinear" and tensors.get(node.input[0], np.int8(0)).dtype == np.int32
    ]
    # No node of the head reads the output of a weight's DequantizeLinear.
    weights = {node.output[0] for node in scaled if node.input[0] in tensors}
    assert not [
        node.name
        for node in model.graph.node
        if "/model.23/" in node.name and node.op_type == "Conv" and set(node.input) & weights
    ]


def test_recipes_keep_the_first_layers_in_float(trained: Trained, tmp_path: Path) -> None:
    source = trained.run.export / "tiny.onnx"
    images = [np.random.default_rng(seed).random((1, 3, 64, 64), np.float32) for seed in range(4)]
    in_float: dict[str, set[int]] = {}
    for recipe in int8.FIRST_LAYERS:
        int8.quantise_onnx(source, tmp_path / "int8.onnx", images, recipe)
        graph = onnx.load(str(tmp_path / "int8.onnx")).graph
        stored = {tensor.name for tensor in graph.initializer}
        convs = [node for node in graph.node if node.op_type == "Conv"]
        in_float[recipe] = {int(node.name.split(".")[1].split("/")[0]) for node in convs if node.input[1] in stored}
    assert in_float == {int8.PLAIN: {23}, int8.CAREFUL: {0, 1, 23}, int8.SMALL_OBJECTS: {0, 1, 2, 3, 4, 23}}


def chain(path: Path) -> None:
    """Write a model of four convolutions that keep the size of 256, named as Ultralytics does; the last is the head."""
    random = np.random.default_rng(0)
    nodes, weights = [], []
    for number, (entries, exits) in enumerate(((3, 8), (8, 8), (8, 8), (8, 4))):
        kernel = random.normal(0, 0.3, (exits, entries, 3, 3)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(kernel, f"weight{number}"))
        names = [f"tensor{number}" if number else "images", f"weight{number}"], [f"tensor{number + 1}"]
        nodes.append(onnx.helper.make_node("Conv", *names, name=f"/model.{number}/Conv", pads=[1] * 4))
    sides = [
        onnx.helper.make_tensor_value_info(name, 1, [1, channels, 256, 256])
        for name, channels in (("images", 3), ("tensor4", 4))
    ]
    graph = onnx.helper.make_graph(nodes, "chain", sides[:1], sides[1:], weights)
    onnx.save(onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 13)]), path)


def shown(number: int) -> list[NDArray[np.float32]]:
    """Images, each brighter than the one before."""
    random = np.random.default_rng(1)
    return [random.random((1, 3, 256, 256), np.float32) * np.float32((index + 1) / number) for index in range(number)]


def test_percentiles_are_those_of_all_images(tmp_path: Path) -> None:
    chain(tmp_path / "chain.onnx")
    images = shown(5)
    int8.quantise_onnx(tmp_path / "chain.onnx", tmp_path / "int8.onnx", images, int8.CAREFUL)
    model = onnx.load(str(tmp_path / "chain.onnx"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("tensor2", 1, [1, 8, 256, 256]))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = np.concatenate([session.run(["tensor2"], {"images": image})[0] for image in images])
    graph = onnx.load(str(tmp_path / "int8.onnx")).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    [scale] = [
        stored[node.input[1]] for node in graph.node if node.input[0] == "tensor2" and "Quantize" in node.op_type
    ]
    # The bins are a 2048th of the first image's range.
    assert 127 * scale == pytest.approx(np.percentile(np.abs(values), int8.PERCENTILE), rel=0.01)


def test_calibration_needs_no_memory_for_all_activations(tmp_path: Path) -> None:
    """Those of an image take 8 MB."""
    chain(tmp_path / "chain.onnx")
    code = """
import resource, sys
from pathlib import Path
sys.path.insert(0, str(Path("tests").resolve()))
from test_export_int8 import int8, shown

class Lazy:
    def __init__(self, number): self.number = number
    def __len__(self): return self.number
    def __iter__(self): return (shown(1)[0] for _ in range(self.number))

folder = Path(sys.argv[1])
for number in (2, 60):
    int8.quantise_onnx(folder / "chain.onnx", folder / "int8.onnx", Lazy(number), int8.CAREFUL)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    few, many = map(int, done.stderr.split()[-2:])
    assert many - few < 100


def test_openvino_is_quantised_through_nncf(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    export.main(config({"format": "openvino", "quantize": 8}), run, 0, "cpu")
    [entry] = read_json(run.manifest)["artefacts"]
    assert entry["file"] == "tiny-int8_openvino_model" and entry["verdict"] == "passed"
    assert "FakeQuantize" in (run.export / entry["file"] / "model.xml").read_text()
    assert entry["tried"][0]["recipe"] == "plain" and entry["calibration"]["recipe"] == "plain"


def test_the_accuracy_aware_recipe_follows_if_the_plain_one_loses_too_much(
    trained: Trained, copy_of: Callable[[Run], Run]
) -> None:
    """With limits that INT8 cannot meet, both recipes are tried and the figures of both reported."""
    run = copy_of(trained.run)
    limits = {"int8": {"max_box_px": 1e-9}}
    with pytest.raises(ExportError, match=r"boxes up to .* px apart"):
        export.main(config({"format": "openvino", "quantize": 8}, limits=limits), run, 0, "cpu")
    [entry] = read_json(run.export_refused)["artefacts"]
    assert [tried["recipe"] for tried in entry["tried"]] == ["plain", "accuracy-aware"]
    assert all(tried["breaches"] for tried in entry["tried"])


@pytest.mark.parametrize(("limit", "drop"), [(None, 0.5), (0.0, 0.0), (3.0, 1.5)])
def test_half_of_the_allowed_drop_is_the_target_of_accuracy_aware_quantisation(
    trained: Trained, copy_of: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch, limit: float | None, drop: float
) -> None:
    def look(*arguments: Any) -> None:
        raise ExportError(f"drop {arguments[-1]}")

    monkeypatch.setattr(int8, "quantise_openvino", look)
    wanted = config({"format": "openvino", "quantize": 8}, limits={"int8": {"max_ap_drop": limit}})
    with pytest.raises(ExportError, match=rf"^drop {drop}$"):
        export.main(wanted, copy_of(trained.run), 0, "cpu")


def test_the_naive_recipe_fails_its_gate(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    # A barely trained model has no precision to lose, so vanished boxes must reveal the loss.
    with pytest.raises(ExportError, match=r"tiny-int8-naive\.onnx: differs from .* of \d+ boxes, \d+ lost"):
        export.main(config({"format": "onnx", "quantize": 8, "recipe": "naive"}), run, 0, "cpu")
    [entry] = read_json(run.export_refused)["artefacts"]
    # At 320 px on photographs all boxes are lost; at 64 px the shared range has finer steps, and a few remain.
    assert entry["parity"]["changed"] > 0.5
    assert not run.manifest.exists()


def test_thresholds_follow_a_shift_of_the_scores() -> None:
    random = np.random.default_rng(0)

    def one_image(scores: np.ndarray) -> Detections:
        return Detections(np.zeros((len(scores), 4)), scores, np.arange(len(scores)) % 2)

    scores = random.random(200)
    fitted = int8.refit([one_image(scores)], [one_image(scores * 0.8)], {"a": 0.5, "b": 0.3, "c": 0.4})
    for kind, (name, threshold) in enumerate((("a", 0.5), ("b", 0.3))):
        of_class = scores[np.arange(200) % 2 == kind]
        assert (of_class * 0.8 >= fitted[name]).sum() == (of_class >= threshold).sum()
    assert fitted["c"] == 0.4  # the model detects none of this class


def test_the_head_is_the_last_layer() -> None:
    names = ["/model.22/cv1/Conv", "/model.23/cv2.0/Conv", "__module.model.23.cv3/Add", "/model.2/Conv", "Concat_7"]
    assert int8.in_head(names) == ["/model.23/cv2.0/Conv", "__module.model.23.cv3/Add"]

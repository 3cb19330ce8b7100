from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import handmade
import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import Trained, pipeline_process
from onnx import helper, numpy_helper
from PIL import Image

from pipeline import export, pixels
from pipeline.boxes import YoloDataset
from pipeline.config.export import Export, Limits, Limits8, Limits16, Limits32, Target
from pipeline.device import runner
from pipeline.device.runner import Detections
from pipeline.device.runner.letterbox import to_original
from pipeline.errors import DataError, ExportError
from pipeline.export import ap, artefacts, bundle, choice, make, settings, targets
from pipeline.export.gate import Gate, Reference
from pipeline.export.parity import compare
from pipeline.files import read_json, sha256
from pipeline.metrics import bootstrap
from pipeline.run import Run
from pipeline.upstream import checkpoints, environment

CONF = 0.002  # as in conftest: sixteen images teach nothing, so compare whatever comes out


def test_the_manifest_records_what_was_proven(trained: Trained) -> None:
    manifest = read_json(trained.run.manifest)
    [entry] = manifest["artefacts"]
    artefact = trained.run.export / entry["file"]
    assert entry["file"] == "tiny.onnx"
    assert entry["sha256"] == sha256(artefact) and entry["bytes"] == artefact.stat().st_size
    assert manifest["model"]["sha256"] == sha256(trained.run.model)
    parity = entry["parity"]
    assert parity["boxes"] > 0 and parity["images"] == 2 == len(manifest["compared_on"]["images"])
    assert parity["lost"] == parity["extra"] == parity["flipped"] == 0
    assert parity["max_box_px"] <= entry["limits"]["max_box_px"] == 0.5
    assert parity["max_score"] <= entry["limits"]["max_score"] == 1e-3
    # The same input tensor on both sides: only float32 rounding differs.
    assert entry["raw"]["max_score"] < 1e-4 and entry["raw"]["images"] == 2
    assert entry["verdict"] == "passed" and entry["breaches"] == []
    assert sorted(path.name for path in trained.run.export.iterdir()) == [
        "manifest.json",
        "tiny-onnx-fp32.zip",
        "tiny.onnx",
    ]


def test_raw_outputs_equal_the_models_without_our_code(trained: Trained) -> None:
    """Plain onnxruntime against plain torch, on the same tensor."""
    import torch

    from pipeline.upstream import checkpoints, environment

    environment.prepare()
    model, _ = checkpoints.load(trained.run.model)
    session = onnxruntime.InferenceSession(str(trained.run.export / "tiny.onnx"), providers=["CPUExecutionProvider"])
    batch = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    [ours] = session.run(None, {session.get_inputs()[0].name: batch})
    with torch.no_grad():
        theirs = model.fuse(verbose=False)(torch.from_numpy(batch))
    theirs = (theirs[0] if isinstance(theirs, tuple) else theirs).numpy()
    assert ours.shape == theirs.shape == (1, 10, 84)
    # Boxes in pixels of 64, scores from 0 to 1; float32 rounding through 200 layers, at most 2e-4 so far. With random
    # weights, some boxes on noise are hundreds of pixels wide and less exact in proportion (at most 6e-5 of that).
    np.testing.assert_allclose(ours, theirs, atol=5e-3, rtol=2e-4)


def test_the_runner_finds_what_ultralytics_finds(trained: Trained) -> None:
    """From file to boxes: our numpy code against Ultralytics' command on the same ONNX file."""
    from ultralytics import YOLO

    spec = spec_of(trained.run)
    model = runner.Model(trained.run.export, spec, 1)
    theirs = YOLO(str(trained.run.export / "tiny.onnx"), task="detect")
    for path in YoloDataset.read(trained.run.dataset / "data.yaml").files("val"):
        [expected] = theirs.predict(str(path), imgsz=64, conf=CONF, iou=0.7, rect=False, verbose=False, device="cpu")
        boxes = expected.boxes.cpu().numpy()
        found = model.detect_all(runner.read_image(path), CONF)
        assert len(found) == len(boxes) > 0
        np.testing.assert_allclose(found.scores, boxes.conf, atol=5e-5)  # a rounded pixel apart, at most 1e-5 so far
        np.testing.assert_array_equal(found.classes, boxes.cls)
        np.testing.assert_allclose(found.corners, boxes.xyxy, atol=1e-2)  # float32 pixels of a 320 px image


# --- Planted faults -----------------------------------------------------------------------------------


def spec_of(run: Run, model: str = "tiny.onnx") -> dict[str, Any]:
    names = read_json(run.manifest)["classes"]
    target = Export().targets[0]
    return targets.spec(target, run.export / model, run.export, names, 64, dict.fromkeys(names, CONF))


@pytest.fixture(scope="module")
def oblong(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Gate]:
    """The trained run with non-square colour validation images, without which some faults would not show."""
    run = Run(Path(shutil.copytree(trained.run.root, tmp_path_factory.mktemp("oblong") / "runs" / "tiny")))
    dataset = YoloDataset.read(run.dataset / "data.yaml")
    for path in dataset.files("val"):
        with Image.open(path) as image:
            cropped = np.asarray(image.convert("RGB")).copy()[: image.height * 5 // 8]
        cropped[:, :, 0] //= 2
        path.unlink()
        Image.fromarray(cropped).save(path)
        dataset.label_file(path).write_text("0 0.5 0.5 0.2 0.3\n")
    return run, Gate(run.model, dataset, dataset.files("val"), CONF)


def test_the_reference_is_float32_on_the_cpu_even_with_a_gpu(
    oblong: tuple[Run, Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics uses a GPU by default if PyTorch sees one; the reference stays as exact as float32.

    The same model in double precision is the oracle: TF32 keeps only 10 bits.
    """
    import torch

    _, gate = oblong
    environment.prepare()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    gate = Gate(gate.model, gate.dataset, gate.images, gate.conf)
    network = checkpoints.load(gate.model)[0].fuse(verbose=False).double().eval()
    for tensor, output in gate.reference(None, 64).raw:
        with torch.no_grad():
            exact = network(torch.from_numpy(tensor).double())[0].numpy()
        # Observed 6e-8; with each convolution's input and weights rounded to TF32, 4e-5 to 3e-4.
        np.testing.assert_allclose(output[:, 4:], exact[:, 4:], atol=5e-6)


def with_onnx(run: Run, change: Callable[[onnx.ModelProto], None]) -> str:
    model = onnx.load(str(run.export / "tiny.onnx"))
    change(model)
    onnx.save(model, str(run.export / "spoilt.onnx"))
    return "spoilt.onnx"


def perturb(model: onnx.ModelProto) -> None:
    tensor = [t for t in model.graph.initializer if ".cv3." in t.name and t.name.endswith("bias")][-1]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.5), tensor.name))


def swap_classes(model: onnx.ModelProto) -> None:
    """Swap the rows of the first two classes after the graph's own output."""
    [output] = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["before" if name == output.name else name for name in node.output]
    order = numpy_helper.from_array(np.array([0, 1, 2, 3, 5, 4, 6, 7, 8, 9]), "order")
    model.graph.initializer.append(order)
    model.graph.node.append(helper.make_node("Gather", ["before", "order"], [output.name], axis=1))


@pytest.mark.parametrize(
    "fault", ["none", "a perturbed weight", "BGR", "stretched", "swapped classes", "scaled twice", "white padding"]
)
def test_planted_faults_are_caught(oblong: tuple[Run, Gate], fault: str) -> None:
    run, gate = oblong
    spec = spec_of(run)
    match fault:
        case "a perturbed weight":
            spec["model"] = with_onnx(run, perturb)
        case "swapped classes":
            spec["model"] = with_onnx(run, swap_classes)
        case "BGR":
            spec["input"]["colour"] = "BGR"
        case "stretched":
            spec["input"]["fit"] = "stretch"
        case "scaled twice":
            spec["input"]["scale"] = 1 / 255**2
        case "white padding":
            spec["input"]["pad"] = 255
    verdict, _ = gate.judge(runner.Model(run.export, spec, 1), None, Limits32(), fault)
    assert bool(verdict.breaches) == (fault != "none"), verdict
    # Rounding alone may make an image the worst.
    assert set(verdict.worst) <= {path.name for path in gate.images} and (verdict.worst or fault == "none")


@pytest.fixture
def cells(tmp_path: Path) -> tuple[runner.Model, Gate]:
    """The handmade model, and a comparison with its own results on ten images, of which two show an object."""
    for kind in ("images", "labels"):
        (tmp_path / kind / "val").mkdir(parents=True)
    for number in range(10):
        cell = {(1, 2): 0} if number < 2 else {}
        (tmp_path / "images" / "val" / f"{number}.png").write_bytes(pixels.png(handmade.image(64, cell)))
        (tmp_path / "labels" / "val" / f"{number}.txt").write_text("0 0.625 0.375 0.25 0.25\n")
    dataset = YoloDataset(handmade.NAMES, {"val": tmp_path / "images" / "val"})
    gate = Gate(tmp_path / "model.pt", dataset, dataset.files("val"), CONF)
    unpacked = handmade.bundled(tmp_path / "bundle")
    model = runner.Model(unpacked, runner.read_spec(unpacked), 1)
    seen = gate.see(model, "model")
    matches = gate.match(seen)
    black = runner.prepare(handmade.image(64, {}), model.spec["input"])
    raw = [(black, model.forward(black))]
    gate.references[None, 64] = Reference(seen, matches, ap.redrawn(matches), raw)
    return model, gate


@pytest.mark.parametrize("limits", [Limits32(), Limits16(), Limits8()])
def test_an_output_that_is_not_finite_is_refused(cells: tuple[runner.Model, Gate], limits: Limits) -> None:
    model, gate = cells
    verdict, _ = gate.judge(model, None, limits, "whole")
    assert (verdict.outcome, verdict.breaches) == ("passed", [])
    forward = model.forward
    model.forward = lambda tensor: forward(tensor) if tensor.any() else forward(tensor) * np.float32(np.nan)
    verdict, _ = gate.judge(model, None, limits, "spoilt")
    assert verdict.outcome == "refused"
    assert verdict.breaches[0] == "its output is not finite for 8 images, such as 2.png"
    assert verdict.figures["raw"] is None


@pytest.mark.parametrize("limits", [Limits32(), Limits16(), Limits8(), Limits8(max_changed=None)])
def test_an_artefact_that_finds_nothing_is_refused(cells: tuple[runner.Model, Gate], limits: Limits) -> None:
    """All right boxes lie in two of ten images, so the interval of the loss includes 0."""
    model, gate = cells
    forward = model.forward
    model.forward = lambda tensor: forward(tensor * 0)
    verdict, _ = gate.judge(model, None, limits, "blind")
    assert verdict.outcome == "refused" and "which may be chance" in verdict.note
    assert verdict.breaches[0] == "it finds none of the 2 boxes that the model finds"


def test_a_changed_artefact_fails_the_stage(
    trained: Trained, copy_of: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One weight of the file is changed before the comparison: nothing is published, all figures are reported."""
    run = copy_of(trained.run)
    shutil.rmtree(run.export)
    write = targets.write

    def spoil(*arguments: Any) -> Path:
        path = write(*arguments)
        model = onnx.load(str(path))
        perturb(model)
        onnx.save(model, str(path))
        return path

    monkeypatch.setattr(targets, "write", spoil)
    with pytest.raises(ExportError, match=r"tiny\.onnx: differs from .*model\.pt: .*worst images val_") as error:
        export.main(trained.config.export, run, 0, "cpu")
    assert len(str(error.value).splitlines()) == 1
    assert not run.export.exists() and not list(run.root.glob(".export*"))
    [entry] = read_json(run.export_refused)["artefacts"]
    assert entry["verdict"] == "refused" and entry["breaches"] and "bundle" not in entry
    assert entry["parity"]["max_score"] > 1e-3


# --- Formats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "name", "entry_file"),
    [
        ({"format": "openvino"}, "tiny_openvino_model", "model.xml"),
        ({"format": "ncnn"}, "tiny_ncnn_model", "model.ncnn.param"),
        ({"format": "torchscript"}, "tiny.torchscript", ""),
        ({"format": "onnx", "nms": False}, "tiny-nmsfree.onnx", ""),
        ({"format": "onnx", "nms": True}, "tiny-nms.onnx", ""),
        ({"format": "onnx", "dynamic": True, "opset": 17, "simplify": False, "imgsz": 96}, "tiny-96-dynamic-opset17-unsimplified.onnx", ""),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)  # fmt: skip
def test_every_format_matches_the_model(
    trained: Trained, copy_of: Callable[[Run], Run], target: dict[str, Any], name: str, entry_file: str
) -> None:
    run = copy_of(trained.run)
    export.main(Export.model_validate({"targets": [target], "conf": CONF, "images": 2}), run, 0, "cpu")
    [entry] = read_json(run.manifest)["artefacts"]
    assert entry["file"] == name and (run.export / name / entry_file).exists()
    assert entry["verdict"] == "passed" and entry["parity"]["boxes"] > 0
    assert ("validated_map50_95" in entry) == (target.get("nms") is False or "imgsz" in target)
    if "opset" in target:
        model = onnx.load(str(run.export / name))
        assert model.opset_import[0].version == 17
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    check_concurrent_runs(run, entry)


@pytest.mark.parametrize("format_name", ["onnx", "openvino", "ncnn", "torchscript"])
def test_an_export_does_not_say_where_and_when_it_was_made(trained: Trained, tmp_path: Path, format_name: str) -> None:
    target, month = Target.model_validate({"format": format_name}), f"{date.today():%Y-%m-}".encode()
    names = tuple(read_json(trained.run.manifest)["classes"])
    written = [
        targets.write(target, trained.run.model, tmp_path / place, 64, names, []) for place in ("first", "again")
    ]
    for path in (path for made in written for path in (made, *made.rglob("*")) if path.is_file()):
        data = path.read_bytes()
        assert not any(word in data for word in (b"trained on", os.fsencode(trained.run.root), month))
    if format_name in ("onnx", "ncnn"):  # the others number what they hold
        assert artefacts.sha256(written[0]) == artefacts.sha256(written[1])


@pytest.mark.parametrize("changes", [{"nms": False}, {"imgsz": 96}])
def test_another_head_or_size_keeps_the_number_of_boxes(
    trained: Trained, copy_of: Callable[[Run], Run], changes: dict[str, Any]
) -> None:
    """Validation chose thresholds for other scores, and the user sees what this target loses."""
    run = copy_of(trained.run)
    names = read_json(trained.run.manifest)["classes"]
    dataset = YoloDataset.read(run.dataset / "data.yaml")
    gate = Gate(run.model, dataset, choice.images(dataset, run, 2), CONF, settings.of(run))
    reference = gate.reference(None, 64)

    def of_class(seen: list[Detections], kind: int) -> np.ndarray:
        return np.concatenate([one.scores[one.classes == kind] for one in seen])

    validated = [of_class(reference.seen.single, kind) for kind in range(len(names))]
    metrics = read_json(run.metrics)
    point = metrics["operating_point"]
    point["thresholds"] = {
        name: float(np.quantile(scores, 0.75)) for name, scores in zip(names, validated, strict=True) if len(scores)
    }
    point["per_class"] = {
        name: {**figures, "decided": True, "why": "set by hand"} for name, figures in point["per_class"].items()
    }
    run.metrics.write_text(json.dumps(metrics))
    wanted = {"targets": [{"format": "onnx", **changes}], "conf": CONF, "images": 2}
    said = export.main(Export.model_validate(wanted), run, 0, "cpu")
    [entry] = read_json(run.manifest)["artefacts"]
    spec = read_json(unpacked(run, entry["bundle"]) / "model.json")
    assert spec["thresholds"] == entry["thresholds"]["artefact"]
    here = gate.see(runner.Model(run.export, spec, 1), "")
    moved = 0
    for kind, name in enumerate(names):
        before, scores = entry["thresholds"]["model"][name], of_class(here.single, kind)
        number = (validated[kind] >= before).sum()
        if 0 < number < len(scores):
            assert (scores >= spec["thresholds"][name]).sum() == number
            moved += (scores >= before).sum() != number
    assert moved
    before, after = gate.figures(reference.matches)["map50_95"], entry["ap"]["artefact"]["map50_95"]
    assert entry["validated_map50_95"] == before
    assert f"validated with mAP50-95 {before:.3f}, here {after:.3f}" in said and entry["note"] in said


def check_concurrent_runs(run: Run, entry: dict[str, Any]) -> None:
    spec = read_json(unpacked(run, entry["bundle"]) / "model.json")
    spec["thresholds"] = dict.fromkeys(spec["thresholds"], CONF)
    alone = runner.Model(run.export, spec, 1)
    images = [str(path) for path in YoloDataset.read(run.dataset / "data.yaml").files("train")]
    workers = runner.Workers(run.export, spec, images, 2)
    assert workers.size == 2
    for path, (name, _, image, found) in zip(images, workers.each(), strict=True):
        expected = alone.detect(runner.read_image(Path(path)))
        assert name == path and image.shape == runner.read_image(Path(path)).shape
        np.testing.assert_array_equal(found.classes, expected.classes)
        # One thread each, so the same sums; a runtime may choose another kernel with several streams. Observed 0.
        np.testing.assert_allclose(found.corners, expected.corners, atol=1e-3)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


def test_half_precision_stays_close_to_the_model(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    # A barely trained model has boxes with nearly equal scores, whose order half precision changes.
    limits = {"fp16": {"max_changed": 0.2}}
    config = {"targets": [{"format": "onnx", "quantize": 16}], "conf": CONF, "images": 2, "limits": limits}
    export.main(Export.model_validate(config), run, 0, "cpu")
    [entry] = read_json(run.manifest)["artefacts"]
    assert (entry["file"], entry["precision"]) == ("tiny-fp16.onnx", "fp16")
    assert entry["bytes"] < 0.6 * read_json(trained.run.manifest)["artefacts"][0]["bytes"]
    assert 0 < entry["parity"]["max_score"] < 0.01  # rounded, so not equal, but close


def test_without_a_gpu_the_engine_is_left_to_be_built_on_the_device(
    trained: Trained, copy_of: Callable[[Run], Run]
) -> None:
    from pipeline.export import tensorrt

    if tensorrt.can_build_here():
        pytest.skip("this machine has a GPU and TensorRT; it builds the engine itself")
    run = copy_of(trained.run)
    export.main(Export.model_validate({"targets": [{"format": "engine"}], "conf": CONF, "images": 2}), run, 0, "cpu")
    [entry] = read_json(run.manifest)["artefacts"]
    assert entry["file"] == "tiny-engine.onnx" and entry["built"].startswith("on the device")
    folder = unpacked(run, entry["bundle"])
    assert {"build.py", "build.sh", "tiny-engine.onnx"} <= {path.name for path in folder.iterdir()}
    assert "--system-site-packages" in (folder / "README.txt").read_text()
    if find_spec("tensorrt") is None:
        done = run_py(folder, script="build.py")
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
        assert "no TensorRT for Python" in done.stderr and "sh build.sh" in done.stderr
    # The engine does not exist yet, and the runner reports that.
    done = run_py(folder, "--selftest")
    digest = sha256(folder / "tiny-engine.onnx")[:8]  # an engine of another model has another name
    assert done.returncode == 1 and f"tiny-engine-{digest}.engine: does not exist" in done.stderr
    script = (folder / "build.sh").read_text()
    assert f"mv .partial.engine tiny-engine-{digest}.engine" in script and " --noTF32" in script
    with (folder / "tiny-engine.onnx").open("ab") as file:
        file.write(b"x")
    assert "changed since it was proven" in run_py(folder, script="build.py").stderr


def test_a_failing_engine_affects_no_other_target(
    trained: Trained, copy_of: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.export import tensorrt

    def refuse(*_: Any) -> Any:
        raise ExportError("TensorRT cannot build the engine: no memory")

    monkeypatch.setattr(tensorrt, "preflight", refuse)
    run = copy_of(trained.run)
    wanted = {"targets": [{"format": "engine"}, {"format": "onnx"}], "conf": CONF, "images": 2}
    with pytest.raises(ExportError) as error:
        export.main(Export.model_validate(wanted), run, 0, "cpu")
    refused, kept = str(error.value).splitlines()
    assert refused.startswith("tiny-engine.onnx: TensorRT cannot build the engine: no memory; remove the target; all ")
    assert kept.startswith("tiny.onnx passed: in ")
    assert sorted(path.name for path in run.export.iterdir()) == ["tiny-onnx-fp32.zip", "tiny.onnx"]


def test_tensorrt_builds_the_onnx_models(trained: Trained, tmp_path: Path) -> None:
    """TensorRT for RTX parses and builds plans from ONNX and from Q/DQ ONNX, on the CPU."""
    tensorrt_rtx = pytest.importorskip(
        "tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed; `make tensorrt` adds it where there is a wheel"
    )
    from pipeline.device.runner import engine
    from pipeline.export import int8, tensorrt

    source = trained.run.export / "tiny.onnx"
    random = np.random.default_rng(0)
    calibration = [random.random((1, 3, 64, 64), np.float32) for _ in range(2)]
    for recipe in make.RECIPES["onnx"]:
        quantised = tmp_path / f"{len(recipe)}.onnx"
        int8.quantise_onnx(source, quantised, calibration, recipe)
        checked = tensorrt.preflight(quantised, None)
        assert checked["plan_bytes"] > 1e6 and checked["layers"] > 500  # Q/DQ nodes count as layers too
    assert tensorrt.preflight(source, None)["layers"] > 300
    rounded: list[bool] = []

    def look(config: Any) -> None:
        rounded.append(config.get_flag(tensorrt_rtx.BuilderFlag.TF32))
        raise runner.RunnerError("enough seen")

    for exact in (True, False):
        with pytest.raises(runner.RunnerError, match="enough seen"):
            engine.build(tensorrt_rtx, source.read_bytes(), None, 64, exact, look)
    assert rounded == [False, True]
    int8.quantise_onnx(source, tmp_path / "naive.onnx", calibration, "naive")
    with pytest.raises(ExportError, match=r"does not accept the ONNX model: .*zero point"):
        tensorrt.preflight(tmp_path / "naive.onnx", None)


# --- One-line refusals --------------------------------------------------------------------------------


def test_a_run_without_a_model_is_refused(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    run.model.unlink()
    with pytest.raises(DataError, match="does not exist"):
        export.main(Export(), run, 0, "cpu")


def test_litert_without_its_environment_is_refused(
    trained: Trained, copy_of: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(trained.run)
    monkeypatch.chdir(run.root)  # which has no .venv-litert
    before = read_json(run.manifest)
    with pytest.raises(ExportError, match=r"litert needs a separate environment.*`make litert`"):
        export.main(Export.model_validate({"targets": [{"format": "onnx"}, {"format": "litert"}]}), run, 0, "cpu")
    assert read_json(run.manifest) == before


def test_a_missing_package_is_reported_with_the_install_command(
    trained: Trained, copy_of: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(trained.run)
    monkeypatch.setitem(sys.modules, "ncnn", None)  # as if it were not installed
    config = Export.model_validate({"targets": [{"format": "ncnn"}]})
    with pytest.raises(ExportError, match=r"add them with `.*python.* -m pip install -c constraints\.txt ncnn`"):
        export.main(config, run, 0, "cpu")


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes there")
def test_a_full_disk_keeps_the_last_export(trained: Trained, tmp_path: Path) -> None:
    """With files limited to a megabyte, the export fails in one line and keeps what was there."""
    run = Run(Path(shutil.copytree(trained.run.root, tmp_path / "runs" / "tiny")))
    before = sorted(path.name for path in run.export.iterdir())
    (tmp_path / "tiny.yaml").write_text(
        json.dumps({"convert": {"source": "x"}, "export": {"conf": CONF, "images": 2, "targets": [{"format": "onnx"}]}})
    )

    def limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))

    done = pipeline_process("export", "--config", "tiny.yaml", "--device", "cpu", cwd=tmp_path, preexec_fn=limit)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "Traceback" not in done.stderr
    assert sorted(path.name for path in run.export.iterdir()) == before and not list(run.root.glob(".export*"))


# --- Bundles ------------------------------------------------------------------------------------------


def unpacked(run: Run, bundle: str) -> Path:
    shutil.unpack_archive(run.export / bundle, run.root / "device")
    return run.root / "device" / Path(bundle).stem


def run_py(folder: Path, *arguments: str, script: str = "run.py", packages: Path | None = None) -> Any:
    import subprocess

    command = [sys.executable, str(folder / script), *arguments]
    if packages:  # -S and -I: only the standard library and these packages
        code = "import runpy, sys; sys.path.append(sys.argv.pop(1)); sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
        command = [sys.executable, "-I", "-S", "-c", code, str(packages), str(folder / script), *arguments]
    return subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=False)


@pytest.fixture
def device(trained: Trained, copy_of: Callable[[Run], Run]) -> Path:
    return unpacked(copy_of(trained.run), "tiny-onnx-fp32.zip")


def only(tmp_path: Path, *names: str) -> Path:
    """A folder with only these packages, like a clean environment."""
    site = Path(np.__file__).parents[1]
    folder = tmp_path / "packages"
    folder.mkdir()
    for name in names:
        for path in [site / name, *site.glob(f"{name.lower()}.libs"), *site.glob(f"{name.lower()}_*.libs")]:
            if path.exists():
                (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.parametrize("shape", [(258, 400), (401, 300), (97, 640), (3, 1000), (320, 320), (640, 480), (50, 33)])
def test_images_and_boxes_are_scaled_as_in_ultralytics(shape: tuple[int, int]) -> None:
    """Rounding to whole pixels makes the sides' factors differ slightly: 258 x 400 becomes 206 x 320."""
    environment.prepare()
    import torch
    from ultralytics.data.augment import LetterBox
    from ultralytics.utils.ops import scale_boxes

    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (*shape, 3), dtype=np.uint8)
    spec = {"size": 320, "fit": "letterbox", "pad": 114, "colour": "RGB", "scale": 1 / 255}
    given = (runner.prepare(image, spec)[0].transpose(1, 2, 0) * 255).round().astype(np.uint8)
    assert (given[:, :, ::-1] == LetterBox((320, 320), auto=False)(image=image)).all()
    corners = np.sort(rng.uniform(-10, 330, (50, 2, 2)), axis=1).reshape(-1, 4)
    expected = scale_boxes((320, 320), torch.from_numpy(corners.copy()), shape)
    assert to_original(corners, shape, 320, "letterbox") == pytest.approx(expected.numpy(), abs=1e-9)


@pytest.mark.parametrize("reader", ["cv2", "PIL"])
def test_a_bundle_needs_only_numpy_an_image_reader_and_the_runtime(device: Path, tmp_path: Path, reader: str) -> None:
    libraries = {"cv2": ["opencv_python_headless"], "PIL": ["pillow"]}[reader]
    packages = only(tmp_path, "numpy", "onnxruntime", "flatbuffers", "google", "packaging", reader, *libraries)
    done = run_py(device, "--selftest", packages=packages)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("selftest passed: 2 images, ")
    golden = device / "golden" / "1.png"
    done = run_py(device, str(golden), "--draw", str(tmp_path / "drawn"), packages=packages)
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    result, expected = json.loads(line), json.loads((device / "golden" / "expected.json").read_text())[0]
    assert result["file"] == str(golden) and len(result["objects"]) == len(expected["scores"]) > 0
    x, y, width, height = result["objects"][0]["bbox"]
    assert np.abs(np.array([x, y, x + width, y + height]) - expected["corners"][0]).max() < 1
    [drawn] = (tmp_path / "drawn").iterdir()
    with Image.open(drawn) as image, Image.open(golden) as original:
        assert image.size == original.size
        assert (np.asarray(image.convert("RGB")) != np.asarray(original.convert("RGB"))).any()


@pytest.mark.parametrize(
    "file", ["tiny.onnx", "model.json", "run.py", "golden/1.png", "golden/expected.json", "SHA256SUMS"]
)
def test_one_flipped_byte_fails_the_selftest(device: Path, file: str) -> None:
    data = bytearray((device / file).read_bytes())
    # In the runner, a letter in a comment, so that it still runs; elsewhere, anywhere in the middle.
    at = data.index(b"camera.") if file == "run.py" else len(data) // 2
    data[at] ^= 1
    (device / file).write_bytes(bytes(data))
    done = run_py(device, "--selftest")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("file", ["tiny.onnx", "model.json", "golden/2.png", "SHA256SUMS"])
def test_a_missing_file_is_named(device: Path, file: str) -> None:
    (device / file).unlink()
    done = run_py(device, "--selftest")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert Path(file).name in done.stderr and "does not exist" in done.stderr


def test_a_device_that_computes_something_else_fails_the_selftest(device: Path) -> None:
    """Every file is intact and signed, but the model is another one: only the golden images reveal it."""
    model = onnx.load(str(device / "tiny.onnx"))
    perturb(model)
    onnx.save(model, str(device / "tiny.onnx"))
    sums = (device / "SHA256SUMS").read_text().splitlines()
    (device / "SHA256SUMS").write_text(
        "".join(f"{sha256(device / 'tiny.onnx')}  tiny.onnx\n" if "tiny.onnx" in line else f"{line}\n" for line in sums)
    )
    done = run_py(device, "--selftest")
    assert done.returncode == 1 and "selftest FAILED: golden/1.png" in done.stderr


def test_the_runner_takes_folders_and_videos_and_reports_errors(device: Path, tmp_path: Path) -> None:
    import cv2

    frames = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(frames), cv2.VideoWriter.fourcc(*"MJPG"), 5, (96, 64))
    for shade in (0, 100, 200):
        writer.write(np.full((64, 96, 3), shade, np.uint8))
    writer.release()
    done = run_py(device, str(frames), str(device / "golden"), "--json", str(tmp_path / "found.jsonl"))
    assert done.returncode == 0 and done.stdout == ""
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert [line.get("frame") for line in lines] == [0, 1, 2, None, None]
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    for source, said in (
        ("nowhere.jpg", "no such file or folder"),
        (str(tmp_path / "bad.jpg"), "not an image"),
        ("99", "camera 99: cannot be opened"),
    ):
        done = run_py(device, source, "--json", str(tmp_path / "none.jsonl"))
        assert done.returncode == 1 and said in done.stderr.splitlines()[-1]
        assert not list(tmp_path.glob("*none.jsonl*"))


def test_validation_thresholds_go_into_the_bundle(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    metrics = read_json(run.metrics)
    names = list(metrics["splits"]["val"]["per_class"])
    point = metrics["operating_point"]
    point["thresholds"] = {name: 0.01 + 0.01 * i for i, name in enumerate(names)}
    point["per_class"] = {
        name: {**figures, "decided": True, "why": "set by hand"} for name, figures in point["per_class"].items()
    }
    run.metrics.write_text(json.dumps(metrics))
    export.main(trained.config.export, run, 0, "cpu")
    spec = read_json(unpacked(run, "tiny-onnx-fp32.zip") / "model.json")
    assert spec["thresholds"] == metrics["operating_point"]["thresholds"]
    assert read_json(unpacked(trained_copy(trained, run), "tiny-onnx-fp32.zip") / "model.json")[
        "thresholds"
    ] == dict.fromkeys(names, CONF)
    assert spec["source"]["sha256"] == sha256(run.model) and spec["input"]["colour"] == "RGB"


def trained_copy(trained: Trained, beside: Run) -> Run:
    return Run(Path(shutil.copytree(trained.run.root, beside.root.with_name("other"))))


# --- Speed --------------------------------------------------------------------------------------------


def test_bench_writes_a_row_per_artefact_and_thread_count(
    trained: Trained, copy_of: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.export import bench

    monkeypatch.setattr(bench, "RUNS", 3)
    monkeypatch.setattr(bench, "ROUNDS", 2)
    monkeypatch.setattr(bench, "THREADS", (1,))
    monkeypatch.setattr(bench, "CONF", CONF)
    run = copy_of(trained.run)
    said = bench.main(run)
    [row] = read_json(run.manifest)["benchmark"]["rows"]
    assert row["file"] == "tiny.onnx" and row["threads"] == 1 and row["runs"] == 3
    assert row["latency_ms"]["p95"] >= row["latency_ms"]["p50"] > 0 and row["load_ms"] > 0
    assert row["import_ms"] > 0 and row["images_per_s_at_once"] > 0
    assert row["images_per_s"] > 0 and row["ultralytics_images_per_s"] > 0
    assert row["boxes"] == row["ultralytics_boxes"] > 0  # regardless of the bundle's thresholds
    assert row["rounds"] == 2 and row["times_onnx"] == [1, 1, 1]
    middle, least, most = row["times_ultralytics"]
    assert 0 < least <= middle <= most
    assert "| tiny.onnx |" in said
    # A bundle of an earlier version does not measure what the current one does.
    with monkeypatch.context() as other, pytest.raises(ExportError, match=r"zip: its run\.py is from another version"):
        other.setattr(bundle, "code", lambda: {"run.py": b""})
        bench.main(run)
    # A file edited since is not measured as if it were the proven one.
    with (run.export / "tiny.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ExportError, match=r"tiny\.onnx: not the file that was verified"):
        bench.main(run)


# --- The comparison itself ----------------------------------------------------------------------------


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = np.array(rows, float).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(int))


ONE = (10.0, 10.0, 50.0, 50.0, 0.9, 0)
TWO = (100.0, 100.0, 150.0, 150.0, 0.6, 1)


def test_equal_detections_in_another_order_are_equal() -> None:
    parity = compare([found(ONE, TWO)], [found(TWO, ONE)], 0.25, ["a"])
    assert (parity.boxes, parity.lost, parity.extra, parity.max_box_px, parity.max_score) == (2, 0, 0, 0, 0)
    assert parity.broken(Limits32()) == {} and parity.worst == []


@pytest.mark.parametrize(
    ("theirs", "limit", "said"),
    [
        (found(ONE), "max_changed", "of 3 boxes, 1 lost, 0 invented and 0 of another class"),
        (
            found(ONE, TWO, (200, 200, 220, 220, 0.5, 0)),
            "max_changed",
            "of 3 boxes, 0 lost, 1 invented and 0 of another class",
        ),
        (
            found(ONE, (100, 100, 150, 150, 0.6, 0)),
            "max_changed",
            "of 3 boxes, 0 lost, 0 invented and 1 of another class",
        ),
        (found(ONE, (101, 100, 150, 150, 0.6, 1)), "max_box_px", "boxes up to 1 px apart, 0.5 allowed"),
        (found(ONE, (100, 100, 150, 150, 0.61, 1)), "max_score", "scores up to 0.01 apart, 0.001 allowed"),
    ],
)
def test_each_kind_of_difference_is_reported(theirs: Detections, limit: str, said: str) -> None:
    same = found(ONE)
    parity = compare([same, found(ONE, TWO)], [same, theirs], 0.25, ["first", "second"])
    assert parity.broken(Limits32()) == {limit: said}
    assert parity.worst == ["second"]


def test_a_drop_of_all_scores_is_reported_though_precision_is_equal() -> None:
    """The 0.85 -> 0.45 of 8-bit models: average precision misses it, the limit on the shift does not."""
    low = [(*row[:4], row[4] * 0.6, row[5]) for row in (ONE, TWO)]
    parity = compare([found(ONE, TWO)], [found(*low)], 0.25, ["a"])
    assert parity.lost == parity.extra == 0
    assert parity.broken(Limits8()) == {"max_score_shift": "scores shifted by -0.3 on average, 0.1 allowed"}
    assert parity.shift_of(0) == pytest.approx(-0.36) and parity.shift_of(1) == pytest.approx(-0.24)


def test_eight_bits_may_change_half_of_the_boxes() -> None:
    more = (200.0, 200.0, 220.0, 220.0, 0.5, 0)
    assert compare([found(ONE, TWO)], [found(ONE)], 0.25, ["a"]).broken(Limits8()) == {}
    said = compare([found(ONE, TWO, more)], [found(ONE)], 0.25, ["a"]).broken(Limits8())
    assert said == {"max_changed": "of 3 boxes, 2 lost, 0 invented and 0 of another class"}


def test_a_box_near_the_threshold_is_neither_lost_nor_invented() -> None:
    above, below = (*ONE[:4], 0.2501, 0), (*ONE[:4], 0.2499, 0)
    for ours, theirs in ((above, below), (below, above)):
        parity = compare([found(ours, TWO)], [found(theirs, TWO)], 0.25, ["a"])
        assert parity.broken(Limits32()) == {}


def test_overlapping_twins_are_paired_correctly() -> None:
    left, right = (10.0, 10.0, 50.0, 50.0, 0.9, 0), (14.0, 10.0, 54.0, 50.0, 0.8, 0)
    parity = compare([found(left, right)], [found(right, left)], 0.25, ["a"])
    assert parity.broken(Limits32()) == {}


def test_no_detections_prove_nothing() -> None:
    """No limit is breached and no distance measured, but a box the artefact invents is still reported."""
    parity = compare([found()], [found()], 0.25, ["a"])
    for limits in (Limits32(), Limits16(), Limits8()):
        assert parity.broken(limits) == {}
    figures = parity.as_json()
    assert figures["boxes"] == figures["changed"] == 0 and figures["max_box_px"] is figures["mean_score_shift"] is None
    said = compare([found()], [found(ONE)], 0.25, ["a"]).broken(Limits16())
    assert said == {"max_changed": "of 0 boxes, 0 lost, 1 invented and 0 of another class"}


# --- Average precision --------------------------------------------------------------------------------


def scene(random: np.random.Generator, images: int, noise: float) -> tuple[list[Detections], list[Detections]]:
    """Labels and detections: some accurate, some imprecise, some missed, some spurious, some of another class."""
    labelled, seen = [], []
    for _ in range(images):
        corners = random.uniform(0, 300, (random.integers(0, 6), 2))
        corners = np.concatenate([corners, corners + random.uniform(20, 120, corners.shape)], axis=1)
        classes = random.integers(0, 3, len(corners))
        labelled.append(Detections(corners, np.ones(len(corners)), classes))
        there = random.random(len(corners)) < 0.8
        moved = corners[there] + random.normal(0, noise, corners[there].shape)
        others = random.uniform(0, 300, (3, 2))
        moved = np.concatenate([moved, np.concatenate([others, others + 60], axis=1)])
        kinds = np.concatenate([classes[there], random.integers(0, 3, 3)])
        scores = random.uniform(0.01, 1, len(moved)).round(2)  # some scores are equal
        seen.append(Detections(moved, scores, kinds))
    return labelled, seen


def test_average_precision_equals_pycocotools() -> None:
    """On scenes with misses, false positives and equal scores."""
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    labelled, seen = scene(np.random.default_rng(5), 40, 4.0)
    ours = ap.figures(ap.match(labelled, seen, 3), ["a", "b", "c"])

    def records(sides: list[Detections]) -> list[dict[str, Any]]:
        return [
            {"id": 0, "image_id": image, "category_id": int(kind), "iscrowd": 0, "score": float(score),
             "bbox": [*box[:2], *(box[2:] - box[:2])], "area": float(np.prod(box[2:] - box[:2]))}
            for image, side in enumerate(sides)
            for box, score, kind in zip(side.corners.tolist() and side.corners, side.scores, side.classes, strict=True)
        ]  # fmt: skip

    annotations = [{**record, "id": number} for number, record in enumerate(records(labelled), start=1)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": image} for image in range(40)],
            "annotations": annotations,
            "categories": [{"id": kind} for kind in range(3)],
        }
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(records(seen)), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    assert ours["map50_95"] == pytest.approx(evaluator.stats[0], abs=1e-6)
    assert ours["map50"] == pytest.approx(evaluator.stats[1], abs=1e-6)


def test_resampled_images_count_as_often_as_they_are_drawn() -> None:
    """Drawing images 0, 0, 2 equals a dataset that holds image 0 twice."""
    labelled, seen = scene(np.random.default_rng(6), 3, 6.0)
    draws = np.array([[2, 0, 1], [1, 1, 1]])
    drawn = bootstrap.figures(ap.match(labelled, seen, 3), draws).precision
    copied = ap.match([labelled[0], labelled[0], labelled[2]], [seen[0], seen[0], seen[2]], 3)
    np.testing.assert_allclose(drawn[0], bootstrap.figures(copied, bootstrap.once(3)).precision[0])


def test_a_drop_in_precision_has_an_interval() -> None:
    labelled, seen = scene(np.random.default_rng(7), 60, 3.0)
    good = ap.match(labelled, seen, 3)
    same = ap.drop(ap.redrawn(good), ap.redrawn(good))
    assert same["points"] == 0 and same["interval"] == [0, 0]
    worse = [
        dataclasses.replace(matches, hits=matches.hits & (np.arange(len(matches.scores)) % 4 > 0)) for matches in good
    ]
    drop = ap.drop(ap.redrawn(good), ap.redrawn(worse))
    low, high = drop["interval"]
    assert 0 < low < drop["points"] < high
    model, artefact = (ap.figures(matches, ["a", "b", "c"])["map50_95"] for matches in (good, worse))
    assert drop["points"] == pytest.approx(100 * (model - artefact), abs=1.1e-4)  # both are rounded to six decimals

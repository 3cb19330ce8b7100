from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import Trained
from onnx import numpy_helper

from pipeline import export
from pipeline.config import Export
from pipeline.errors import DataError, ExportError
from pipeline.export import Detections, compare
from pipeline.files import read_json, sha256
from pipeline.run import Run


def test_the_manifest_tells_what_was_proven(trained: Trained) -> None:
    manifest = read_json(trained.run.manifest)
    [entry] = manifest["artefacts"]
    artefact = trained.run.export / entry["file"]
    assert entry["file"] == "tiny.onnx"
    assert entry["sha256"] == sha256(artefact) and entry["bytes"] == artefact.stat().st_size
    assert manifest["model"]["sha256"] == sha256(trained.run.model)
    parity = entry["parity"]
    assert parity["boxes"] > 0 and parity["images"] == 2
    assert parity["lost"] == parity["extra"] == 0
    assert parity["max_box_px"] <= parity["limit_box_px"] == 0.5
    assert parity["max_score"] <= parity["limit_score"] == 1e-3
    assert entry["verdict"] == "equal"
    assert sorted(path.name for path in trained.run.export.iterdir()) == ["manifest.json", "tiny.onnx"]


def test_raw_outputs_equal_the_model_without_any_of_our_code(trained: Trained) -> None:
    """onnxruntime alone against torch alone, on the same tensor."""
    import torch

    from pipeline import weights

    weights.prepare()
    model, _ = weights.load(trained.run.model)
    session = onnxruntime.InferenceSession(str(trained.run.export / "tiny.onnx"), providers=["CPUExecutionProvider"])
    batch = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    [ours] = session.run(None, {session.get_inputs()[0].name: batch})
    with torch.no_grad():
        theirs = model.fuse(verbose=False)(torch.from_numpy(batch))
    theirs = (theirs[0] if isinstance(theirs, tuple) else theirs).numpy()
    assert ours.shape == theirs.shape == (1, 10, 84)
    # Boxes in pixels of 64, scores of 0..1; float32 rounding through 200 layers, seen 2e-4.
    np.testing.assert_allclose(ours, theirs, atol=5e-3)


def test_a_changed_artefact_does_not_pass(
    trained: Trained, copy_of: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One weight of the written ONNX file spoilt before it is compared: the stage fails and leaves nothing."""
    run = copy_of(trained.run)
    shutil.rmtree(run.export)
    write = export._write

    def spoil(*arguments: object) -> Path:
        path: Path = write(*arguments)  # type: ignore[arg-type]
        model = onnx.load(str(path))
        biases = [
            tensor
            for tensor in model.graph.initializer
            if "one2many" in tensor.name or (".cv3." in tensor.name and tensor.name.endswith("bias"))
        ]
        tensor = biases[-1]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.5), tensor.name))
        onnx.save(model, str(path))
        return path

    monkeypatch.setattr(export, "_write", spoil)
    with pytest.raises(ExportError, match=r"tiny\.onnx: differs from .*model\.pt: .*worst image val_"):
        export.main(trained.config.export, run, "cpu")
    assert not run.export.exists() and not list(run.root.glob(".export*"))


def test_half_precision(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    # A hardly trained model sits on the threshold with most of its boxes: compare well below it.
    config = Export.model_validate({"targets": [{"format": "onnx", "quantize": 16}], "conf": 0.0005, "images": 1})
    try:
        export.main(config, run, "cpu")
    except ExportError as error:
        assert "fp16" in str(error) and "boxes" in str(error)  # refused by the gate, not by a crash
        return
    [entry] = read_json(run.manifest)["artefacts"]
    assert (entry["file"], entry["precision"]) == ("tiny-fp16.onnx", "fp16")
    assert entry["bytes"] < 0.6 * read_json(trained.run.manifest)["artefacts"][0]["bytes"]


def test_tensorrt_on_the_wrong_machine(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    import torch

    if torch.cuda.is_available() and find_spec("tensorrt"):
        pytest.skip("this machine has a GPU and TensorRT; the refusal cannot be seen on it")
    run = copy_of(trained.run)
    before = read_json(run.manifest)
    config = Export.model_validate({"targets": [{"format": "onnx"}, {"format": "engine", "quantize": 16}]})
    with pytest.raises(
        ExportError, match=r"engine \(TensorRT\) is built on the GPU it will run on; this machine lacks .*tensorrt"
    ):
        export.main(config, run, "cpu")
    assert read_json(run.manifest) == before


def test_an_unfinished_run(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    run.model.unlink()
    with pytest.raises(DataError, match="not there"):
        export.main(Export(), run, "cpu")


# --- The comparison itself --------------------------------------------------------------------------


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = np.array(rows, float).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(int))


ONE = (10.0, 10.0, 50.0, 50.0, 0.9, 0)
TWO = (100.0, 100.0, 150.0, 150.0, 0.6, 1)


def test_equal_detections_in_another_order() -> None:
    parity = compare([found(ONE, TWO)], [found(TWO, ONE)], 0.25, ["a"])
    assert (parity.boxes, parity.lost, parity.extra, parity.max_box_px, parity.max_score) == (2, 0, 0, 0, 0)
    assert parity.breaches(0.5, 1e-3) == []


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        (found(ONE), "1 boxes lost and 0 invented"),
        (found(ONE, TWO, (200, 200, 220, 220, 0.5, 0)), "0 boxes lost and 1 invented"),
        (found(ONE, (100, 100, 150, 150, 0.6, 0)), "1 boxes lost and 1 invented"),  # another class
        (found(ONE, (101, 100, 150, 150, 0.6, 1)), "boxes up to 1 px apart, 0.5 allowed"),
        (found(ONE, (100, 100, 150, 150, 0.61, 1)), "scores up to 0.01 apart, 0.001 allowed"),
    ],
)
def test_each_kind_of_difference_is_told(theirs: Detections, said: str) -> None:
    same = found(ONE)
    parity = compare([same, found(ONE, TWO)], [same, theirs], 0.25, ["first", "second"])
    assert parity.breaches(0.5, 1e-3) == [said]
    assert parity.worst_image == "second"


def test_a_box_on_the_threshold_is_neither_lost_nor_invented() -> None:
    above, below = (*ONE[:4], 0.2501, 0), (*ONE[:4], 0.2499, 0)
    for ours, theirs in ((above, below), (below, above)):
        parity = compare([found(ours, TWO)], [found(theirs, TWO)], 0.25, ["a"])
        assert parity.breaches(0.5, 1e-3) == []


def test_twins_are_paired_each_with_its_own() -> None:
    left, right = (10.0, 10.0, 50.0, 50.0, 0.9, 0), (14.0, 10.0, 54.0, 50.0, 0.8, 0)
    parity = compare([found(left, right)], [found(right, left)], 0.25, ["a"])
    assert parity.breaches(0.5, 1e-3) == []


def test_nothing_found_proves_nothing() -> None:
    parity = compare([found()], [found()], 0.25, ["a"])
    assert "nothing is proven" in parity.breaches(0.5, 1e-3)[0]

"""A segmentation, pose or oriented-box model is refused, but its weights can be transferred to a detector."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.training import Train
from pipeline.errors import WeightsError
from pipeline.train import source
from pipeline.upstream import checkpoints, detector, environment

KINDS = ["yolo26n-seg", "yolov8n-pose", "yolo11n-obb", "yolo26n-pose"]


@pytest.fixture(autouse=True)
def prepared() -> None:
    environment.prepare()


@pytest.mark.parametrize("kind", KINDS)
def test_the_suggested_command_keeps_the_weights(kind: str, tmp_path: Path) -> None:
    import torch
    from ultralytics import YOLO

    torch.manual_seed(7)
    path, made = tmp_path / f"{kind}.pt", tmp_path / "detector.pt"
    YOLO(f"{kind}.yaml").save(str(path))
    with pytest.raises(WeightsError, match=r"python -m pipeline\.upstream\.detector .*\.pt NEW\.pt`$"):
        source.find(Train(weights=str(path)))
    line = detector.make(path, made)
    assert " random" not in line and line.endswith(f"tensors of {kind.split('-')[0]} are those of {path} -> {made}")
    found = source.find(Train(weights=str(made)))
    theirs, _ = checkpoints.load_any(path)
    assert type(found.model).__name__ == "DetectionModel" and found.model.names == theirs.names
    there = theirs.state_dict()
    assert all(torch.equal(tensor, there[name]) for name, tensor in found.model.state_dict().items())
    assert found.record()["name"] == "detector.pt" and len(found.record()["sha256"] or "") == 64
    assert [one.name for one in tmp_path.iterdir() if "partial" in one.name] == []


@pytest.mark.parametrize("kind", ["yolo26n-cls", "yoloe-26n-seg", "yolo26n"])
def test_other_models_are_refused_without_that_suggestion(kind: str, tmp_path: Path) -> None:
    from ultralytics import YOLO

    path = tmp_path / f"{kind}.pt"
    YOLO(f"{kind}.yaml").save(str(path))
    with pytest.raises(WeightsError, match="no detector of its family fits it"):
        detector.make(path, tmp_path / "new.pt")
    assert not (tmp_path / "new.pt").exists()
    if kind != "yolo26n":
        with pytest.raises(WeightsError) as error:
            checkpoints.load(path)
        assert "pipeline.upstream.detector" not in str(error.value)


def test_the_command_reports_errors_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ultralytics import YOLO

    (tmp_path / "a.pt").write_bytes(b"")
    YOLO("yolo26n-seg.yaml").save(str(tmp_path / "seg.pt"))
    for arguments, said in (
        ([], "name two files"),
        ([str(tmp_path / "a.pt"), "b.pt"], "it is empty"),
        ([str(tmp_path / "seg.pt"), str(tmp_path / "a.pt" / "b.pt")], "a.pt"),  # its folder is a file
    ):
        assert detector.main(arguments) == 1
        assert said in (err := capsys.readouterr().err) and err.count("\n") == 1

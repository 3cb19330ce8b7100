"""Unusable weights: one line that says what the file is and what would work, wherever weights are named."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import yaml

from pipeline.__main__ import main
from pipeline.config.training import Train
from pipeline.errors import ConfigError, WeightsError
from pipeline.train import source
from pipeline.upstream import checkpoints, environment


@pytest.fixture(autouse=True)
def prepared() -> None:
    environment.prepare()


MODELS = [
    ("yolo26n-seg.yaml", "a model for segmentation, not for detection; choose yolo26n.pt, the same network up to"),
    ("yolov8n-seg.yaml", "a model for segmentation, not for detection; choose yolov8n.pt, the same network up to"),
    ("yolo26n-pose.yaml", "a model for pose estimation, not for detection; choose yolo26n.pt, the same network"),
    ("yolo11n-obb.yaml", "a model for oriented boxes, not for detection; choose yolo11n.pt, the same network"),
    (
        "yolo26n-depth.yaml",
        "a model for depth estimation, not for detection; choose yolo26n.pt or another YOLO26 detector",
    ),
    ("yolo26n-cls.yaml", "a model for classification, not for detection; choose yolo26n.pt or another YOLO26 detector"),
    (
        "yolo26n-sem.yaml",
        "a model for semantic segmentation, not for detection; choose yolo26n.pt or another YOLO26 detector",
    ),
    ("rtdetr-l.yaml", "an RT-DETR model, which needs another trainer; choose yolo26n.pt or another YOLO26 detector"),
    ("yolov8s-world.yaml", "a YOLO-World model, which is prompted with words; choose"),
    ("yoloe-26n.yaml", "a YOLOE model, which is prompted with words; choose"),
    ("yoloe-26n-seg.yaml", "a YOLOE model, which is prompted with words; choose"),
]


@pytest.mark.parametrize(("name", "said"), MODELS)
def test_models_of_another_kind_are_refused(name: str, said: str, tmp_path: Path) -> None:
    """As weights, as a teacher, and by .yaml."""
    from ultralytics import RTDETR, YOLO

    path = tmp_path / f"{Path(name).stem}.pt"
    (RTDETR if "rtdetr" in name else YOLO)(name).save(str(path))
    for find, config in (
        (source.find, Train(weights=str(path))),
        (source.find_teacher, Train(args={"distill_model": str(path)})),
    ):
        with pytest.raises(WeightsError) as error:
            find(config)
        assert str(error.value).startswith(f"{path}: {said}")
    with pytest.raises(ConfigError) as error_of_yaml:
        source.find(Train(weights=name))
    assert str(error_of_yaml.value).startswith(f"train.weights: {name}: {said.replace('.pt', '.yaml')}")


@pytest.mark.parametrize("name", ["yolo26n.yaml", "yolov10n.yaml", "yolov5n.yaml", "yolo12n.yaml", "yolov9t.yaml"])
def test_detectors_of_every_family_are_accepted(name: str) -> None:
    assert type(source.find(Train(weights=name)).model).__name__ == "DetectionModel"


@pytest.mark.parametrize(
    ("channels", "said"), [(1, "1 channel, not"), (4, "4 channels, not"), (10, "10 channels, not")]
)
def test_models_with_other_input_channels_are_refused(channels: int, said: str, tmp_path: Path) -> None:
    import torch
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    path = tmp_path / "grey.pt"
    torch.save({"model": DetectionModel("yolo26n.yaml", ch=channels, verbose=False).half()}, path)
    with pytest.raises(WeightsError, match=rf"grey\.pt: takes images with {said} colour images; choose yolo26n\.pt"):
        checkpoints.load(path)
    layers = {**yaml_model_load("yolo26n.yaml"), "channels": channels}
    (tmp_path / "grey.yaml").write_text(yaml.safe_dump(layers))
    with pytest.raises(ConfigError, match=rf"grey\.yaml: takes images with {said} colour images; choose yolo26n\.yaml"):
        source.find(Train(weights=str(tmp_path / "grey.yaml")))


def test_a_yaml_that_is_not_a_model_is_refused(tmp_path: Path) -> None:
    for number, text in enumerate(("a: 1\n", "head: []\n", "- a\n", "head: 3\nbackbone: x\n")):
        (tmp_path / f"m{number}.yaml").write_text(text)
        with pytest.raises(ConfigError, match=rf"^train\.weights: .*m{number}\.yaml: "):
            source.find(Train(weights=str(tmp_path / f"m{number}.yaml")))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:9b09cc8bf347\nsize 5544453\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (LFS, "it is a Git LFS pointer, not the file itself); run `git lfs pull`"),
        (b"\xef\xbb\xbf" + LFS, "it is a Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "it is a web page, saved in place of the file); download the file itself"),
        (b"\r\n  <HTML><body>Sign in</body>", "it is a web page"),
        (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "it is a web page"),
    ],
)
def test_files_that_are_not_checkpoints_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as error:
        checkpoints.load(path)
    assert f"{path}: not an Ultralytics checkpoint, or damaged ({said}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("module", ["models.yolo", "models.common"])
def test_a_checkpoint_of_the_old_yolov5_repository_is_refused(module: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "old.pt", "w") as archive:  # a class from a module that does not exist here
        archive.writestr("best/data.pkl", f"\x80\x02c{module}\nModel\nq\x00.".encode("latin-1"))
    with pytest.raises(WeightsError, match=r"old YOLOv5 repository.*choose yolov5nu\.pt or a larger one"):
        checkpoints.load(tmp_path / "old.pt")


def test_torch_files_without_a_model_are_refused(tmp_path: Path) -> None:
    import torch

    torch.save({"weight": torch.zeros(3)}, tmp_path / "state.pt")
    with pytest.raises(WeightsError, match=r"it holds tensors without a model\); name the \.pt file that Ultralytics"):
        checkpoints.load(tmp_path / "state.pt")
    torch.jit.trace(torch.nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 4, 4)).save(str(tmp_path / "script.pt"))
    with pytest.raises(WeightsError, match=r"it is TorchScript, an export\); name the \.pt file"):
        checkpoints.load(tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("best.pt", b"")
    with pytest.raises(WeightsError, match=r"a ZIP archive of other files\); unpack it"):
        checkpoints.load(tmp_path / "zip.pt")


def test_a_file_in_place_of_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("convert: {source: x}\n")
    (tmp_path / "other.pt").write_bytes(b"1")
    for stage in ("validate", "report", "inspect"):
        assert main([stage, "--config", str(config), "--against", str(tmp_path / "other.pt")]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "other.pt: is a file; name the folder of a validated run" in said

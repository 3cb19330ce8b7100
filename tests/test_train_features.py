"""Cached features: the same training, faster."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import IMGSZ, Trained, train_tiny

from pipeline import history, pixels
from pipeline.boxes import YoloDataset
from pipeline.config.training import Train
from pipeline.errors import ConfigError, PipelineError
from pipeline.run import Run
from pipeline.train.plan import FeatureCache, cached_layers
from pipeline.upstream import checkpoints, environment

PHASE = {"epochs": 2, "freeze": "backbone"}
VALIDATED = {**PHASE, "patience": 9}  # after each epoch, so that the features of val are used twice


@pytest.fixture
def features() -> Any:
    environment.prepare()
    from pipeline.train import features

    return features


@pytest.fixture
def precompute(features: Any) -> Any:
    from pipeline.train import precompute

    return precompute


@pytest.fixture
def dataset(trained: Trained, features: Any) -> Any:
    """The run's training images as a phase on cached features sees them; nothing is cached yet."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data import build_yolo_dataset
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(str(trained.run.augmented / "data.yaml"))
    config = get_cfg(overrides={"imgsz": IMGSZ})
    return features.FixedDataset.of(build_yolo_dataset(config, data["train"], 4, data, "val", False, 32))


@pytest.fixture
def model(start: Path) -> Any:
    return checkpoints.load(start)[0].float()


def do(run: Run, start: Path, **settings: Any) -> dict[str, Any]:
    return train_tiny(run, start, PHASE, **settings)


def rows(run: Run) -> list[dict[str, float | None]]:
    """The results of each epoch, without its duration."""
    epochs, _ = history.read(run)
    assert epochs and all(value is not None for row in epochs for value in row.values())
    return [{key: value for key, value in row.items() if key != "time"} for row in epochs]


@pytest.mark.parametrize(("cut", "layers"), [(1, [0]), (11, [4, 6, 10]), (12, [4, 6, 10, 11]), (23, [16, 19, 22])])
def test_cached_features_give_the_same_output(features: Any, model: Any, cut: int, layers: list[int]) -> None:
    import torch

    from pipeline.probing import wiring

    assert wiring.taken(model, cut) == layers
    images = torch.rand(2, 3, 64, 96)
    model.eval()
    with torch.no_grad():
        expected = model(images)[0]
        known = features.prefix(model, images, cut)
        assert list(known) == layers
        model.__class__ = features.Shortened
        assert torch.equal(model(images)[0], expected)
        blank = torch.zeros_like(images)
        assert not torch.equal(model(blank)[0], expected)
        blank.features = cut, known
        assert torch.equal(model(blank)[0], expected)


@pytest.mark.parametrize("freeze", ["backbone", "all-but-head"])
def test_cached_features_give_the_same_losses_and_figures(
    trained: Trained,
    copy_of: Callable[[Run], Run],
    start: Path,
    freeze: str,
    features: Any,
    precompute: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bit for bit, with full-precision features; the next test covers half precision."""
    run, phases = copy_of(trained.run), [{"epochs": 2, "freeze": freeze, "patience": 9}]
    with monkeypatch.context() as patch:
        patch.setattr(precompute, "SPARE", 2**60)  # more room than any disk has
        record = do(run, start, phases=phases)
    decisions = record["phases"][0]["features"]
    assert not decisions["train"]["cached"] and "features of train need 0.0 GB, and" in decisions["train"]["reason"]
    computed = rows(run)

    with monkeypatch.context() as patch:
        patch.setattr(features, "DTYPE", np.dtype(np.float32))
        record = do(run, start, phases=phases, cache_features=True)
    assert all(split["cached"] for split in record["phases"][0]["features"].values())
    assert rows(run) == computed


@pytest.mark.parametrize("cut", [11, 23])
def test_half_precision_changes_the_loss_by_less_than_a_thousandth(
    trained: Trained, features: Any, model: Any, cut: int
) -> None:
    """11 bits of each value are kept, and errors of both signs largely cancel."""
    import torch
    from ultralytics.cfg import get_cfg

    data = YoloDataset.read(trained.run.augmented / "data.yaml")
    images = [pixels.read(path) for path in data.files("train")[:4]]
    batch = {
        "img": torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)[:, :, :256, :256].float() / 255,
        "batch_idx": torch.arange(4).repeat_interleave(2).float(),
        "cls": torch.tensor([[0.0], [1.0]] * 4),
        "bboxes": torch.tensor([[0.3, 0.3, 0.2, 0.1], [0.6, 0.7, 0.3, 0.3]] * 4),
    }
    model.args = get_cfg()
    model.eval()  # as frozen layers are; the losses are still training losses
    losses = []
    with torch.no_grad():
        known = features.prefix(model, batch["img"], cut)
        model.__class__ = features.Shortened
        for dtype in (torch.float32, torch.float16):
            batch["img"].features = cut, {layer: tensor.to(dtype).float() for layer, tensor in known.items()}
            model.train()
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()
            losses.append(float(model.loss(batch)[0].sum()))
    assert losses[1] == pytest.approx(losses[0], rel=1e-3) and losses[0] > 0


def side(plot: Path) -> tuple[int, int]:
    """Width and height of each image in Ultralytics' 2 x 2 plot of the three val images."""
    from PIL import Image

    width, height = Image.open(plot).size
    return width // 2, height // 2


@pytest.mark.parametrize("rect", [False, True])
def test_val_images_are_letterboxed_to_a_square_as_in_validate(
    trained: Trained, copy_of: Callable[[Run], Run], start: Path, rect: bool
) -> None:
    """By default, Ultralytics would pad them to 96 pixels."""
    run = copy_of(trained.run)
    train_tiny(run, start, args={"plots": True, "rect": rect})
    assert side(run.train / "phase1" / "val_batch0_labels.jpg") == (IMGSZ, IMGSZ)


def test_the_model_is_ordinary_and_the_plots_show_images(
    trained: Trained, copy_of: Callable[[Run], Run], start: Path
) -> None:
    from PIL import Image
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    run = copy_of(trained.run)
    decisions = do(run, start, cache_features=True, args={"plots": True})["phases"][0]["features"]
    assert decisions["train"]["cached"] and not decisions["val"]["cached"]  # validated once
    assert "at most once" in decisions["val"]["reason"] and len(list(run.features.glob("*.bin"))) == 1
    assert type(YOLO(str(run.model)).model) is DetectionModel
    for name in ("train_batch0.jpg", "val_batch0_labels.jpg", "val_batch0_pred.jpg"):
        assert np.asarray(Image.open(run.train / "phase1" / name)).std() > 20  # blank ones have almost no variation
    assert side(run.train / "phase1" / "val_batch0_labels.jpg") == (IMGSZ, IMGSZ)
    assert (run.train / "phase1" / "confusion_matrix.png").is_file()


def test_cached_features_are_reused_only_if_nothing_changed(
    trained: Trained, copy_of: Callable[[Run], Run], start: Path
) -> None:
    run = copy_of(trained.run)

    def decisions(**settings: Any) -> Any:
        return do(run, start, phases=[VALIDATED], cache_features=True, **settings)["phases"][0]["features"]

    first = decisions()
    assert sorted(path.name for path in run.features.glob("*.bin")) == sorted(split["file"] for split in first.values())
    again = decisions(lr0=0.001)
    assert {split["reason"] for split in again.values()} == {"known from an earlier training"}
    image, *_, other = sorted((run.augmented / "images" / "train").iterdir())
    image.unlink()  # it may be a hard link
    image.write_bytes(other.read_bytes())
    third = decisions()
    assert third["train"]["file"] != first["train"]["file"] and third["val"] == again["val"]
    assert not (run.features / first["train"]["file"]).exists()
    larger = decisions(imgsz=96)
    assert not {split["file"] for split in larger.values()} & {split["file"] for split in third.values()}


def test_other_code_computes_other_features(
    dataset: Any, model: Any, features: Any, precompute: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = precompute._key(dataset, model, 11)
    for module in (features, precompute):
        code, copy = Path(module.__file__).read_text(encoding="utf-8"), tmp_path / "copy.py"
        with monkeypatch.context() as patch:
            patch.setattr(module, "__file__", str(copy))
            copy.write_text(code, encoding="utf-8")
            assert precompute._key(dataset, model, 11) == key
            copy.write_text(code.replace("images", "images * 2", 1), encoding="utf-8")
            assert precompute._key(dataset, model, 11) != key


def test_another_batch_size_or_number_of_threads_computes_other_features(
    dataset: Any, model: Any, precompute: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    key = precompute._key(dataset, model, 11)
    with monkeypatch.context() as patch:
        patch.setattr(dataset, "batch_size", dataset.batch_size * 2)
        assert precompute._key(dataset, model, 11) != key
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert precompute._key(dataset, model, 11) != key
    finally:
        torch.set_num_threads(threads)
    assert precompute._key(dataset, model, 11) == key


LAYERS = {"activation": "torch.nn.SiLU()", "third": -1, "neck": -1}


def small_model(activation: str, third: int, neck: int) -> Any:
    """A model with three layers before the cut; all variants share weight shapes and seed."""
    import torch
    from ultralytics.nn.tasks import DetectionModel

    layers = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Conv", [16, 3, 1]], [third, 1, "Conv", [16, 3, 1]]]
    head = [[neck, 1, "Conv", [16, 3, 1]], [[3], 1, "Detect", ["nc"]]]
    torch.manual_seed(0)
    config = {"nc": 6, "activation": activation, "backbone": layers, "head": head}
    return DetectionModel(config, verbose=False).eval()


@pytest.mark.parametrize(
    "change", [{"activation": "torch.nn.ReLU()"}, {"third": 0}, {"third": -2}, {"neck": 1}, {"neck": -3}], ids=str
)
def test_another_model_with_the_same_weights_has_other_features(
    dataset: Any, features: Any, precompute: Any, change: dict[str, Any]
) -> None:
    import torch

    model, other = small_model(**LAYERS), small_model(**{**LAYERS, **change})
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert precompute._key(dataset, small_model(**LAYERS), 3) == precompute._key(dataset, model, 3)
    assert precompute._key(dataset, other, 3) != precompute._key(dataset, model, 3)
    blank = torch.zeros(1, 3, 64, 64)
    with torch.no_grad():
        images = torch.rand(1, 3, 64, 64)
        expected = other(images)[0]
        blank.features = 3, features.prefix(other, images, 3)
        other.__class__ = features.Shortened
        assert torch.equal(other(blank)[0], expected)


def test_plotting_does_not_touch_features_in_other_threads(
    dataset: Any, model: Any, features: Any, precompute: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images for plots are read in the main thread while another thread loads the next batch."""
    from ultralytics.data import YOLODataset

    model.__class__ = features.Shortened
    decision = precompute.attach(dataset, model, FeatureCache(11, True, tmp_path), "train")
    assert decision["cached"] and model.cached == {"train": True}
    assert not dataset[0]["img"].any()
    read, known = YOLODataset.load_image, dataset.features

    def watched(self: Any, *args: Any) -> Any:
        assert dataset.features is known
        return read(self, *args)

    monkeypatch.setattr(YOLODataset, "load_image", watched)
    assert dataset.image(0).any()


@pytest.mark.parametrize("split", ["train", "val"])
def test_lost_features_stop_the_phase(
    trained: Trained,
    copy_of: Callable[[Run], Run],
    start: Path,
    split: str,
    features: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A copy of the image tensor, which a preprocessing step may make, loses the attached features."""
    from pipeline.train import trainer

    def copied(batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "img": batch["img"].contiguous().clone()}

    class CopyingValidator(features.FixedValidator):  # type: ignore[misc,name-defined]
        def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
            return copied(super().preprocess(batch))

    make = trainer.trainer_class

    def copying(*phase: Any) -> Any:
        class CopyingTrainer(make(*phase)):  # type: ignore[misc]
            def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
                batch = super().preprocess_batch(batch)
                return copied(batch) if split == "train" else batch

        return CopyingTrainer

    monkeypatch.setattr(trainer, "trainer_class", copying)
    if split == "val":
        monkeypatch.setattr(features, "FixedValidator", CopyingValidator)
    run = copy_of(trained.run)
    said = rf"^the cached features of the {split} images did not reach the model, .*: please report it, and set "
    with pytest.raises(PipelineError, match=said) as error:
        do(run, start, phases=[VALIDATED], cache_features=True)
    assert "\n" not in str(error.value) and not (run.train / "phase1" / "model.pt").is_file()


def test_images_are_used_if_no_features_are_cached(features: Any, model: Any) -> None:
    """The disk may have room for only one split's features."""
    import torch

    model.__class__, model.cached = features.Shortened, {"train": True, "val": False}
    images = torch.rand(1, 3, 64, 64)
    assert model.eval()(images)[0].isfinite().all()
    with pytest.raises(PipelineError, match="features of the train images"):
        model.train()(images)


def test_a_lack_of_disk_space_disables_caching_or_is_refused(
    trained: Trained, copy_of: Callable[[Run], Run], start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of(trained.run)
    usage = shutil.disk_usage(run.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=150 * 2**20))
    record = do(run, start)
    assert "0.2 GB free" in record["phases"][0]["features"]["train"]["reason"]
    with pytest.raises(
        PipelineError, match=r"train\.cache_features: features of train need .* GB free; free some space"
    ) as e:
        do(run, start, cache_features=True)
    assert "\n" not in str(e.value) and not list(run.features.iterdir())


def test_a_disk_that_fills_during_the_pass_disables_caching_or_is_refused(
    dataset: Any, model: Any, features: Any, precompute: Any, tmp_path: Path
) -> None:
    """A limit on the size of a file, which fails like a quota: after it has said how much room there is."""
    model.__class__ = features.Shortened
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        decision = precompute.attach(dataset, model, FeatureCache(11, "auto", tmp_path), "train")
        with pytest.raises(PipelineError, match=r"train\.cache_features: features of train .* too large; free some"):
            precompute.attach(dataset, model, FeatureCache(11, True, tmp_path), "train")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not decision["cached"] and "too large" in decision["reason"]
    assert dataset.features is None and model.cached == {"train": False} and not list(tmp_path.iterdir())


def test_a_resumed_phase_keeps_its_decision(
    dataset: Any, model: Any, features: Any, precompute: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.__class__ = features.Shortened
    cache, without = FeatureCache(11, "auto", tmp_path), {"cached": False, "reason": "the disk was full"}
    assert precompute.attach(dataset, model, cache, "train", without) == without and dataset.features is None
    monkeypatch.setattr(precompute, "SPARE", 2**60)
    with pytest.raises(PipelineError, match=r"train\.cache_features: features of train need .* free some space"):
        precompute.attach(dataset, model, cache, "train", {"cached": True, "reason": "computed once"})


def test_layers_with_several_outputs_are_not_cached(
    dataset: Any, features: Any, precompute: Any, tmp_path: Path
) -> None:
    from ultralytics.nn.tasks import DetectionModel

    layers = [[-1, 1, "Conv", [16, 3, 2]], [0, 1, "CBLinear", [[16]]], [0, 1, "Conv", [16, 3, 1]]]
    head = [[[1, -1], 1, "CBFuse", [[0]]], [[3], 1, "Detect", ["nc"]]]
    model = DetectionModel({"nc": 6, "backbone": layers, "head": head}, verbose=False).eval()
    model.__class__ = features.Shortened
    decision = precompute.attach(dataset, model, FeatureCache(3, "auto", tmp_path), "train")
    assert decision == {"cached": False, "reason": "a frozen layer of this model has several outputs"}
    with pytest.raises(PipelineError, match=r"has several outputs; freeze fewer layers, or write false$"):
        precompute.attach(dataset, model, FeatureCache(3, True, tmp_path), "train")


def test_caching_without_frozen_first_layers_is_refused(
    trained: Trained, copy_of: Callable[[Run], Run], start: Path
) -> None:
    run = copy_of(trained.run)
    adapting = {**PHASE, "batchnorm": {"frozen": "train"}}
    for phase in ({"epochs": 2}, {"epochs": 2, "freeze": ["23.cv3"]}, adapting):
        said = r"train\.cache_features: no phase freezes at least its first 5 layers and their BatchNorm, .* without "
        with pytest.raises(ConfigError, match=said + r"`batchnorm: \{frozen: train\}` and train\.args\."):
            do(run, start, phases=[phase], cache_features=True)
    assert do(run, start, cache_features=False)["phases"][0]["features"] is None
    assert not run.features.exists()


@pytest.mark.parametrize(
    ("cache", "phase", "layers"),
    [
        ("auto", {"epochs": 2}, 11),
        ("auto", {"epochs": 2, "args": {"multi_scale": 0.5}}, 0),
        (True, {"epochs": 2, "args": {"compile": True}}, 0),
        ("auto", {"epochs": 1}, 0),  # nothing to reuse, so better augmented
        (True, {"epochs": 1}, 11),
        (False, {"epochs": 2}, 0),
        ("auto", {"epochs": 2, "batchnorm": {"frozen": "train"}}, 0),
    ],
)
def test_the_config_alone_decides_what_is_cached(cache: Any, phase: dict[str, Any], layers: int) -> None:
    phase = dict(phase)
    args = phase.pop("args", {})
    config = Train.model_validate({"cache_features": cache, "phases": [{"freeze": "backbone", **phase}], "args": args})
    assert config.phases is not None
    assert cached_layers(config, config.phases[0], list(range(11))) == layers


def test_few_frozen_layers_are_not_worth_their_augmentation() -> None:
    config = Train.model_validate({"cache_features": True, "phases": [{"epochs": 2, "freeze": 4}]})
    assert config.phases is not None
    assert [cached_layers(config, config.phases[0], list(range(layers))) for layers in (4, 5)] == [0, 5]

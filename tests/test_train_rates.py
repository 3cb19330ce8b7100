"""Learning rates by part, the pull towards the source weights, BatchNorm, and what stops a training."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Trained, train_tiny

from pipeline import files, history, train
from pipeline.config.training import Train
from pipeline.errors import ConfigError, PipelineError
from pipeline.run import Run
from pipeline.train import freeze, stage
from pipeline.upstream import checkpoints, environment


@pytest.fixture
def fresh(trained: Trained, copy_of: Callable[[Run], Run]) -> Run:
    return copy_of(trained.run)


def tensors(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = checkpoints.load(path)[0].half().state_dict()
    return state


def different(path: Path, other: Path, among: Callable[[str], bool] = lambda name: True) -> Iterator[str]:
    """Names of tensors present in both files with the same shape but different values."""
    import torch

    ours, theirs = tensors(path), tensors(other)
    for name, tensor in ours.items():
        comparable = "num_batches" not in name and among(name) and tensor.shape == theirs[name].shape
        if comparable and not torch.equal(tensor, theirs[name]):
            yield name


def test_each_part_has_its_learning_rate(fresh: Run, start: Path) -> None:
    record = train_tiny(fresh, start, {"epochs": 2, "lr0": 0.001, "lr_groups": {"backbone": 0.1, "neck": 0.5}})
    assert record["phases"][0]["lr0"] == 0.001
    assert record["phases"][0]["lr_groups"] == {"backbone": 0.1, "neck": 0.5, "head": 1}
    (epoch, _), _ = history.read(fresh)
    first = [value for key, value in epoch.items() if key.startswith("lr/") and value is not None]
    # Ultralytics' three groups (weights, BatchNorm, biases), each for backbone, neck and head.
    parts = sorted([0.0001, 0.0005, 0.001] * 3)
    # The fourth and last step of the first of two epochs: 3/8 of the way from the full rate to a hundredth of it.
    assert sorted(first) == pytest.approx([rate * (1 - 0.99 * 3 / 8) for rate in parts], rel=1e-3)


@pytest.mark.parametrize(
    ("epochs", "settings", "rates", "gains"),
    [
        (3, {"args": {"plots": False, "warmup_epochs": 0}}, [1 - 0.99 * step / 12 for step in range(12)], {(0.5, 0.5)}),
        # In a long phase, the loss weight shifts from the first head to the second, as Ultralytics has it.
        (
            8,
            {"args": {"plots": False, "warmup_epochs": 0}},
            [1 - 0.99 * step / 32 for step in range(32)],
            {(round(0.8 - epoch / 10, 3), round(0.2 + epoch / 10, 3)) for epoch in range(8)},
        ),
        # An epoch has one rate, and the loss weight shifts from the first head to the second.
        (
            3,
            {"recipe": "ultralytics", "batch": 4, "args": {"plots": False, "warmup_epochs": 0, "optimizer": "SGD"}},
            [1.0] * 4 + [0.67] * 4 + [0.34] * 4,
            {(0.8, 0.2), (0.45, 0.55), (0.1, 0.9)},
        ),
    ],
)
def test_the_rate_falls_with_every_step_and_in_short_phases_both_heads_weigh_the_same(
    fresh: Run, start: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, settings: Any, rates: list[float], gains: Any
) -> None:
    environment.prepare()
    import torch
    from ultralytics.models.yolo.detect import DetectionTrainer
    from ultralytics.utils.loss import E2ELoss

    seen, heads = [], set()
    preprocess, loss = DetectionTrainer.preprocess_batch, E2ELoss.__call__

    def watched(self: Any, batch: Any) -> Any:
        seen.append(self.optimizer.param_groups[0]["lr"])
        return preprocess(self, batch)

    def weighed(self: Any, *args: Any) -> Any:
        if torch.is_grad_enabled():  # not in validation, which trains neither
            heads.add((round(self.o2m, 3), round(self.o2o, 3)))
        return loss(self, *args)

    monkeypatch.setattr(DetectionTrainer, "preprocess_batch", watched)
    monkeypatch.setattr(E2ELoss, "__call__", weighed)
    train_tiny(fresh, start, {"epochs": epochs}, lr0=0.001, **settings)
    assert seen == pytest.approx([0.001 * rate for rate in rates], rel=1e-6) and heads == gains


def test_the_average_spans_the_given_number_of_epochs(fresh: Run, start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment.prepare()
    from ultralytics.utils.torch_utils import ModelEMA

    kept, update = [], ModelEMA.update

    def watched(self: Any, model: Any) -> None:
        update(self, model)
        kept.append(self.decay(self.updates))

    monkeypatch.setattr(ModelEMA, "update", watched)
    train_tiny(fresh, start, {"epochs": 2}, ema=0.75)
    # Four steps per epoch, so three steps in all; before the eighth step, a quarter of those done plus one.
    assert kept == pytest.approx([1 - 1 / min(3, 1 + step / 4) for step in range(1, 9)])
    kept.clear()
    train_tiny(fresh, start, {"epochs": 1}, recipe="ultralytics", batch=4, args={"plots": False, "nbs": 4})
    assert kept == pytest.approx([0.9999 * (1 - math.exp(-step / 2000)) for step in range(1, 5)])


def test_the_last_of_equally_good_epochs_is_kept(fresh: Run, start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment.prepare()
    from ultralytics.engine.trainer import BaseTrainer

    planted, averages, validate = [0.3, 0.31, 0.306, 0.2], [], BaseTrainer.validate

    def watched(self: Any) -> Any:
        metrics, _ = validate(self)
        fitness = planted[self.epoch]
        self.best_fitness = max(planted[: self.epoch + 1])
        averages.append({name: tensor.half() for name, tensor in self.ema.ema.state_dict().items()})
        return metrics, fitness

    monkeypatch.setattr(BaseTrainer, "validate", watched)
    args = {"plots": False, "val": True}  # validates after each epoch
    phase = train_tiny(fresh, start, {"epochs": 4}, args=args)["phases"][0]
    assert (phase["epochs"], phase["best_epoch"], phase["best_fitness"]) == (4, 3, 0.306)
    kept = tensors(fresh.model)
    assert [all(bool((kept[name] == epoch[name]).all()) for name in kept) for epoch in averages] == [
        *(False, False, True, False)
    ]


def test_parts_cover_every_parameter_once(start: Path) -> None:
    environment.prepare()
    import torch

    from pipeline.train import rates

    model = checkpoints.load(start)[0]
    decayed = [p for name, p in model.named_parameters() if "bias" not in name]
    biases = [p for name, p in model.named_parameters() if "bias" in name]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": biases}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, weight_decay=0.0)
    rates.split(optimizer, model, {"backbone": 0.1, "neck": 0.5, "head": 1.0})
    inside = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(inside) == len(set(inside)) == len(list(model.parameters()))
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        layers = {int(names[parameter].split(".")[1]) for parameter in group["params"]}
        expected = {0.1: range(11), 0.5: range(11, 23), 1.0: range(23, 24)}[group["lr"]]
        assert layers <= set(expected)
        assert group["weight_decay"] == (0.1 if group["params"][0] in set(decayed) else 0.0)


@pytest.fixture(scope="module")
def plain(trained: Trained, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of one epoch with the default settings, to compare others with."""
    run = Run(Path(shutil.copytree(trained.run.root, tmp_path_factory.mktemp("plain") / "runs" / "tiny")))
    train_tiny(run, start)
    return run.model


def test_a_pull_of_zero_changes_nothing_and_a_huge_pull_holds_the_weights(fresh: Run, start: Path, plain: Path) -> None:
    free = len(list(different(plain, start)))
    train_tiny(fresh, start, l2_sp=0)
    assert not list(different(fresh.model, plain))
    train_tiny(fresh, start, {"epochs": 1}, {"epochs": 1}, l2_sp=1e30)
    body = [name for name, _ in checkpoints.load(start)[0].named_parameters() if not name.startswith("model.23.")]
    assert not list(different(fresh.model, start, lambda name: name in body))
    assert list(different(fresh.model, start, lambda name: name.startswith("model.23.")))
    assert free > len(body) / 2


def test_a_moderate_pull_keeps_weights_closer(fresh: Run, start: Path, plain: Path) -> None:
    def distance(model: Path) -> float:
        ours, theirs = tensors(model), tensors(start)
        names = [name for name in ours if name.startswith("model.16.") and name.endswith("weight")]
        return float(sum((ours[name].float() - theirs[name].float()).norm() for name in names))

    train_tiny(fresh, start, l2_sp=300)
    assert 0 < distance(fresh.model) < 0.9 * distance(plain)


def test_batchnorm_of_frozen_layers_can_adapt_to_new_images(trained: Trained, fresh: Run, start: Path) -> None:
    """Frozen layers keep their weights while updating mean and variance; the proof then covers only the weights."""
    record = train_tiny(fresh, start, {"epochs": 1, "freeze": "backbone", "batchnorm": {"frozen": "train"}})
    changed = list(different(fresh.model, start, lambda name: int(name.split(".")[1]) < 11))
    assert changed and all("running" in name for name in changed)
    # The first phase of the shared training froze the same layers without it.
    phases = (record["phases"][0], files.read_json(trained.run.train_record)["phases"][0])
    fewer, more = (phase["proof"]["frozen_tensors"] for phase in phases)
    model = trained.run.train / "phase1" / "model.pt"
    assert fewer < more and not list(different(model, start, lambda name: int(name.split(".")[1]) < 11))


def test_batchnorm_of_trainable_layers_can_keep_its_statistics(fresh: Run, start: Path, plain: Path) -> None:
    train_tiny(fresh, start, {"epochs": 1, "batchnorm": {"trainable": "eval"}})
    assert not list(different(fresh.model, start, lambda name: "running" in name))
    assert list(different(plain, start, lambda name: "running" in name))


def test_a_learning_rate_for_frozen_layers_is_refused(fresh: Run, start: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.phases\.0\.lr_groups\.neck: `freeze` leaves nothing of the neck"):
        train_tiny(fresh, start, {"epochs": 1, "freeze": "all-but-head", "lr_groups": {"neck": 0.5}})


def test_patience_validates_after_every_epoch(fresh: Run, start: Path) -> None:
    """Stopping is up to Ultralytics; on sixteen images nothing improves that could stop improving."""
    train_tiny(fresh, start, {"epochs": 2, "patience": 1}, {"epochs": 1})
    first, second = (yaml.safe_load((fresh.train / f"phase{n}" / "args.yaml").read_text()) for n in (1, 2))
    assert (first["patience"], first["val"]) == (1, True) and second["patience"] == 0  # never
    epochs, _ = history.read(fresh)
    assert all(row["val/cls_loss"] for row in epochs)


def test_the_recipe_of_ultralytics_validates_every_epoch_and_records_its_own_rate(fresh: Run, start: Path) -> None:
    record = train_tiny(fresh, start, {"epochs": 2}, {"epochs": 1, "patience": 7}, recipe="ultralytics")
    first, second = (yaml.safe_load((fresh.train / f"phase{n}" / "args.yaml").read_text()) for n in (1, 2))
    assert (first["patience"], first["val"], second["patience"]) == (100, True, 7)
    epochs, _ = history.read(fresh)
    assert all(row["val/cls_loss"] for row in epochs)
    assert {phase["lr0"] for phase in record["phases"]} == {0.001}  # its rule for six classes: 0.002 * 5 / (4 + 6)
    given = {"recipe": "ultralytics", "lr0": 0.02, "args": {"plots": False, "optimizer": "SGD"}}
    assert train_tiny(fresh, start, **given)["phases"][0]["lr0"] == 0.02


def test_a_phase_that_patience_ended_is_not_continued_after_a_kill(
    fresh: Run, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.prepare()
    from ultralytics.engine.trainer import BaseTrainer

    validate, link, trained = BaseTrainer.validate, files.link, []

    def worse(self: Any) -> Any:
        metrics, _ = validate(self)
        self.best_fitness = 0.3
        trained.append(self.epoch)
        return metrics, 0.3 - 0.1 * self.epoch

    def killed(source: Path, target: Path) -> None:
        link(source, target)
        if target.name == "resume.pt" and trained == [0, 1]:
            raise KeyboardInterrupt

    monkeypatch.setattr(BaseTrainer, "validate", worse)
    with monkeypatch.context() as patch:
        patch.setattr(files, "link", killed)
        with pytest.raises(KeyboardInterrupt):
            train_tiny(fresh, start, {"epochs": 4, "patience": 1})
    phase = train_tiny(fresh, start, {"epochs": 4, "patience": 1})["phases"][0]
    assert (phase["epochs"], phase["best_epoch"], trained) == (2, 1, [0, 1])


@pytest.mark.parametrize(
    ("epoch", "kept"),
    [
        (0, r"there is no earlier epoch to return to"),
        (1, r"copy the last good weights first, .*resume\.pt: another rate starts training again"),
    ],
)
def test_a_non_finite_loss_stops_and_keeps_the_last_good_model(
    fresh: Run, start: Path, monkeypatch: pytest.MonkeyPatch, epoch: int, kept: str
) -> None:
    environment.prepare()
    from ultralytics.models.yolo.detect import DetectionTrainer

    preprocess = DetectionTrainer.preprocess_batch

    def damaged(self: Any, batch: Any) -> Any:
        batch = preprocess(self, batch)
        if self.epoch == epoch:
            batch["img"][0, 0, 0, 0] = float("nan")
        return batch

    monkeypatch.setattr(DetectionTrainer, "preprocess_batch", damaged)
    said = rf"phase1: the loss became NaN or infinite in epoch {epoch + 1}; lower train\.lr0 .*; {kept}"
    with pytest.raises(PipelineError, match=said) as error:
        train_tiny(fresh, start, {"epochs": 2})
    assert "\n" not in str(error.value)
    if epoch:
        state = tensors(fresh.train / "phase1" / "resume.pt")
        assert all(bool(tensor.isfinite().all()) for tensor in state.values())


def test_a_learning_rate_above_one_is_refused(fresh: Run, start: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.phases\.0: a learning rate of 50 is too high; the maximum is 1"):
        train_tiny(fresh, start, {"epochs": 1, "lr": 100}, lr0=0.5)


def test_out_of_memory_halves_the_batch_and_keeps_the_steps(
    fresh: Run, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.prepare()
    import torch
    from ultralytics.models.yolo.detect import DetectionTrainer

    steps, batches = [], []
    preprocess, step = DetectionTrainer.preprocess_batch, DetectionTrainer.optimizer_step

    def first_is_too_large(self: Any, batch: Any) -> Any:
        batches.append(len(batch["img"]))
        if len(batch["img"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return preprocess(self, batch)

    def counted(self: Any) -> None:
        steps.append(self.epoch)
        step(self)

    monkeypatch.setattr(DetectionTrainer, "preprocess_batch", first_is_too_large)
    monkeypatch.setattr(DetectionTrainer, "optimizer_step", counted)
    record = train_tiny(fresh, start, {"epochs": 2}, batch=4)
    assert batches[:2] == [4, 2] and record["phases"][0]["batch"] == 2
    assert steps.count(1) == 4  # sixteen images, four per step, as in the recipe


def test_classes_the_source_knows_keep_their_weights(trained: Trained, fresh: Run, tmp_path: Path) -> None:
    """Each row of the class head moves to its name's place in the dataset; at this rate nothing else changes it.

    Weights only: biases are still the same for all classes. A weight changes by 1e-6 in each of a few steps, and by half
    precision; other classes' rows differ by a hundredth and more.
    """
    environment.prepare()
    from ultralytics import YOLO

    assert files.read_json(trained.run.train_record)["classes_kept"] == []
    yolo = YOLO(str(trained.run.model))
    ours = list(yolo.names.values())
    theirs = [ours[5], " Spur", ours[1], ours[0], ours[4], "car"]
    yolo.model.names = dict(enumerate(theirs))
    yolo.save(tmp_path / "known.pt")
    kept = train_tiny(fresh, tmp_path / "known.pt", lr0=1e-6)["classes_kept"]
    assert kept == [name for name in ours if name != "mousebite"]
    before, after = tensors(tmp_path / "known.pt"), tensors(fresh.model)
    heads = [name for name in after if re.fullmatch(r"model\.23\.(one2one_)?cv3\.\d\.2\.weight", name)]
    assert len(heads) >= 6
    for head in heads:
        rows = {name.strip().lower(): row for name, row in zip(theirs, before[head], strict=True)}
        for name, row in zip(ours, after[head], strict=True):
            same = {other for other, source in rows.items() if float((source - row).abs().max()) < 1e-3}
            assert name not in kept or same == {name}, head


def test_training_writes_a_plot_of_its_curves(trained: Trained) -> None:
    import numpy as np
    from PIL import Image

    assert np.asarray(Image.open(trained.run.train / "curves.png")).std() > 10


def test_several_devices_need_cloudpickle(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "find_spec", lambda _: None)
    with pytest.raises(PipelineError, match=r"--device 0,1: .* cloudpickle"):
        train.main(Train(), trained.run, 0, "0,1", 0)


def test_a_batch_that_devices_cannot_share_is_refused() -> None:
    for devices in ("", "cpu", "0", "0,1", "0,1,2,3"):
        stage._check_batch(4, devices)
    for devices, number in (("0,1,2", 3), ("0,1,2,3,4,5,6,7", 8)):
        said = rf"^train\.batch: 4 images cannot be shared equally by the {number} devices of --device {devices}; set"
        with pytest.raises(ConfigError, match=said):
            stage._check_batch(4, devices)


def test_bfloat16_is_refused_on_other_devices_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(environment, "torch_device", lambda _: torch.device("mps"))
    stage._check_device("mps", "auto")
    with pytest.raises(ConfigError, match=r"^train\.precision: bf16 is for training on a CPU; on a GPU write "):
        stage._check_device("mps", "bf16")


def test_freeze_words_resolve_and_contradictions_are_refused(start: Path) -> None:
    model = checkpoints.load(start)[0]
    assert freeze.resolve("all-but-head", model, "x") == list(range(23))
    assert freeze.resolve(("backbone", "23.cv3"), model, "x") == [*range(11), "23.cv3"]
    assert freeze.cut([*range(11), 12, "23.cv3"]) == 11 and freeze.cut(["0.conv"]) == freeze.cut([]) == 0
    for given, said in (
        (("backbone", "none"), "'none' and other layers in one list"),
        (("backbone", 3), "3 is in 3, which already freezes it"),
        (("23", "23.cv3"), "'23.cv3' is in 23, which already freezes it"),
        (("backbon",), "did you mean 'backbone'"),
    ):
        with pytest.raises(ConfigError, match=said):
            freeze.resolve(given, model, "x")

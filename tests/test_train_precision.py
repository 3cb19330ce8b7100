"""Bfloat16 on a CPU, the gain of a phase on val, and the recipes that depend on both."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Trained, train_tiny

from pipeline import files
from pipeline.config.training import Train
from pipeline.files import read_json
from pipeline.run import Run
from pipeline.upstream import checkpoints, environment

TWO = ({"epochs": 1, "freeze": "backbone"}, {"epochs": 1})


def weights(run: Run) -> dict[str, torch.Tensor]:
    return dict(checkpoints.load(run.model)[0].state_dict())


@pytest.fixture
def run(trained: Trained, copy_of: Callable[[Run], Run]) -> Run:
    return copy_of(trained.run)


def test_bfloat16_trains_another_model_and_still_freezes(run: Run, start: Path, tmp_path: Path) -> None:
    plain = train_tiny(run, start, *TWO, cache_features=False)
    before = weights(run)
    short = train_tiny(run, start, *TWO, cache_features=False, precision="bf16")
    after = weights(run)
    assert [phase["precision"]["value"] for phase in (*plain["phases"], *short["phases"])] == 2 * ["fp32"] + 2 * [
        "bf16"
    ]
    frozen = short["phases"][0]["proof"]
    assert frozen["frozen_tensors"] > 100 and frozen["frozen_sha256_before"] == frozen["frozen_sha256_after"]
    assert {tensor.dtype for tensor in before.values()} == {tensor.dtype for tensor in after.values()}
    # Rounding changes the weights, but no further than a few steps of 0.001 can move them apart.
    moved = [
        float((after[name].float() - before[name].float()).abs().max()) for name in before if "running" not in name
    ]
    assert 0 < max(moved) < 0.1


def test_bfloat16_is_repeatable(run: Run, start: Path) -> None:
    models = []
    for _ in range(2):
        train_tiny(run, start, precision="bf16")
        models.append(weights(run))
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_only_the_network_computes_in_bfloat16(start: Path) -> None:
    environment.prepare()
    from pipeline.train import precision

    model = precision.as_bfloat16(checkpoints.load(start)[0].float())
    seen = []
    model.model[1].register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    image = torch.rand(1, 3, 64, 64)
    outputs = precision._tensors(model.train()(image.requires_grad_()))
    assert outputs and {tensor.dtype for tensor in outputs} == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with torch.no_grad():
        model.eval()(image)
    assert seen == [torch.bfloat16, torch.float32]  # evaluated in 32 bits, as it is exported


def test_auto_records_its_measurement_and_repeats_its_answer(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.prepare()
    from pipeline.train import precision

    monkeypatch.setattr(environment, "CACHE", tmp_path)
    if not precision.has_bfloat16():  # such a CPU takes minutes for a pass in bfloat16: time one in 32 bits instead
        monkeypatch.setattr(precision, "has_bfloat16", lambda: True)
        monkeypatch.setattr(precision, "as_bfloat16", lambda model: model)
    model = checkpoints.load(start)[0].float()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    statistics = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first = precision.choose("auto", model, 2, 64)
    assert all(torch.equal(tensor, statistics[name]) for name, tensor in model.state_dict().items())
    assert "ms in bfloat16" in first["reason"]
    [[key, (full, short)]] = read_json(tmp_path / "precision.json").items()
    assert f"torch {torch.__version__}, " in key
    assert first["value"] == ("bf16" if short < precision.PAYS * full else "fp32")
    for forged, value in (((1.0, 0.5), "bf16"), ((1.0, 0.95), "fp32"), ((1.0, 2.0), "fp32")):
        (tmp_path / "precision.json").write_text(f'{{"{key}": {list(forged)}}}')
        assert precision.choose("auto", model, 2, 64)["value"] == value
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)
    without = {"value": "fp32", "reason": "this CPU has neither AVX512-BF16 nor AMX"}
    assert precision.choose("auto", model, 2, 64) == without


def matches(path: Path, hits: list[bool]) -> Path:
    """One correct or wrong prediction per image, each with one object."""
    number = len(hits)
    places = np.arange(number)
    np.savez(
        path,
        images=places,
        hits=np.repeat(np.array(hits)[:, None], 10, axis=1),
        scores=np.full(number, 0.5),
        classes=np.zeros(number, int),
        labelled=places,
        labels=np.zeros(number, int),
        number=number,
    )
    return path


def test_a_gain_is_judged_against_its_own_noise(tmp_path: Path) -> None:
    environment.prepare()
    from pipeline.train import gain, record

    def gained(before: list[bool], after: list[bool]) -> Any:
        return gain.between(matches(tmp_path / "a.npz", before), matches(tmp_path / "b.npz", after))

    half, all_but_one = [True, False] * 20, [True] * 39 + [False]
    assert gained(half, half) == {"map50_95": 0, "interval": [0, 0], "noise": 0}
    better = gained(half, all_but_one)
    assert better["map50_95"] > 0.4 and better["interval"][0] > 0.2
    assert record.is_gain({"gain": better}) and not record.is_gain({"gain": gained(all_but_one, half)})  # type: ignore[typeddict-item]
    one_more = gained(half, [True, True, *half[2:]])
    assert 0 < one_more["map50_95"] < 2 * one_more["noise"]  # one image of forty: a resample without it gains nothing
    assert not record.is_gain({"gain": gained(half, half)}) and not record.is_gain({"gain": None})  # type: ignore[typeddict-item]


def test_the_saved_matches_reproduce_the_figure(run: Run, start: Path) -> None:
    record = train_tiny(run, start, {"epochs": 2}, {"epochs": 1}, lr0=0.005)
    from pipeline.metrics import bootstrap
    from pipeline.train import gain

    first, second = (gain._read(run.train / f"phase{number}" / "matches.npz") for number in (1, 2))
    figures = [float(bootstrap.with_draws(one).overall()["map50_95"][0]) for one in (first, second)]
    # Ultralytics interpolates between its 101 points and we use COCO's steps; on few objects that is a point or two.
    for phase, figure in zip(record["phases"], figures, strict=True):
        assert figure == pytest.approx(phase["best_fitness"], abs=0.02)
    assert record["phases"][0]["gain"] is None
    assert record["phases"][1]["gain"]["map50_95"] == pytest.approx(figures[1] - figures[0], abs=1e-6)


def test_thorough_stops_when_nothing_is_gained(run: Run, start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.train import recipe

    monkeypatch.setattr(recipe, "epochs", lambda images: (1, 1))  # sixteen images would get sixty
    # At this rate no weight moves far enough to change a box, and frozen BatchNorm measures nothing.
    record = train_tiny(run, start, phases=None, recipe="thorough", lr0=1e-12)
    planned = len(record["recipe"]["phases"]["value"])
    assert len(record["phases"]) == planned - recipe.ROUNDS + 1  # one round was tried


def test_thorough_adds_rounds_while_val_gains(run: Run, start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.train import gain, recipe

    monkeypatch.setattr(recipe, "epochs", lambda images: (0, 1))
    gains = iter([0.02, 0.02, 0.005])  # of three rounds; the last is within its noise

    def planted(before: Path, after: Path) -> dict[str, Any]:
        return {"map50_95": next(gains), "interval": None, "noise": 0.01}

    monkeypatch.setattr(gain, "between", planted)
    record = train_tiny(run, start, phases=None, recipe="thorough")
    assert [phase["gain"] and phase["gain"]["map50_95"] for phase in record["phases"]] == [None, 0.02, 0.02, 0.005]


def test_minutes_are_measured_once(
    run: Run, start: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.prepare()
    from pipeline.train import budget

    link, measure, measured = files.link, budget.measure, []

    def counted(*arguments: Any) -> dict[str, float]:
        measured.append(measure(*arguments))
        return measured[-1]

    def killed(source: Path, target: Path) -> None:
        link(source, target)
        if target.name == "resume.pt":
            raise KeyboardInterrupt

    monkeypatch.setattr(budget, "measure", counted)
    with monkeypatch.context() as patch:
        patch.setattr(files, "link", killed)
        with pytest.raises(KeyboardInterrupt):
            train_tiny(run, start, phases=None, minutes=0.01)
    record = train_tiny(run, start, phases=None, minutes=0.01)
    assert measured == [read_json(run.train / "minutes.json")]
    assert measured[0]["epochs"] == 1 and measured[0]["epoch_seconds"] > 0  # the minimum
    assert record["recipe"]["phases"]["reason"].startswith("0.01 minutes allow 1.0 epochs")
    assert record["phases"][0]["epochs"] == 1
    warning = r"train.minutes: .* 0\.01 minutes are enough for \d+ steps?, but `recipe: quick` takes at least 150"
    assert re.search(warning, capsys.readouterr().out)
    assert not (run.train / "look.json").exists()  # such a short training freezes the same layers in any case


def test_minutes_become_the_epochs_that_fit(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random weights nothing is frozen, so every epoch takes as long as the measured one."""
    environment.prepare()
    from pipeline.train import budget

    passes: list[float] = []
    once = budget._seconds_per_pass

    def kept(*arguments: Any) -> float:
        """One real measurement for all: two would differ on a busy machine."""
        passes[:] = passes or [float(once(*arguments))]
        return passes[0]

    monkeypatch.setattr(budget, "_seconds_per_pass", kept)
    train_tiny(run, Path("yolo26n.yaml"), phases=None, minutes=0.01)
    epoch = read_json(run.train / "minutes.json")["epoch_seconds"]
    for epochs in (4, 8):
        # The half is for validating val's three images at the end: one batch, where an epoch has four.
        minutes = (budget.AROUND + (epochs + 0.5) * epoch) / 60
        record = train_tiny(run, Path("yolo26n.yaml"), phases=None, minutes=minutes)
        assert [phase["epochs"] for phase in record["phases"]] == [epochs]


def test_validation_leaves_less_of_the_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass takes a second. Ten minutes are 575 s of epochs, an epoch of ten steps 13 s, a validation 20 s."""
    environment.prepare()
    from pipeline.train import budget

    monkeypatch.setattr(budget, "_seconds_per_pass", lambda *_: 1.0)

    def epochs(images: int, **args: bool) -> float:
        config = Train.model_validate({"minutes": 10, "batch": 4, "args": args})
        return budget.measure(config, None, 40, images, "cpu")["epochs"]

    assert epochs(0) == epochs(240, val=False) == 44.23
    assert epochs(240) == 41.15  # two phases are validated at their ends: 535 s are left
    assert epochs(240, val=True) == 17.42  # 33 s per epoch

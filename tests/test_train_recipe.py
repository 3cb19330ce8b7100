"""What training uses for settings the config leaves out."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Trained

from pipeline.config.training import Phase, Train
from pipeline.errors import ConfigError
from pipeline.files import read_json
from pipeline.train.plan import in_words
from pipeline.train.recipe import CACHED, CACHED_FIVE, EARLY, EARLY_FROZEN, GIVEN, choose, looks_at_data
from pipeline.upstream import environment


@pytest.fixture
def defaults() -> dict[str, Any]:
    environment.prepare()
    from ultralytics.cfg import DEFAULT_CFG_DICT

    found: dict[str, Any] = DEFAULT_CFG_DICT
    return found


def recipe(images: int = 205, **settings: Any) -> Any:
    return choose(Train.model_validate(settings), images)


def test_fewer_images_get_more_epochs_and_smaller_batches() -> None:
    sizes = (20, 50, 100, 157, 205, 700, 3000, 20_000)
    found = [recipe(images) for images in sizes]
    assert [[phase.freeze for phase in one.phases] for one in found] == [["backbone", EARLY]] * 4 + [[EARLY]] * 4
    free, frozen = [one.phases[-1].epochs for one in found], [one.phases[0].epochs for one in found[:4]]
    assert list(free) == sorted(free, reverse=True) and list(frozen) == sorted(frozen, reverse=True)
    assert [one.batch for one in found] == sorted(one.batch for one in found)
    assert all(one.args["nbs"] == one.batch for one in found)  # every batch is one step
    assert min(frozen) >= 1 and min(free) >= 5


def test_one_image_more_changes_the_length_by_one_epoch_at_most() -> None:
    lengths = [recipe(images).phases[-1].epochs for images in range(150, 6000)]
    assert all(before - after in (0, 1) for before, after in itertools.pairwise(lengths))


def test_the_phases_are_counted() -> None:
    plans: Any = [SimpleNamespace(epochs=11, freeze=(0,), cache=None), SimpleNamespace(epochs=1, freeze=(), cache=None)]
    found = recipe(phases=[{"epochs": 11}, {"epochs": 1}])
    said = "11 epochs (572 steps) with 1 layer frozen, then 1 epoch (52 steps) with nothing frozen"
    assert in_words(plans, found, 205) == said  # 51 batches of four and one of one
    larger = recipe(batch=205, phases=[{"epochs": 11}, {"epochs": 1}])
    assert "11 epochs (11 steps) with" in in_words(plans, larger, 205) and "1 epoch (1 step) w" in in_words(
        plans, larger, 205
    )
    for several in (recipe(recipe="ultralytics"), recipe(args={"nbs": 64})):  # batches per step, and fewer at first
        assert in_words(plans, several, 205) == "11 epochs with 1 layer frozen, then 1 epoch with nothing frozen"
    thorough = recipe(100, recipe="thorough")
    several = [SimpleNamespace(epochs=one.epochs, freeze=(), cache=None) for one in thorough.phases]
    assert in_words(several, thorough, 100).endswith(
        "15 epochs (375 steps) with nothing frozen, then up to 4 times 15 while val gains"
    )


def test_a_phase_without_augmentation_says_so_at_the_start() -> None:
    plans: Any = [SimpleNamespace(epochs=2, freeze=(0,), cache="features")]
    said = "2 epochs (104 steps) with 1 layer frozen (computed once, images not augmented)"
    assert in_words(plans, recipe(), 205) == said


def test_every_choice_has_a_reason() -> None:
    found = recipe()
    assert set(found.reasons) == {"phases", "batch", "lr0", "rate", "heads", "ema", "best", *found.args}
    assert all(choice["reason"] and choice["reason"] != GIVEN for choice in found.reasons.values())
    assert found.lr0 == 0.001


@pytest.mark.parametrize(
    ("settings", "key", "value"),
    [
        ({"batch": 7}, "batch", 7),
        ({"lr0": 0.5}, "lr0", 0.5),
        ({"args": {"warmup_epochs": 0}}, "warmup_epochs", 0),
        ({"args": {"optimizer": "Adam"}}, "optimizer", "Adam"),
        ({"args": {"mosaic": 0.0}}, "mosaic", 0.0),
    ],
)
def test_a_given_key_overrides_only_itself(settings: Any, key: str, value: Any) -> None:
    found, untouched = recipe(**settings), recipe()
    assert found.reasons[key] == {"value": value, "reason": GIVEN}
    assert {"batch": found.batch, "lr0": found.lr0, **found.args}[key] == value
    assert found.own_schedule
    others = set(untouched.reasons) - {key, "nbs"}
    assert {name: found.reasons[name] for name in others} == {name: untouched.reasons[name] for name in others}


@pytest.mark.parametrize("optimizer", ["SGD", "sgd", "MuSGD"])
def test_sgd_has_its_own_rate(optimizer: str, defaults: dict[str, Any]) -> None:
    found = recipe(args={"optimizer": optimizer})
    assert found.lr0 == defaults["lr0"] and "Ultralytics' own for SGD" in found.reasons["lr0"]["reason"]
    assert recipe(args={"optimizer": optimizer}, lr0=0.5).lr0 == 0.5
    assert recipe(args={"optimizer": "Adam"}).lr0 == recipe().lr0 == 0.001


def test_quick_takes_three_epochs_on_cached_features_and_more_for_few_images() -> None:
    for images, epochs in ((205, 3), (700, 3), (20, 30)):
        [phase] = recipe(images, recipe="quick").phases
        assert phase.epochs == epochs and phase.freeze == 5


@pytest.mark.parametrize("batch", [1, 4, 16, 64])
@pytest.mark.parametrize("images", [20, 205, 2000])
def test_quick_takes_150_steps_with_any_batch(images: int, batch: int) -> None:
    found = recipe(images, recipe="quick", batch=batch)
    assert found.phases[0].epochs >= 3 and found.phases[0].epochs * math.ceil(images / batch) >= 150


@pytest.mark.parametrize("settings", [{}, {"recipe": "quick"}, {"recipe": "thorough"}, {"minutes": 3}])
def test_random_weights_are_never_frozen(settings: Any) -> None:
    config = Train.model_validate({"weights": "yolo26n.yaml", **settings})
    for fit in (4.0, 20.0) if config.minutes else (None,):
        assert not looks_at_data(config, 100, fit)
        found = choose(config, 100, fit=fit)
        assert {phase.freeze for phase in found.phases} == {"none"}
        assert "random weights have nothing to keep" in found.reasons["phases"]["reason"]


def test_thorough_adds_rounds_as_long_as_the_main_phase_with_nothing_frozen() -> None:
    auto, thorough = recipe(100), recipe(100, recipe="thorough")
    assert thorough.phases[:2] == auto.phases and auto.rounds == 0
    assert {(phase.epochs, phase.freeze) for phase in thorough.phases[2:]} == {(auto.phases[1].epochs, "none")}
    assert len(thorough.phases) == 2 + thorough.rounds
    assert thorough.planned(1) == auto.phases and len(thorough.planned(4)) == 4


def test_a_backbone_with_poor_features_is_not_frozen() -> None:
    kept, lost = (choose(Train(), 100, kept) for kept in (0.85, 0.56))
    assert kept.phases == recipe(100).phases
    [free] = lost.phases
    assert free == kept.phases[1] and free.freeze == EARLY
    assert "keeps 85 %" in kept.reasons["phases"]["reason"].replace("%", " %")
    assert "56% of the best layer's separability, less than 80%" in lost.reasons["phases"]["reason"]


def test_a_backbone_whose_features_cannot_be_measured_is_not_frozen() -> None:
    found = choose(Train(), 100, None, looked=True)
    assert [phase.freeze for phase in found.phases] == [EARLY]
    assert "could not be measured, so no phase freezes the whole backbone" in found.reasons["phases"]["reason"]


def test_minutes_are_converted_to_epochs() -> None:
    def bought(fit: float, kept: float) -> float:
        """The cost of the phases, in full-training epochs."""
        phases = choose(Train(minutes=2), 100, kept, fit).phases
        cost = {EARLY: EARLY_FROZEN, "backbone": CACHED, 5: CACHED_FIVE}
        return sum(phase.epochs * cost[phase.freeze] for phase in phases)

    for fit in (1, 3.5, 6, 12.3, 40):
        assert all(abs(bought(fit, kept) - fit) <= 0.5 for kept in (0.5, 0.9))  # epochs are whole numbers
    assert [phase.freeze for phase in choose(Train(minutes=2), 205, fit=4).phases] == [5]
    assert not looks_at_data(Train(minutes=2), 100, 4) and looks_at_data(Train(minutes=2), 100, 6)
    assert looks_at_data(Train(), 157, None) and not looks_at_data(Train(), 158, None)  # 9 epochs, as for any more
    assert "2 minutes allow 12.3 epochs" in choose(Train(minutes=2), 205, fit=12.3).reasons["phases"]["reason"]


def test_given_phases_are_kept() -> None:
    found = recipe(phases=[{"epochs": 3}])
    assert found.phases == (Phase(epochs=3),) and found.reasons["phases"]["reason"] == GIVEN


def test_the_average_spans_a_share_of_long_phases_and_of_a_short_last_one() -> None:
    phases = [{"epochs": epochs} for epochs in (12, 5, 3, 3)]

    def averages(**settings: Any) -> list[float | None]:
        found = recipe(phases=phases, **settings)
        return [found.average(phase) for phase in found.phases]

    assert averages() == [1.0, None, None, 0.25]  # of the short phases, only the last
    assert averages(ema=2) == [2, 2, 2, 2]
    assert recipe(ema=2).reasons["ema"] == {"value": 2, "reason": GIVEN}
    assert averages(recipe="ultralytics") == [None] * 4


def test_the_rate_falls_by_step_in_long_phases_and_in_a_short_last_one() -> None:
    found = recipe(phases=[{"epochs": epochs} for epochs in (8, 7, 3, 3)])
    assert [found.by_step(phase) for phase in found.phases] == [True, False, False, True]
    assert [found.is_short(phase) for phase in found.phases] == [False, False, False, True]


def test_ultralytics_recipe_is_left_unchanged(defaults: dict[str, Any]) -> None:
    found = recipe(recipe="ultralytics", args={"cos_lr": True})
    assert found.args == {"cos_lr": True} and not found.own_schedule
    assert {key: defaults[key] for key in ("epochs", "batch", "lr0", "patience")} == {
        "epochs": found.phases[0].epochs,
        "batch": found.batch,
        "lr0": found.lr0,
        "patience": found.patience,
    }
    assert found.reasons == {"cos_lr": {"value": True, "reason": GIVEN}}
    assert recipe(recipe="ultralytics", ema=0.5, batch=8).reasons.keys() == {"ema", "batch"}
    for args in ({}, {"optimizer": "auto"}, {"optimizer": "Auto"}):
        with pytest.raises(ConfigError, match=r"train\.recipe: Ultralytics' automatic optimizer ignores a given rate"):
            recipe(recipe="ultralytics", lr0=0.1, args=args)
    assert recipe(recipe="ultralytics", lr0=0.1, args={"optimizer": "SGD"}).lr0 == 0.1


def test_the_record_states_the_reasons(trained: Trained) -> None:
    record = read_json(trained.run.train_record)
    assert record["recipe"]["phases"]["reason"] == GIVEN
    assert "few images need many steps" in record["recipe"]["batch"]["reason"]
    assert record["args"]["nbs"] == record["batch"] == 4

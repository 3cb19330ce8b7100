"""Label multiples and forecasts, checked against known curves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_study_statistics import SIZES

from pipeline.metrics import bootstrap
from pipeline.study import curves
from pipeline.study.curves import Curve
from pipeline.study.statistics import REPLICATES, Table

COUNTS = np.array([10.0, 20, 51, 102, 205])


def exact(figures: list[float], images: np.ndarray = COUNTS) -> Curve:
    values = np.array(figures)
    return Curve(images[: len(values)], values, np.repeat(values[:, None], REPLICATES, axis=1))


def measured(rng: np.random.Generator, law: tuple[float, float, float], of_seed: float = 0.01) -> Table:
    """A study of one row along a power law, with five seeds and 72 test images."""
    a, b, c = law
    draws = bootstrap.draws(72, 300) / 72
    image = np.random.default_rng(99).normal(0, 0.12, 72)  # one test split shared by all
    figure, drawn = np.zeros((1, 5, 5)), np.zeros((1, 5, 5, 300))
    for size, count in enumerate(COUNTS):
        for seed in range(5):
            values = a - b * count**-c + image + rng.normal(0, of_seed) + rng.normal(0, 0.05, 72)
            figure[0, size, seed], drawn[0, size, seed] = values.mean(), draws @ values
    return Table(["one"], list(SIZES), figure, drawn, COUNTS)


def test_a_row_that_needs_a_tenth_of_the_labels_has_a_multiple_of_ten() -> None:
    slow = exact([0.1, 0.2, 0.3, 0.4, 0.5])
    fast = exact([0.4, 0.5, 0.55, 0.6, 0.6])
    first, second, *rest = curves.multiples(fast, slow)
    assert [first.value, second.value] == pytest.approx([10.2, 10.25])
    assert all(one.value is None and one.most == pytest.approx(205 / one.images) for one in rest)


def test_multiples_between_points_are_interpolated_logarithmically() -> None:
    [one] = curves.multiples(exact([0.35]), exact([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert one.value == pytest.approx(np.sqrt(51 * 102) / 10)


def test_a_row_against_itself_has_a_multiple_of_one() -> None:
    one = exact([0.1, 0.2, 0.3, 0.4, 0.5])
    assert [each.value for each in curves.multiples(one, one)] == pytest.approx([1] * 5)


def test_a_curve_that_begins_above_needs_fewer_images_than_were_tried() -> None:
    first, *_ = curves.multiples(exact([0.2, 0.6]), exact([0.35, 0.55]))
    assert (first.value, first.least) == (0, 1)


def test_sizes_with_equal_images_are_one_point() -> None:
    table = measured(np.random.default_rng(0), (0.6, 0.4, 0.5))
    table = replace(table, images=np.array([51.0, 51, 51, 102, 205]))
    assert Curve.of(table, "one").images.tolist() == [51, 102, 205]


def test_a_multiple_has_an_interval() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = (Curve.of(measured(rng, law), "one") for law in ((0.6, 0.3, 0.5), (0.6, 0.9, 0.5)))
    one = curves.multiples(ours, theirs)[0]
    assert one.value == pytest.approx(9, rel=0.6)  # (0.9 / 0.3) ** (1 / 0.5); the curve is flat there
    assert one.value is not None and one.low is not None and one.low < one.value
    assert one.high is None or one.high > one.value


@pytest.mark.parametrize("law", [(0.62, 0.9, 0.6), (0.9, 0.8, 0.2), (0.6, 2.5, 1.2), (0.3, 0.0, 1.0)])
def test_forecast_intervals_cover_the_truth(law: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(7)
    a, b, c = law
    held = right = 0
    for _ in range(40):
        curve = Curve.of(measured(rng, law), "one")
        [twice] = curves.forecast(curve, [410])
        truth = a - b * 410**-c
        # The interval of the gain, as easier test images lift both.
        gain = truth - (a - b * 205**-c)
        held += twice.gain_low <= gain <= twice.gain_high
        checked = curves.held_back(curve)
        assert checked is not None
        right += checked.within
    assert held >= 34 and right >= 34  # of 40 intervals of 95 %, 34 or fewer happen once in 30; 85 % is required


def test_forecasts_never_fall_with_more_images() -> None:
    rng = np.random.default_rng(2)
    found = curves.forecast(Curve.of(measured(rng, (0.5, 0.0, 1.0), of_seed=0.03), "one"), [300, 410, 820])
    assert all(one.gain_high > 0 and one.high <= 1 for one in found)
    assert [one.value for one in found] == sorted(one.value for one in found)


def test_too_few_sizes_give_no_forecast() -> None:
    assert curves.forecast(exact([0.1, 0.2]), [40]) == [] and curves.held_back(exact([0.1, 0.2, 0.3])) is None

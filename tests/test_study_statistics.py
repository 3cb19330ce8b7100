"""The statistics of studies, checked against simulated studies with known truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from test_study_page import lines_of, study_of

from pipeline.metrics import bootstrap
from pipeline.study import statistics
from pipeline.study.statistics import Difference, Table

STUDIES = 200
SIZES = [("share", share) for share in (0.05, 0.1, 0.25, 0.5, 1.0)]
IMAGES = 72  # as in BCCD's test split


def simulated(
    rng: np.random.Generator, seeds: int, gain: float = 0.0, of_seed: float = 0.012, of_image: float = 0.05
) -> Table:
    """A study of two rows that differ by `gain` over all possible images and seeds.

    A trial's figure is the mean over test images of these effects: the size's level, the image (shared by all trials),
    the drawn training images (shared by both rows of a seed), the training's own luck, and the interactions of row
    and image and of trial and image.
    """
    draws = bootstrap.draws(IMAGES, 300) / IMAGES
    image = rng.normal(0, 0.15, IMAGES)
    figure, drawn = np.zeros((2, 5, seeds)), np.zeros((2, 5, seeds, 300))
    for size in range(5):
        level = 0.6 - 0.3 * 0.5**size
        subset = rng.normal(0, of_seed, seeds)
        for row in range(2):
            both = rng.normal(0, of_image, IMAGES) if gain else 0.0  # identical rows react alike to an image
            for seed in range(seeds):
                luck = rng.normal(0, of_seed)
                values = level + row * gain + image + subset[seed] + luck + both + rng.normal(0, of_image, IMAGES)
                figure[row, size, seed] = values.mean()
                drawn[row, size, seed] = draws @ values
    return Table(["one", "other"], list(SIZES), figure, drawn, np.array([10.0, 20, 51, 102, 205]))


def interval(one: Difference) -> list[float]:
    assert one.estimate is not None and one.estimate.interval is not None
    return one.estimate.interval


@pytest.mark.parametrize(("seeds", "of_seed"), [(2, 0.012), (3, 0.012), (5, 0.012), (5, 0.002), (10, 0.03)])
def test_a_row_under_other_seeds_is_not_called_different(seeds: int, of_seed: float) -> None:
    rng = np.random.default_rng(seeds)
    called = covered = 0
    for _ in range(STUDIES):
        found = statistics.compare(simulated(rng, seeds, of_seed=of_seed), "other", "one")
        called += any(one.verdict != "inside noise" for one in found.values())
        covered += sum(low <= 0 <= high for low, high in map(interval, found.values()))
    assert called <= 0.05 * STUDIES
    # 1000 intervals of 95 %: 3.3 standard deviations below is 927. More is no error, only caution.
    assert covered >= 0.927 * 5 * STUDIES


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover_a_real_difference_as_they_claim(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    covered, wider = 0, 0.0
    for _ in range(STUDIES):
        table = simulated(rng, seeds, gain=0.03)
        for low, high in map(interval, statistics.compare(table, "other", "one").values()):
            covered += low <= 0.03 <= high
            wider += high - low
    assert covered >= 0.927 * 5 * STUDIES
    assert covered <= 0.99 * 5 * STUDIES  # an interval that always covers is useless


def test_intervals_of_a_row_cover_its_true_level() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(STUDIES):
        table = simulated(rng, 5)
        one = statistics.levels(table, "one")[SIZES[-1]]
        assert one is not None and one.low is not None and one.high is not None
        covered += one.low <= 0.6 - 0.3 * 0.5**4 <= one.high
    # 200 intervals: 3 standard deviations below 95 % is 0.904, and 72 images make them slightly short (bootstrap.py).
    assert covered >= 0.89 * STUDIES


def test_a_large_difference_is_found() -> None:
    rng = np.random.default_rng(1)
    found = [statistics.compare(simulated(rng, 5, gain=0.08), "other", "one") for _ in range(20)]
    verdicts = [one.verdict for each in found for one in each.values()]
    assert "worse" not in verdicts and verdicts.count("better") > 0.9 * len(verdicts)


def test_holm_equals_scipys() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 5, 9):
        values = rng.random(count) ** 3
        order = np.argsort(values)
        steps = np.maximum.accumulate(np.minimum(1, values[order] * np.arange(count, 0, -1)))
        assert np.allclose(np.array(statistics.holm(list(values)))[order], steps)


def test_without_images_the_interval_is_students() -> None:
    figure = np.array([0.01, 0.03, 0.02, 0.05])
    one = statistics.estimate(figure, np.repeat(figure[:, None], 300, axis=1), share=1)
    assert one is not None and one.p == pytest.approx(stats.ttest_1samp(figure, 0).pvalue)


def test_without_any_spread_nothing_is_called_different() -> None:
    """Two seeds with the same difference say nothing about a third one."""
    figure = np.array([0.01, 0.01])
    one = statistics.estimate(figure, np.repeat(figure[:, None], 300, axis=1), share=1)
    assert one is not None and (one.value, one.interval, one.p) == (0.01, None, None)


def test_the_interval_of_a_level_stays_between_0_and_1() -> None:
    figure = np.array([[[0.0, 0.01]], [[0.99, 1.0]]])
    table = Table(
        ["low", "high"], [("share", 1.0)], figure, np.repeat(figure[..., None], 300, axis=-1), np.array([9.0])
    )
    low, high = (statistics.levels(table, row)[("share", 1.0)] for row in table.rows)
    assert low is not None and high is not None
    assert low.low == 0 and high.high == 1 and (low.high or 0) > 0.01 and (high.low or 1) < 0.99


def test_the_pilot_predicts_which_differences_the_study_detects() -> None:
    """Differences of the predicted size are found about half the time; twice that, nearly always."""
    rng = np.random.default_rng(3)
    promised = [statistics.smallest_difference(simulated(rng, 2), 5) for _ in range(30)]
    typical = float(np.median([value for value in promised if value]))
    shares = []
    for gain in (typical, 2 * typical):
        found = [statistics.compare(simulated(rng, 5, gain=gain), "other", "one") for _ in range(20)]
        verdicts = [one.verdict for each in found for one in each.values()]
        shares.append(verdicts.count("better") / len(verdicts))
    assert 0.2 < shares[0] < 0.9 and shares[1] > 0.85


def test_one_seed_gives_no_interval() -> None:
    table = simulated(np.random.default_rng(0), 1)
    one = statistics.levels(table, "one")[SIZES[0]]
    assert one is not None and one.interval is None
    assert {each.verdict for each in statistics.compare(table, "other", "one").values()} == {"not known"}


def test_samples_without_a_figure_are_left_out_of_every_row() -> None:
    study = study_of(rows={"full": {}, "frozen": {}}, share=[1], seeds=2)
    lines = lines_of(study, seeds=2)
    for line in lines:
        line["drawn"][::3] = [None] * len(line["drawn"][::3])
    table = Table.of(lines, list(study.rows), study.sizes, 2)
    assert table.drawn.shape[-1] == 200 and not np.isnan(table.drawn).any()
    for line in lines:
        line["drawn"] = [None] * 300
    table = Table.of(lines, list(study.rows), study.sizes, 2)
    assert (table.drawn == table.figure[..., None]).all() and table.drawn.shape[-1] > 1

"""Matching and intervals: against pycocotools, against datasets actually resampled, and by simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from detections import Bbox, Predictions, Truth, by_pycocotools, noisy, scene, seen
from numpy.typing import NDArray

from pipeline.metrics import bootstrap, iou
from pipeline.metrics.iou import pairwise_iou
from pipeline.metrics.matching import IOU_THRESHOLDS, ClassMatches, greedy, match
from pipeline.validate import error_types

FIGURES = ("map50_95", "map50", "map75", "ar100")
# Both sides add the same double-precision numbers in different orders.
EXACT = 1e-9


def once(truth: Truth, predictions: Predictions) -> bootstrap.Figures:
    return bootstrap.figures(match(truth, predictions), np.ones((1, len(truth["images"])), dtype=np.int64))


def crowded(seed: int) -> tuple[Truth, Predictions]:
    """More predictions per class and image than COCO counts, and many equal scores."""
    truth, predictions = noisy(seed, images=3, classes=1)
    rng = np.random.default_rng(seed)
    for _ in range(400):
        predictions.append(
            {"image_id": int(rng.integers(1, 4)), "category_id": 0, "bbox": [*rng.uniform(0, 400, 2).tolist(), 60.0, 60.0], "score": float(rng.uniform(0.3, 1))}
        )  # fmt: skip
    return truth, [{**record, "score": round(record["score"], 2)} for record in predictions]


def tied(objects: list[Bbox]) -> tuple[Truth, Predictions]:
    """A prediction midway between two objects, and a lower-scored one that fits only the left one."""
    truth = scene([("a", bbox) for bbox in objects], names="a")
    return truth, [seen(1, "a", (10, 0, 100, 100), 0.9), seen(1, "a", (0, 0, 60, 100), 0.8)]


LEFT, RIGHT = (0, 0, 100, 100), (20, 0, 100, 100)


@pytest.mark.parametrize(
    "drawn",
    [noisy(0), noisy(1), noisy(2, images=60, classes=8), crowded(3), tied([LEFT, RIGHT]), tied([RIGHT, LEFT])],
    ids=["few", "few others", "eight classes", "crowded", "left first", "right first"],
)
def test_with_unit_weights_the_figures_equal_cocos(drawn: tuple[Truth, Predictions]) -> None:
    truth, predictions = drawn
    ours, theirs = once(truth, predictions), by_pycocotools(truth, predictions)
    for name in FIGURES:
        assert ours.overall()[name][0] == pytest.approx(theirs[name], abs=EXACT), name
    for index, category in enumerate(truth["categories"]):
        single = by_pycocotools(truth, predictions, category["id"])
        for name, values in ours.of_class(index).items():
            assert values[0] == pytest.approx(single[name], abs=EXACT), (category, name)
    assert 0.005 < ours.overall()["map50_95"][0] < 0.95  # a comparison of zeros would prove nothing


def test_a_class_without_objects_is_not_counted() -> None:
    truth, predictions = noisy(0)
    truth["annotations"] = [a for a in truth["annotations"] if a["category_id"] != 2]
    ours = once(truth, predictions)
    assert np.isnan(ours.of_class(2)["map50_95"][0])
    assert ours.overall()["map50_95"][0] == pytest.approx(by_pycocotools(truth, predictions)["map50_95"], abs=EXACT)


def drawn_data_set(truth: Truth, predictions: Predictions, times: NDArray[np.int64]) -> tuple[Truth, Predictions]:
    """The dataset with every image as often as drawn, each copy as a separate image."""
    images: list[Any] = []
    annotations: list[Any] = []
    results: Predictions = []
    for image, number in zip(truth["images"], times, strict=True):
        for _ in range(number):
            copy = {"image_id": len(images) + 1}
            images.append({**image, "id": copy["image_id"]})
            for record in truth["annotations"]:
                if record["image_id"] == image["id"]:
                    annotations.append({**record, **copy, "id": len(annotations) + 1})
            results += [{**record, **copy} for record in predictions if record["image_id"] == image["id"]]
    return {**truth, "images": images, "annotations": annotations}, results


@pytest.mark.parametrize("seed", range(4))
def test_a_weight_equals_copies_of_the_image(seed: int) -> None:
    """The resampled figure equals pycocotools' on the drawn dataset, with its copies and gaps."""
    truth, predictions = noisy(seed)
    draws = bootstrap.draws(len(truth["images"]), resamples=3, seed=seed)
    assert draws.max() > 1 and draws.min() == 0
    ours = bootstrap.figures(match(truth, predictions), draws).overall()
    for row, times in enumerate(draws):
        theirs = by_pycocotools(*drawn_data_set(truth, predictions, times))
        for name in FIGURES:
            assert ours[name][row] == pytest.approx(theirs[name], abs=EXACT), name


def test_the_block_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, predictions = noisy(0)
    matches, draws = match(truth, predictions), bootstrap.draws(25, resamples=50)
    whole = bootstrap.figures(matches, draws)
    monkeypatch.setattr(bootstrap, "BLOCK_BYTES", 8 * 100 * 7)
    np.testing.assert_array_equal(bootstrap.figures(matches, draws).precision, whole.precision)


def test_matching_in_blocks_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slide can hold more pairs of boxes than memory."""
    truth, predictions = noisy(0)

    def results() -> list[object]:
        matches = [(one.hits.tolist(), one.scores.tolist()) for one in match(truth, predictions)]
        diagnoses = error_types.diagnose(truth, predictions)
        return [matches, diagnoses, error_types.confusion(truth, predictions)]

    whole = results()
    monkeypatch.setattr(iou, "PAIRS", 3)
    assert results() == whole


def test_boxes_of_no_area_overlap_nothing() -> None:
    upright, level = np.array([[5.0, 0, 0, 10]]), np.array([[0.0, 5, 10, 0]])
    assert pairwise_iou(upright, level).tolist() == [[0.0]] == pairwise_iou(upright, upright).tolist()


def test_the_higher_scored_prediction_matches_first() -> None:
    """Worked by hand: the second prediction overlaps the object more, but comes too late."""
    truth = scene([("a", (0, 0, 100, 100))])
    predictions = [seen(1, "a", (0, 0, 100, 100), 0.4), seen(1, "a", (0, 0, 100, 80), 0.9)]
    [a, _] = match(truth, predictions)
    assert a.scores.tolist() == [0.9, 0.4]
    # IoU 0.8 suffices up to 0.8 of COCO's ten thresholds; above, the exact box can match the object.
    assert a.hits[:, 0].tolist() == [True] * 7 + [False] * 3
    assert a.hits[:, 1].tolist() == [False] * 7 + [True] * 3


def test_overlaps_match_values_worked_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [20, 20, 5, 5], [3, 3, 0, 0]], dtype=float)
    third = 50 / 150
    expected = [[1, third, 0, 0], [third, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(pairwise_iou(boxes, boxes), expected, atol=1e-12)


def test_matching_against_no_objects_gives_no_match() -> None:
    assert greedy(np.zeros((3, 0)), IOU_THRESHOLDS).tolist() == [[-1] * 3] * 10
    assert greedy(np.zeros((0, 3)), IOU_THRESHOLDS).shape == (10, 0)


def test_an_interval_contains_its_figure_and_shrinks_with_more_images() -> None:
    widths = []
    for images in (25, 100):
        truth, predictions = noisy(5, images=images)
        intervals = bootstrap.intervals(match(truth, predictions), ["a", "b", "c"])
        low, high = intervals["map50_95"]
        assert low < once(truth, predictions).overall()["map50_95"][0] < high
        widths.append(high - low)
    # Four times the images halve the width; a factor of 1.5 leaves room for two random draws.
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.5)


def test_too_few_images_give_no_interval() -> None:
    objects: list[list[tuple[str, Any]]] = [[("a", (0, 0, 50, 50))] for _ in range(8)]
    objects[0].append(("b", (200, 200, 50, 50)))
    truth = scene(*objects)
    predictions = [seen(1, "b", (200, 200, 50, 50), 0.9), *(seen(i, "a", (0, 0, 50, 60), 0.5) for i in range(1, 9))]
    intervals = bootstrap.intervals(match(truth, predictions), ["a", "b"])
    assert intervals["per_class"]["b"] == {"map50_95": None, "map50": None, "ar100": None}
    assert intervals["per_class"]["a"]["map50"] == [1.0, 1.0]
    assert intervals["map50"] == [1.0, 1.0]
    few = match(scene(*objects[:4]), [record for record in predictions if record["image_id"] < 5])
    assert bootstrap.intervals(few, ["a", "b"])["map50"] is None


def test_images_without_objects_do_not_count_as_enough() -> None:
    """One class in two of 40 images: the mean over classes is the figure of the class, so it has no interval either."""
    truth = scene(*([[("a", (0, 0, 50, 50))]] * 2), *([[]] * 38))
    found = bootstrap.intervals(match(truth, [seen(1, "a", (0, 0, 50, 50), 0.9)]), ["a"])
    assert found["per_class"]["a"]["map50"] is None and found["map50"] is None and found["map75"] is None


@pytest.mark.parametrize(("rare", "expected"), [(2, True), (8, False)])
def test_means_over_classes_need_enough_samples_with_every_class(rare: int, expected: bool) -> None:
    """Each rare class is in one of 40 images, so a sample holds all of them with a probability of 0.63 ** rare."""
    names = "abcdefghi"[: 1 + rare]
    objects: list[list[tuple[str, Any]]] = [[("a", (0, 0, 50, 50))] for _ in range(40)]
    for number in range(rare):
        objects[number].append((names[1 + number], (200, 200, 50, 50)))
    predictions = [seen(i, "a", (0, 0, 50, 50 + i % 20), 0.5) for i in range(1, 41)]
    found = bootstrap.intervals(match(scene(*objects, names=names), predictions), list(names))
    assert (found["map50_95"] is not None) == (found["map75"] is not None) == expected
    assert found["resamples"] == pytest.approx(1000 * 0.63**2, rel=0.15) if expected else found["resamples"] == 0
    assert found["per_class"]["a"]["map50_95"] is not None


def population(rng: np.random.Generator, images: int) -> list[ClassMatches]:
    """Matched predictions of one class on images of varying difficulty, shared by all objects of an image."""
    hardness, objects = rng.normal(0, 1, images), rng.poisson(3, images)
    at = np.repeat(np.arange(images), objects)
    quality = rng.normal(0.9 - 0.5 * hardness[at], 1)
    iou = 0.75 + 0.07 * quality + rng.normal(0, 0.08, len(at))
    score = 1 / (1 + np.exp(-quality - rng.normal(0, 1, len(at))))
    invented = np.repeat(np.arange(images), rng.poisson(1.5 * np.exp(0.3 * hardness)))
    invented_score = 1 / (1 + np.exp(-rng.normal(-1, 1, len(invented))))
    scores, where = np.concatenate([score, invented_score]), np.concatenate([at, invented])
    hits = np.concatenate([iou >= IOU_THRESHOLDS[:, None], np.zeros((10, len(invented)), dtype=bool)], axis=1)
    order = np.argsort(-scores)
    return [ClassMatches(scores[order], where[order], hits[:, order], objects)]


def test_intervals_cover_the_truth_as_often_as_claimed() -> None:
    """200 test sets of 60 images from one population: the 95 % intervals cover its AP in 90 to 98 % of them.

    With 200 draws at 95 %, one standard error is 1.5 points; percentile intervals of 60 images cover slightly
    less than claimed, so the band reaches further down.
    """
    rng = np.random.default_rng(0)
    known = bootstrap.figures(population(rng, 20_000), np.ones((1, 20_000), dtype=np.int64)).overall()
    covered = dict.fromkeys(FIGURES, 0)
    for number in range(200):
        draws = bootstrap.draws(60, resamples=300, seed=number)
        resampled = bootstrap.figures(population(rng, 60), draws).overall()
        for name in FIGURES:
            interval = bootstrap.interval(resampled[name], 60)
            assert interval is not None
            covered[name] += interval[0] <= known[name][0] <= interval[1]
    assert all(180 <= number <= 196 for number in covered.values()), covered

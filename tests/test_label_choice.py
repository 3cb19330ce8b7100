"""The choice of images and the calibration of scores, on plain numbers, against brute force and simulations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import cosine
from pipeline.config.label import Cost, Label
from pipeline.label import belief, choose, plan, progress
from pipeline.run import Run

COST = Cost()


# --- The choice of images -------------------------------------------------------------------------


def candidates(count: int, seed: int = 0, **changes: Any) -> choose.Candidates:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, 6)).astype(np.float32)
    base = {
        "vectors": cosine.standardised(vectors),
        "unsure": rng.uniform(0, 5, count),
        "rare": np.zeros(count),
        "minutes": rng.uniform(0.2, 2, count),
    }
    return choose.Candidates(**{**base, **changes})


NOTHING = np.empty((0, 6), np.float32)


def indices(picks: list[choose.Pick]) -> list[int]:
    return [pick.image for pick in picks]


def test_by_difference_each_image_adds_the_most_per_minute() -> None:
    """Against the definition: the sum over the pool of the similarity to the nearest chosen image."""
    given = candidates(30)
    labelled = given.vectors[:3]
    similarity = np.clip(given.vectors @ given.vectors.T, 0, None)

    def covered(chosen: list[int]) -> float:
        return float(np.maximum(similarity[:, [0, 1, 2, *chosen]].max(axis=1), 0).sum())

    expected: list[int] = []
    for _ in range(5):
        gains = [
            -1 if index in expected else (covered([*expected, index]) - covered(expected)) / given.minutes[index]
            for index in range(30)
        ]
        expected.append(int(np.argmax(gains)))
    assert indices(choose.choose(given, labelled, 5, ("different",), 0.0, False, 0)) == expected


def test_uncertain_images_are_ordered_by_expected_errors_per_minute() -> None:
    given = candidates(30)
    expected = np.argsort(-given.unsure / given.minutes)[:7].tolist()
    assert indices(choose.choose(given, NOTHING, 7, ("uncertain",), 0.0, False, 0)) == expected


def test_by_both_uncertain_images_that_represent_others_come_first() -> None:
    """Three clusters of images; the model is uncertain about one cluster and about one outlier."""
    rng = np.random.default_rng(0)
    middles = np.eye(6, dtype=np.float32)[[0] * 10 + [1] * 10 + [2] * 10 + [3]]
    vectors = middles + rng.normal(0, 0.05, middles.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    unsure = np.array([0.1] * 10 + [2.0] * 10 + [0.1] * 10 + [2.5])
    given = candidates(31, vectors=vectors, unsure=unsure, minutes=np.ones(31))
    both = choose.choose(given, NOTHING, 2, ("uncertain", "different"), 0.0, False, 0)
    assert both[0].image in range(10, 20) and both[0].by == "uncertain"
    assert both[1].image not in range(10, 20)  # that cluster is covered
    alone = choose.choose(given, NOTHING, 2, ("uncertain",), 0.0, False, 0)
    assert alone[0].image == 30


@pytest.mark.parametrize("batch", [1, 5, 10, 20, 100])
def test_the_random_share_is_spread_over_the_batch_and_drawn_from_all_images(batch: int) -> None:
    given = candidates(60)
    picks = choose.choose(given, NOTHING, batch, ("uncertain", "different"), 0.2, False, 3)
    assert len({pick.image for pick in picks}) == len(picks) == min(batch, 60)
    chance = [place for place, pick in enumerate(picks) if pick.by == "random"]
    assert len(chance) == round(0.2 * len(picks))
    # Wherever the user stops, the random share is as configured, to within an image.
    for stop in range(len(picks)):
        assert abs(sum(place < stop for place in chance) - 0.2 * stop) <= 1
    # The same images are drawn whatever the model predicts.
    other = choose.choose(candidates(60, seed=9), NOTHING, batch, ("different",), 0.2, False, 3)
    assert {pick.image for pick in picks if pick.by == "random"} == {
        pick.image for pick in other if pick.by == "random"
    }


def test_every_image_is_drawn_at_random_equally_often() -> None:
    drawn = np.zeros(20)
    for seed in range(2000):
        for pick in choose.choose(candidates(20), NOTHING, 5, (), 0.2, False, seed):
            assert pick.by == "random"
            drawn[pick.image] += 1
    # 500 each, with a standard deviation of 19; 5 deviations do not happen by chance.
    assert np.abs(drawn - 500).max() < 95


def test_images_of_rare_classes_come_first() -> None:
    rare = np.zeros(30)
    rare[[4, 17, 21]] = 1.5, 0.9, 0.3  # the last one shows hardly any
    picks = choose.choose(candidates(30, rare=rare, minutes=np.ones(30)), NOTHING, 5, ("uncertain",), 0.0, True, 0)
    assert indices(picks)[:2] == [4, 17]
    assert [pick.by for pick in picks] == ["rare", "rare", "uncertain", "uncertain", "uncertain"]
    quick = np.where(np.arange(30) == 21, 0.01, 1.0)  # an image without rare objects is no bargain
    picks = choose.choose(candidates(30, rare=rare, minutes=quick), NOTHING, 2, ("uncertain",), 0.0, True, 0)
    assert indices(picks) == [4, 17]


def test_what_an_image_covers_is_counted_over_the_whole_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.repeat(np.eye(2, 6, dtype=np.float32), 20, axis=0)
    given = candidates(40, vectors=vectors, minutes=np.ones(40))
    for sample in (40, 20):
        monkeypatch.setattr(choose, "REFERENCES", sample)
        [pick] = choose.choose(given, NOTHING, 1, ("different",), 0.0, False, 0)
        assert pick.covers == pytest.approx(20, abs=8 if sample < 40 else 0)


def test_a_sample_of_the_pool_favours_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample counts what an image covers; the choice must not prefer the images in it."""
    given = candidates(600, minutes=np.ones(600))
    monkeypatch.setattr(choose, "REFERENCES", 60)
    chosen_of_sample = 0
    for seed in range(10):
        picks = choose.choose(given, given.vectors[:5], 30, ("different",), 0.0, False, seed)
        sample = choose._Coverage(given.vectors, NOTHING, seed).references
        chosen_of_sample += np.isin(indices(picks), sample).sum()
    # 30 of 300 are expected, with a deviation of 5; all that the sample covers poorly would be more than 100.
    assert chosen_of_sample < 60


def test_what_an_image_adds_is_estimated_without_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    given = candidates(300)
    exact = choose._Coverage(given.vectors, given.vectors[:5], 0)
    monkeypatch.setattr(choose, "REFERENCES", 60)
    monkeypatch.setattr(choose, "BLOCK", 64)
    sampled = [choose._Coverage(given.vectors, given.vectors[:5], seed) for seed in range(400)]
    for coverage in (exact, *sampled):
        coverage.add(17)
    mean = np.mean([coverage.gains(given.unsure) for coverage in sampled], axis=0)
    gains = exact.gains(given.unsure)
    # By chance, each mean of 400 deviates by less than 1 % of the largest gain; 4 % is more than four times that.
    assert np.abs(mean - gains).max() < 0.04 * gains.max()
    assert gains[17] == pytest.approx(0, abs=1e-3)


# --- Calibration of scores ------------------------------------------------------------------------


def simulated(images: int, seed: int, missing: float = 0.0) -> tuple[list[Any], list[Any]]:
    """Boxes that are right with probability score squared, and their labels; some labels have no box."""
    rng = np.random.default_rng(seed)
    seen, labels = [], []
    for _ in range(images):
        scores = rng.uniform(0.02, 0.98, 12)
        places = np.arange(12)[:, None] * np.array([[50.0, 0.0]])
        boxes = np.column_stack([places, np.full((12, 2), 40.0), scores, np.zeros(12)]).astype(np.float32)
        right = rng.uniform(size=12) < scores**2
        extra = np.array([[0, 500, 40, 40, 1, 0]] * int(rng.uniform() < missing), np.float32).reshape(-1, 6)
        seen.append(boxes)
        labels.append(np.concatenate([boxes[right], extra]))
    return seen, labels


def test_calibrated_scores_equal_the_share_of_correct_boxes() -> None:
    trust = belief.of(*simulated(400, 0), 1)
    for score in (0.3, 0.5, 0.7, 0.9):
        # Each of 40 bins has 120 boxes, so its share has a deviation of 0.045; 0.1 is two of them plus the slope within.
        assert trust.is_right(np.array([score], np.float32))[0] == pytest.approx(score**2, abs=0.1)
    assert trust.unseen == 0


def test_calibration_is_monotonic() -> None:
    rng = np.random.default_rng(0)
    scores, hits = np.linspace(1, 0.01, 400), rng.uniform(size=400) < 0.5  # bin shares rise and fall
    points, shares = belief._curve(scores, hits)
    assert (np.diff(points) > 0).all() and (np.diff(shares) >= 0).all() and len(points) < 15
    assert shares[1:] @ np.diff(points, prepend=0)[1:] == pytest.approx(0.5, abs=0.1)


def test_objects_without_a_box_are_expected_at_the_same_rate() -> None:
    seen, labels = simulated(400, 1, missing=0.5)
    trust = belief.of(seen, labels, 1)
    found = sum(len(one) for one in labels) - sum((one[:, 1] == 500).sum() for one in labels)
    assert trust.unseen == pytest.approx(200 / found, rel=0.15)  # 200, plus or minus 10 by chance
    other_seen, other_labels = simulated(400, 2, missing=0.5)
    works = [plan.work(boxes, None, trust, 0.5, COST) for boxes in other_seen]
    assert sum(work.boxes for work in works) == pytest.approx(sum(map(len, other_labels)), rel=0.05)


def test_the_threshold_minimises_the_cost() -> None:
    """Against the seconds each threshold costs on other images with known answers."""
    trust = belief.of(*simulated(400, 0), 1)
    chosen = belief.threshold(trust, COST)
    seen, labels = simulated(400, 5)

    def seconds(threshold: float) -> float:
        total = 0.0
        for boxes, own in zip(seen, labels, strict=True):
            places = set(own[:, 0].tolist())
            for box in boxes:
                right = float(box[0]) in places
                if box[4] >= threshold:
                    total += COST.check if right else COST.remove
                elif right:
                    total += COST.draw
        return total

    best = min(seconds(threshold) for threshold in np.linspace(0.02, 1, 50))
    assert seconds(chosen) <= best * 1.02
    assert seconds(chosen) < 0.8 * min(seconds(0.0), seconds(1.01))


def test_costlier_drawing_lowers_the_threshold() -> None:
    trust = belief.of(*simulated(400, 0), 1)
    found = [belief.threshold(trust, Cost(draw=draw)) for draw in (2.0, 7.0, 35.0)]
    assert found == sorted(found, reverse=True) and found[0] > found[2] + 0.1
    assert belief.threshold(trust, Cost(draw=0.1, remove=100)) == 1.0  # nothing is worth drawing


def test_without_labels_scores_are_unchanged() -> None:
    seen, _ = simulated(3, 0)
    trust = belief.of(seen, [np.empty((0, 6), np.float32)] * 3, 1)
    assert trust.is_right(np.array([0.2, 0.8], np.float32)) == pytest.approx([0.2, 0.8])
    assert len(belief.of([], [], 1).scores) == 0


def test_overconfident_scores_are_calibrated_down() -> None:
    """From 0.5 up, half of the boxes are right whatever the score; below, none."""
    rng = np.random.default_rng(0)
    seen, labels = simulated(200, 0)
    for number, boxes in enumerate(seen):
        right = (boxes[:, 4] > 0.5) & (rng.uniform(size=len(boxes)) < 0.5)
        labels[number] = boxes[right]
    trust = belief.of(seen, labels, 1)
    # 1,200 boxes are above, in bins of 60: a deviation of 0.065, less where bins were merged.
    assert trust.is_right(np.array([0.6, 0.8, 0.95], np.float32)) == pytest.approx([0.5] * 3, abs=0.1)
    assert trust.is_right(np.array([0.4], np.float32))[0] < 0.05
    assert belief.threshold(trust, COST) == pytest.approx(0.5, abs=0.03)


def test_equal_predictions_on_the_mirrored_image_change_nothing() -> None:
    boxes = np.array([[0, 0, 40, 40, 0.9, 0], [100, 0, 40, 40, 0.5, 1]], np.float32)
    alone = plan.work(boxes, None, belief.Belief(), 0.4, COST)
    assert plan.work(boxes, boxes[::-1], belief.Belief(), 0.4, COST).unsure == pytest.approx(alone.unsure)
    of_other_class = boxes.copy()
    of_other_class[1, 5] = 2
    # One object at probability one half on either side, unconfirmed by the other.
    assert plan.work(boxes, of_other_class, belief.Belief(), 0.4, COST).unlike_mirror == pytest.approx(1.0)
    assert plan.work(boxes, boxes[:0], belief.Belief(), 0.4, COST).unlike_mirror == pytest.approx(1.4)


# --- Progress --------------------------------------------------------------------------------------


def image(digest: str, boxes: list[tuple[str, list[float]]], by: str = "random") -> Any:
    drawn = [{"bbox": bbox, "label": name, "score": 0.9, "kind": "sure"} for name, bbox in boxes]
    return {"sha256": digest, "by": by, "boxes": drawn, "minutes": 1.5}


def test_predrawn_boxes_are_compared_with_the_returned_labels() -> None:
    drawn = [
        image("a", [("x", [0, 0, 10, 10]), ("x", [50, 0, 10, 10]), ("y", [0, 50, 10, 10])]),
        image("b", []),
    ]
    labels = {
        # One unchanged, one moved to an IoU between 0.5 and 0.75, one of another class, one missed.
        "a": [("x", [0.0, 0, 10, 10]), ("x", [52.0, 0, 10, 10]), ("x", [0.0, 50, 10, 10])],
        "b": [("y", [0.0, 0, 5, 5])],
    }
    found = progress.on_pool(drawn, labels)
    assert found is not None
    assert (found["images"], found["right"], found["wrong"], found["missed"]) == (2, 2, 1, 2)
    assert found["f1"] == pytest.approx(2 * 2 / (3 + 4), abs=1e-4) and found["interval"] is None
    assert found["untouched"] == pytest.approx(1 / 3, abs=1e-4)
    assert progress.on_pool([], labels) is None
    undrawn = progress.on_pool([image("a", []), image("b", [])], labels)  # nothing is known about the model
    assert undrawn is not None and (undrawn["f1"], undrawn["missed"]) == (None, 4)


def test_a_batch_of_the_default_size_gives_an_interval_on_the_pool() -> None:
    default = Label(pool=Path("pool"))
    picks = choose.choose(candidates(60), NOTHING, default.batch, default.by, default.random, False, 0)
    drawn = [image(str(pick.image), [("x", [0, 0, 9, 9])]) for pick in picks if pick.by == "random"]
    labels = {
        one["sha256"]: [("x", [0.0, 0, 9, 9]), ("x", [50.0, 0, 9, 9])][: 1 + n % 2] for n, one in enumerate(drawn)
    }
    found = progress.on_pool(drawn, labels)
    assert found is not None and found["interval"] is not None
    now: Any = {"images": 10, "boxes": 50, "map50_95": None, "gain": None, "on_pool": found}
    low, high = found["interval"]
    assert progress.in_words(now, (5, 5)).endswith(f"had F1 {found['f1']:.2f} ({low:.2f} to {high:.2f})")


def test_the_interval_on_the_pool_covers_the_figure_of_all_images() -> None:
    """Over many draws of 20 of 400 images, the interval misses the overall figure in about 1 of 20."""
    rng = np.random.default_rng(0)
    every = [image(str(number), [("x", [50.0 * n, 0, 9, 9]) for n in range(6)]) for number in range(400)]
    labels = {
        one["sha256"]: [("x", box["bbox"]) for box in one["boxes"][: rng.integers(2, 7)]] + [("x", [0, 99, 9, 9])]
        for one in every
    }
    true = progress.on_pool(every, labels)
    assert true is not None and true["f1"] is not None
    inside = 0
    for _ in range(100):
        found = progress.on_pool([every[index] for index in rng.permutation(400)[:20]], labels)
        assert found is not None and found["interval"] is not None
        inside += found["interval"][0] <= true["f1"] <= found["interval"][1]
    assert inside >= 86  # 92 of 100 are expected with so few images; 86 is two deviations less


def test_rounds_accumulate_and_a_repeated_batch_is_not_a_round(tmp_path: Path) -> None:
    run = Run(tmp_path / "runs" / "tiny")

    def batch(model: str, *images: Any) -> Any:
        return {"model": {"sha256": model}, "images": images or [None] * 5}

    def rounds(model: str, images: int, back: dict[str, Any]) -> Any:
        return progress.record(run, batch(model), images, 5 * images, back)

    assert len(rounds("m1", 10, {})[0]) == 1
    progress.note(run, batch("m1", image("a", []), image("b", [], by="different"), image("c", [])))
    assert len(rounds("m1", 10, {})[0]) == 1
    # Another batch was chosen meanwhile: what counts is the batch that was saved.
    so_far, drawn = rounds("m2", 12, {"a": [], "b": []})
    assert [one["images"] for one in so_far] == [10, 12] and so_far[-1]["minutes"] == 3.0
    assert so_far[-1]["on_pool"] is None and drawn == (1, 2)
    so_far, drawn = rounds("m2", 13, {"a": [], "b": [], "c": []})
    assert so_far[-1]["on_pool"] is not None and so_far[-1]["on_pool"]["images"] == 2
    assert so_far[-1]["minutes"] == 4.5 and len(so_far) == 3


def test_f1_needs_all_images_drawn_at_random() -> None:
    now: Any = {"images": 10, "boxes": 50, "map50_95": None, "gain": None, "on_pool": None}
    assert progress.in_words(now, (0, 0)) == ""
    assert progress.in_words(now, (2, 4)) == (
        "the training split has 10 images and 50 boxes, 2 of 4 images drawn at random are saved; F1 on the pool needs "
        "all of them"
    )


def test_a_gain_needs_two_sizes_and_follows_the_logarithm() -> None:
    def at(images: int, figure: float, batch: int = 20) -> Any:
        return {"images": images, "map50_95": figure, "batch": batch}

    assert progress._expected_gain([at(10, 0.3, 10)]) is None
    assert progress._expected_gain([at(10, 0.3), at(20, 0.4)]) == pytest.approx(0.1)
    assert progress._expected_gain([at(10, 0.3), at(20, 0.2)]) == 0


@pytest.mark.parametrize(
    ("section", "words"),
    [({"by": [], "rare": True}, "`rare` has no effect with `by: \\[\\]`"), ({"cost": {"image": 0}}, "greater than 0")],
)
def test_settings_without_a_meaning_are_refused(section: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Label.model_validate({"pool": "pool", **section})

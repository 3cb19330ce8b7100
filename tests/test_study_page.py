"""A study's findings in words, and its page, from results with known truth."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import files
from pipeline.config.study import Study
from pipeline.metrics import bootstrap
from pipeline.study import answers, page
from pipeline.study.board import Board, duration
from pipeline.study.planning import Place
from pipeline.study.results import Line
from pipeline.study.trials import Trial

SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
LAWS = {"full": (0.6, 0.4, 0.5, 0), "frozen": (0.6, 0.4, 0.5, 11), "scratch": (0.6, 1.4, 0.5, 0)}  # a - b n^-c, depth


def study_of(**keys: Any) -> Study:
    rows: dict[str, Any] = {row: {} for row in LAWS}
    return Study.model_validate({"base": "configs/bccd.yaml", "rows": rows, "share": SHARES, "seeds": 5, **keys})


def lines_of(study: Study, loss: float = 0.0, rising: float = 0.0, seeds: int = 5, noise: float = 1.0) -> list[Any]:
    """Results as trials write them: a row's law, seeds that differ by a point, 72 test images; `frozen` loses `loss`."""
    rng = np.random.default_rng(0)
    draws = bootstrap.draws(72, 300) / 72
    image = rng.normal(0, 0.12, 72)
    lines = []
    for row in study.rows:
        a, b, c, depth = LAWS[row]
        for kind, amount in study.sizes:
            count = max(3, round(205 * amount)) if kind == "share" else int(amount)
            for seed in range(seeds):
                luck = noise * (rng.normal(0, 0.01) + rng.normal(0, 0.05, 72))
                values = a - b * count**-c - loss * (row == "frozen") + image + luck
                lines.append(
                    {
                        "key": f"{row}{kind}{amount}{seed}",
                        "row": row,
                        kind: amount,
                        "seed": seed,
                        "images": count,
                        "boxes": {"cell": count},
                        "epochs": [3],
                        "map50_95": float(values.mean()),
                        "drawn": (draws @ values).tolist(),
                        "freeze": [depth],
                        "train": {
                            "imgsz": 320,
                            "weights": row == "scratch",
                            "phases": [{"epochs": 5, "freeze": depth}],
                        },
                        "val": [0.4, 0.5, 0.5 + rising],
                        "seconds": 50.0,
                        "device": "CPU",
                        "judged_sha256": "f" * 64,
                        "machine": {"node": "here", "cpu": "x86_64", "threads": 1},
                        "versions": {"torch": "2.15.0"},
                        "weights": {"name": "yolo26n.pt", "sha256": "a" * 64, "instead_of": None},
                    }
                )
    return lines


def said(study: Study, lines: list[Line]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for subject, sentence in answers.every(study, lines):
        found.setdefault(subject, []).append(sentence)
    return found


def test_every_question_has_an_answer() -> None:
    study = study_of()
    found = said(study, lines_of(study))
    assert set(found) == set(page.SUBJECTS) - {"amounts"}
    assert re.search(
        r"`full` with all images reached 0\.\d+ to 0\.\d+ in 5 training runs that differ only in the seed",
        found["luck"][0],
    )
    assert "With 5 seeds, this study detects a difference of about" in found["luck"][1]
    assert "`full` and `frozen`" not in " ".join(found["difference"])
    assert any(
        re.match(r"`scratch` is worse than `full` with 5 % of the images by 3\d\.\d points \([23]", one)
        for one in found["difference"]
    )
    assert any("as good as `scratch` with 1" in one for one in found["labels"])  # (1.4 / 0.4) ** 2 = 12 times
    assert any(
        re.match(r"With all images, 11 layers can be frozen \(`frozen`\): .* against `full`", one)
        for one in found["freeze"]
    )
    assert re.match(r"Forecast for `(full|frozen)`, in points over 205 images: 1\.5 times as many \+", found["more"][0])
    assert re.search(r"a difference of [+−].* points \(−.* to \+.*\), so the forecast was right", found["more"][1])


def test_a_worse_frozen_row_is_not_recommended() -> None:
    study = study_of()
    sentences = said(study, lines_of(study, loss=0.1))["freeze"]
    assert len(sentences) == len(SHARES)
    assert all(re.match(r"Freeze with .*: nothing; `frozen` costs (9|1\d)\.\d points", one) for one in sentences)


def test_the_shallowest_row_is_recommended_if_none_is_unfrozen() -> None:
    study = study_of(rows={"full": {}, "frozen": {}}, share=[1])
    lines = lines_of(study, loss=0.06)
    for line in lines:
        if line["row"] == "full":
            line["freeze"], line["train"]["phases"] = [5], [{"epochs": 5, "freeze": 5}]
    [sentence] = said(study, lines)["freeze"]
    assert sentence.startswith("Freeze with all images: at most 5 layers (`full`); `frozen` costs 5.2 points")


def test_rows_that_also_differ_in_their_copies_say_nothing_about_freezing() -> None:
    """What `frozen` gains may come from its copies."""
    lines = lines_of(study_of(rows={"full": {}, "frozen": {}}, share=[1]))
    for every, frozen in (({}, {"augment": {"copies": 1}}), ({"augment": {"copies": 1}}, {"augment": {"copies": 0}})):
        study = study_of(every=every, rows={"full": {}, "frozen": frozen}, share=[1])
        assert "freeze" not in said(study, lines)
    same = study_of(every={"augment": {"copies": 1}}, rows={"full": {}, "frozen": {}}, share=[1])
    assert len(said(same, lines)["freeze"]) == 1


def test_one_seed_says_that_it_cannot_show_luck() -> None:
    study = study_of(seeds=1)
    assert said(study, lines_of(study, seeds=1))["luck"] == ["One seed cannot separate luck from a real difference."]


def test_a_frozen_row_is_not_recommended_because_nothing_was_proven() -> None:
    """Two seeds that differ by ten points cannot tell whether four points are lost."""
    study = study_of()
    sentences = said(study, lines_of(study, loss=0.04, seeds=2, noise=10))["freeze"]
    assert any(re.match(r"Freeze with .*: not clear; `frozen` may cost up to \d", one) for one in sentences)
    assert not any("can be frozen" in one for one in sentences)


def test_a_better_row_with_few_images_is_not_overlooked() -> None:
    """`full` is best with all images, but worse than `frozen` with few; nothing is "as good" there."""
    study = study_of(rows={"full": {}, "frozen": {}})
    lines = lines_of(study, noise=0.1)
    for line in lines:
        line["map50_95"] += (0.1 if line["share"] == 1 else -0.2) if line["row"] == "full" else 0
    [sentence] = [one for one in said(study, lines)["labels"] if "`frozen`" in one]
    assert re.match(r"With \d+ images, `full` is not better than `frozen` with as many", sentence)


def test_nothing_is_advised_if_nothing_was_learnt() -> None:
    study = study_of()
    lines: list[Any] = [{**line, "map50_95": 0.0, "drawn": [0.0] * 300} for line in lines_of(study)]
    assert answers.every(study, lines) == [
        ("next", "Nothing was learnt: no row finds objects. Train longer, or check the labels.")
    ]


def test_the_forecast_speaks_of_twice_the_largest_known_size() -> None:
    """The largest size has one seed, so the curve ends at half of it."""
    study = study_of(rows={"full": {}})
    lines = [line for line in lines_of(study, noise=0.2) if line["share"] < 1 or line["seed"] == 0]
    assert "Twice as many images as 102 would bring" in said(study, lines)["next"][0]


def test_equal_sizes_have_a_page(tmp_path: Path) -> None:
    """Two videos in train: a share of 5, 10 or 25 % is always one of them."""
    study = study_of(rows={"full": {}})
    lines: list[Any] = [
        {**line, "images": 100 if line["share"] <= 0.25 else line["images"]} for line in lines_of(study)
    ]
    page.write(study, lines, Place(tmp_path, tmp_path / "videos"))
    text = page.path(Place(tmp_path, tmp_path / "videos")).read_text(encoding="utf-8")
    assert "With 5 % of the images, trials have 100 images instead of 10" in text


def test_classes_with_too_few_boxes_are_named() -> None:
    study = study_of(rows={"full": {}}, share=[], shots=[3, 30])
    lines: list[Any] = [{**line, "boxes": {"rare": 6, "none": 0, "often": 100}} for line in lines_of(study)]
    assert said(study, lines)["amounts"] == [
        "With 3 boxes per class, some seeds have no object of none.",
        "With 30 boxes per class, rare has 6: there are no more.",
        "With 30 boxes per class, some seeds have no object of none.",
    ]


def test_a_rise_between_phases_is_no_reason_to_train_longer() -> None:
    """Each of three phases was validated once, at its end."""
    study = study_of(rows={"full": {}})
    lines: list[Any] = [{**line, "epochs": [2, 5, 5]} for line in lines_of(study, rising=0.1)]
    assert "train longer" not in said(study, lines)["next"][0]


@pytest.mark.parametrize(
    ("law", "rising", "answer"),
    [
        (
            (0.6, 0.4, 0.5),
            0.03,
            "Next: train longer. In the last third of its epochs val of `full` still rose by 3.0 points",
        ),
        ((0.9, 1.2, 0.3), 0.0, "Next: label more. Twice as many images as 205 would bring"),
        ((0.6, 20.0, 2.0), 0.0, "Next: stop. Twice as many images as 205 would bring"),
    ],
)
def test_the_page_says_what_to_do_next(
    monkeypatch: pytest.MonkeyPatch, law: tuple[float, float, float], rising: float, answer: str
) -> None:
    monkeypatch.setitem(LAWS, "full", (*law, 0))
    study = study_of(rows={"full": {}})
    [last] = said(study, lines_of(study, rising=rising, noise=0.2))["next"]
    assert last.startswith(answer), last


def test_a_study_of_one_row_reports_only_the_spread_of_seeds() -> None:
    """`rows: {mine: {}}` and no share: how far apart seeds are."""
    study = study_of(rows={"full": {}}, share=())
    found = said(study, lines_of(study))
    [sentence] = found["luck"]
    spread = float(re.search(r"a standard deviation of ([\d.]+) points", sentence)[1])  # type: ignore[index]
    apart = float(re.search(r"must differ by about ([\d.]+) points", sentence)[1])  # type: ignore[index]
    # Student's t with four degrees of freedom, times the square root of two
    assert apart == pytest.approx(2.776 * 2**0.5 * spread, abs=0.3) and "difference" not in found


@pytest.mark.parametrize("seeds", [0, 1, 2])
def test_an_unfinished_study_has_a_page(tmp_path: Path, seeds: int) -> None:
    study = study_of(shots=[1, 3])
    place = Place(tmp_path, tmp_path / "half")
    page.write(study, lines_of(study, seeds=seeds), place)
    text = page.path(place).read_text(encoding="utf-8")
    assert f"{21 * seeds} of 105 trials are done" in text
    assert text.count("<svg") >= (2 if seeds else 0)
    assert files.read_json(place.study / "curves.json")["rows"].keys() == LAWS.keys()


def test_the_page_is_self_contained(tmp_path: Path) -> None:
    study = study_of(budget={"steps": 300})
    place = Place(tmp_path, tmp_path / "whole")
    page.write(study, lines_of(study), place)
    text = page.path(place).read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="(?!data:|#)', text) and "are done" not in text and "`" not in text
    assert "every trial takes 300 optimizer steps" in text
    found = files.read_json(place.study / "curves.json")["rows"]["scratch"]
    assert found["against_first"]["share0.05"]["verdict"] == "worse" and found["held_back"]["images"] == 205


def test_a_lost_trial_is_left_out_of_pairs() -> None:
    study = study_of()
    lines = [line for line in lines_of(study) if not (line["row"] == "full" and line["seed"] == 3)]
    table = answers.table_of(study, lines)
    assert len(table.difference("scratch", "full", ("share", 1.0))[0]) == 4
    assert said(study, lines)["difference"]


def test_the_time_left_is_estimated_per_row() -> None:
    study = study_of(rows={"full": {}, "scratch": {}}, share=[1], seeds=2)
    lines: dict[str, Any] = {
        line["key"]: {**line, "seconds": 100.0 if line["row"] == "scratch" else 10.0}
        for line in lines_of(study, seeds=2)
    }
    trials = [
        Trial(key, line["row"], ("share", 1.0), line["seed"], "x", {}, (), 1, line) for key, line in lines.items()
    ]
    done = {key: line for key, line in lines.items() if line["seed"] == 0}
    assert Board(study, trials, done, jobs=1).seconds_left() == 110
    assert Board(study, trials, done, jobs=2).seconds_left() == 55
    assert Board(study, trials, done, jobs=8).seconds_left() == 55  # two trials are left
    assert Board(study, trials, done, jobs=1).table()[1].split() == [
        "full",
        f"{done['fullshare1.00']['map50_95']:.3f}",
        "(1/2)",
    ]
    assert [duration(seconds) for seconds in (40, 420, 7500)] == ["40 s", "7 min", "2 h 05 min"]

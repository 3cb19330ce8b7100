"""A whole study with its folders, images, lines and page; convert and augment are real, trainings are simulated.

`test_study.py` has a study with real trainings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_study_page import lines_of, study_of

from pipeline import augment, convert, study
from pipeline.boxes import YoloDataset
from pipeline.config.loading import load
from pipeline.extras.sample import dataset as sample
from pipeline.run import Run
from pipeline.study import figures, folders

Start = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Run a study of drawn tiles, 12 to train on, and return its lines."""
    monkeypatch.chdir(tmp_path)
    sample.main(seed=1, folder=tmp_path / "raw", splits={"train": 12, "val": 3, "test": 3})
    (tmp_path / "configs").mkdir()
    train = {"weights": "yolo26n.yaml", "imgsz": 64, "batch": 4, "phases": [{"epochs": 2}]}
    base = {"convert": {"source": "raw"}, "train": train}
    (tmp_path / "configs" / "tiny.yaml").write_text(yaml.safe_dump(base))

    def make(folder: Path, name: str, targets: Sequence[str], lock: int, **_: Any) -> None:
        config, run = load(folder / "configs" / f"{name}.yaml"), Run(folder / "runs" / name)
        if targets == ["augment"]:
            convert.main(config.convert, run, config.seed, 0)
            augment.main(config.augment, run, config.seed, 0)
        else:
            data = YoloDataset.read(run.augmented / "data.yaml")
            seen: dict[str, Any] = {split: len(data.files(split)) for split in ("train", "val", "test")}
            seen["again"] = sorted(path.stem for path in data.files("train") if "-again" in path.stem)
            (folder / "seen.json").write_text(json.dumps({**seen, "epochs": _epochs(config.train.phases)}))

    def of(run: Run) -> dict[str, Any]:
        [line] = lines_of(study_of(rows={"full": {}}, share=[1]), seeds=1)
        seen = json.loads((run.root.parents[1] / "seen.json").read_text())
        kept = ("map50_95", "drawn", "freeze", "val", "device", "machine", "versions", "weights")
        timed = {"phase_seconds": [10.0 + 20 * count for count in seen["epochs"]], "epochs": seen["epochs"]}
        timed["epoch_seconds"] = [20.0] * len(seen["epochs"])
        return {**{key: line[key] for key in kept}, **timed, "seen": seen}

    monkeypatch.setattr(folders, "make", make)
    monkeypatch.setattr(figures, "of", of)

    def run(**keys: Any) -> list[dict[str, Any]]:
        path = tmp_path / "pair.yaml"
        path.write_text(yaml.safe_dump({"base": "configs/tiny.yaml", "seeds": 2, **keys}, sort_keys=False))
        study.main(path, jobs=2)
        results = tmp_path / "runs" / "studies" / "pair" / "results.jsonl"
        return [json.loads(line) for line in results.read_text().splitlines()]

    return run


def _epochs(phases: Any) -> list[int]:
    return [phase.epochs for phase in phases]


ROWS: dict[str, Any] = {"full": {}, "phased": {"train": {"phases": [{"epochs": 1, "freeze": 5}, {"epochs": 3}]}}}


def test_every_trial_has_its_images_and_its_steps(start: Start, tmp_path: Path) -> None:
    lines = start(rows=ROWS, share=[0.25, 1], shots=[1], budget={"steps": 12})
    assert len(lines) == 2 * 3 * 2 and len({line["key"] for line in lines}) == 12
    for line in lines:
        assert line["seen"]["train"] // 4 * sum(line["seen"]["epochs"]) == 12
        assert (line["seen"]["val"], line["seen"]["test"]) == (3, 3)
    assert {line["images"] for line in lines if line.get("share") == 0.25} == {3}
    assert {line["images"] for line in lines if line.get("share") == 1} == {12}
    of_seed = {(line["seed"], line.get("share"), line.get("shots")): line["images_sha256"] for line in lines}
    assert len({of_seed[0, 0.25, None], of_seed[1, 0.25, None]}) == 2  # another seed, other images
    folder = tmp_path / "runs" / "studies" / "pair"
    assert "<svg" in (folder / "index.html").read_text(encoding="utf-8")
    assert not list(folder.glob("trials/*/*/*/runs"))


def test_each_seed_repeats_other_images(start: Start) -> None:
    """14 steps of four images are four epochs of 16, so four of the 12 images appear twice."""
    lines = start(rows=ROWS, budget={"steps": 14})
    again = {seed: {tuple(line["seen"]["again"]) for line in lines if line["seed"] == seed} for seed in (0, 1)}
    [first], [second] = again.values()  # the rows of a seed repeat the same images
    assert len(first) == len(second) == 4 and first != second


def test_the_bases_splits_stay_as_they_are(start: Start, tmp_path: Path) -> None:
    config, path = tmp_path / "configs" / "tiny.yaml", tmp_path / "data" / "splits" / "tiny.json"
    ratios = {"train": 0.6, "val": 0.2, "test": 0.2}
    base = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**base, "convert": {**base["convert"], "split": ratios}}))
    drawn = load(config)
    convert.main(drawn.convert, Run(tmp_path / "runs" / "tiny"), drawn.seed, 0)
    before = path.read_bytes()
    with_same = start(rows={"full": {}})
    assert {line["seen"]["train"] for line in with_same} == {list(json.loads(before)["images"].values()).count("train")}
    other = {"convert": {"split": {"train": 0.3, "val": 0.2, "test": 0.5}}}
    lines = start(rows={"full": {}}, every=other)
    assert {line["seen"]["test"] for line in lines[2:]} == {9}
    assert path.read_bytes() == before
    assert start(rows={"full": {}}, every=other) == lines


def test_another_setting_reruns_its_own_trials(start: Start) -> None:
    first = start(rows=ROWS, share=[0.5, 1])
    assert [line["seen"]["train"] for line in first if line["row"] == "full"].count(
        6
    ) == 2  # a recipe has no step budget
    again = start(rows={**ROWS, "full": {"train": {"l2_sp": 3}}}, share=[0.5, 1])
    assert again[: len(first)] == first and [line["row"] for line in again[len(first) :]] == ["full"] * 4
    assert start(rows=ROWS, share=[0.5, 1]) == again


def test_minutes_are_distributed_after_a_first_measurement(start: Start) -> None:
    """A phase takes 10 seconds and 20 for each epoch, so two and a half minutes give seven, or six in two phases."""
    lines = start(rows=ROWS, share=[0.5, 1], budget={"minutes": 2.5})
    probes = [line for line in lines if line["row"].startswith("probe-")]
    assert {line["row"]: line["seen"]["epochs"] for line in probes} == {"probe-full": [3], "probe-phased": [3, 3]}
    trials = [line for line in lines if line not in probes]
    assert len(trials) == 8
    assert {line["row"]: sum(line["seen"]["epochs"]) for line in trials} == {"full": 7, "phased": 6}
    assert all(line["seen"]["train"] == 12 for line in trials)


def test_data_without_a_test_split_is_refused(start: Start, tmp_path: Path) -> None:
    from pipeline.errors import DataError

    for path in (tmp_path / "raw" / "annotations").glob("test*"):
        path.unlink()
    for path in (tmp_path / "raw" / "images").glob("test*"):
        path.unlink()
    with pytest.raises(DataError, match=r"has no test split, but a study evaluates on test; set ratios"):
        start(rows=ROWS)

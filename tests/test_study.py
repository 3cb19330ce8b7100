"""Studies: what a trial gets, and that none is lost or counted twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, Trained, make_environment, settings

from pipeline import files, lock
from pipeline.config.study import Study
from pipeline.config.training import Train
from pipeline.errors import ConfigError, DataError
from pipeline.metrics import bootstrap
from pipeline.run import Run
from pipeline.study import figures, folders, results, rows, stage, subsets
from pipeline.study.planning import Place
from pipeline.study.subsets import Pool

SHARES = [("share", share) for share in (0.05, 0.1, 0.25, 0.5, 1.0)]


def study_of(tmp_path: Path, **keys: Any) -> Path:
    (tmp_path / "configs").mkdir(exist_ok=True)
    base = tmp_path / "configs" / "tiny.yaml"
    base.write_text(yaml.safe_dump({"convert": {"source": "raw"}, "train": {"imgsz": 64, "l2_sp": 2}}))
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"base": str(base), "rows": {"mine": None}, **keys}, sort_keys=False))
    return path


def test_shipped_studies_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    paths = sorted((ROOT / "configs" / "studies").glob("*.yaml"))
    assert paths
    for path in paths:
        rows.load(path)


def test_a_row_is_the_base_with_its_changes(tmp_path: Path) -> None:
    path = study_of(tmp_path, every={"train": {"imgsz": 96}}, rows={"one": {"train": {"batch": 2}}, "mine": None})
    made = rows.configs(path, rows.load(path))
    assert [(made[row].train.imgsz, made[row].train.l2_sp, made[row].train.batch) for row in made] == [
        (96, 2, 2),
        (96, 2, None),
    ]
    assert {config.train.precision for config in made.values()} == {"fp32"}  # `auto` depends on timing


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"rows": {}}, "rows: "),
        ({"rows": {"a/b": {}}}, "rows: 'a/b' becomes the name of a folder"),
        ({"rows": {"..": {}}}, "rows: '..' becomes the name of a folder"),
        ({"rows": {"one": {"convert": {"source": "x"}}}}, "rows: one.convert: must be the same for all rows"),
        ({"rows": {"one": {"train": {"bacth": 4}}}}, "rows.one: train.bacth: unknown key; did you mean 'batch'?"),
        ({"share": [0.5, 0.5]}, "share: a value appears twice"),
        ({"share": 1.5}, "share"),
        ({"shots": 0}, "shots"),
        ({"seed": 3}, "seed: unknown key; did you mean 'seeds'?"),
        ({"budget": "equal"}, "budget"),
        ({"budget": {"steps": 0}}, "budget.steps"),
        ({"budget": {"steps": 9, "minutes": 2}}, "budget: only one thing can be held equal; keep `steps` or `minutes`"),
        ({"base": ["x"]}, "base: write one path, not ['x']"),
    ],
)
def test_an_error_is_reported_in_one_line(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    path = study_of(tmp_path, **keys)
    with pytest.raises(ConfigError) as error:
        rows.load(path)
    lines = str(error.value).splitlines()
    assert any(line.startswith(f"{path}: {said}") for line in lines), lines


@pytest.mark.parametrize("keys", [{"rows": {"one": {"train": None}}}, {"rows": {"one": {}}, "every": {"train": None}}])
def test_an_empty_section_changes_nothing(tmp_path: Path, keys: dict[str, Any]) -> None:
    """`train:` with nothing below it."""
    trains = []
    for row, given in (("mine", {}), ("one", keys)):
        path = study_of(tmp_path, **given)
        trains.append(rows.configs(path, rows.load(path))[row].train)
    assert trains[0] == trains[1]


def test_repeated_images_get_names_of_their_own(tmp_path: Path) -> None:
    """Files of the same name would be written through a link into the dataset."""
    paths = [tmp_path / name for name in ("a.jpg", "a-again1.jpg", "a-again1-.jpg", "b.jpg")]
    made = list(folders._repeated(paths, 14))
    assert len({stem for _, stem in made}) == 14
    assert [stem for _, stem in made[:4]] == [path.stem for path in paths]
    (tmp_path / "raw").write_text("raw")
    files.link_or_copy(tmp_path / "raw", tmp_path / "linked")
    (tmp_path / "other").write_text("other")
    with pytest.raises(FileExistsError):
        files.link_or_copy(tmp_path / "other", tmp_path / "linked")
    assert (tmp_path / "raw").read_text() == "raw"


def test_two_studies_of_one_name_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("mine", "theirs"):
        (tmp_path / folder).mkdir()
    mine, theirs = (study_of(tmp_path / folder) for folder in ("mine", "theirs"))
    lock.note_config(Run(Place.of(mine).study), mine)
    with pytest.raises(ConfigError, match=r"was made by mine/study\.yaml, not by .*theirs/study\.yaml"):
        stage.main(theirs)


@pytest.mark.parametrize("phases", [[5], [1, 4], [2, 3, 9]])
@pytest.mark.parametrize("steps", [257, 400, 1000])
def test_every_trial_takes_the_budgeted_steps(phases: list[int], steps: int) -> None:
    study = Study.model_validate({"base": "x", "rows": {"a": {}}, "budget": {"steps": steps}})
    train = Train.model_validate({"batch": 4, "phases": [{"epochs": epochs} for epochs in phases]})
    got, length = rows.budgeted(study, train, 205)
    assert length is not None and got.phases is not None
    epochs = [phase.epochs for phase in got.phases]
    assert length % 4 == 0 and min(epochs) >= 1
    taken = length // 4 * sum(epochs)
    assert 0 <= taken - steps < sum(epochs)  # an epoch is a whole number of steps
    assert length >= 205  # every image is seen in every epoch, so the list of no trial is longer


@pytest.mark.parametrize("recipe", ["quick", "thorough"])
def test_a_trial_has_the_phases_of_its_recipe_instead_of_the_recipe(recipe: str) -> None:
    study = Study.model_validate({"base": "x", "rows": {"a": {}}, "budget": {"steps": 3000}})
    got, _ = rows.budgeted(study, Train.model_validate({"recipe": recipe}), 205)
    assert got.phases and sum(phase.epochs for phase in got.phases) == 3000 * 4 // 205
    assert Train.model_validate(got.model_dump(mode="json", exclude_unset=True)) == got  # as make reads it


def test_steps_that_do_not_show_every_image_are_refused() -> None:
    study = Study.model_validate({"base": "x", "rows": {"a": {}}, "budget": {"steps": 150}})
    train = Train.model_validate({"batch": 4, "phases": [{"epochs": 1}] * 3})
    with pytest.raises(ConfigError, match=r"steps: 150 steps of 4 images are 2 epochs of 205 .* write at least 154"):
        rows.budgeted(study, train, 205)
    needed = Study.model_validate({"base": "x", "rows": {"a": {}}, "budget": {"steps": 154}})
    assert rows.budgeted(needed, train, 205)[1] == 208


@pytest.mark.parametrize(
    ("phases", "steps", "needed"), [([1, 5], 150, 154), ([1, 20], 400, 564), ([2, 3, 9], 160, 205)]
)
def test_a_budget_that_would_distort_the_phases_is_refused(phases: list[int], steps: int, needed: int) -> None:
    """150 steps are two epochs: one of them with a frozen backbone would be half of the training instead of a sixth."""
    train = Train.model_validate({"batch": 4, "phases": [{"epochs": epochs} for epochs in phases]})

    def budgeted(steps: int) -> list[int]:
        study = Study.model_validate({"base": "x", "rows": {"a": {}}, "budget": {"steps": steps}})
        return [phase.epochs for phase in rows.budgeted(study, train, 205)[0].phases or ()]

    with pytest.raises(ConfigError, match=rf"of 205 images, too few for phases of .* write at least {needed}$"):
        budgeted(steps)
    with pytest.raises(ConfigError):
        budgeted(needed - 1)
    got = budgeted(needed)
    assert max(count / sum(got) / (part / sum(phases)) for count, part in zip(got, phases, strict=True)) <= 2 + 1e-9


def test_minutes_that_allow_no_epoch_are_refused() -> None:
    """Two phases take 10 s each besides their epochs of 5 s, so half a minute leaves 10 s for them."""
    study = Study.model_validate({"base": "x", "rows": {"a": {}}, "budget": {"minutes": 0.3}})
    train = Train.model_validate({"batch": 4, "phases": [{"epochs": 1}, {"epochs": 2}]})
    with pytest.raises(ConfigError, match=r"budget.minutes: 0.3 minutes are too short .* write at least 0.5$"):
        rows.budgeted(study, train, 205, [(10, 5), (10, 5)])
    enough = Study.model_validate({"base": "x", "rows": {"a": {}}, "budget": {"minutes": 0.5}})
    assert rows.budgeted(enough, train, 205, [(10, 5), (10, 5)])[0].phases is not None


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ({"tiles": {"size": 320}}, "a study cannot use `tiles`; write `every: {tiles: null}`"),
        ({"train": {"phases": [{"epochs": 9, "patience": 5}]}}, "`patience` may end a phase early"),
        ({"train": {"args": {"nbs": 64}}}, "a step is not one batch"),
        ({"train": {"recipe": "ultralytics"}}, "a step is not one batch"),
    ],
)
def test_what_a_study_cannot_hold_equal_is_refused(tmp_path: Path, base: dict[str, Any], said: str) -> None:
    path = study_of(tmp_path, budget={"steps": 300})
    config = tmp_path / "configs" / "tiny.yaml"
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), **base}))
    with pytest.raises(ConfigError, match=rf"rows.mine: {said}"):
        rows.load(path)


def test_epochs_are_distributed_in_proportion() -> None:
    assert rows.distributed(10, [1, 4]) == [2, 8]
    assert rows.distributed(2, [1, 4]) == [1, 1]
    assert rows.distributed(1, [1, 1, 1]) == [1, 1, 1]
    for total in range(3, 40):
        assert sum(rows.distributed(total, [2, 3, 9])) == total


def pool(images: int = 200, cluster_of: int = 1) -> Pool:
    """Every third image has a rare class, and every `cluster_of` images form a cluster."""
    names = [f"{number:03}.jpg" for number in range(images)]
    boxes = {
        name: Counter({"common": 5, **({"rare": 1} if number % 3 == 0 else {})}) for number, name in enumerate(names)
    }
    cluster = {name: number // cluster_of for number, name in enumerate(names)}
    return Pool(boxes, cluster, {name: name for name in names}, "judged", ("common", "rare"))


@pytest.mark.parametrize("seed", [0, 1, 5])
@pytest.mark.parametrize("cluster_of", [1, 4])
def test_shares_are_nested_stratified_and_grouped(seed: int, cluster_of: int) -> None:
    source = pool(cluster_of=cluster_of)
    drawn = subsets.draw(source, SHARES, seed)
    for (size, inner), (_, outer) in zip(list(drawn.items())[1:], list(drawn.items())[:-1], strict=False):
        assert set(inner) <= set(outer)
        assert len(inner) == pytest.approx(200 * size[1], abs=cluster_of)
        rare = sum("rare" in source.boxes[name] for name in inner)
        assert rare == pytest.approx(len(inner) * 67 / 200, abs=cluster_of + 1)
        whole = Counter(source.cluster[name] for name in inner)
        assert set(whole.values()) == {cluster_of}
    assert drawn[("share", 1.0)] == sorted(source.boxes)


def test_another_seed_draws_other_images_and_the_same_seed_the_same() -> None:
    source = pool()
    first, again, other = (subsets.draw(source, SHARES, seed) for seed in (0, 0, 1))
    assert first == again and first[SHARES[0]] != other[SHARES[0]]


def test_shots_are_nested_and_reach_each_class() -> None:
    source = pool(cluster_of=4)
    sizes = [("shots", float(shots)) for shots in (1, 3, 5, 10)]
    drawn = subsets.draw(source, sizes, 0)
    for smaller, larger in pairwise(sizes):
        assert set(drawn[smaller]) < set(drawn[larger])
    for size in sizes:
        counts = sum((source.boxes[name] for name in drawn[size]), Counter[str]())
        assert counts["rare"] == size[1] and counts["common"] >= size[1]
        clusters = [source.cluster[name] for name in drawn[size]]
        assert len(set(clusters)) == len(clusters)  # one image from each video before a second from any


def test_a_class_with_too_few_boxes_gives_all_it_has() -> None:
    source = pool(images=6)
    drawn = subsets.draw(source, [("shots", 30.0)], 0)
    assert len(drawn[("shots", 30.0)]) == 6


def test_the_digest_covers_images_and_labels() -> None:
    source = pool()
    names = sorted(source.boxes)[:5]
    before = subsets.counted(source, names)["sha256"]
    source.digest[names[2]] = "another label"
    assert subsets.counted(source, names)["sha256"] != before
    assert subsets.counted(source, names)["sha256"] == subsets.counted(source, names[::-1])["sha256"]


# --- results.jsonl --------------------------------------------------------------------------------


def line(key: str, **more: Any) -> Any:
    return {"key": key, **more}


def test_a_line_is_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    assert results.append(path, line("a", map50_95=0.5))
    assert not results.append(path, line("a", map50_95=0.7))
    assert results.append(path, line("b", map50_95=0.6))
    assert {key: line["map50_95"] for key, line in results.read(path).items()} == {"a": 0.5, "b": 0.6}


@pytest.mark.parametrize("cut", [2, 5, 20])
def test_a_line_truncated_by_a_kill_is_run_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "results.jsonl"
    for key in "ab":
        results.append(path, line(key, map50_95=0.5))
    path.write_bytes(path.read_bytes()[:-cut])
    assert set(results.read(path)) == {"a"}
    assert results.append(path, line("b", map50_95=0.5))
    assert set(results.read(path)) == {"a", "b"} and len(path.read_text().splitlines()) == 2


def test_a_whole_line_without_a_line_end_counts(tmp_path: Path) -> None:
    """Some editors and copies drop the last line end."""
    path = tmp_path / "results.jsonl"
    path.write_text('{"key": "a"}\n{"key": "b", "map50_95": 0.5}')
    assert set(results.read(path)) == {"a", "b"}
    assert results.append(path, line("c"))
    assert [json.loads(text)["key"] for text in path.read_text().splitlines()] == ["a", "b", "c"]


def test_an_image_whose_name_looks_like_a_copy_is_its_own_original() -> None:
    assert folders.original("cat-copy", {"cat", "cat-copy"}) == "cat-copy"
    assert folders.original("cat-copy1", {"cat", "cat-copy"}) == "cat"


@pytest.mark.parametrize("text", ["{\n", "[]\n", '{"row": "x"}\n', "\x00\x01\n", "3\n"])
def test_a_damaged_line_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"key": "a"}\n' + text + '{"key": "b"}\n')
    with pytest.raises(DataError, match=r"line 2 is damaged .*; delete it, and make study writes it again"):
        results.read(path)


def _write(path: Path) -> None:
    for number in range(25):
        results.append(path, line(str(number), by=os.getpid(), padding="x" * 5000))


def test_two_studies_with_one_file_count_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write, args=(path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    assert sorted(keys, key=int) == [str(number) for number in range(25)]


# --- A real study ---------------------------------------------------------------------------------


def test_a_real_study_runs_and_repeats_exactly(tiles: Path, start: Path, tmp_path: Path) -> None:
    """Two shares of one row, then again elsewhere, from a results file whose last line is truncated."""
    (tmp_path / "configs").mkdir()
    training = {"phases": [{"epochs": 1, "freeze": "backbone"}], "args": {"plots": False}}
    base = settings(tiles, start, train=training, augment={"copies": 0})
    (tmp_path / "configs" / "tiny.yaml").write_text(yaml.safe_dump(base))
    study = tmp_path / "pair.yaml"
    written = {
        "base": "configs/tiny.yaml",
        "rows": {"mine": None},
        "share": [0.5, 1],
        "seeds": 1,
        "budget": {"steps": 4},
    }
    study.write_text(yaml.safe_dump(written))
    assert "2 of 2 trials" in run(tmp_path, study)
    folder = tmp_path / "runs" / "studies" / "pair"
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [(line["row"], line["share"], line["images"], line["freeze"]) for line in lines] == [
        ("mine", 0.5, 4, [11]),
        ("mine", 1.0, 8, [11]),
    ]
    assert {line["list"] * sum(line["epochs"]) // line["batch"] for line in lines} == {4}  # equal steps
    assert all(len(line["drawn"]) == 300 and line["test_images"] == 3 for line in lines)
    page = (folder / "index.html").read_text()
    assert "<svg" in page and "http" not in page
    assert not list(folder.glob("trials/*/*/*/runs"))  # models and images are deleted
    listed = json.loads((folder / "subsets" / "seed0.json").read_text())
    assert set(listed["share0.5"]["files"]) < set(listed["share1"]["files"])

    kept = (folder / "results.jsonl").read_text()
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "results.jsonl").write_text(kept[:-10])
    assert "1 of 2 trials are already in" in run(tmp_path, study)
    first, again = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert first == lines[0] and again["drawn"] == lines[1]["drawn"]  # bit for bit


def test_a_sample_that_lacks_a_class_has_no_figure(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    """The mean over the other classes would be far from the mean over all, in every row alike."""
    run = copy_of(trained.run)
    path = run.ground_truth("test")
    truth = json.loads(path.read_text())
    [first, *_] = [image["id"] for image in truth["images"]]
    classes = [category["id"] for category in truth["categories"]]
    template = next(record for record in truth["annotations"] if record["image_id"] == first)
    kept = [record for record in truth["annotations"] if record["category_id"] != classes[0]]
    kept.append({**template, "id": 10_000, "category_id": classes[0]})  # the class is on one image alone
    path.write_text(json.dumps({**truth, "annotations": kept}))
    drawn = figures.of(run)["drawn"]
    draws = bootstrap.draws(len(truth["images"]), figures.DRAWS)
    present = [
        all(any(count and record["category_id"] == name for record in kept
                if (count := draw[record["image_id"] - first])) for name in {record["category_id"] for record in kept})
        for draw in draws
    ]  # fmt: skip
    assert [value is not None for value in drawn] == present
    assert 0 < sum(present) < len(present)


def run(folder: Path, study: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pipeline", "study", "--study", str(study.relative_to(folder)), *arguments]
    environment = make_environment(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout

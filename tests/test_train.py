"""Real trainings of YOLO26n on sixteen small images for two epochs."""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, Trained
from test_checkpoints import Hostile
from test_makefile import code_of

from pipeline import files, train
from pipeline.boxes import YoloDataset
from pipeline.config.training import Phase, Train
from pipeline.errors import ConfigError, DataError, PipelineError, WeightsError
from pipeline.files import read_json, sha256
from pipeline.run import Run
from pipeline.train import plan, resume, source
from pipeline.train.recipe import choose
from pipeline.upstream import checkpoints, environment


def do(run: Run, **settings: Any) -> str:
    base = {"weights": "yolo26n.yaml", "imgsz": 64, "phases": [{"epochs": 1}]}
    return train.main(Train.model_validate({**base, **settings}), run, 0, "cpu", 0)


def test_the_record_describes_the_training(trained: Trained) -> None:
    record = read_json(trained.run.train_record)
    assert [phase["epochs"] for phase in record["phases"]] == [1, 1]
    assert [phase["freeze"] for phase in record["phases"]] == [list(range(11)), []]
    first, second = record["phases"]
    assert second["lr0"] == pytest.approx(first["lr0"] / 2)
    assert first["lr0"] == pytest.approx(0.002 * 5 / (4 + 6))
    assert first["trainable_parameters"] < second["trainable_parameters"] == second["parameters"]
    start = Path(trained.config.train.weights)
    assert record["weights"] == {**record["weights"], "name": start.name, "sha256": sha256(start)}
    assert record["seconds"] == pytest.approx(sum(phase["seconds"] for phase in record["phases"]), abs=0.2)
    assert record["versions"]["ultralytics-opencv-headless"].startswith("8.4")
    frozen = first["proof"]["frozen_tensors"]
    assert f", frozen tensors proven unchanged ({frozen} in phase 1)" in trained.said["train"]


def test_frozen_tensors_of_the_saved_phase_equal_the_source_weights(trained: Trained) -> None:
    """An independent proof: tensors of the saved file against those of the source file."""
    import torch

    source, _ = checkpoints.load(Path(trained.config.train.weights))
    saved, _ = checkpoints.load(trained.run.train / "phase1" / "model.pt")
    ours, theirs = saved.state_dict(), source.state_dict()
    frozen = [name for name in theirs if re.match(r"model\.(\d|10)\.", name)]
    assert len(frozen) > 200
    for name in frozen:
        assert torch.equal(ours[name].half(), theirs[name].half()), name
    trainable = [name for name in ours if name.startswith("model.16.") and name.endswith("conv.weight")]
    assert any(not torch.equal(ours[name].half(), theirs[name].half()) for name in trainable)


def test_recorded_frozen_layers_are_those_ultralytics_froze(trained: Trained) -> None:
    """`trainable` comes from the parameters' requires_grad, `frozen` from our reading of Ultralytics' rule."""
    model, _ = checkpoints.load(trained.run.model)
    parameters = {name for name, _ in model.named_parameters()}
    for phase in ("phase1", "phase2"):
        digests = read_json(trained.run.train / phase / "digests.json")
        assert set(digests["trainable"]) == parameters - set(digests["frozen"])


def test_the_model_is_an_ordinary_checkpoint(trained: Trained) -> None:
    from ultralytics import YOLO

    model = YOLO(str(trained.run.model))
    assert list(model.names.values()) == ["open", "short", "mousebite", "spur", "pin hole", "spurious copper"]
    assert {path.name for path in trained.run.train.glob("phase2/*")} >= {"results.csv", "model.pt", "phase.json"}
    assert {path.name for path in trained.run.train.rglob("*.pt")} == {"model.pt"}


@pytest.mark.parametrize(
    ("fitness", "best"),
    [((0.3, 0.2), 1), ((0.3, 0.297), 2), ((0.3, 0.294), 1), ((None, None), 2)],
    ids=["first", "as good", "not as good", "unknown"],
)
def test_the_best_phase_becomes_the_model(
    trained: Trained, copy_of: Callable[[Run], Run], fitness: tuple[float | None, ...], best: int
) -> None:
    """A training that was killed between its last phase and the choice, with other fitness written into the phases."""
    run, config, seed = copy_of(trained.run), trained.config.train, trained.config.seed
    data = YoloDataset.read(run.augmented / "data.yaml")
    files.write_json(run.train / "unfinished.json", resume.beginning(config, seed, source.find(config), None, data))
    phases = [run.train / f"phase{number}" for number in (1, 2)]
    for folder, value in zip(phases, fitness, strict=True):
        files.write_json(folder / "phase.json", read_json(folder / "phase.json") | {"best_fitness": value})
    models = [sha256(folder / "model.pt") for folder in phases]
    train.main(config, run, seed, "cpu", 0)
    assert [sha256(folder / "model.pt") for folder in phases] == models and models[0] != models[1]
    assert read_json(run.train_record)["best_phase"] == best
    assert sha256(run.model) == models[best - 1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"args": {"lr1": 3}}, r"train\.args\.lr1: not a training argument of Ultralytics; did you mean 'lrf'"),
        ({"args": {"distill_model": "yolo26n.yaml"}}, r"train\.args\.distill_model: yolo26n\.yaml: a teacher needs"),
        ({"args": {"freeze": 3}}, r"train\.args\.freeze: is set by the pipeline; set train\.phases instead"),
        ({"args": {"imgsz": 3, "bath": 3}}, r"train\.args\.imgsz: is set by the pipeline.*\ntrain\.args\.bath: not a training argument"),
        ({"args": {"mosaic": "much"}}, r"train\.args: .*mosaic"),
        ({"phases": [{"epochs": 1}, {"epochs": 1, "freeze": ["backbon"]}]}, r"train\.phases\.1\.freeze: 'backbon' is not in the model"),
        ({"weights": "yolo99n.yaml"}, r"train\.weights: yolo99n\.yaml"),
    ],
)  # fmt: skip
def test_errors_are_reported_before_training(
    trained: Trained, copy_of: Callable[[Run], Run], settings: Any, said: str
) -> None:
    run = copy_of(trained.run)
    before = {path: path.stat().st_mtime_ns for path in run.root.rglob("*")}
    with pytest.raises(ConfigError, match=said):
        do(run, **settings)
    assert before == {path: path.stat().st_mtime_ns for path in run.root.rglob("*")}


def test_a_run_does_not_train_from_its_own_model(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    """Each training would change its own source, and so cause the next one."""
    run = copy_of(trained.run)
    for settings in ({"weights": str(run.model)}, {"args": {"distill_model": str(run.model)}}):
        with pytest.raises(ConfigError, match=r"tiny/model\.pt is what this config trains; copy it to data/weights"):
            do(run, **settings)
    do(run, weights=str(trained.run.model))


def test_code_in_the_checkpoint_of_an_unproven_phase_is_not_run(
    trained: Trained, copy_of: Callable[[Run], Run], tmp_path: Path
) -> None:
    from pipeline.train import phase

    folder = resume.PhaseFolder.of(copy_of(trained.run), 1)
    torch.save({"model": Hostile(tmp_path / "ran")}, folder.best_epoch)
    with pytest.raises(PipelineError, match="get it again from a source that you trust"):
        phase._prove_and_save(folder)
    assert not (tmp_path / "ran").exists()


def test_missing_weights_or_data_are_reported(trained: Trained, copy_of: Callable[[Run], Run], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        do(copy_of(trained.run), weights="nowhere/x.pt")
    with pytest.raises(DataError, match=r"augmented/data\.yaml: does not exist"):
        do(Run(tmp_path / "empty"))


def test_a_missing_device_is_reported(trained: Trained) -> None:
    import torch

    apple = [] if torch.backends.mps.is_available() else ["mps"]
    for device in ("klingon", "tpu", *apple, str(torch.cuda.device_count() + 7)):
        with pytest.raises(PipelineError, match=rf"--device {device}: this machine has no such device") as error:
            train.main(Train(), trained.run, 0, device, 0)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"recipe": "thorough", "args": {"val": False}}, r"train\.recipe: thorough needs `val`, which ends it; remove"),
        ({"l2_sp": 10}, r"train\.l2_sp: yolo26n\.yaml has no trained weights to stay near; set l2_sp to 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, settings: Any, said: str) -> None:
    environment.prepare()
    config = Train.model_validate({"weights": "yolo26n.yaml", **settings})
    with pytest.raises(ConfigError, match=said):
        plan.phases(config, choose(config, 16), source.find(config), Run(tmp_path))


def test_training_is_not_repeated_if_nothing_changed(
    trained: Trained, copy_of: Callable[[Run], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    """An edit of the config that was undone leaves a newer file behind, by which make would train again."""
    run, config = copy_of(trained.run), trained.config
    dates, old = phase_dates(run), run.model.stat().st_mtime_ns
    said = train.main(config.train, run, config.seed, "cpu", 0)
    assert said == f"nothing has changed since {run.model} was trained; to train it again, delete it first"
    assert phase_dates(run) == dates and run.model.stat().st_mtime_ns > old
    assert sha256(run.model) == sha256(trained.run.model) and not capsys.readouterr().out

    train.main(config.train, run, config.seed + 1, "cpu", 0)
    assert f"; this will replace {run.model}, because seed changed" in capsys.readouterr().out
    assert phase_dates(run) != dates


def test_an_image_of_equal_size_counts_as_another(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run, config = copy_of(trained.run), trained.config
    start = source.find(config.train)

    def is_current() -> bool:
        data = YoloDataset.read(run.augmented / "data.yaml")
        return resume.is_current(run, resume.beginning(config.train, config.seed, start, None, data), data)

    assert is_current()
    image = YoloDataset.read(run.augmented / "data.yaml").files("val")[0]
    content = bytearray(image.read_bytes())
    content[-3] ^= 1
    image.unlink()  # it may be a hard link
    image.write_bytes(content)
    assert not is_current()


def phase_dates(run: Run) -> list[int]:
    return [(run.train / f"phase{number}" / "model.pt").stat().st_mtime_ns for number in (1, 2)]


def test_a_training_stopped_at_the_last_step_resumes_there(
    trained: Trained, copy_of: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No room for model.pt: the phases are kept. The same training reuses them, another starts over."""
    run, config = copy_of(trained.run), trained.config
    run.model.unlink()  # otherwise nothing has changed since it was trained
    copy = files.copy

    def full_disk(source: Path, target: Path) -> None:
        if target == run.model:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        copy(source, target)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(files, "copy", full_disk)
        train.main(config.train, run, config.seed, "cpu", 0)
    dates = phase_dates(run)
    assert dates != phase_dates(trained.run)  # a finished training is not resumed

    train.main(config.train, run, config.seed, "cpu", 0)
    assert phase_dates(run) == dates
    assert not (run.train / "unfinished.json").exists()

    for name in ("train0", "train1"):
        shutil.copytree(run.root, run.root.with_name(name))
    label = next((run.root.with_name("train0") / "augmented" / "labels" / "train").glob("*.txt"))
    text = label.read_text()
    label.unlink()  # it may be a hard link
    label.write_text(text + "0 0.5 0.5 0.1 0.1\n")
    first = resume.data_digest(YoloDataset.read(run.root.with_name("train0") / "augmented" / "data.yaml"))
    second = resume.data_digest(YoloDataset.read(run.root.with_name("train1") / "augmented" / "data.yaml"))
    assert first != second


def test_a_line_says_why_unfinished_training_is_discarded(
    trained: Trained, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, start = YoloDataset.read(trained.run.augmented / "data.yaml"), trained.config.train.weights

    def said(seed: int = 0, **changes: Any) -> str:
        config = Train.model_validate({"weights": start, "imgsz": 64, **changes})
        resume.continue_or_clear(run, resume.beginning(config, seed, source.find(config), None, data), {})
        line = capsys.readouterr().out
        files.write_json(resume.PhaseFolder.of(run, 1).progress, {"epochs": 1})
        return line

    discarded = "train: the unfinished training is discarded, because {} changed\n"
    assert said() == said() == ""  # the first one, and the same again
    assert said(args={"fliplr": 0}, batch=2) == discarded.format("train.batch and train.args")
    assert said(args={"fliplr": 0}, batch=2, seed=1) == discarded.format("seed")
    assert said(weights=str(trained.run.model)) == discarded.format(
        "train.weights and train.batch and train.args and seed"
    )
    with monkeypatch.context() as patch:
        patch.setattr(resume, "CODE", resume.CODE[1:])
        patch.setattr(resume, "data_digest", lambda _: "another")
        found = discarded.format("the images or labels and the code of the pipeline")
        assert said(weights=str(trained.run.model)) == found
    resume.PhaseFolder.of(run, 1).progress.unlink()
    assert said() == ""  # no epoch is lost


def test_the_code_digest_covers_all_that_the_stage_imports() -> None:
    assert {path.relative_to(ROOT).as_posix() for path in resume.CODE} == code_of("train")


def test_the_trainer_can_be_unpickled_in_other_processes(tmp_path: Path) -> None:
    """Ultralytics sends the trainer's class by cloudpickle to processes that only share sys.path."""
    environment.prepare()
    import cloudpickle
    import torch

    from pipeline.train.trainer import trainer_class

    config = Train(weights="yolo26n.yaml", phases=(Phase(epochs=2, freeze=(0,)),), ema=0.5)
    [phase] = plan.phases(config, choose(config, 16), source.find(config), Run(tmp_path))
    kind = trainer_class(phase, resume.PhaseFolder(tmp_path), resume.Stopwatch())
    torch.save({"trainer": kind}, tmp_path / "state.pt", pickle_module=cloudpickle)
    code = (
        "import sys; from ultralytics.utils.patches import torch_load\n"
        "kind = torch_load(sys.argv[1], map_location='cpu')['trainer']\n"
        "assert (kind.plan.freeze, kind.plan.ema, str(kind.folder.root)) == ((0,), 0.5, sys.argv[2])\n"
        "print(list(dict.fromkeys(base.__name__ for base in kind.__mro__))[:3])"
    )
    line = [sys.executable, "-c", code, str(tmp_path / "state.pt"), str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['PhaseTrainer', 'CpuTrainer', 'DetectionTrainer']"


def test_a_saved_model_that_differs_in_frozen_layers_is_reported(
    trained: Trained, copy_of: Callable[[Run], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, load = copy_of(trained.run), checkpoints.load

    def damaged(path: Path) -> Any:
        model, checkpoint = load(path)
        if path.name == ".model.partial.pt":
            model.state_dict()["model.0.conv.weight"].add_(1)
        return model, checkpoint

    monkeypatch.setattr(checkpoints, "load", damaged)
    said = (
        rf"^{run.train}/phase1/model\.pt: 1 frozen tensor changed in training, for example model\.0\.conv\.weight, so"
    )
    with pytest.raises(PipelineError, match=said):
        do(run, weights=trained.config.train.weights, phases=[{"epochs": 1, "freeze": "backbone"}])
    assert not list((run.train / "phase1").glob("*model*"))

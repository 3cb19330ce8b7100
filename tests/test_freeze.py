from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Trained

from pipeline import files, report
from pipeline.errors import ConfigError, PipelineError
from pipeline.run import Run
from pipeline.train import freeze
from pipeline.upstream import checkpoints, environment


@pytest.fixture(scope="module")
def model() -> Iterator[Any]:
    environment.prepare()
    from ultralytics.nn.tasks import DetectionModel

    yield DetectionModel("yolo26n.yaml", nc=3, verbose=False)


def test_the_backbone_of_yolo26_has_eleven_layers(model: Any) -> None:
    """Layers 0-10: the last, C2PSA, would stay trainable with `freeze: 10`."""
    assert freeze.resolve("backbone", model, "x") == list(range(11))
    assert freeze.resolve(10, model, "x") == list(range(10))
    assert freeze.resolve("none", model, "x") == freeze.resolve(0, model, "x") == []


def test_layers_are_selected_by_name_or_index(model: Any) -> None:
    assert freeze.resolve((0, "1", "model.23.cv2", "23.one2one_cv3."), model, "x") == [
        0,
        1,
        "23.cv2",
        "23.one2one_cv3",
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ("backbon",),
            r"x: 'backbon' is not in the model; did you mean 'backbone'\?; layers are 0 to 23, parts look like ",
        ),
        ((24,), r"x: 24 is not in the model"),
        (("23.cv9",), r"x: '23\.cv9' is not in the model; did you mean '23\.cv3'\?"),
        (("12",), r"x: '12' has no weights to freeze"),
        (25, r"x: 25 layers, but the model has 24 \(0 to 23\)"),
        (24, r"x: freezes the whole model and leaves nothing to train"),
        ((*range(11), 13, 14), r"x: 14 has no weights to freeze; remove it"),
        ((*range(11), 13, 16, 17, 19, 20, 22, 23), r"x: freezes the whole model and leaves nothing to train"),
    ],
)
def test_unusable_selectors_are_refused(model: Any, given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        freeze.resolve(given, model, "x")


def test_freezing_a_part_of_the_head_leaves_its_twin_free(model: Any) -> None:
    """Ultralytics matches substrings, and the head has both cv2 and one2one_cv2."""
    names = freeze.frozen_names(["23.cv2"], [name for name, _ in model.named_parameters()])
    assert names and all(name.startswith("model.23.cv2.") for name in names)


@pytest.fixture
def before(model: Any) -> dict[str, dict[str, str]]:
    names = list(model.state_dict())
    frozen = freeze.frozen_names(range(11), names)
    return {
        "frozen": freeze.digests(model, frozen),
        "trainable": freeze.digests(model, [name for name, _ in model.named_parameters() if name not in frozen]),
    }


@pytest.mark.parametrize(
    "name", ["model.0.conv.weight", "model.10.cv1.bn.running_mean", "model.3.bn.num_batches_tracked"]
)
def test_any_change_to_a_frozen_parameter_or_buffer_is_found(model: Any, before: Any, name: str) -> None:
    snapshot = freeze.snapshot(model, range(11))
    assert freeze.moved(snapshot, model) == []
    tensor = model.state_dict()[name]
    original = tensor.clone()
    head = model.state_dict()["model.23.cv2.0.0.conv.weight"]
    head += 0.01
    try:
        assert freeze.prove(before, model)["trainable_changed"] == 1
        tensor.view(-1)[0] += 1
        assert freeze.moved(snapshot, model) == [name]
        with pytest.raises(PipelineError, match=rf"^1 frozen tensor changed in training, for example {name}, so"):
            freeze.prove(before, model)
        other = next(iter(set(before["frozen"]) - {name}))
        before["frozen"][other] = "of something else"
        with pytest.raises(PipelineError, match=r"^2 frozen tensors changed in training, for example model\."):
            freeze.prove(before, model)
    finally:
        tensor.copy_(original)
        head -= 0.01


def test_a_training_that_changed_no_weight_is_refused(model: Any, before: Any) -> None:
    with pytest.raises(PipelineError, match="changed no weight"):
        freeze.prove(before, model)


def test_averaging_leaves_frozen_tensors_unchanged(before: Any, model: Any) -> None:
    from ultralytics.utils.torch_utils import ModelEMA

    weight = model.state_dict()["model.7.conv.weight"]
    original = weight.clone()
    weight.view(-1)[0] = -0.0
    snapshot, kept = freeze.snapshot(model, range(11)), freeze.digests(model, before["frozen"])
    average = ModelEMA(model, decay=0.9, tau=1)
    for _ in range(100):
        average.update(model)
    weight.copy_(original)
    assert freeze.digests(average.ema, before["frozen"]) != kept  # otherwise this test proves nothing
    freeze.restore(snapshot, average.ema)
    assert freeze.digests(average.ema, before["frozen"]) == kept


def overall_digest(path: Path) -> str:
    """The digest over all tensors of layers 0 to 10 of a checkpoint in half precision, reimplemented."""
    state = checkpoints.load(path)[0].state_dict()
    lines = ""
    for name in sorted(name for name in state if int(name.split(".")[1]) < 11):
        tensor = state[name].half() if state[name].is_floating_point() else state[name]
        lines += f"{name} {hashlib.sha256(tensor.numpy().tobytes()).hexdigest()}\n"
    return hashlib.sha256(lines.encode()).hexdigest()


def test_the_proof_covers_the_weights_before_training_and_the_saved_ones(trained: Trained) -> None:
    proof = files.read_json(trained.run.train_record)["phases"][0]["proof"]
    assert proof["frozen_sha256_before"] == overall_digest(Path(trained.config.train.weights))
    assert proof["frozen_sha256_after"] == overall_digest(trained.run.train / "phase1" / "model.pt")


def test_the_report_shows_proven_only_for_equal_digests(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    page = run.report / "index.html"
    assert "<td>proven</td>" in page.read_text(encoding="utf-8")
    record = files.read_json(run.train_record)
    record["phases"][0]["proof"]["frozen_sha256_after"] = "0" * 64
    files.write_json(run.train_record, record)
    report.main(trained.config.report, run)
    assert "<td>NO</td>" in page.read_text(encoding="utf-8") and "<td>proven</td>" not in page.read_text()

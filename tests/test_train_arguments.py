"""`train.args`: every Ultralytics key is handled, and nothing given is silently dropped."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import IMGSZ, Trained

from pipeline import train
from pipeline.config.training import Train
from pipeline.errors import ConfigError
from pipeline.files import read_json
from pipeline.run import Run
from pipeline.train import arguments
from pipeline.upstream import environment


@pytest.fixture(autouse=True, scope="module")
def prepared() -> None:
    environment.prepare()


def test_every_key_of_the_installed_ultralytics_is_classified_once() -> None:
    from ultralytics.cfg import DEFAULT_CFG_DICT

    tables = (set(arguments.OURS), set(arguments.REFUSED), set(arguments.ALLOWED))
    decided = [key for table in tables for key in table]
    assert len(decided) == len(set(decided))
    # `augmentations` is Ultralytics' too, but not among its defaults (cfg/__init__.py, `check_dict_alignment`).
    assert set(decided) == {*DEFAULT_CFG_DICT, "augmentations"}


def test_augmentation_keys_are_those_ultralytics_reads_for_training_images() -> None:
    """What its transforms read from the settings, minus what concerns other tasks."""
    import inspect
    import re

    from ultralytics.data import augment, dataset

    text = inspect.getsource(augment.v8_transforms) + inspect.getsource(dataset.YOLODataset.close_mosaic)
    read = set(re.findall(r"hyp\.(\w+)", text)) | set(re.findall(r'getattr\(hyp, "(\w+)"', text))
    assert read - set(arguments.REFUSED) <= arguments.AUGMENTATIONS
    assert arguments.AUGMENTATIONS - read <= {"bgr", "close_mosaic"}  # read elsewhere


def test_what_close_mosaic_turns_off_is_what_ultralytics_turns_off() -> None:
    import inspect
    import re

    from ultralytics.data import dataset

    read = set(re.findall(r"hyp\.(\w+) = 0", inspect.getsource(dataset.YOLODataset.close_mosaic)))
    assert read - set(arguments.REFUSED) == arguments.CLOSED <= arguments.AUGMENTATIONS


# Each with the alternative that the error names. Written out here, so that a key that is moved to another table fails.
GUARANTEED = {
    **dict.fromkeys(("split", "data"), "set convert.s"),
    **dict.fromkeys(("classes", "single_cls"), "in convert.classes"),
    "fraction": "remove images from the source",
    **dict.fromkeys(("time", "epochs", "freeze", "patience"), "set train.phases"),
    **dict.fromkeys(("model", "pretrained"), "set train.weights"),
    **{key: f"set train.{key} instead" for key in ("imgsz", "batch", "lr0")},
    **{key: f"set validate.{key}" for key in ("conf", "iou", "max_det")},
    **{key: f"set --{key} instead" for key in ("device", "workers")},
    "seed": "set seed instead",
    **dict.fromkeys(("project", "name", "exist_ok", "resume", "save", "mode", "task", "cfg"), "the name of the config"),
    "save_period": "resumes without them",
    **dict.fromkeys(("quantize", "nms", "dynamic", "opset", "simplify", "format"), "export.targets"),
    "profile": "run `make bench-export`",
}


@pytest.mark.parametrize("key", GUARANTEED)
def test_keys_that_would_break_a_guarantee_are_refused_with_an_alternative(key: str) -> None:
    with pytest.raises(ConfigError) as error:
        arguments.check({key: 1}, "auto")
    text = str(error.value)
    assert text.startswith(f"train.args.{key}: ") and GUARANTEED[key] in text


@pytest.mark.parametrize("key", sorted(arguments.REFUSED))
def test_a_refusal_is_one_line(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^train\.args\.{key}: [^\n{{]+$"):
        arguments.check({key: 1}, "auto")


# And `augmentations`, which has no default.
FREE = """
amp bgr box cache channels_last close_mosaic cls cls_pw cls_remap compile cos_lr cutmix degrees deterministic dfl dis
distill_model fliplr flipud hsv_h hsv_s hsv_v lrf mixup momentum mosaic multi_scale nbs optimizer perspective plots rect
scale shear translate val verbose warmup_bias_lr warmup_epochs warmup_momentum weight_decay
"""


@pytest.mark.parametrize("key", FREE.split())
def test_allowed_keys_accept_ultralytics_default(key: str) -> None:
    from ultralytics.cfg import DEFAULT_CFG_DICT

    value = DEFAULT_CFG_DICT[key]
    arguments.check({key: "AdamW" if value == "auto" else value}, "auto")


@pytest.mark.parametrize("name", ["auto", "Auto", "AUTO"])
@pytest.mark.parametrize("recipe", ["auto", "quick", "thorough"])
def test_an_optimizer_that_ignores_the_rates_of_the_recipe_is_refused(recipe: str, name: str) -> None:
    with pytest.raises(ConfigError, match=r"^train\.args\.optimizer: auto ignores the rate of a phase; name one"):
        arguments.check({"optimizer": name}, recipe)
    arguments.check({"optimizer": name}, "ultralytics")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"args": {"split": "test"}}, r"^train\.args\.split: the best epoch is chosen on val alone"),
        ({"args": {"optimizer": "auto"}}, r"^train\.args\.optimizer: auto ignores the rate of a phase; name one"),
        (
            {"args": {"rect": True}, "phases": [{"epochs": 2, "freeze": "backbone"}]},
            r"^train\.args\.rect: a phase with cached features trains on square images",
        ),
        (
            {"args": {"val": False}, "phases": [{"epochs": 2, "patience": 1}]},
            r"^train\.phases\.0\.patience: needs `val`; remove `val: false`",
        ),
    ],
)
def test_unusable_arguments_are_refused_before_the_first_step(
    trained: Trained, run: Run, settings: dict[str, object], said: str
) -> None:
    run.root.mkdir(parents=True)
    run.augmented.symlink_to(trained.run.augmented)
    base = {"weights": str(trained.run.model), "imgsz": IMGSZ, "phases": [{"epochs": 1}]}
    with pytest.raises(ConfigError, match=said):
        train.main(Train.model_validate({**base, **settings}), run, 0, "cpu", None)
    assert not run.train.exists()


@pytest.mark.parametrize(
    ("args", "epochs", "reported"),
    [
        ({"mosaic": 0.5, "mixup": 0.1, "fliplr": 0.5}, 10, ["mixup", "mosaic"]),
        ({"mosaic": 0.5}, 11, []),
        ({"cutmix": 0.5, "close_mosaic": 2}, 3, []),
        ({"cutmix": 0.5, "close_mosaic": 2}, 2, ["cutmix"]),
        ({"mosaic": 0.5, "close_mosaic": 0}, 1, []),
        ({"mosaic": 0}, 1, []),  # as wanted
    ],
)
def test_a_phase_no_longer_than_close_mosaic_has_no_mosaic(
    args: dict[str, float], epochs: int, reported: list[str]
) -> None:
    from ultralytics.cfg import DEFAULT_CFG_DICT

    assert arguments.without_effect(args, epochs, cached=False) == reported
    assert DEFAULT_CFG_DICT["close_mosaic"] == arguments.CLOSE_MOSAIC


def test_augmentations_without_effect_are_reported(
    trained: Trained, start: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A phase on cached features sees each image unchanged, and a short one has no mosaic by Ultralytics' default."""
    run.root.mkdir(parents=True)
    run.augmented.symlink_to(trained.run.augmented)
    phases = ({"epochs": 2, "freeze": "backbone"}, {"epochs": 1})
    args = {"plots": False, "mosaic": 0.5, "flipud": 0.5, "fliplr": 0, "cls_remap": False}
    settings = {"weights": str(start), "imgsz": IMGSZ, "phases": phases, "args": args}
    said = train.main(Train.model_validate(settings), run, 0, "cpu", None)
    assert (
        "; phase 1 trained on cached features, without flipud, mosaic; phase 2 trained without mosaic, because it is no "
        "longer than close_mosaic (`close_mosaic: 0` in train.args keeps it) -> "
    ) in said
    record = read_json(run.train_record)
    assert [phase["without_effect"] for phase in record["phases"]] == [["flipud", "mosaic"], ["mosaic"]]
    assert record["classes_kept"] == []  # cls_remap
    del args["flipud"], args["mosaic"]
    again = Train.model_validate({**settings, "args": args})
    assert train.main(again, run, 0, "cpu", 2).partition("; ")[2].startswith("--workers has no effect on a CPU -> ")
    assert read_json(run.train_record)["phases"][0]["without_effect"] == []

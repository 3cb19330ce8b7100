"""The installed libraries still have and use what we override and access.

If a library renamed a method, our override would never be called; if it renamed an attribute, the value we set would
never be read. Nothing would fail, but the effect would be gone. New classes, methods and private names of ours are
found and tested automatically.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import upstream
from conftest import IMGSZ, ROOT, Trained, train_tiny

import pipeline.upstream
from pipeline.boxes import YoloDataset
from pipeline.config.judging import Validate
from pipeline.run import Run
from pipeline.upstream import environment

PACKAGE = ROOT / "pipeline"
LIBRARIES = ("ultralytics", "fiftyone", "albumentations")
# Our methods that override nothing.
OWN = {"FixedDataset.of", "FixedDataset.image", "InProcessLoader.of"}
OWN |= {"Shortened._refuse_blank_images"}

# What we read or call: the class has it or sets it. What our classes access on `self` is found automatically.
READ = {
    "albumentations.RandomBrightnessContrast": "InitSchema _targets targets_as_params",
    "albumentations.core.composition.Compose": "processors set_random_state",
    "albumentations.core.label_manager.LabelManager": "process_field",
    "albumentations.core.type_definitions.Targets": "BBOXES",
    "albumentations.core.utils.DataProcessor": "label_manager",
    "fiftyone.core.view.DatasetView": "_stages",
    "fiftyone.core.dataset.Dataset": "_doc _sample_collection add_sample_field app_config info persistent slug",
    "fiftyone.core.labels.Detection": "to_dict",
    "fiftyone.core.odm.database": "_db_service",
    "fiftyone.core.odm.dataset.DatasetDocument": "id",
    "fiftyone.core.sample.Sample": "to_mongo_dict",
    "fiftyone.core.session.session": "_server_services",
    "fiftyone.core.session.session.Session": "close wait",
    "fiftyone.utils.eval.coco": "_compute_pr_curves",
    "fiftyone.utils.eval.coco.COCOEvaluation": "register_run save_run_results",
    "torch.nn.modules.batchnorm": "_BatchNorm",
    "torch.utils.deterministic": "fill_uninitialized_memory",
    "ultralytics.data.YOLODataset": "batch_size buffer im_files imgsz load_image",
    "ultralytics.data.build.InfiniteDataLoader": "close dataset generator num_workers reset",
    "ultralytics.engine.model.Model": "ckpt export names predict predictor train",
    "ultralytics.engine.results.Results": "boxes speed",
    "ultralytics.engine.trainer.BaseTrainer": "add_callback ema epoch lf model optimizer start_epoch stop train_loader",
    "ultralytics.engine.validator.BaseValidator": "args dataloader match_predictions",
    "ultralytics.nn.backends.base.BaseBackend": "end2end",
    "ultralytics.nn.distill_model.DistillationModel": "student_model teacher_model",
    "ultralytics.nn.tasks.DetectionModel": "criterion fuse init_criterion loss predict",
    "ultralytics.utils.loss.E2ELoss": "final_o2m o2m o2m_copy o2o",
    "ultralytics.utils.metrics.DetMetrics": "box process update_stats",
    "ultralytics.utils.metrics.Metric": "map map50",
    "ultralytics.utils.torch_utils.ModelEMA": "decay ema",
}
# What we set or replace: their code reads it. For Ultralytics, the docstring of `pipeline.upstream` lists it.
SET = {
    "albumentations.augmentations.geometric.functional": "mask_to_bboxes",
    "albumentations.core.bbox_utils.BboxProcessor": "check filter label_manager",
    "fiftyone.core.session.session": "_server_services",
    # `_View` stands in for a view of samples.
    "fiftyone.utils.eval.coco._compute_pr_curves": "_handle_frame_field iter_samples select_fields",
}
LISTED = re.findall(r"^    ([\w.]+)\.(\w+) {2,}\S", pipeline.upstream.__doc__ or "", re.M)


@pytest.fixture(autouse=True)
def prepared(own_database: None) -> None:
    environment.prepare()


def assert_none(problems: Iterable[str]) -> None:
    found = sorted(problems)
    assert not found, "\n".join(found)


def test_every_override_matches_its_base() -> None:
    ours = upstream.our_classes(PACKAGE, LIBRARIES)
    assert {"PhaseTrainer", "StarterTrainer", "BothPredictor"} <= {
        found.node.name for found in ours
    }  # defined inside functions
    assert_none(complaint for found in ours for complaint in upstream.complaints(found, OWN))


def test_every_override_is_called(trained: Trained, copy_of: Callable[[Run], Run], start: Path, tmp_path: Path) -> None:
    """Called by the library itself, in a real training, validation and prediction."""
    from ultralytics import YOLO

    from pipeline.export import gate
    from pipeline.extras.starter.trainer import trainer_class
    from pipeline.validate import predict

    run = copy_of(trained.run)
    images = YoloDataset.read(run.dataset / "data.yaml").files("val")[:1]
    with upstream.recorded(PACKAGE) as seen:
        phase, settings = {"epochs": 1, "freeze": "backbone"}, {"cache_features": True, "precision": "bf16"}
        train_tiny(run, start, phase, **settings, args={"plots": True})
        predict.predict(YOLO(str(run.model)), images, IMGSZ, Validate(), "cpu", "")
        gate._predict(run.model, images, IMGSZ, False)
        starter = trainer_class(tmp_path / "resume.pt", tmp_path / "progress.json", 0.0)
        where = {"data": str(run.augmented / "data.yaml"), "save_dir": str(tmp_path / "starter"), "device": "cpu"}
        given = {"epochs": 1, "imgsz": IMGSZ, "fraction": 0.25, "plots": False, "exist_ok": True}
        YOLO(str(start)).train(starter, **given, **where)
    # FiftyOne's server needs its database; tests/test_inspect.py starts it.
    assert_none(uncalled(upstream.our_classes(PACKAGE, ("ultralytics", "albumentations")), seen))


def uncalled(classes: list[upstream.OurClass], seen: set[tuple[str, int]]) -> list[str]:
    """Overrides missing from the functions in `seen`."""
    places = {
        f"{found.node.name}.{node.name}": (
            str(found.file),
            min([node.lineno, *(one.lineno for one in node.decorator_list)]),
        )
        for found in classes
        for node in found.methods
    }
    return [label for label, place in places.items() if label not in OWN and place not in seen]


@pytest.mark.parametrize(("table", "holds"), [(READ, upstream.has), (SET, upstream.looks_at)], ids=["read", "set"])
def test_what_we_access_exists(table: dict[str, str], holds: Callable[[Any, str], bool]) -> None:
    touched = [(owner, name) for owner, names in table.items() for name in names.split()]
    assert_none(f"{owner}: {name}" for owner, name in touched if not holds(upstream.here(owner), name))


def test_a_model_has_what_we_use() -> None:
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils.loss import E2ELoss

    model = DetectionModel("yolo26n.yaml", nc=3, verbose=False)
    assert model.yaml["backbone"] and model.stride.max() == 32 and len(model.names) == 3
    assert [layer.i for layer in model.model] == list(range(24)) and model.model[0].f == -1
    model.args = get_cfg()
    assert (
        type(model.init_criterion()) is E2ELoss
    )  # with another criterion, a short phase would weigh the heads unequally


def test_the_list_of_private_names_matches_the_installed_version() -> None:
    assert len(LISTED) > 15
    for owner, name in LISTED:
        holds = upstream.has if name.startswith("_") else upstream.looks_at
        assert holds(upstream.here(f"ultralytics.{owner}"), name), f"{owner}.{name}"


def test_the_list_of_private_names_matches_our_code() -> None:
    listed = {name for _, name in LISTED}
    ours = upstream.our_classes(PACKAGE, ("ultralytics",))
    assert_none({name for found in ours for name in upstream.private(found, OWN)} - listed)
    elsewhere = {name for table in (READ, SET) for names in table.values() for name in names.split()}
    # From the standard library: documented or, in argparse, as old as the module.
    elsewhere |= {"_replace", "_exit", "_actions", "_SubParsersAction"}
    known = listed | elsewhere
    assert_none(f"{place}: {name}" for name, place in upstream.private_names(PACKAGE) if name not in known)
    assert_none(f"{name}: listed, and not used" for name in listed - upstream.identifiers(PACKAGE))


def test_only_upstream_and_train_modify_ultralytics() -> None:
    assert_none(
        f"{file.relative_to(PACKAGE)}: {what}"
        for file, what in upstream.changes(PACKAGE, "ultralytics")
        if file.relative_to(PACKAGE).parts[0] not in ("upstream", "train")
    )


def test_what_we_import_exists() -> None:
    names = {name for _, tree in upstream.trees(PACKAGE) for name, _ in upstream.imports(tree)}
    for name in sorted(name for name in names if name.split(".")[0] in LIBRARIES):
        upstream.here(name)


def test_environment_variables_and_events_exist_in_the_libraries() -> None:
    """The libraries silently ignore unknown names."""
    from ultralytics.utils.callbacks import default_callbacks

    texts = [
        node.value for _, tree in upstream.trees(PACKAGE) for node in ast.walk(tree) if isinstance(node, ast.Constant)
    ]
    ours = " ".join(text for text in texts if isinstance(text, str))
    events = {text for text in texts if isinstance(text, str) and re.fullmatch("on_[a-z]+_[a-z_]+", text)}
    assert events
    assert_none(events - set(default_callbacks))
    variables = set(re.findall(r"\b(?:YOLO|ULTRALYTICS|FIFTYONE|NO_ALBUMENTATIONS)_[A-Z_]+\b", ours))
    assert len(variables) > 8
    for library in LIBRARIES:
        spec = find_spec(library)
        assert spec is not None and spec.origin is not None
        for path in Path(spec.origin).parent.rglob("*.py"):
            code = path.read_text(encoding="utf-8")
            variables -= {name for name in variables if f'"{name}"' in code}
    assert_none(variables)


# --- The tests above can fail ---


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("from ultralytics.engine.trainer import BaseTrainer\n\ndef make():\n    class A(BaseTrainer): pass", "A"),
        ("from ultralytics import utils\nutils.torch_utils.NUM_THREADS = 1", "utils.torch_utils.NUM_THREADS"),
        ("import ultralytics.utils as u\nu.x['a'] = 1", "u.x['a']"),
        ("def f():\n    from ultralytics.utils import nms\n    setattr(nms, name, None)", "setattr(nms, name, None)"),
        ("def f(model):\n    model.__class__ = Shortened", "model.__class__"),
        ("from torch import nn\nnn.x = 1\nclass A(nn.Module): pass", None),
    ],
)
def test_code_that_modifies_ultralytics_is_noticed(tmp_path: Path, code: str, said: str | None) -> None:
    (tmp_path / "ours.py").write_text(code)
    assert [what for _, what in upstream.changes(tmp_path, "ultralytics")] == ([said] if said else [])


def test_a_private_name_is_noticed(tmp_path: Path) -> None:
    code = (
        "from ultralytics.engine.trainer import BaseTrainer\n"
        "class A(BaseTrainer):\n"
        "    def _do_train(self): self._x = self._get_memory()\n"
    )
    (tmp_path / "ours.py").write_text(code)
    [found] = upstream.our_classes(tmp_path, ("ultralytics",))
    assert upstream.private(found, set()) == {"_do_train", "_get_memory"}
    assert upstream.private(found, {"A._do_train"}) == {"_get_memory"}


LIBRARY = """
class Base:
    def run(self):
        self.count = 0
        return self.step(1, fast=True)

    def step(self, size, fast=False):
        return size, fast
"""
OURS = """
def make():
    from standin import Base

    class Ours(Base):
        def step(self, size, fast=False):
            return super().step(size, fast), self.count

    class Later(Ours):
        def step(self, *args, **kwargs):
            return super().step(*args, **kwargs)

    return Later
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("", ""), []),
        (("def step", "def make_step"), ["Ours.step: Base has no such method", "Later.step: Base has no such method"]),
        (("size, fast=False", "size, fast=False, slow=False"), ["Ours.step: too many positional arguments; "]),
        (("size, fast=False", "fast=False, size=1"), ["Ours.step: 'size' is 'fast' of theirs; "]),
        (("self.count", "self.number"), ["Ours: Base has no 'count'"]),
        (("self.step(1, fast=True)", "None"), ["Ours.step", "Later.step"]),  # no longer called
    ],
)
def test_a_changed_library_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], said: list[str]
) -> None:
    library = LIBRARY.replace(*change) if change[0] else LIBRARY
    for name, code in (("standin", library), ("ours/closure", OURS)):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("standin", "ours", "ours.closure"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    classes = upstream.our_classes(tmp_path / "ours", ("standin",))
    found = [complaint for one in classes for complaint in upstream.complaints(one, set())]
    if not found:
        from ours.closure import make  # type: ignore[import-not-found]

        later = make()()
        with upstream.recorded(tmp_path / "ours") as seen:
            later.run()
        found = uncalled(classes, seen)
    assert len(found) == len(said) and all(one.startswith(begun) for one, begun in zip(found, said, strict=True))

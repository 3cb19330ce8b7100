"""Real but tiny data: tiles drawn by the sample generator, and one real training that many tests share."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymongo import MongoClient

from pipeline import augment, convert, export, files, logs, params, pixels, report, train, validate
from pipeline.__main__ import main
from pipeline.config.experiment import Config
from pipeline.config.training import Train
from pipeline.extras.sample import dataset as sample
from pipeline.run import Run
from pipeline.upstream import environment

ROOT = Path(__file__).resolve().parents[1]
COCO_WEIGHTS = ROOT / "data" / "weights" / "yolo26n.pt"
IMGSZ = 64  # two strides of 32, the smallest size at which BatchNorm sees more than one value


SPEC = find_spec("fiftyone")
assert SPEC is not None and SPEC.origin is not None
MONGOD = Path(SPEC.origin).parent / "db" / "bin" / "mongod"
needs_database = pytest.mark.skipif(
    not MONGOD.is_file(), reason="FiftyOne has no database here; `make database` installs one"
)

# Playwright's own Chromium is a download.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH to look with; Debian has one")

# Ends the server when the tests end, however they end: the pipe closes.
KEEPER = "import subprocess, sys; server = subprocess.Popen(sys.argv[1:]); sys.stdin.read(); server.terminate(); server.wait()"


# Extension modules complain about leaks when the interpreter exits (nanobind: "leaked 12 instances").
atexit.register(logs.silence)


def pytest_configure(config: pytest.Config) -> None:
    """Give each pytest-xdist worker one core: on shared cores, OpenMP's threads would wait for each other."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


SLOW = {"trained", "start", "browser", "own_database"}  # `make test-fast` skips tests that use these


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = {item.path for item in items if item.get_closest_marker("slow")}
    for item in items:
        if SLOW.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    # Longest files first, or one worker would still be busy after the others: pytest-xdist hands them out in order.
    # The longest tests carry a mark in their file.
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.path not in marked, -slow[item.path], item.path))


@pytest.fixture(scope="session")
def own_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A MongoDB used by the tests only, configured before FiftyOne is first imported.

    A separate database folder is not enough: FiftyOne connects to any database it already runs on the machine,
    including the user's.
    """
    assert "fiftyone" not in sys.modules
    os.environ.pop("FIFTYONE_DATABASE_URI", None)
    if not MONGOD.is_file():
        yield
        return
    folder = tmp_path_factory.mktemp("mongo")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(MONGOD), "--bind_ip", "127.0.0.1", "--port", str(port), "--dbpath", str(folder)]
    keeper = [sys.executable, "-c", KEEPER, *command]
    with subprocess.Popen(keeper, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True):
        os.environ["FIFTYONE_DATABASE_URI"] = f"mongodb://127.0.0.1:{port}"
        with MongoClient[Any](os.environ["FIFTYONE_DATABASE_URI"], serverSelectionTimeoutMS=60_000) as client:
            client.admin.command("ping")  # waits for the server
        yield


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A Chromium, for marked tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture(scope="session")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO source of 8 + 3 + 3 drawn tiles. Read-only: `source` is a copy."""
    folder = tmp_path_factory.mktemp("raw") / "tiles"
    sample.main(seed=1, folder=folder, splits={"train": 8, "val": 3, "test": 3})
    return folder


def make_responsive(model: Any, batch: Any) -> None:
    """Make a random model find something, in place. Fresh layers find nothing: each halves the signal.

    So BatchNorm measures `batch` first, with noise added: a channel that hardly varied there would be blown up later.
    The class rows then get larger weights and the bias of a more confident model.
    """
    import torch

    norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    momentum = norms[0].momentum
    for norm in norms:
        norm.momentum = 1.0  # forget earlier statistics
    with torch.no_grad():
        model.train()(batch)
        for name in ("cv3", "one2one_cv3"):  # some families have only one head
            for branch in getattr(model.model[-1], name, ()):
                branch[-1].weight *= 3
                branch[-1].bias.fill_(-3)
    for norm in norms:
        norm.momentum = momentum


@pytest.fixture(scope="session")
def start(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO weights if present, otherwise random ones: these tests do not depend on what a model knows."""
    if COCO_WEIGHTS.is_file():
        return COCO_WEIGHTS
    environment.prepare()
    import torch
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel("yolo26n.yaml", nc=len(sample.CLASSES), verbose=False)
    images = torch.from_numpy(np.stack([pixels.read(path) for path in sorted((tiles / "images").glob("train*"))]))
    crops = images.unfold(1, IMGSZ, IMGSZ).unfold(2, IMGSZ, IMGSZ).reshape(-1, 3, IMGSZ, IMGSZ)
    whole = torch.nn.functional.interpolate(images.permute(0, 3, 1, 2), IMGSZ)
    noise = [torch.nn.functional.interpolate(torch.rand(64, 3, side, side), IMGSZ) for side in (2, 4, 8, 16, 32, 64)]
    make_responsive(model, torch.cat([crops / 255, whole / 255, *noise]))
    yolo = YOLO("yolo26n.yaml", task="detect")
    yolo.model = model
    path = tmp_path_factory.mktemp("start") / "random.pt"
    yolo.save(path)
    return path


@pytest.fixture
def source(tiles: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiles, tmp_path / "source"))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "runs" / "tiny")


def settings(source: Path, start: str | Path = "yolo26n.yaml", **changes: Any) -> dict[str, Any]:
    """A config for the tiles, as loaded from YAML: two phases of one epoch each."""
    base: dict[str, Any] = {
        "convert": {"source": str(source)},
        "augment": {
            "copies": 1,
            "transforms": [{"HorizontalFlip": {"p": 0.5}}, {"RandomBrightnessContrast": {"p": 1.0}}],
        },
        "train": {
            "weights": str(start),
            "imgsz": IMGSZ,
            "phases": [{"epochs": 1, "freeze": "backbone"}, {"epochs": 1, "lr": 0.5}],
            "precision": "fp32",  # on any machine
        },
        # Sixteen images teach nothing: compare whatever comes out, however low the score.
        "export": {"conf": 0.002, "images": 2},
    }
    for section, values in changes.items():
        base[section] = {**base.get(section, {}), **values} if isinstance(values, dict) else values
    return base


@dataclass(frozen=True)
class Trained:
    config: Config
    run: Run
    said: dict[str, str]


@pytest.fixture(scope="session")
def trained(tiles: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Every stage except inspect, run once in the Makefile's order. Read-only: `copy_of` makes a copy."""
    run = Run(tmp_path_factory.mktemp("trained") / "runs" / "tiny")
    config = Config.model_validate(settings(tiles, start))
    params.main(config, run)
    said = {
        "convert": convert.main(config.convert, run, config.seed),
        "augment": augment.main(config.augment, run, config.seed),
        "train": train.main(config.train, run, config.seed, "cpu", 0),
        "validate": validate.main(config.validate_, run, "cpu"),
        "export": export.main(config.export, run, config.seed, "cpu"),
        "report": report.main(config.report, run),
    }
    return Trained(config, run, said)


def train_tiny(run: Run, start: Path, *phases: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Train on what `run` already holds, for one epoch by default; return train.json."""
    # Plots take the longest.
    # In 32 bits on any machine: some tests compare two trainings bit for bit.
    base = {"weights": str(start), "imgsz": IMGSZ, "phases": phases or [{"epochs": 1}], "args": {"plots": False}}
    base["precision"] = "fp32"
    run.model.unlink(missing_ok=True)  # a training that changes nothing is not repeated
    train.main(Train.model_validate({**base, **settings}), run, 0, "cpu", 0)
    record: dict[str, Any] = files.read_json(run.train_record)
    return record


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Run], Run]:
    return lambda run: Run(Path(shutil.copytree(run.root, tmp_path / "runs" / run.name)))


def checkout(folder: Path) -> None:
    """Copy what a nested make needs of the project, with a `.venv` that counts as installed."""
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("configs", ".venv"):
        (folder / name).mkdir()
    (folder / ".venv" / "installed.txt").touch()


def make_environment(**more: str) -> dict[str, str]:
    """The environment for a nested make, without the flags that `make test` passes down."""
    return {key: value for key, value in os.environ.items() if not key.startswith("MAKE")} | more


def pipeline_process(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a subprocess, from a folder outside the project."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, **options)


def command_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The command line in this process, for arguments that end it before a stage: exit status, stdout and stderr."""
    capsys.readouterr()
    try:
        status = main([*arguments])
    except SystemExit as ended:
        status = int(ended.code or 0)
    return status, *capsys.readouterr()


@contextmanager
def app(folder: Path, port: int) -> Iterator[str]:
    """The address of the App that `inspect` opens for `folder/runs/tiny`, until the block ends; it must exit cleanly."""
    (folder / "tiny.yaml").write_text("convert: {source: nowhere}\n")
    command = [sys.executable, "-m", "pipeline", "inspect", "--config", "tiny.yaml", "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield next(line for line in process.stdout if line.startswith("inspect: http")).split()[1]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


def read_coco(source: Path, split: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((source / "annotations" / f"{split}.json").read_text())
    return data


def write_coco(source: Path, split: str, data: Any) -> None:
    (source / "annotations" / f"{split}.json").write_text(json.dumps(data))


def as_voc(source: Path, target: Path) -> Path:
    """The same dataset as Pascal VOC, written independently of our own writer."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (target / folder).mkdir(parents=True)
    for split in ("train", "val", "test"):
        coco = read_coco(source, split)
        names = {category["id"]: category["name"] for category in coco["categories"]}
        stems = []
        for image in coco["images"]:
            stem = Path(image["file_name"]).stem
            stems.append(stem)
            shutil.copy(source / "images" / image["file_name"], target / "JPEGImages")
            objects = "".join(
                f"<object><name>{names[box['category_id']]}</name><bndbox><xmin>{box['bbox'][0]}</xmin>"
                f"<ymin>{box['bbox'][1]}</ymin><xmax>{box['bbox'][0] + box['bbox'][2]}</xmax>"
                f"<ymax>{box['bbox'][1] + box['bbox'][3]}</ymax></bndbox></object>"
                for box in coco["annotations"]
                if box["image_id"] == image["id"]
            )
            (target / "Annotations" / f"{stem}.xml").write_text(
                f"<annotation><filename>{image['file_name']}</filename><size><width>{image['width']}</width>"
                f"<height>{image['height']}</height><depth>3</depth></size>{objects}</annotation>"
            )
        (target / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems) + "\n")
    return target


def as_yolo(source: Path, target: Path) -> Path:
    """The same dataset as YOLO text."""
    lines = [f"names: {json.dumps(list(sample.CLASSES))}"]
    for split in ("train", "val", "test"):
        (target / "images" / split).mkdir(parents=True)
        (target / "labels" / split).mkdir(parents=True)
        lines.append(f"{split}: images/{split}")
        coco = read_coco(source, split)
        for image in coco["images"]:
            shutil.copy(source / "images" / image["file_name"], target / "images" / split)
            rows = []
            for box in coco["annotations"]:
                if box["image_id"] == image["id"]:
                    x, y, w, h = box["bbox"]
                    numbers = (
                        (x + w / 2) / image["width"],
                        (y + h / 2) / image["height"],
                        w / image["width"],
                        h / image["height"],
                    )
                    rows.append(" ".join([str(box["category_id"] - 1), *(f"{number:.8f}" for number in numbers)]))
            (target / "labels" / split / f"{Path(image['file_name']).stem}.txt").write_text("\n".join(rows))
    (target / "data.yaml").write_text("\n".join(lines) + "\n")
    return target

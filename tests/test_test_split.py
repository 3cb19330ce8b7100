"""The test split influences no choice: with other test images and labels, everything but its own figures is equal.

Both runs use real stages and the same seed. Times and machine speed are left out of the comparison; everything
else is compared byte for byte, and numbers in PyTorch and ONNX files bit for bit.
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from conftest import Trained, read_coco, write_coco

from pipeline import augment, convert, export, params, report, train, validate
from pipeline.run import Run

# Wall clock and speed, wherever they occur, and the digest of the model, whose file holds a date.
CLOCK = {"seconds", "median_ms", "p95_ms", "date", "time", "model_sha256"}
# For files that contain a date: the model and its export.
OF_FILES = {"sha256", "artefact_sha256", "bytes", "bundle_bytes"}
# What is about the test split, and pages that show it.
OF_TEST = ("dataset/images/test", "dataset/labels/test", "predictions/test", "report/")


def without(value: Any, keys: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: without(item, keys) for key, item in value.items() if key not in keys}
    return [without(item, keys) for item in value] if isinstance(value, list) else value


def json_of(path: Path, root: Path, source: Path) -> Any:
    text = path.read_text().replace(str(source), "SOURCE").replace(str(root), "RUN")
    value = without(json.loads(text), CLOCK)
    match path.name:
        case "metrics.json":
            del value["splits"]["test"]
        case "receipt.json":  # what was read from each source file, and the files themselves
            for key in ("boxes", "problems", "leaks"):
                del value[key]
            value["files"] = {name: counts for name, counts in value["files"].items() if "test" not in name}
            del value["splits"]["test"]
        case "manifest.json":
            return without(value, OF_FILES)
        case "source.json":
            return None  # dates of the source files
    return value


def tensors(path: Path, root: Path, source: Path) -> Any:
    import torch

    checkpoint = torch.load(path, weights_only=False)
    settings = {
        key: str(value) for key, value in without(checkpoint["train_args"], {"save_dir", "data", "model"}).items()
    }
    state = {name: tensor.numpy().tobytes() for name, tensor in checkpoint["model"].state_dict().items()}
    return settings, state, checkpoint["epoch"], checkpoint["best_fitness"]


def graph(path: Path, root: Path, source: Path) -> Any:
    import onnx

    model = onnx.load(path)
    del model.metadata_props[:]  # a date among them
    return model.SerializeToString()


def table(path: Path, root: Path, source: Path) -> Any:
    with path.open() as file:
        return [without({key.strip(): value for key, value in row.items()}, CLOCK) for row in csv.DictReader(file)]


def members(path: Path, root: Path, source: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    [model] = [name for name in files if name.endswith("model.json")]
    of_the_device = without(json.loads(files.pop(model)), OF_FILES)
    return of_the_device, {name: data for name, data in files.items() if not name.endswith((".onnx", "SHA256SUMS"))}


def settings_of(path: Path, root: Path, source: Path) -> Any:
    return yaml.safe_load(path.read_text().replace(str(source), "SOURCE").replace(str(root), "RUN"))


READERS: dict[str, Callable[[Path, Path, Path], Any]] = {
    ".json": json_of,
    ".pt": tensors,
    ".onnx": graph,
    ".csv": table,
    ".zip": members,
    ".yaml": settings_of,
}


def content(run: Run, source: Path) -> Iterator[tuple[str, Any]]:
    for path in sorted(run.root.rglob("*")):
        name = path.relative_to(run.root).as_posix()
        if path.is_file() and not name.startswith(OF_TEST) and path.suffix != ".cache":
            read = READERS.get(path.suffix)
            yield name, read(path, run.root, source) if read else path.read_bytes()


def other_test_split(source: Path) -> None:
    """Replace each test image by noise, and its labels by one box elsewhere of another class."""
    data = read_coco(source, "test")
    generator = np.random.default_rng(0)
    for number, image in enumerate(data["images"]):
        pixels = generator.integers(0, 256, (image["height"], image["width"], 3), np.uint8)
        assert cv2.imwrite(str(source / "images" / image["file_name"]), pixels)
        data["annotations"][number] = {
            **data["annotations"][number],
            "image_id": image["id"],
            "category_id": data["categories"][number % len(data["categories"])]["id"],
            "bbox": [1, 2, 30 + number, 40],
        }
    data["annotations"] = data["annotations"][: len(data["images"])]
    write_coco(source, "test", data)


@pytest.fixture(scope="module")
def twins(trained: Trained, tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """All files of two runs that differ only in the test split."""
    import shutil

    folder = tmp_path_factory.mktemp("other")
    source = Path(shutil.copytree(tiles, folder / "source"))
    other_test_split(source)
    convert_section = trained.config.convert.model_copy(update={"source": source})
    config, run = trained.config.model_copy(update={"convert": convert_section}), Run(folder / "runs" / "tiny")
    params.main(config, run)
    convert.main(config.convert, run, config.seed)
    augment.main(config.augment, run, config.seed)
    train.main(config.train, run, config.seed, "cpu", 0)
    validate.main(config.validate_, run, "cpu")
    export.main(config.export, run, config.seed, "cpu")
    report.main(config.report, run)
    return [dict(content(trained.run, tiles)), dict(content(run, source))]


def test_the_test_split_influences_no_choice(twins: list[dict[str, Any]]) -> None:
    first, second = twins
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} == set()


def test_the_comparison_covers_what_the_stages_produce(twins: list[dict[str, Any]]) -> None:
    """It covers the model, its thresholds and what goes to the device, so it is not vacuous."""
    first, _ = twins
    for name in ("model.pt", "metrics.json", "export/manifest.json", "predictions/val.json", "dataset/receipt.json"):
        assert first[name], name
    assert {Path(name).suffix for name in first} >= {".pt", ".onnx", ".json", ".jpg", ".txt", ".csv", ".yaml"}

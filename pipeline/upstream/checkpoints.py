"""Find, download and verify source weights, and load a checkpoint without running code from it.

Only loading imports Ultralytics, because `params` looks for weights before every `make` and has to be fast.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

from pipeline import files, logs
from pipeline.errors import ConfigError, DataError, WeightsError, did_you_mean, in_a_line
from pipeline.upstream import unfit

HOME = Path("data/weights")
DOWNLOAD_HOST = "github.com"  # where Ultralytics keeps its release assets
RELEASES = f"https://{DOWNLOAD_HOST}/ultralytics/assets/releases"
PROBE_SECONDS = 4.0
COCO = "yolo26n.pt"
STARTER = "starter-yolo26n.pt"  # made by `make starter-weights`, part of the project
DETECTOR = "`.venv/bin/python -m pipeline.upstream.detector {} NEW.pt`"
# SHA-256 of Ultralytics' release assets (v8.4.0).
KNOWN = {"yolo26n.pt": "9b09cc8bf347f0fc8a5f7657480587f25db09b34bf33b0652110fb03a8ad4fef"}


def find(name: str, fallback: str | None = None) -> Path:
    """Return the file of source weights; download it into `data/weights` if it is not on this machine.

    If that fails, the local weights `fallback` replace it, with a printed warning. `NAME.yaml` is a model with random
    weights and needs no file. Raises WeightsError, which says what to do.
    """
    if is_random(name):
        return Path(name)
    if local := locate(name):
        return local
    try:
        if Path(name).suffix != ".pt":
            raise WeightsError(f"{name}: not weights; train.weights is a .pt file, or a .yaml for random weights")
        if Path(name).name != name:
            raise WeightsError(f"{name}: no such file; correct train.weights, or put the file there")
        return _download(name)
    except WeightsError as error:
        if fallback is None:
            raise
        if (substitute := locate(fallback)) is None:
            raise WeightsError(f"{error}; train.fallback: {fallback} is not in {HOME} either") from None
        logs.say(f"train: {str(error).partition(';')[0]}; training starts from train.fallback, {substitute}")
        return substitute


def locate(name: str) -> Path | None:
    """Return the local file of source weights: the path itself or `data/weights/NAME`; None if there is neither."""
    path = Path(name)
    candidates = [path, HOME / name] if path.name == name else [path]
    return next((file for file in candidates if file.suffix == ".pt" and file.is_file()), None)


def is_random(weights: Path | str) -> bool:
    """Return whether `weights` is a model description, `NAME.yaml`, which starts from random weights."""
    return Path(weights).suffix == ".yaml"


def digest(weights: Path) -> str | None:
    """Return the SHA-256 of a weights file; None for random weights."""
    return None if is_random(weights) else files.sha256(weights)


def is_fallback(path: Path, name: str) -> bool:
    """Return whether `find` returned `path`, its fallback, because the weights `name` are missing."""
    return path not in (Path(name), locate(name))


def offer_for_amp_check(weights: Path, folder: Path) -> None:
    """Put a detector into `folder`, where Ultralytics' check of mixed precision on a GPU then looks for its own.

    Otherwise it downloads yolo26n.pt without a check of its digest. The official one or, without it, the weights that
    training starts from will do.
    """
    from ultralytics import utils

    if detector := locate(COCO) or locate(STARTER if is_random(weights) else str(weights)):
        files.link(detector, folder / COCO)
        utils.WEIGHTS_DIR = folder


def _download(name: str) -> Path:
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    ways_out = (
        f"download it from {RELEASES} to {HOME / name}, or set train.weights to one you have (yolo26n.yaml: random "
        f"weights), or allow weights that are part of this project with `train.fallback: {STARTER}`"
    )
    if name not in GITHUB_ASSETS_NAMES:
        hint = did_you_mean(name, GITHUB_ASSETS_NAMES)
        raise WeightsError(f"{name}: not in {HOME} and not a model that Ultralytics offers{hint}; {ways_out}")
    if not _reachable():
        raise WeightsError(f"{name}: not in {HOME}, and {DOWNLOAD_HOST} cannot be reached to download it; {ways_out}")
    HOME.mkdir(parents=True, exist_ok=True)
    with files.holding(HOME):  # another process may download the same file
        if (HOME / name).is_file():
            return HOME / name
        partial = HOME / ".partial" / name  # Ultralytics' downloader takes the name from the path
        try:
            attempt_download_asset(partial)
            _check_download(partial)
            load(partial)
            os.replace(partial, HOME / name)
        except WeightsError:
            raise
        except Exception as error:  # Ultralytics' downloader raises errors of urllib and curl, and its own
            first = in_a_line(error).replace(";", ",")
            raise WeightsError(f"{name}: download failed ({first}); {ways_out}") from None
        finally:
            shutil.rmtree(partial.parent, ignore_errors=True)
    return HOME / name


def _check_download(file: Path) -> None:
    """Compare a download with its known digest; print a warning if none is known. Raises WeightsError."""
    digest = files.sha256(file)
    if file.name not in KNOWN:
        logs.say(
            f"train: {file.name}: downloaded but not verified, because its digest is unknown; its sha256 is {digest}"
        )
    elif digest != KNOWN[file.name]:
        raise WeightsError(
            f"{file.name}: the download has sha256 {digest}, not the known {KNOWN[file.name]}, and was deleted; "
            f"get the file from a source that you trust and put it at {HOME / file.name}"
        )


def _reachable() -> bool:
    """Return whether the download host answers within PROBE_SECONDS, through the proxy if there is one.

    The request runs in a thread that may be abandoned: a silent name server can block its caller indefinitely.
    """
    answers: list[bool] = []

    def ask() -> None:
        try:
            with urlopen(Request(f"https://{DOWNLOAD_HOST}", method="HEAD"), timeout=PROBE_SECONDS):
                answers.append(True)
        except (OSError, ValueError, HTTPException):
            answers.append(False)

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answers == [True]


def refuse_other_classes(path: Path, own: Mapping[int, str], dataset: Path, names: Sequence[str]) -> None:
    """Raise DataError unless a model and a dataset have the same classes in the same order.

    Predictions hold only the index of a class, so with other names, figures and bundles would be for other classes.
    """
    if list(own.values()) != list(names):
        raise DataError(
            f"{path}: its classes are {list(own.values())}, but those of {dataset} are {list(names)}; train again"
        )


def load(path: Path) -> tuple[Any, dict[str, Any]]:
    """Load an Ultralytics detection checkpoint: return its float32 model in eval mode and the checkpoint itself.

    Raises WeightsError, without having executed any of the file's code, if it is not such a checkpoint or needs a class
    that is not on the allow-list.
    """
    model, checkpoint = load_any(path)
    if wrong := unfit.model(model):
        offer = f", or keep its weights with {DETECTOR.format(path)}" if unfit.family(model) else ""
        raise WeightsError(f"{path}: {wrong}{offer}")
    return model, checkpoint


def load_for_boxes(path: Path) -> tuple[Any, dict[str, Any]]:
    """Load a checkpoint that predicts upright boxes: also segmentation and open-vocabulary models; else as `load`."""
    model, checkpoint = load_any(path)
    if wrong := unfit.without_boxes(model):
        raise WeightsError(f"{path}: {wrong}")
    return model, checkpoint


def load_any(path: Path) -> tuple[Any, dict[str, Any]]:
    """Load a checkpoint for any task, but otherwise as `load` does."""
    from ultralytics.nn.tasks import SAFE_LOAD, load_checkpoint

    if not SAFE_LOAD:
        raise RuntimeError("Ultralytics was imported too early; call environment.prepare() first")
    try:
        model, checkpoint = load_checkpoint(path)
    except Exception as error:  # damaged files raise many types; for a refused class, Ultralytics raises TypeError
        message = in_a_line(error, 160)
        reason, way_out = unfit.file(path) or (message, unfit.GET_AGAIN)
        raise WeightsError(f"{path}: not an Ultralytics checkpoint, or damaged ({reason}); {way_out}") from None
    return model, checkpoint


def source_model(path: Path, key: str) -> Any:
    """Return the model of source weights that `find` found for the config key `key`, which an error names."""
    return untrained(path, key) if is_random(path) else load(path)[0]


def untrained(path: Path, key: str) -> Any:
    """Return a model with random weights from its .yaml. Raises ConfigError, naming `key`, if it describes no model."""
    from ultralytics.nn.tasks import DetectionModel, guess_model_task, yaml_model_load

    try:
        layers = yaml_model_load(path)
        if wrong := unfit.yaml(layers, guess_model_task(layers)):
            raise ConfigError(f"{key}: {path}: {wrong.replace('.pt', '.yaml')}")
        return DetectionModel(str(path), verbose=False)
    except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{key}: {path}: {' '.join(str(error).split())}") from None


def model_of(model_file: Path) -> Any:
    """Return the network of a run's `model.pt`; its `args["imgsz"]` is the side in pixels that it was trained at.

    Raises DataError if there is none.
    """
    if not model_file.is_file():
        raise DataError(f"{model_file}: does not exist; `make train` writes it")
    return load(model_file)[0]

"""Ultralytics at arm's length: its environment, its checkpoints, and where source weights come from.

A checkpoint is a pickle, and a pickle is a program. Ultralytics runs it unless told otherwise, so it is
told otherwise here, for the whole process and before it is imported: PyTorch's weights-only unpickler,
an allow-list of torch's and Ultralytics' own layer classes, and no `eval` of what a model's YAML says.
"""

from __future__ import annotations

import os
import shutil
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

from pipeline import files, logs
from pipeline.errors import DataError, PipelineError, WeightsError, did_you_mean

HOME = Path("data/weights")
CACHE = Path(".cache")
DOWNLOAD_HOST = "github.com"  # where Ultralytics keeps its release assets
PROBE_SECONDS = 4.0
COCO = "yolo26n.pt"
STARTER = "starter-yolo26n.pt"  # made by `make starter-weights`, part of the project
# SHA-256 of Ultralytics' release assets (v8.4.0).
KNOWN = {"yolo26n.pt": "9b09cc8bf347f0fc8a5f7657480587f25db09b34bf33b0652110fb03a8ad4fef"}


def prepare() -> None:
    """Set up the process for Ultralytics. Call before the first import of it."""
    from pipeline import parallel  # brings OpenCV, which `params` does without

    os.environ["ULTRALYTICS_SAFE_LOAD"] = "true"
    os.environ["YOLO_AUTOINSTALL"] = "false"  # no surprise installs
    os.environ["YOLO_OFFLINE"] = "true"  # no telemetry, no version checks; downloads asked for still work
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    os.environ.setdefault("YOLO_CONFIG_DIR", str(CACHE.resolve()))
    os.environ.setdefault("MPLCONFIGDIR", str((CACHE / "matplotlib").resolve()))
    os.environ.setdefault("OMP_NUM_THREADS", str(parallel.cores()))
    _bring_fonts(Path(os.environ["YOLO_CONFIG_DIR"]) / "Ultralytics")

    from ultralytics.utils import torch_utils

    # Ultralytics computes on `cores - 1` threads: on a 2-core machine, on one.
    torch_utils.NUM_THREADS = parallel.cores()
    # Ultralytics' `deterministic` also has PyTorch fill all memory that it allocates: 3 % of a step, for nothing, as
    # no tensor is read before it is written.
    torch_utils.torch.utils.deterministic.fill_uninitialized_memory = False


def check_device(device: str) -> None:
    """Refuse a `--device` that this machine does not have, with PipelineError. Empty means the best there is."""
    from ultralytics.utils.torch_utils import select_device

    try:
        select_device(device, verbose=False)
    except (AssertionError, RuntimeError, ValueError):
        raise PipelineError(
            f"--device {device}: this machine has no such device; name cpu, or leave it out for the best there is"
        ) from None


def device_name(device: str) -> str:
    """Return what the processor or GPU calls itself, for records. Raises nothing: `device` was checked."""
    import torch
    from ultralytics.utils.torch_utils import get_cpu_info, select_device

    chosen = select_device(device, verbose=False)
    return str(torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else get_cpu_info())


def is_gpu(device: str) -> bool:
    """Whether a checked `--device` is one for which Ultralytics loads images in worker processes."""
    from ultralytics.utils.torch_utils import select_device

    return select_device(device, verbose=False).type not in ("cpu", "mps")


def _bring_fonts(config: Path) -> None:
    """Ultralytics downloads Arial for its plots; Matplotlib brought a font along that does as well."""
    import matplotlib

    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for name in ("Arial.ttf", "Arial.Unicode.ttf"):
        if not (config / name).exists():
            config.mkdir(parents=True, exist_ok=True)
            files.copy(font, config / name)


def find(name: str, fallback: str | None = None) -> Path:
    """Return the file of source weights, downloading it into `data/weights` if it is nowhere on this machine.

    `fallback` names other weights, which must be on this machine, for when the download fails; a line says so.
    `NAME.yaml` is a model with random weights and needs no file. Raises WeightsError with the ways out.
    """
    if Path(name).suffix == ".yaml":
        return Path(name)
    if here := locate(name):
        return here
    try:
        if Path(name).suffix != ".pt":
            raise WeightsError(f"{name}: not weights; train.weights is a .pt file, or a .yaml for random weights")
        if Path(name).name != name:
            raise WeightsError(f"{name}: no such file; correct train.weights, or put the file there")
        return _download(name)
    except WeightsError as error:
        if fallback is None:
            raise
        if (other := locate(fallback)) is None:
            raise WeightsError(f"{error}; train.fallback: {fallback} is not in {HOME} either") from None
        logs.say(f"train: {str(error).partition(';')[0]}; training starts from train.fallback, {other}")
        return other


def locate(name: str) -> Path | None:
    """Return the file of source weights: the path itself, or `data/weights/NAME`; None if neither is here."""
    path = Path(name)
    candidates = [path, HOME / name] if path.name == name else [path]
    return next((file for file in candidates if file.suffix == ".pt" and file.is_file()), None)


def _download(name: str) -> Path:
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    ways_out = (
        f"put the file at {HOME / name}, or set train.weights to one you have (yolo26n.yaml: random weights), "
        f"or allow weights that are part of this project with `train.fallback: {STARTER}`"
    )
    if name not in GITHUB_ASSETS_NAMES:
        hint = did_you_mean(name, GITHUB_ASSETS_NAMES)
        raise WeightsError(f"{name}: not in {HOME} and not a model that Ultralytics offers{hint}; {ways_out}")
    if not _reachable():
        raise WeightsError(f"{name}: not in {HOME}, and {DOWNLOAD_HOST} cannot be reached to download it; {ways_out}")
    partial = HOME / ".partial" / name  # its downloader takes the name from the path
    try:
        attempt_download_asset(partial)
        _check_download(partial)
        load(partial)
        os.replace(partial, HOME / name)
    except WeightsError:
        raise
    except Exception as error:  # whatever its downloader raises: urllib's, its own ConnectionError, curl's
        first = " ".join(str(error).split())[:200].replace(";", ",")
        raise WeightsError(f"{name}: download failed ({first}); {ways_out}") from None
    finally:
        shutil.rmtree(partial.parent, ignore_errors=True)
    return HOME / name


def _check_download(file: Path) -> None:
    """Compare a download with its known digest; print a line where none is known. Raises WeightsError."""
    digest = files.sha256(file)
    if file.name not in KNOWN:
        logs.say(
            f"train: {file.name}: downloaded, and not verified: no digest of it is known here; its sha256 is {digest}"
        )
    elif digest != KNOWN[file.name]:
        raise WeightsError(
            f"{file.name}: the download has sha256 {digest}, not the known {KNOWN[file.name]}, and was deleted; "
            f"get the file from where you trust it and put it at {HOME / file.name}"
        )


def _reachable() -> bool:
    """Whether the download host answers, by way of the proxy if there is one, within PROBE_SECONDS.

    In a thread that is left behind: a name server that keeps silent holds its caller for as long as it likes.
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


def load(path: Path) -> tuple[Any, dict[str, Any]]:
    """Return the float32 model of an Ultralytics detection checkpoint, in eval mode, and the checkpoint itself.

    Raises WeightsError where the file is not one, or asks for anything that is not on the allow-list:
    nothing of it has been executed then.
    """
    from ultralytics.nn.tasks import SAFE_LOAD, DetectionModel, load_checkpoint

    if not SAFE_LOAD:
        raise RuntimeError("weights.prepare() has to come before the first import of Ultralytics")
    way_out = "get it again from where you trust it"
    try:
        model, checkpoint = load_checkpoint(path)
    except Exception as error:  # damage comes in a dozen ways, a refused class as Ultralytics' TypeError
        first = " ".join(str(error).split())[:160] or type(error).__name__
        raise WeightsError(f"{path}: not an Ultralytics checkpoint, or damaged ({first}); {way_out}") from None
    if not isinstance(model, DetectionModel):
        raise WeightsError(
            f"{path}: a model for {getattr(model, 'task', '?')}, not for detection; choose yolo26n.pt or its kin"
        )
    return model, checkpoint


def imgsz_of(model_file: Path) -> int:
    """Return the image size that a run's model was trained at. Raises DataError where there is no model yet."""
    if not model_file.is_file():
        raise DataError(f"{model_file}: not there; `make train` writes it")
    return int(load(model_file)[0].args["imgsz"])

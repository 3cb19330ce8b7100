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

from pipeline import files, parallel
from pipeline.errors import DataError, PipelineError, WeightsError, did_you_mean

HOME = Path("data/weights")
CACHE = Path(".cache")
DOWNLOAD_HOST = "github.com"  # where Ultralytics keeps its release assets
PROBE_SECONDS = 4.0
COCO = "yolo26n.pt"
REQUIRE_COCO = "require-coco"  # as `train.weights`: COCO's, and no other in their place
STARTER = "starter-yolo26n.pt"  # made by `make starter-weights`, part of the project


def prepare() -> None:
    """Set up the process for Ultralytics. Call before the first import of it."""
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
    """Raises PipelineError for a `--device` that this machine does not have. Empty means the best there is."""
    from ultralytics.utils.torch_utils import select_device

    try:
        select_device(device, verbose=False)
    except (AssertionError, RuntimeError, ValueError):
        raise PipelineError(
            f"--device {device}: this machine has no such device; name cpu, or leave it out for the best there is"
        ) from None


def device_name(device: str) -> str:
    """What the processor or GPU calls itself, for records. Raises nothing: `device` was checked."""
    import torch
    from ultralytics.utils.torch_utils import get_cpu_info, select_device

    chosen = select_device(device, verbose=False)
    return str(torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else get_cpu_info())


def _bring_fonts(config: Path) -> None:
    """Ultralytics downloads Arial for its plots; Matplotlib brought a font along that does as well."""
    import matplotlib

    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for name in ("Arial.ttf", "Arial.Unicode.ttf"):
        if not (config / name).exists():
            config.mkdir(parents=True, exist_ok=True)
            files.copy(font, config / name)


def find(name: str) -> Path:
    """Source weights: the path itself, else `data/weights/NAME`, else Ultralytics' download into there.

    Where yolo26n.pt can be had in none of these ways, the starter weights stand in and a line says so, unless
    `require-coco` forbids it. `NAME.yaml` is a model of random weights, which needs no file. Raises WeightsError with
    the ways out.
    """
    required = name == REQUIRE_COCO
    name = COCO if required else name
    path = Path(name)
    if path.suffix == ".yaml":
        return path
    if path.suffix != ".pt":
        raise WeightsError(
            f"{name}: not weights; train.weights is a .pt file, a .yaml for random weights, or {REQUIRE_COCO}"
        )
    if path.is_file():
        return path
    if path.name == name and (HOME / name).is_file():
        return HOME / name
    if path.name != name:
        raise WeightsError(f"{name}: no such file; correct train.weights, or put the file there")
    try:
        return _download(name)
    except WeightsError as error:
        if name != COCO or required or not (HOME / STARTER).is_file():
            raise
        print(
            f"train: {str(error).partition(';')[0]}; the starter weights {HOME / STARTER} stand in. "
            f"COCO weights do better: fetch {COCO} where there is a network and put it into {HOME}",
            flush=True,
        )
        return HOME / STARTER


def _download(name: str) -> Path:
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    ways_out = (
        f"put the file at {HOME / name}, or set train.weights to one you have (or to yolo26n.yaml for random weights)"
    )
    if name not in GITHUB_ASSETS_NAMES:
        hint = did_you_mean(name, GITHUB_ASSETS_NAMES)
        raise WeightsError(f"{name}: not in {HOME} and not a model that Ultralytics offers{hint}; {ways_out}")
    if not _reachable():
        raise WeightsError(f"{name}: not in {HOME}, and {DOWNLOAD_HOST} cannot be reached to download it; {ways_out}")
    partial = HOME / ".partial" / name  # its downloader takes the name from the path
    try:
        attempt_download_asset(partial)
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
    """The float32 model of an Ultralytics detection checkpoint, in eval mode, and the checkpoint itself.

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
    """The image size that a run's model was trained at. Raises DataError where there is no model yet."""
    if not model_file.is_file():
        raise DataError(f"{model_file}: not there; `make train` writes it")
    return int(load(model_file)[0].args["imgsz"])

"""Keep what training needs to resume after a kill: what it depends on, and the files of its phases."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import files, logs
from pipeline.boxes import YoloDataset
from pipeline.config.training import Train
from pipeline.errors import missing
from pipeline.run import Below, Run
from pipeline.train.source import Source

# The same files as the Makefile's TRAIN_CODE: training that other code began starts again.
SHARED = (
    *("boxes", "device/runner/headers", "device/runner/quota", "files", "history", "orientation", "parallel"),
    *("pixels", "object_sizes"),
)
UPSTREAM = ("__init__", "checkpoints", "environment", "loader", "unfit")
RECORDS = ("__init__", "base", "coco", "figures", "receipt", "tile_account", "training")
METRICS = ("__init__", "bootstrap", "iou", "matching", "precision_recall")
CODE = (
    *sorted(Path(__file__).parent.glob("*.py")),
    *sorted((Path(__file__).parents[1] / "probing").glob("*.py")),
    *(Path(__file__).parents[1] / f"{name}.py" for name in SHARED),
    *(Path(__file__).parents[1] / "upstream" / f"{name}.py" for name in UPSTREAM),
    *(Path(__file__).parents[1] / "records" / f"{name}.py" for name in RECORDS),
    *(Path(__file__).parents[1] / "metrics" / f"{name}.py" for name in METRICS),
)
# What training depends on besides its section of the config.
WORDS = {
    "seed": "seed",
    "weights": "train.weights",
    "teacher": "train.args.distill_model",
    "data_sha256": "the images or labels",
    "code_sha256": "the code of the pipeline",
}


@dataclass(frozen=True, slots=True)
class PhaseFolder:
    """The files of one phase.

    Ultralytics writes its last.pt in place, so a kill can leave half a file. `last_epoch` and `best_epoch` are other
    names of a last.pt that was written completely, which the next epoch leaves alone; resuming reads only these.
    """

    root: Path

    last_epoch = Below("resume.pt")
    best_epoch = Below("resume_best.pt")
    digests = Below("digests.json")
    """Digests of all tensors before the phase's first step: {"frozen": {...}, "trainable": {...}}."""
    features = Below("features.json")
    """Whether the features of each split were cached, and why."""
    precision = Below("precision.json")
    """The precision that the phase computes in, and why."""
    matches = Below("matches.npz")
    """The predictions of the kept epoch on val, matched with its objects."""
    progress = Below("progress.json")
    """The state after the epochs so far; its `seconds` include all attempts."""
    results = Below("results.csv")
    """Ultralytics' own table of the epochs."""
    model = Below("model.pt")
    record = Below("phase.json")
    """The phase's part of `train.json`; written when the phase is finished."""

    @classmethod
    def of(cls, run: Run, number: int) -> PhaseFolder:
        return cls(run.train / f"phase{number}")

    def exact(self, epochs: int) -> Path:
        """Return the file with the exact state after `epochs` epochs, which the checkpoint leaves out."""
        return self.root / f"resume_exact{epochs}.pt"

    def error(self, process: int) -> Path:
        """Return the file in which one of the processes of several GPUs leaves its error."""
        return self.root / f"error{process}.txt"

    @property
    def can_resume(self) -> bool:
        return all(path.is_file() for path in (self.last_epoch, self.best_epoch, self.digests, self.progress))

    def forget_after(self, epochs: int) -> None:
        """Drop later rows of `results`: Ultralytics writes a row before it saves the epoch, which a kill can lose."""
        lines = self.results.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [row for row in lines[1:] if int(row.partition(",")[0]) <= epochs]
        files.write_text(self.results, "".join([*lines[:1], *kept]))

    def tidy(self) -> None:
        """Delete the files that a finished phase no longer needs, including Ultralytics' own checkpoints."""
        for leftover in self.root.glob("resume*.pt"):
            leftover.unlink()
        shutil.rmtree(self.root / "weights", ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """A stopwatch for a phase; `earlier` holds the seconds of killed attempts."""

    earlier: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return round(self.earlier + time.perf_counter() - self.began, 1)


def beginning(config: Train, seed: int, source: Source, teacher: Path | None, data: YoloDataset) -> dict[str, Any]:
    """Return everything that training depends on; killed training resumes only if this is unchanged."""
    return {
        "train": config.model_dump(mode="json"),
        "seed": seed,
        "weights": source.record(),
        "teacher": {"name": teacher.name, "sha256": files.sha256(teacher)} if teacher else None,
        "data_sha256": data_digest(data),
        "code_sha256": [files.sha256(path) for path in CODE],
    }


def data_digest(data: YoloDataset) -> str:
    """Hash class names, image names, image sizes in bytes and all labels of train and val. Raises DataError."""
    digest = hashlib.sha256(repr(data.names).encode())
    for image in (*data.files("train"), *data.files("val")):
        label = data.label_file(image)
        if not label.is_file():
            raise missing(label, label.parents[2])
        digest.update(f"{image.name} {image.stat().st_size}\n".encode() + label.read_bytes())
    return digest.hexdigest()


def continues(run: Run, beginning: Mapping[str, Any]) -> bool:
    """Return whether there is unfinished training with the same `beginning`."""
    record = _unfinished(run)
    return record.is_file() and files.read_json(record) == beginning


def measured(run: Run, beginning: Mapping[str, Any], name: str, measure: Callable[[], Any]) -> Any:
    """Return what unfinished training measured, so that it keeps its phases; otherwise measure it now.

    `name` is that of the file in `run.train` which `continue_or_clear` writes.
    """
    file = run.train / name
    return files.read_json(file) if continues(run, beginning) and file.is_file() else measure()


def continue_or_clear(run: Run, beginning: Mapping[str, Any], measurements: Mapping[str, Any]) -> None:
    """Keep unfinished training only if it has the same `beginning`; otherwise delete it and record this one.

    A line says so if that loses an epoch. `measurements` maps file names in `run.train` to what was measured; None is
    not written.
    """
    if not continues(run, beginning):
        if _unfinished(run).is_file() and any(run.train.glob("phase*/progress.json")):
            differs = " and ".join(_differences(files.read_json(_unfinished(run)), beginning))
            logs.say(f"train: the unfinished training is discarded, because {differs} changed")
        shutil.rmtree(run.train, ignore_errors=True)
        files.write_json(_unfinished(run), beginning)
    for name, content in measurements.items():
        if content is not None:
            files.write_json(run.train / name, content)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in words what differs between two beginnings."""
    keys = [f"train.{key}" for key, value in now["train"].items() if before["train"].get(key) != value]
    others = [word for key, word in WORDS.items() if before[key] != now[key]]
    return list(dict.fromkeys([*keys, *others]))  # train.weights may be in both


def finish(run: Run, beginning: Mapping[str, Any], data: YoloDataset) -> None:
    """Record what the finished training depended on, so that it is not repeated before something changes."""
    files.write_json(_finished(run), {"beginning": beginning, **_outcome(run, data)})
    _unfinished(run).unlink()


def is_current(run: Run, beginning: Mapping[str, Any], data: YoloDataset) -> bool:
    """Return whether `run.model` is what training from this `beginning` made of the same images."""
    if _unfinished(run).is_file() or not all(path.is_file() for path in (_finished(run), run.train_record, run.model)):
        return False
    done = files.read_json(_finished(run))
    # The images are read only if all else is equal.
    return bool(done["beginning"] == beginning and done == {"beginning": beginning, **_outcome(run, data)})


def why_again(run: Run, beginning: Mapping[str, Any]) -> str:
    """Return in words what has changed since the finished training; empty if there is none, or if that is unclear."""
    if not _finished(run).is_file():
        return ""
    return " and ".join(_differences(files.read_json(_finished(run))["beginning"], beginning))


def _outcome(run: Run, data: YoloDataset) -> dict[str, str]:
    """Hash the model and the contents of the images, of which `data_digest` reads only the sizes."""
    digest = hashlib.sha256()
    for image in (*data.files("train"), *data.files("val")):
        digest.update(files.sha256(image).encode())
    return {"model_sha256": files.sha256(run.model), "images_sha256": digest.hexdigest()}


def _finished(run: Run) -> Path:
    return run.train / "finished.json"


def _unfinished(run: Run) -> Path:
    return run.train / "unfinished.json"

"""What outlives a kill: how a training began, and the files of its phases from which it goes on."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.boxes import YoloDataset
from pipeline.config import Train
from pipeline.run import Run
from pipeline.train.source import Source

# As in the Makefile's TRAIN_CODE: a training that was begun with other code is begun again.
SHARED = ("boxes", "files", "history", "parallel")
UPSTREAM = ("__init__", "checkpoints", "environment", "loader")
RECORDS = ("__init__", "base", "receipt", "training")
CODE = (
    *sorted(Path(__file__).parent.glob("*.py")),
    *(Path(__file__).parents[1] / f"{name}.py" for name in SHARED),
    *(Path(__file__).parents[1] / "upstream" / f"{name}.py" for name in UPSTREAM),
    *(Path(__file__).parents[1] / "records" / f"{name}.py" for name in RECORDS),
)


@dataclass(frozen=True, slots=True)
class PhaseFolder:
    """The files of one phase.

    Ultralytics writes its last.pt and best.pt in place, so a kill can leave half a file. `last_epoch` and `best_epoch`
    are copies, written aside and renamed; only they are ever read back.
    """

    path: Path

    @classmethod
    def of(cls, run: Run, number: int) -> PhaseFolder:
        return cls(run.train / f"phase{number}")

    @property
    def last_epoch(self) -> Path:
        return self.path / "resume.pt"

    @property
    def best_epoch(self) -> Path:
        return self.path / "resume_best.pt"

    def exact(self, epochs: int) -> Path:
        """What the checkpoint after so many epochs leaves out."""
        return self.path / f"resume_exact{epochs}.pt"

    @property
    def digests(self) -> Path:
        """Digests of all tensors before the phase's first step: {"frozen": {...}, "trainable": {...}}."""
        return self.path / "digests.json"

    @property
    def features(self) -> Path:
        """Which features were computed once, split by split, and why."""
        return self.path / "features.json"

    @property
    def progress(self) -> Path:
        """What the epochs so far came to; its `seconds` are those of all attempts together."""
        return self.path / "progress.json"

    @property
    def results(self) -> Path:
        """Ultralytics' own table of the epochs."""
        return self.path / "results.csv"

    @property
    def model(self) -> Path:
        return self.path / "model.pt"

    @property
    def record(self) -> Path:
        """The phase's part of `train.json`; there once the phase is finished."""
        return self.path / "phase.json"

    @property
    def can_resume(self) -> bool:
        return all(path.is_file() for path in (self.last_epoch, self.best_epoch, self.digests, self.progress))

    def forget_after(self, epochs: int) -> None:
        """Drop later rows of `results`: Ultralytics writes an epoch there before it saves it, and one may be lost."""
        header, *rows = self.results.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [row for row in rows if int(row.partition(",")[0]) <= epochs]
        files.write_text(self.results, "".join([header, *kept]))

    def tidy(self) -> None:
        """Delete what a finished phase needs no more, Ultralytics' own checkpoints included."""
        for leftover in self.path.glob("resume*.pt"):
            leftover.unlink()
        shutil.rmtree(self.path / "weights", ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """Measure the seconds of a phase; `earlier` are those of attempts that were killed."""

    earlier: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        return round(self.earlier + time.perf_counter() - self.began, 1)


def beginning(config: Train, seed: int, source: Source, teacher: Path | None, data: YoloDataset) -> dict[str, Any]:
    """Describe all that a training depends on."""
    return {
        "train": config.model_dump(mode="json"),
        "seed": seed,
        "weights": source.record(),
        "teacher": {"name": teacher.name, "sha256": files.sha256(teacher)} if teacher else None,
        "data_sha256": data_digest(data),
        "code_sha256": [files.sha256(path) for path in CODE],
    }


def data_digest(data: YoloDataset) -> str:
    """Hash names and sizes of the images and all their labels, so that a label fixed meanwhile is noticed."""
    digest = hashlib.sha256(repr(data.names).encode())
    for image in (*data.files("train"), *data.files("val")):
        digest.update(f"{image.name} {image.stat().st_size}\n".encode() + data.label_file(image).read_bytes())
    return digest.hexdigest()


def continue_or_clear(run: Run, beginning: Mapping[str, Any]) -> None:
    """Keep a half-done training only if this one would begin in the same way."""
    known = _unfinished(run)
    if not (known.is_file() and files.read_json(known) == beginning):
        shutil.rmtree(run.train, ignore_errors=True)
        files.write_json(known, beginning)


def finish(run: Run) -> None:
    """Mark the training as finished: the next one begins anew."""
    _unfinished(run).unlink()


def _unfinished(run: Run) -> Path:
    return run.train / "unfinished.json"

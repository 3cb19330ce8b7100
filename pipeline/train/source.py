"""Find the source weights to train from, and the teacher if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.training import Train
from pipeline.errors import ConfigError
from pipeline.records.training import SourceWeights
from pipeline.run import Run
from pipeline.upstream import checkpoints


@dataclass(frozen=True, slots=True)
class Source:
    """Source weights and their model; `instead_of` names the weights that `train.fallback` replaces, or is None."""

    path: Path
    model: Any
    instead_of: str | None

    @property
    def words(self) -> str:
        return f"{self.path.name} instead of {self.instead_of}" if self.instead_of else self.path.name

    def record(self) -> SourceWeights:
        """Return the name and digest for `train.json`. A .yaml has no weights and so no digest."""
        return {"name": self.path.name, "sha256": checkpoints.digest(self.path), "instead_of": self.instead_of}

    def known_classes(self, names: Sequence[str]) -> list[str]:
        """Return the classes that the source knows by name, whose head rows Ultralytics keeps (`cls_remap`)."""
        known = {str(name).strip().lower() for name in getattr(self.model, "names", {}).values()}
        return [name for name in names if name.strip().lower() in known]


def find(config: Train) -> Source:
    """Find and load the source weights. Raises WeightsError, or ConfigError for a .yaml that describes no model."""
    path = checkpoints.find(config.weights, config.fallback)
    instead_of = config.weights if checkpoints.is_fallback(path, config.weights) else None
    model = checkpoints.source_model(path, "train.weights")
    return Source(path, model, instead_of)


def find_teacher(config: Train) -> Path | None:
    """Return the path of the teacher for Ultralytics' distillation, or None. Raises WeightsError or ConfigError."""
    if not (name := config.args.get("distill_model")):
        return None
    path = checkpoints.find(str(name))
    if path.suffix != ".pt":
        raise ConfigError(f"train.args.distill_model: {name}: a teacher needs trained weights; give a .pt file")
    checkpoints.load(path)
    return path


def refuse_own_model(start: Source, teacher: Path | None, run: Run) -> None:
    """Raise ConfigError if training would replace what it starts from, so that every `make` would train once more."""
    for key, path in (("weights", start.path), ("args.distill_model", teacher)):
        # A .yaml may be one of Ultralytics' own.
        if path and path.is_file() and run.model.is_file() and path.samefile(run.model):
            raise ConfigError(
                f"train.{key}: {path} is what this config trains; copy it to data/weights, and name the copy"
            )

"""Find the weights to rank."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.config.rank import Rank
from pipeline.config.training import Train
from pipeline.errors import WeightsError
from pipeline.upstream import checkpoints


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights as the config names them, and their file."""

    name: str
    path: Path
    instead_of: str | None = None


def find(config: Rank, train: Train) -> list[Weights]:
    """Return all weights to rank; those of `train` if `rank.weights` names none. Raises WeightsError."""
    if config.weights:
        return [Weights(name, _find(name)) for name in config.weights]
    path = checkpoints.find(train.weights, train.fallback)
    replaced = checkpoints.is_fallback(path, train.weights)
    return [Weights(path.name if replaced else train.weights, path, train.weights if replaced else None)]


def _find(name: str) -> Path:
    try:
        return checkpoints.find(name)
    except WeightsError as error:
        reason = str(error).partition(";")[0]
        raise WeightsError(f"rank.weights: {reason}; put the file there, or remove it from the list") from None

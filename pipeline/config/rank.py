"""The section `rank`: weights to compare before training."""

from __future__ import annotations

from pydantic import field_validator

from pipeline.config.section import Section


class Rank(Section):
    """Weights to compare before training. [weights.md](weights.md) explains it."""

    weights: tuple[str, ...] = ()
    """Weights to rank, each as in `train.weights`: other files, models of other runs. `[]` ranks `train.weights`
    alone."""
    layers: bool = True
    """Also measure how well each layer separates the classes, and suggest how many layers may be frozen at no cost."""

    @field_validator("weights")
    @classmethod
    def _each_once(cls, weights: tuple[str, ...]) -> tuple[str, ...]:
        for name in weights:
            if not name:
                raise ValueError("one name is empty; write the name of a weights file")
            if weights.count(name) > 1:
                raise ValueError(f"{name!r} appears twice; keep it once")
        return weights

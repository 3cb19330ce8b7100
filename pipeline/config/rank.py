"""The section `rank`: weights to compare before training."""

from __future__ import annotations

from pydantic import field_validator

from pipeline.config.section import Section


class Rank(Section):
    """Weights to compare before training. [weights.md](weights.md) explains it."""

    weights: tuple[str, ...] = ()
    """Weights to rank, each as in `train.weights`: other files, models of other runs. `[]` looks at `train.weights`
    alone."""
    layers: bool = True
    """Also measure how well each layer tells the classes apart, and name a depth down to which freezing may be free."""

    @field_validator("weights")
    @classmethod
    def _each_once(cls, weights: tuple[str, ...]) -> tuple[str, ...]:
        for name in weights:
            if not name:
                raise ValueError("a name is empty; write the name of a weights file")
            if weights.count(name) > 1:
                raise ValueError(f"{name!r} appears twice; keep it once")
        return weights

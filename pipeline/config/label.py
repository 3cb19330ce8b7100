"""The section `label`: which images to label next, with boxes drawn beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from pipeline.config.section import Section


class Cost(Section):
    """Seconds of a person's work. [labelling.md](labelling.md) says where the defaults come from."""

    image: float = Field(default=7.8, ge=0)
    """To open an image and look for what has no box."""
    draw: float = Field(default=7.0, gt=0)
    """To draw a box and choose its class."""
    fix: float = Field(default=4.0, ge=0)
    """To move the sides of a box that lies badly."""
    remove: float = Field(default=2.0, ge=0)
    """To see that a box is wrong and delete it."""
    check: float = Field(default=1.6, ge=0)
    """To see that a box is right."""


class Label(Section):
    """What to label next. [labelling.md](labelling.md) explains it."""

    pool: Path
    """Folder with images that have no labels, read with all folders in it, never written."""
    batch: int = Field(default=20, ge=1)
    """Images to label next."""
    by: tuple[Literal["uncertain", "different"], ...] = ("uncertain", "different")
    """What chooses them: images where the model is unsure, images unlike the labelled ones, or both. `[]` draws all
    of them at random."""
    random: float = Field(default=0.2, ge=0, le=1)
    """Share of the batch drawn at random. Only these tell how good the model is on the pool."""
    rare: bool | tuple[str, ...] = False
    """Images where the model sees rare classes come first: true for the classes with the fewest labels, or names."""
    cost: Cost = Cost()
    """Seconds of work, from which minutes and the threshold of the boxes come."""
    weights: str | None = None
    """Another model to choose and draw with: a file, or a name in `data/weights`. Null is the run's own."""

    @field_validator("by", mode="before")
    @classmethod
    def _a_list(cls, by: Any) -> Any:
        return (by,) if isinstance(by, str) else by

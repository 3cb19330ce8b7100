"""The section `label`: which images to label next, with boxes that the model draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.section import Section


class Cost(Section):
    """Seconds of a person's work. [labelling.md](labelling.md) says where the defaults come from."""

    image: float = Field(default=7.8, gt=0)
    """Opening an image and searching it for objects without a box."""
    draw: float = Field(default=7.0, gt=0)
    """Drawing a box and choosing its class."""
    fix: float = Field(default=4.0, ge=0)
    """Moving the sides of an inaccurate box."""
    remove: float = Field(default=2.0, ge=0)
    """Seeing that a box is wrong, and deleting it."""
    check: float = Field(default=1.6, ge=0)
    """Seeing that a box is right."""


class Label(Section):
    """How to choose the images to label next. [labelling.md](labelling.md) explains it."""

    pool: Path
    """Folder with images that have no labels. It is read with all its subfolders and never written."""
    batch: int = Field(default=20, ge=1)
    """Number of images to label next."""
    by: tuple[Literal["uncertain", "different"], ...] = ("uncertain", "different")
    """How to choose: images where the model is unsure, images unlike the labelled ones, or both. `[]` draws all of
    them at random."""
    random: float = Field(default=0.25, ge=0, le=1)
    """Share of the batch drawn at random. Only these show how good the model is on the pool; an interval needs five."""
    rare: bool | tuple[str, ...] = False
    """Put images with rare classes first: true for classes with fewer than half of the mean number of labels, or a list
    of names."""
    cost: Cost = Cost()
    """Seconds per step of work; they determine the estimated minutes and which boxes to draw."""
    weights: str | None = None
    """Model to choose images and draw boxes with: a file, or a name in `data/weights`. Null is the run's own model."""

    @field_validator("by", mode="before")
    @classmethod
    def _a_list(cls, by: Any) -> Any:
        return (by,) if isinstance(by, str) else by

    @model_validator(mode="after")
    def _rare_with_a_choice(self) -> Label:
        if self.rare and not self.by:
            raise ValueError("`rare` has no effect with `by: []`, which draws all images at random; remove one of them")
        return self

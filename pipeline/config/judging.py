"""The sections `validate`, `inspect` and `report`: figures and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from pipeline.config.section import Section
from pipeline.errors import did_you_mean


class Wanted(Section):
    """The goal of the thresholds, instead of the best F1."""

    precision: float | None = Field(default=None, gt=0, le=1)
    """Precision on val that each class's threshold reaches, if possible."""
    recall: float | None = Field(default=None, gt=0, le=1)
    """Recall on val that each class's threshold reaches, if possible."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Wanted:
        if (self.precision is None) == (self.recall is None):
            raise ValueError("set precision or recall; a threshold cannot promise both")
        return self


class Validate(Section):
    """How predictions are made and evaluated. [validation.md](validation.md) explains it."""

    conf: float = Field(default=0.001, ge=0, lt=1)
    """Lowest score that counts for average precision. A higher value is faster and lowers AP."""
    iou: float = Field(default=0.7, gt=0, le=1)
    """IoU threshold of non-maximum suppression."""
    max_det: int = Field(default=300, ge=1)
    """Maximum number of predictions per image; with tiles, per view."""
    wanted: Wanted | None = None
    """The goal for which each class's threshold is chosen on val. Null is the best F1."""
    retention: Path | None = None
    """`data.yaml` of a labelled set of the source model's classes, to measure how well the model still detects them."""
    reconcile: tuple[str, ...] = ()
    """Other tools to evaluate the same predictions with, each difference explained: `ultralytics`, which is fast, and
    `fiftyone`, which is slow."""

    @field_validator("reconcile", mode="before")
    @classmethod
    def _tools_known(cls, tools: Any) -> Any:
        known = ("ultralytics", "fiftyone")
        if not isinstance(tools, (list, tuple)):
            raise ValueError(f"write a list of tools, [{', '.join(known)}], got {tools!r}")
        for tool in tools:
            if tool not in known:
                raise ValueError(f"{tool!r} is not one of {', '.join(known)}{did_you_mean(str(tool), known)}")
        return tools


class Inspect(Section):
    """What FiftyOne shows. [fiftyone.md](fiftyone.md) explains it."""

    confident: float = Field(default=0.6, gt=0, le=1)
    """Score from which a false positive counts as confident: perhaps its label is missing."""
    similarity: float = Field(default=0.95, gt=0, le=1)
    """Cosine similarity of the backbone's features from which two images count as similar; 1 at most."""


class Report(Section):
    """The page that shows a run."""

    worst: int = Field(default=24, ge=0, le=200)
    """Number of images to show, those with the most errors first."""

"""The config of a study: several ways to train, each with several amounts of labels and several seeds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.section import Section

Share = Annotated[float, Field(gt=0, le=1)]
Shots = Annotated[int, Field(ge=1)]


class Steps(Section):
    """Every trial takes the same number of optimizer steps, epochs and validations."""

    steps: int = Field(ge=1)
    """Optimizer steps of all phases together."""


class Minutes(Section):
    """Every trial trains for the same time, on the machine that the study began on."""

    minutes: float = Field(gt=0)
    """Minutes of training, validations included."""


Budget = Literal["recipe"] | Steps | Minutes


def _filled(row: Any) -> Any:
    """Read `mine:` and `train:`, with nothing below them, as an empty section: nothing differs."""
    if row is None:
        return {}
    return {**row, "train": {}} if isinstance(row, dict) and row.get("train", {}) is None else row


class Study(Section):
    """Training setups (rows), compared over amounts of labels and seeds."""

    base: Path
    """The config that every row starts from."""
    every: dict[str, Any] = Field(default={})
    """What differs from the base in every row, in any section."""
    rows: dict[str, dict[str, Any]] = Field(min_length=1)
    """Row name -> what differs from the base, in `train` and `augment`. The other rows are compared with the first."""
    share: tuple[Share, ...] = ()
    """Shares of the training images. Without `share` and `shots`, all of them."""
    shots: tuple[Shots, ...] = ()
    """Minimum numbers of boxes per class."""
    seeds: int = Field(default=5, ge=1, le=1000)
    """Seeds 0, 1, 2 ...: each draws its own training images and weights."""
    budget: Budget = "recipe"
    """What is held equal. `recipe`: nothing, each row trains for as long as its recipe says for that many images."""

    @field_validator("rows", mode="before")
    @classmethod
    def _nothing_differs(cls, rows: Any) -> Any:
        """Read `mine:` as `mine: {}`."""
        return {name: _filled(row) for name, row in rows.items()} if isinstance(rows, dict) else rows

    @field_validator("every", mode="before")
    @classmethod
    def _nothing_differs_in_every_row(cls, every: Any) -> Any:
        return _filled(every)

    @field_validator("budget", mode="before")
    @classmethod
    def _one_budget(cls, budget: Any) -> Any:
        if isinstance(budget, dict) and len(budget) > 1:
            raise ValueError("only one thing can be held equal; keep `steps` or `minutes`")
        return budget

    @field_validator("rows")
    @classmethod
    def _names_of_folders(cls, rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, row in rows.items():
            if not re.fullmatch(r"\w[\w.+-]{0,60}", name, re.ASCII):
                raise ValueError(f"{name!r} becomes the name of a folder; use letters, digits, `_`, `-`, `+` and `.`")
            if others := sorted(set(row) - {"train", "augment"}):
                raise ValueError(f"{name}.{others[0]}: must be the same for all rows; write it into `every`")
        return rows

    @field_validator("share", "shots", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return value if isinstance(value, (list, tuple)) else [value]

    @model_validator(mode="after")
    def _once(self) -> Study:
        for name in ("share", "shots"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: a value appears twice; keep one")
        return self

    @property
    def sizes(self) -> list[tuple[str, float]]:
        """Return all amounts of labels, smallest first: ("shots", boxes per class) and ("share", of the images)."""
        share = self.share or (() if self.shots else (1.0,))
        return [("shots", k) for k in sorted(self.shots)] + [("share", s) for s in sorted(share)]

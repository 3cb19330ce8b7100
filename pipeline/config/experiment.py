"""All sections of one config file."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from pipeline.config.data import Augment, Convert
from pipeline.config.export import Export
from pipeline.config.judging import Inspect, Report, Validate
from pipeline.config.label import Label
from pipeline.config.rank import Rank
from pipeline.config.section import Section
from pipeline.config.tiles import Tiles
from pipeline.config.training import Train


class Config(Section):
    """One experiment."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of everything random: another seed gives other splits, copies and weights."""
    convert: Convert
    """Conversion of annotations to an Ultralytics dataset."""
    tiles: Tiles | None = None
    """Tiles of large images, for training and detection. Null uses each image as a whole."""
    augment: Augment = Augment()
    """Transformed copies of training images."""
    train: Train = Train()
    """Training in phases."""
    rank: Rank = Rank()
    """Weights to compare before training."""
    # BaseModel.validate exists already, but users see `validate` everywhere.
    validate_: Validate = Field(default=Validate(), alias="validate")
    """Metrics, errors and thresholds."""
    inspect: Inspect = Inspect()
    """Settings of the FiftyOne dataset."""
    report: Report = Report()
    """Settings of the page."""
    export: Export = Export()
    """Bundles for the device."""
    label: Label | None = None
    """Images to label next, from a folder of images without labels."""

    def section(self, stage: str) -> Section:
        section = getattr(self, "validate_" if stage == "validate" else stage)
        assert isinstance(section, Section)
        return section

    def slice(self, stage: str) -> dict[str, Any]:
        """Return everything that the stage may read in this file: its section and the seed.

        `augment` cuts the tiles, at a scale that depends on `train.imgsz`. Later stages read its record of them.
        """
        read = {"seed": self.seed, stage: self.section(stage).model_dump(mode="json")}
        if stage == "augment" and self.tiles:
            read |= {"tiles": self.tiles.model_dump(mode="json"), "imgsz": self.train.imgsz}
        return read

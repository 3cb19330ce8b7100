"""Define the paths of the files that a run writes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import files

SPLITS = ("train", "val", "test")


class Below:
    """The path of a file or folder below the `root` of the object that has it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __get__(self, owner: Any, kind: type) -> Path:
        path: Path = owner.root / self.path
        return path


@dataclass(frozen=True, slots=True)
class Run:
    """One experiment: `runs/NAME`, where NAME is the stem of its config file."""

    root: Path

    source_listing = Below("params/source.json")
    dataset = Below("dataset")
    receipt = Below("dataset/receipt.json")
    augmented = Below("augmented")
    tiles = Below("augmented/tiles.json")
    """The size and overlap of tiles; missing if the run has no tiles."""
    tile_account = Below("augmented/tile_account.json")
    train = Below("train")
    features = Below("features")
    """Cached outputs of the frozen layers per image; only for speed, safe to delete."""
    train_record = Below("train.json")
    model = Below("model.pt")
    metrics = Below("metrics.json")
    ranking = Below("rank.json")
    """The scores of source weights that `rank` computed."""
    comparison = Below("comparison.json")
    """The comparison of this run's metrics with those of another run."""
    predictions_folder = Below("predictions")
    report = Below("report")
    export = Below("export")
    manifest = Below("export/manifest.json")
    export_refused = Below("export_refused.json")
    """The manifest of a refused export, with all its figures."""
    label = Below("label")
    label_next = Below("label/next.json")
    """The images to label next, with boxes that the model drew."""
    label_corrected = Below("label/corrected.json")
    """The batches of which labels were saved."""
    label_rounds = Below("label/rounds.json")
    """What was known when each batch so far was chosen."""

    @classmethod
    def of(cls, config: Path) -> Run:
        return cls(Path("runs") / config.stem)

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def project(self) -> Path:
        """The folder where `make` runs, which holds `data` and `runs`."""
        return self.root.parent.parent

    def make(self, target: str) -> str:
        """Return the command that makes a target of this run, with the config that made it."""
        note = self.params("made_by")
        config = files.read_json(note)["config"] if note.is_file() else f"configs/{self.name}.yaml"
        return f"make {target} CONFIG={shlex.quote(config)}"

    def params(self, stage: str) -> Path:
        return self.root / "params" / f"{stage}.json"

    def log(self, stage: str) -> Path:
        """Return the log of library output of the stage's last run; it is missing if there was none."""
        return self.root / "logs" / f"{stage}.log"

    @property
    def splits(self) -> Path:
        """The splits that convert drew, kept in git with the data so that new images never move old ones."""
        return self.project / "data" / "splits" / f"{self.name}.json"

    def predictions(self, split: str) -> Path:
        """Return the COCO results of a split with one entry per box and candidate class, for average precision."""
        return self.predictions_folder / f"{split}.json"

    def single_label(self, split: str) -> Path:
        """Return the COCO results of a split with one class per box, as a device reports them."""
        return self.predictions_folder / f"{split}_single_label.json"

    def errors(self, split: str) -> Path:
        """Return the file with the error type of each prediction and the outcome of each ground-truth object."""
        return self.predictions_folder / f"{split}_errors.json"

    def ground_truth(self, split: str) -> Path:
        """Return the COCO dataset that `predictions(split)` refers to."""
        return self.predictions_folder / f"{split}_ground_truth.json"

"""Define the paths of the files that a run writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Run:
    """One experiment: `runs/NAME`, where NAME is the stem of its config file."""

    root: Path

    @classmethod
    def of(cls, config: Path) -> Run:
        return cls(Path("runs") / config.stem)

    @property
    def name(self) -> str:
        return self.root.name

    def params(self, stage: str) -> Path:
        return self.root / "params" / f"{stage}.json"

    def log(self, stage: str) -> Path:
        """Return the log of library output of the stage's last run; it is missing if there was none."""
        return self.root / "logs" / f"{stage}.log"

    @property
    def source_listing(self) -> Path:
        return self.root / "params" / "source.json"

    @property
    def dataset(self) -> Path:
        return self.root / "dataset"

    @property
    def receipt(self) -> Path:
        return self.dataset / "receipt.json"

    @property
    def splits(self) -> Path:
        """The splits that convert drew, kept in git with the data so that new images never move old ones."""
        return self.root.parent.parent / "data" / "splits" / f"{self.name}.json"

    @property
    def augmented(self) -> Path:
        return self.root / "augmented"

    @property
    def tiles(self) -> Path:
        """The size and overlap of tiles; missing if the run has no tiles."""
        return self.augmented / "tiles.json"

    @property
    def tile_account(self) -> Path:
        return self.augmented / "tile_account.json"

    @property
    def train(self) -> Path:
        return self.root / "train"

    @property
    def features(self) -> Path:
        """Cached outputs of the frozen layers per image; only for speed, safe to delete."""
        return self.root / "features"

    @property
    def train_record(self) -> Path:
        return self.root / "train.json"

    @property
    def model(self) -> Path:
        return self.root / "model.pt"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.json"

    @property
    def ranking(self) -> Path:
        """The scores of source weights that `rank` computed."""
        return self.root / "rank.json"

    @property
    def comparison(self) -> Path:
        """The comparison of this run's metrics with those of another run."""
        return self.root / "comparison.json"

    @property
    def predictions_folder(self) -> Path:
        return self.root / "predictions"

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
        """Return the COCO data set that `predictions(split)` refers to."""
        return self.predictions_folder / f"{split}_ground_truth.json"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def manifest(self) -> Path:
        return self.export / "manifest.json"

    @property
    def export_refused(self) -> Path:
        """The manifest of a refused export, with all its figures."""
        return self.root / "export_refused.json"

    @property
    def label(self) -> Path:
        return self.root / "label"

    @property
    def label_next(self) -> Path:
        """The images to label next, with boxes that the model drew."""
        return self.label / "next.json"

    @property
    def label_rounds(self) -> Path:
        """What was known when each batch so far was chosen."""
        return self.label / "rounds.json"

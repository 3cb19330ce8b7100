"""All trials of a study, in the order in which they run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import files
from pipeline.boxes import YoloDataset
from pipeline.config.study import Study
from pipeline.run import Run
from pipeline.study import folders, rows, subsets
from pipeline.study.subsets import Size
from pipeline.study.trials import Trial

PILOT_ROWS, PILOT_SEEDS = 2, 2  # run first: they tell how much seeds differ, and how long a trial takes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a study lives: the project, and the folder of the study below it."""

    project: Path
    study: Path

    @classmethod
    def of(cls, path: Path) -> Place:
        return cls(Path.cwd(), Path("runs/studies").absolute() / path.stem)

    @property
    def results(self) -> Path:
        return self.study / "results.jsonl"


def plan(path: Path, study: Study, place: Place) -> list[Trial]:
    """Prepare the data, draw the images of every seed, and return all trials, those of the pilot first."""
    made, written = rows.configs(path, study), rows.yaml_of(study)
    name = study.base.stem
    runs = {}
    for row, config in made.items():
        folder = folders.prepare(place.project, place.study, name, config, written[row])
        runs[row] = Run(folder / "runs" / name)
    first = next(iter(made))
    pool = subsets.pool(runs[first], made[first])
    drawn = {}
    for seed in range(study.seeds):
        drawn[seed] = subsets.draw(pool, study.sizes, seed)
        files.write_json(place.study / "subsets" / f"seed{seed}.json", subsets.account(pool, drawn[seed]))
    copies = {row: _copies(run) for row, run in runs.items()}
    longest = {row: max(_total(copies[row], one) for each in drawn.values() for one in each.values()) for row in made}
    trials = []
    for seed, size, row in _order(study):
        images = drawn[seed][size]
        count = _total(copies[row], images)
        train, length = rows.budgeted(study, made[row].train, count, longest[row], len(pool.classes))
        config = made[row].model_copy(update={"seed": seed, "train": train})
        counted = subsets.counted(pool, images)
        sections = {
            **written[row],
            "seed": seed,
            "train": train.model_dump(mode="json", by_alias=True, exclude_unset=True),
        }
        identity = [config.slice(stage) for stage in ("convert", "augment", "train", "validate")]
        key = hashlib.sha256(
            files.to_json([identity, counted["sha256"], pool.judged, length, row, size]).encode()
        ).hexdigest()[:16]
        about = {
            "images": counted["images"],
            "boxes": counted["boxes"],
            "images_sha256": counted["sha256"],
            "judged_sha256": pool.judged,
            "list": length or count,
            "split_seed": made[row].seed,
            "train": config.slice("train")["train"],
        }
        trials.append(Trial(key, row, size, seed, name, sections, tuple(images), length or count, about))
    return trials


def _order(study: Study) -> Iterator[tuple[int, Size, str]]:
    """Give seed, size and row of each trial: the pilot, then seed by seed, so that a study cut short is even."""
    names = list(study.rows)
    every = [(seed, size, row) for seed in range(study.seeds) for size in study.sizes for row in names]
    yield from sorted(every, key=lambda one: not is_pilot(study, one[2], one[0]))


def is_pilot(study: Study, row: str, seed: int) -> bool:
    return row in list(study.rows)[:PILOT_ROWS] and seed < PILOT_SEEDS


def _total(copies: Mapping[str, int], images: Sequence[str]) -> int:
    return sum(copies[image] for image in images)


def _copies(run: Run) -> Mapping[str, int]:
    """Return how many training files each original image comes to, itself and its copies."""
    stems = [path.stem for path in YoloDataset.read(run.augmented / "data.yaml").files("train")]
    originals = {path.stem: path.name for path in YoloDataset.read(run.dataset / "data.yaml").files("train")}
    counts: dict[str, int] = dict.fromkeys(originals.values(), 0)
    for stem in stems:
        counts[originals.get(stem) or originals[stem.rpartition("-copy")[0]]] += 1
    return counts

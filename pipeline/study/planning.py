"""Plan all trials of a study, in the order in which they run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.boxes import YoloDataset
from pipeline.config.experiment import Config
from pipeline.config.study import Minutes, Study
from pipeline.config.training import Train
from pipeline.run import Run
from pipeline.study import folders, rows, subsets
from pipeline.study.results import About
from pipeline.study.rows import PhaseSeconds
from pipeline.study.subsets import Pool, Size
from pipeline.study.trials import Trial
from pipeline.train import recipe
from pipeline.upstream import checkpoints, environment

PROBED = 3  # epochs, of which the first is slower; frozen layers are cached from two on, as in a trial
PILOT_ROWS, PILOT_SEEDS = 2, 2  # run first, to show how much seeds differ and how long a trial takes


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


@dataclass(frozen=True, slots=True)
class Data:
    """The results of convert and augment for the rows, and the images drawn from them for each seed."""

    configs: dict[str, Config]
    sections: dict[str, dict[str, Any]]
    pool: Pool
    copies: dict[str, Mapping[str, int]]
    sources: dict[str, list[str | int]]  # by row, what its files and the base's seed add to the identity of its trials
    drawn: dict[int, dict[Size, list[str]]]

    def largest(self, row: str) -> tuple[int, Size]:
        """Return the seed and size with the most training files."""
        every = [(seed, size) for seed, sizes in self.drawn.items() for size in sizes]
        return max(every, key=lambda one: self.files(row, *one))

    def files(self, row: str, seed: int, size: Size) -> int:
        """Return the number of training files of the drawn images, copies included."""
        return sum(self.copies[row][image] for image in self.drawn[seed][size])


def prepare(path: Path, study: Study, place: Place) -> Data:
    """Run convert and augment where needed, draw the images of every seed, and list them in `subsets/`."""
    configs, sections, runs = rows.configs(path, study), rows.yaml_of(study), {}
    for row, config in configs.items():
        folder = folders.prepare(place.project, place.study, study.base.stem, config, sections[row])
        runs[row] = Run(folder / "runs" / study.base.stem)
    first = next(iter(configs))
    pool = subsets.pool(runs[first], configs[first])
    drawn = {seed: subsets.draw(pool, study.sizes, seed) for seed in range(study.seeds)}
    with files.holding(place.study):  # the same study may run twice
        for seed, sizes in drawn.items():
            files.write_json(place.study / "subsets" / f"seed{seed}.json", subsets.account(pool, sizes))
    sources = {row: _sources(config) for row, config in configs.items()}
    return Data(configs, sections, pool, {row: _copies(run) for row, run in runs.items()}, sources, drawn)


def _sources(config: Config) -> list[str | int]:
    """Return the digests of the source weights and the teacher, and the seed of the copies if there are any.

    Raises WeightsError before the first trial if weights are missing.
    """
    teacher = config.train.args.get("distill_model")
    paths = [_found(config.train.weights, config.train.fallback), *([_found(str(teacher))] if teacher else [])]
    digests = [digest for path in paths if (digest := checkpoints.digest(path))]
    return [*digests, *([config.seed] if config.augment.copies or config.augment.balance else [])]


@cache  # rows share weights, and a download may fail slowly
def _found(name: str, fallback: str | None = None) -> Path:
    if Path(name).suffix == ".pt" and not checkpoints.locate(name):
        environment.prepare()  # Ultralytics downloads it
    return checkpoints.find(name, fallback)


def plan(study: Study, data: Data, seconds: Mapping[str, Sequence[PhaseSeconds]]) -> list[Trial]:
    """Return all trials, the pilot first.

    `seconds`, by row, are for a budget of minutes; a row that could not be timed has no trials.
    """
    trials = []
    for seed, size, row in _order(study):
        if isinstance(study.budget, Minutes) and row not in seconds:
            continue
        count, most = data.files(row, seed, size), data.files(row, *data.largest(row))
        train, length = rows.budgeted(study, data.configs[row].train, most, seconds.get(row, ()))
        trials.append(_trial(study, data, row, size, seed, train, length or count))
    return trials


def probes(study: Study, data: Data) -> list[Trial]:
    """Return for each row a trial with a few epochs per phase at the largest size, to time them."""
    trials = []
    for row, config in data.configs.items():
        seed, size = data.largest(row)
        most = data.files(row, seed, size)
        chosen = recipe.choose(config.train, most)
        train = rows.with_epochs(config.train, chosen, [PROBED] * len(chosen.phases))
        trials.append(_trial(study, data, row, size, seed, train, most, "probe"))
    return trials


def _trial(
    study: Study, data: Data, row: str, size: Size, seed: int, train: Train, length: int, kind: str = ""
) -> Trial:
    images, base = data.drawn[seed][size], data.configs[row]
    config = base.model_copy(update={"seed": seed, "train": train})
    counted = subsets.counted(data.pool, images)
    written = train.model_dump(mode="json", by_alias=True, exclude_unset=True)
    sections = {**data.sections[row], "seed": seed, "train": written}
    slices = [config.slice(stage) for stage in ("convert", "augment", "train", "validate")]
    chosen = recipe.choose(train, length)  # a later version may choose other settings
    resolved = [[phase.model_dump(mode="json") for phase in chosen.phases], chosen.batch, chosen.lr0, chosen.args]
    identity = [slices, resolved, data.sources[row], counted["sha256"], data.pool.judged, length, row, size, kind]
    key = hashlib.sha256(files.to_json(identity).encode()).hexdigest()[:16]
    about: About = {
        "images": counted["images"],
        "boxes": counted["boxes"],
        "images_sha256": counted["sha256"],
        "judged_sha256": data.pool.judged,
        "list": length,
        "split_seed": base.seed,
        "train": config.slice("train")["train"],
    }
    name = f"probe-{row}" if kind else row
    return Trial(key, name, size, seed, study.base.stem, sections, tuple(images), length, about)


def _order(study: Study) -> Iterator[tuple[int, Size, str]]:
    """Yield seed, size and row of each trial: the pilot, then seed by seed, so that a stopped study is balanced."""
    names = list(study.rows)
    every = [(seed, size, row) for seed in range(study.seeds) for size in study.sizes for row in names]
    yield from sorted(every, key=lambda one: not is_pilot(study, one[2], one[0]))


def is_pilot(study: Study, row: str, seed: int) -> bool:
    return row in list(study.rows)[:PILOT_ROWS] and seed < PILOT_SEEDS


def _copies(run: Run) -> Mapping[str, int]:
    """Return the number of training files of each original image: itself and its copies."""
    stems = [path.stem for path in YoloDataset.read(run.augmented / "data.yaml").files("train")]
    originals = {path.stem: path.name for path in YoloDataset.read(run.dataset / "data.yaml").files("train")}
    counts: dict[str, int] = dict.fromkeys(originals.values(), 0)
    for stem in stems:
        counts[originals[folders.original(stem, originals)]] += 1
    return counts

"""Derive the config of each row, and keep equal what the budget holds equal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config.experiment import Config
from pipeline.config.loading import checked, read
from pipeline.config.study import Steps, Study
from pipeline.config.training import LENGTHS, Train
from pipeline.errors import ConfigError, counted
from pipeline.study.results import Line
from pipeline.train import recipe


def load(path: Path) -> Study:
    """Read a study and check every row of it. Raises ConfigError with one line for every error in it."""
    study = checked(str(path), read(path), Study)
    configs(path, study)
    return study


def configs(path: Path, study: Study) -> dict[str, Config]:
    """Return the config of each row. Raises ConfigError with the errors of all rows."""
    wrong, made = [], {}
    for name, sections in yaml_of(study).items():
        try:
            made[name] = checked(f"{path}: rows.{name}", sections, Config)
            if made[name].tiles:
                raise ConfigError(f"{path}: rows.{name}: a study cannot use `tiles`; write `every: {{tiles: null}}`")
            if isinstance(study.budget, Steps) and not _every_batch_is_a_step(made[name].train):
                raise ConfigError(
                    f"{path}: rows.{name}: a step is not one batch (train.args.nbs, or recipe: ultralytics), so steps "
                    "are not equal; write `budget: recipe`, or train.args.nbs equal to train.batch"
                )
            if isinstance(study.budget, Steps) and any(phase.patience for phase in made[name].train.phases or ()):
                raise ConfigError(
                    f"{path}: rows.{name}: `patience` may end a phase early, so steps are not equal; remove it"
                )
        except ConfigError as error:
            wrong.append(str(error))
    if wrong:
        raise ConfigError("\n".join(wrong))
    return made


def _every_batch_is_a_step(train: Train) -> bool:
    default = 64 if train.recipe == "ultralytics" else None  # our recipes set it to the batch
    return train.args.get("nbs", default) in (None, train.batch)


def yaml_of(study: Study) -> dict[str, dict[str, Any]]:
    """Return the sections of each row's config as in YAML: the base, changed by `every`, changed by the row.

    `train.precision: auto` chooses by the clock, which may differ from trial to trial; in a study it is `fp32`.
    """
    base = read(study.base)
    checked(str(study.base), base, Config)
    made = {name: merged(merged(base, study.every), row) for name, row in study.rows.items()}
    for sections in made.values():
        train = sections.get("train")
        if train is None or (isinstance(train, dict) and train.get("precision", "auto") == "auto"):
            sections["train"] = {**(train or {}), "precision": "fp32"}
    return made


def merged(base: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base with the keys of the row, section by section; a list replaces a list."""
    result = dict(base)
    for key, value in row.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


PhaseSeconds = tuple[float, float]  # what a phase takes besides its epochs, and one epoch


def timing(line: Line) -> list[PhaseSeconds]:
    """Return the seconds of each phase of a timed trial: besides its epochs, and of one epoch."""
    result = []
    for total, count, epoch in zip(line["phase_seconds"], line["epochs"], line["epoch_seconds"], strict=True):
        each = total / count if epoch is None else epoch
        result.append((max(0.0, total - count * each), each))
    return result


def budgeted(study: Study, train: Train, most: int, seconds: Sequence[PhaseSeconds] = ()) -> tuple[Train, int | None]:
    """Return the `train` section with the epochs that the budget allows, and the length of one epoch's image list.

    `most` is the number of images of the largest trial, copies included; `seconds` are those of each phase with that
    many, for a budget of minutes. With steps or minutes, the images of a small trial are repeated until its
    epoch is as long as that of every other trial. So the schedule, the validations and the seconds are equal, and only
    the images differ. The length is None if the list stays as it is. Raises ConfigError if the budget is so small that
    a phase would take more than twice its share of the recipe's epochs, because each has at least one.
    """
    if study.budget == "recipe":
        return train, None
    chosen = recipe.choose(train, most)
    parts = [phase.epochs for phase in chosen.phases]
    shown = " + ".join(map(str, parts))
    fewest = next(total for total in itertools.count(len(parts)) if _keeps_shares(distributed(total, parts), parts))
    if isinstance(study.budget, Steps):
        epochs = study.budget.steps * chosen.batch // most
        if epochs < fewest:
            raise ConfigError(
                f"budget.steps: {study.budget.steps} steps of {chosen.batch} images are {counted(epochs, 'epoch')} of "
                f"{most} images, too few for phases of {shown} epochs; write at least "
                f"{math.ceil(fewest * most / chosen.batch)}"
            )
        length = math.ceil(study.budget.steps / epochs) * chosen.batch
    else:
        assert not isinstance(study.budget, str) and len(seconds) == len(parts)
        average = sum(part * epoch for part, (_, epoch) in zip(parts, seconds, strict=True)) / sum(parts)
        besides = sum(besides for besides, _ in seconds)
        epochs, length = round((60 * study.budget.minutes - besides) / average), most
        if epochs < fewest:
            raise ConfigError(
                f"budget.minutes: {study.budget.minutes:g} minutes are too short for {most} images and phases of "
                f"{shown} epochs; write at least {math.ceil((besides + fewest * average) / 6) / 10:g}"
            )
    return with_epochs(train, chosen, distributed(epochs, parts)), length


def _keeps_shares(epochs: Sequence[int], parts: Sequence[int]) -> bool:
    return all(count * sum(parts) <= 2 * part * sum(epochs) for count, part in zip(epochs, parts, strict=True))


def with_epochs(train: Train, chosen: recipe.Recipe, epochs: Sequence[int]) -> Train:
    """Return the section with these epochs for the phases of the recipe, and its batch."""
    phases = [
        {**phase.model_dump(exclude_unset=True), "epochs": count}
        for phase, count in zip(chosen.phases, epochs, strict=True)
    ]
    replaced = {"minutes", *({"recipe"} if train.recipe in LENGTHS else ())}
    kept = train.model_dump(exclude_unset=True, exclude=replaced)
    return Train.model_validate({**kept, "phases": phases, "batch": chosen.batch})


def distributed(total: int, parts: Sequence[int]) -> list[int]:
    """Return `total` in proportion to `parts`, each at least 1, by largest remainders."""
    total = max(total, len(parts))
    free = total - len(parts)
    wanted = [max(0.0, part / sum(parts) * total - 1) for part in parts]
    scale = free / sum(wanted) if sum(wanted) else 0
    exact = [1 + want * scale for want in wanted]
    result = [math.floor(value) for value in exact]
    order = sorted(range(len(parts)), key=lambda index: result[index] - exact[index])
    for index in order[: total - sum(result)]:
        result[index] += 1
    return result


def in_words(study: Study) -> str:
    """Say what is equal for all rows."""
    if isinstance(study.budget, Steps):
        return (
            f"every trial takes {study.budget.steps} optimizer steps, or up to one more per epoch, and a row has the "
            "same epochs at every size: with fewer images, each is seen more often"
        )
    if study.budget == "recipe":
        return "nothing; each trial trains for as long as its row's recipe says for its number of images"
    return f"every trial trains for {study.budget.minutes:g} minutes on the machine that the study began on"

"""Find the usable images of the pool: readable, not labelled yet, without near-duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.boxes import SOURCE_SUFFIXES
from pipeline.errors import DataError
from pipeline.image_files import duplicates
from pipeline.label.store import File, Store
from pipeline.walk import walk

LABELLED = "labelled already"
LIKE_LABELLED = "near-duplicates of labelled images"
TWICE = "the same as another image of the pool"
LIKE_OTHER = "near-duplicates of other images of the pool"
DAMAGED = "cannot be read"


@dataclass(frozen=True, slots=True)
class Pool:
    """The images to choose from. `left_out` counts the others by reason; `problems` names the unreadable ones."""

    candidates: list[File]
    images: int
    left_out: dict[str, int]
    problems: dict[str, str]


def check_place(pool: Path, source: Path) -> None:
    """Raise DataError for a pool that is not a folder, or that shares images with `convert.source`."""
    if not pool.is_dir():
        raise DataError(f"{pool}: no such folder; put images without labels there, or correct label.pool")
    ours, theirs = pool.resolve(), source.resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        inside = f"is {source}" if ours == theirs else f"lies in {source}" if theirs in ours.parents else "holds it"
        raise DataError(
            f"{pool}: label.pool {inside}, which is convert.source: its images would be taken for labelled images; "
            "keep them in separate folders"
        )


def read(folder: Path, labelled: Sequence[File], store: Store, workers: int | None) -> Pool:
    """Read the pool and leave out what need not be labelled. Raises DataError if nothing is left.

    Of images that show the same, the first by name stays.
    """
    problems = {}
    paths = []
    for name, entry, problem in walk(folder):
        if entry is None:
            problems[name] = problem
        elif Path(name).suffix.lower() in SOURCE_SUFFIXES:
            paths.append(folder / name)
    if not paths:
        raise DataError(f"{folder}: holds no image; put images without labels there, or correct label.pool")
    files = store.files(paths, workers, "label: reading the pool")
    images = len(paths) + len(problems)
    problems |= {file.path.relative_to(folder).as_posix(): file.problem for file in files if file.problem}
    usable = [file for file in files if not file.problem]
    candidates, reasons = _worth_a_look(usable, labelled)
    left_out = Counter({DAMAGED: len(problems)}) + reasons  # without zeros
    if not candidates:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise DataError(f"{folder}: no image is left to label ({why}); add images")
    return Pool(candidates, images, dict(left_out), problems)


def _worth_a_look(usable: Sequence[File], labelled: Sequence[File]) -> tuple[list[File], Counter[str]]:
    known, digests = {file.sha256 for file in labelled}, set[str]()
    reasons: Counter[str] = Counter()
    new = []
    for file in usable:
        if file.sha256 in known or file.sha256 in digests:
            reasons[LABELLED if file.sha256 in known else TWICE] += 1
        else:
            digests.add(file.sha256)
            new.append(file)
    # Labelled images first, so that the first image of a pair is the one that stays.
    together = [*labelled, *new]
    like: dict[int, list[int]] = {}
    for first, second in duplicates.near_duplicates([file.fingerprint for file in together]):
        like.setdefault(second, []).append(first)
    # Pairs, not clusters: in a slow video the first frame is linked to the last, which shows something else.
    stays = set(range(len(labelled)))
    candidates = []
    for index, file in enumerate(new, start=len(labelled)):
        earlier = [similar for similar in like.get(index, ()) if similar in stays]
        if earlier:
            reasons[LIKE_LABELLED if min(earlier) < len(labelled) else LIKE_OTHER] += 1
        else:
            stays.add(index)
            candidates.append(file)
    return candidates, reasons

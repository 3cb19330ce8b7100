"""Find the usable images of the pool: readable, not labelled yet, and of use to `convert` once they are labelled."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pipeline.boxes import SOURCE_SUFFIXES
from pipeline.config.data import Convert
from pipeline.convert import splits
from pipeline.errors import DataError
from pipeline.image_files import duplicates
from pipeline.image_files.duplicates import Fingerprint
from pipeline.label.store import File, Store
from pipeline.records import receipt
from pipeline.run import Run
from pipeline.walk import is_text, walk

LABELLED = "labelled already"
LIKE_LABELLED = "near-duplicates of labelled images"
TWICE = "the same as another image of the pool"
LIKE_OTHER = "near-duplicates of other images of the pool"
JUDGED = "of a convert.group_by group that has images in val or test"
NAMESAKES = "named like another image but for suffix or case"
DAMAGED = "cannot be used"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pool:
    """The images to choose from. `left_out` counts the others by reason; `problems` names the unusable ones."""

    folder: Path
    candidates: list[File]
    images: int
    left_out: dict[str, int]
    problems: dict[str, str]

    def only_seen(self, seen: Sequence[T | None]) -> tuple[Pool, list[T]]:
        """Leave out the candidates for which `seen` has None; return the pool and the rest of `seen`."""
        gone = [file for file, one in zip(self.candidates, seen, strict=True) if one is None]
        found = [one for one in seen if one is not None]
        if not gone:
            return self, found
        rest = [file for file, one in zip(self.candidates, seen, strict=True) if one is not None]
        left_out = {**self.left_out, DAMAGED: self.left_out.get(DAMAGED, 0) + len(gone)}
        why = "has disappeared meanwhile, or OpenCV cannot decode it; save it as JPEG or PNG"
        problems = {**self.problems, **{file.path.relative_to(self.folder).as_posix(): why for file in gone}}
        return _pool(self.folder, rest, self.images, left_out, problems), found


def check_place(pool: Path, source: Path) -> None:
    """Raise DataError for a pool that is not a folder, or that shares images with `convert.source`."""
    if not pool.is_dir():
        raise DataError(f"{pool}: no such folder; put images without labels there, or correct label.pool")
    ours, theirs = pool.resolve(), source.resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        place = f"is {source}" if ours == theirs else f"{'lies in' if theirs in ours.parents else 'contains'} {source}"
        raise DataError(
            f"{pool}: label.pool {place}, which is convert.source: its images would be taken for labelled images; "
            "keep them in separate folders"
        )


def name_of(path: str | Path, run: Run) -> str:
    """Return the path of an image as `data/labels/` records it.

    It is relative to where `make` runs if the image is below, so that it is valid in a clone elsewhere too.
    """
    root, file = (Path(os.path.normpath(Path(each).absolute())) for each in (run.project, path))
    if ".." in Path(path).parts and not file.exists():  # `..` after a link leads elsewhere
        file = Path(path).resolve()
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.as_posix()


def read(
    folder: Path,
    run: Run,
    convert: Convert,
    labelled: Sequence[File],
    saved: Sequence[str],
    store: Store,
    workers: int | None,
) -> Pool:
    """Read the pool and leave out what need not be labelled. Raises DataError if nothing is left.

    `saved` are the names of images in `data/labels/`. Of images that show the same, the first by name stays.
    """
    problems: dict[str, str] = {}
    paths = []
    for name, entry, problem in walk(folder):
        if entry is None:
            problems[_printable(name)] = problem
        elif Path(name).suffix.lower() in SOURCE_SUFFIXES:
            if why := _unusable(name, folder, run, convert):
                problems[_printable(name)] = why
            else:
                paths.append(folder / name)
    if not paths and not problems:
        raise DataError(f"{folder}: holds no image; put images without labels there, or correct label.pool")
    images = len(paths) + len(problems)
    files = store.files(paths, workers, "label: reading the pool")
    problems |= {file.path.relative_to(folder).as_posix(): file.problem for file in files if file.problem}
    usable = [file for file in files if not file.problem]
    judged = _in_judged_groups([name_of(file.path, run) for file in usable], run, convert)
    candidates, reasons = _worth_a_look(usable, labelled, judged, saved, run)
    return _pool(folder, candidates, images, Counter({DAMAGED: len(problems)}) + reasons, problems)


def _pool(
    folder: Path, candidates: list[File], images: int, left_out: dict[str, int], problems: dict[str, str]
) -> Pool:
    if not candidates:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise DataError(f"{folder}: no image is left to label ({why}); add images")
    return Pool(folder, candidates, images, dict(left_out), problems)


def _printable(name: str) -> str:
    return name if is_text(name) else ascii(name)[1:-1]


def _unusable(name: str, folder: Path, run: Run, convert: Convert) -> str:
    """Return why the name of a file makes it unusable; empty if it does not."""
    if not is_text(name):
        return "its name is not one line of UTF-8; rename it"
    if convert.group_by and len(name_of(folder / name, run)) > splits.LONGEST_NAME:
        return f"its path has more than {splits.LONGEST_NAME} characters, convert.group_by's limit; shorten it"
    return ""


def _in_judged_groups(names: Sequence[str], run: Run, convert: Convert) -> set[str]:
    """Return the names of images that belong with images of val or test: convert would leave them out of train."""
    if not convert.group_by or convert.new_images != "train":
        return set()
    sources = receipt.read(run)["sources"]
    groups = splits.groups([*sources.values(), *(name.lstrip("/") for name in names)], convert.group_by)
    judged = {group for place, group in zip(sources, groups, strict=False) if not place.startswith("train/")} - {None}
    return {name for name, group in zip(names, groups[len(sources) :], strict=True) if group in judged}


def _worth_a_look(
    usable: Sequence[File], labelled: Sequence[File], judged: set[str], saved: Sequence[str], run: Run
) -> tuple[list[File], Counter[str]]:
    known, digests = {file.sha256 for file in labelled}, set[str]()
    stems = {_stem(name): name for name in saved}
    reasons: Counter[str] = Counter()
    new = []
    for file in usable:
        name = name_of(file.path, run)
        if file.sha256 in known or file.sha256 in digests:
            reasons[LABELLED if file.sha256 in known else TWICE] += 1
        elif name in judged:
            reasons[JUDGED] += 1
        elif stems.setdefault(_stem(name), name) != name:
            reasons[NAMESAKES] += 1
        else:
            digests.add(file.sha256)
            new.append(file)
    # Labelled images first, so that the first image of a pair is the one that stays.
    prints = [file.fingerprint for file in (*labelled, *new)]
    clusters: dict[int, list[int]] = defaultdict(list)
    for index, number in enumerate(duplicates.clusters(len(prints), duplicates.near_duplicates(prints))):
        clusters[number].append(index)
    alike: dict[int, str] = {}
    for members in clusters.values():
        alike |= _alike(members, prints, len(labelled))
    candidates = [file for index, file in enumerate(new, start=len(labelled)) if index not in alike]
    return candidates, reasons + Counter(alike.values())


def _stem(name: str) -> str:
    """Return what must be unique, because `convert` and most tools name the label file of an image after it."""
    return str(PurePosixPath(name).with_suffix("")).lower()


def _alike(cluster: Sequence[int], prints: Sequence[Fingerprint], labelled: int) -> dict[int, str]:
    """Return the new images of a cluster that show the same as one that stays, each with the reason.

    Not all of the cluster: in a slow video the first frame is linked to the last, which shows something else.
    """
    alike: dict[int, str] = {}
    for place, index in enumerate(cluster):
        if index in alike:
            continue
        if rest := [later for later in cluster[place + 1 :] if later >= labelled and later not in alike]:
            same = duplicates.alike(prints[index], [prints[later] for later in rest])
            why = LIKE_LABELLED if index < labelled else LIKE_OTHER
            alike |= {later: why for later, is_same in zip(rest, same, strict=True) if is_same}
    return alike

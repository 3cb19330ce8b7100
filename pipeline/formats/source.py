"""What all readers give back, and how they find files without being led out of the source."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.boxes import IMAGE_SUFFIXES, Labelled
from pipeline.errors import DataError


@dataclass(frozen=True, slots=True)
class Source:
    """All that a folder holds.

    `classes` is the order that the format itself gives, None where it has none (VOC).
    `has_splits` tells whether the source assigns images to train, val and test.
    """

    images: tuple[Labelled, ...]
    classes: tuple[str, ...] | None
    has_splits: bool


SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def split_of(name: str) -> str | None:
    """The split that a file or folder name speaks of: `instances_val2017` -> val, `boards` -> None."""
    word = "".join(char if char.isalpha() else " " for char in name.lower()).split()
    found = {SPLIT_WORDS[part] for part in word if part in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None


def files_under(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Files by suffix anywhere below, hidden ones left out, in the order of their names."""
    wanted = frozenset(suffixes)
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in wanted
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def images_under(folder: Path) -> list[Path]:
    return files_under(folder, IMAGE_SUFFIXES)


def inside(source: Path, name: str, relative_to: Path, named_by: Path) -> Path:
    """The file called `name`, resolved, if it lies in the source; an annotation must not lead anywhere else."""
    said = repr(name if len(name) <= 80 else f"{name[:80]}...")
    try:
        resolved = (relative_to / name).resolve()
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, a null byte
        raise DataError(f"{named_by}: names an impossible path, {said}; correct it") from None
    if not resolved.is_relative_to(source):
        raise DataError(f"{named_by}: names {said}, outside {source}; move the image into the source")
    return resolved


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason}); write it again as UTF-8") from None

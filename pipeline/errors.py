"""Define the errors that a user can fix. All others are bugs and keep their traceback.

PipelineError
├── ConfigError    the YAML
├── DataError      images and annotations
├── WeightsError   source weights: missing, or not to be trusted
└── ExportError    an artefact that cannot be made here, or differs from the model
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sized
from difflib import get_close_matches
from pathlib import Path

FULL_DISK_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of the operating system's errors


class PipelineError(Exception):
    """An error for the user in one line: which file, what is wrong, what to do."""


class ConfigError(PipelineError):
    """The config file cannot be used as it is. May hold several lines, one per error."""


class DataError(PipelineError):
    """The labelled images cannot be used as they are."""


class WeightsError(PipelineError):
    """The source weights are missing or are not an Ultralytics checkpoint."""


class ExportError(PipelineError):
    """An artefact cannot be made on this machine, or does not do what the model does."""


def missing(path: Path, dataset: Path) -> DataError:
    """Return the error for a file or folder that someone removed from a dataset that a stage wrote."""
    return DataError(f"{path}: missing; delete {dataset} and run `make` again")


def in_a_line(error: BaseException, longest: int = 200) -> str:
    """Return the message of a library's error on one line of at most so many characters, or the error's type."""
    return " ".join(str(error).split())[:longest] or type(error).__name__


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return `1 image` or `2 images`."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def and_more(named: Sized) -> str:
    """Return ` (and 2 more such)` if only the first of three is named; nothing if there is only one."""
    return f" (and {len(named) - 1} more such)" if len(named) > 1 else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'freeze'?`, or nothing if no known word is similar."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""

"""Recognise train, val and test in the names of files and folders."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@cache
def split_of(name: str) -> str | None:
    """Return the split in a file or folder name: `instances_val2017` -> val, `boards` -> None."""
    words = "".join(char if char.isalpha() else " " for char in name.lower()).split()
    splits = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    return splits.pop() if len(splits) == 1 else None


# A word for the content may follow, as in `train_images`, and a year or number, as in COCO's `train2017`. CVAT's
# Darknet export has `obj_train_data`, and two public sets `WIDER_train` and `VisDrone2019-DET-test-dev`.
_SPLIT_FOLDER = re.compile(
    r"(?:obj_([a-z]+)_data|WIDER_([a-z]+)|VisDrone\d*-DET-([a-z]+)(?:-dev|-challenge)?"
    r"|([a-z]+?)(?:[ _-]?(?:images?|imgs?|labels?|annotations?|set|data))?[ _-]?\d*)",
    re.IGNORECASE,
)


def folder_split(source: Path, path: Path) -> str | None:
    """Return the split that a folder above a file is named after: `train/a.jpg` -> train, `test track/a.jpg` -> None.

    The outermost such folder counts. The name of the source itself does not.
    """
    return split_of_folders(path.parent.relative_to(source).as_posix())


def without_split_folders(path: str) -> str:
    """Remove the folders that are named after splits: `train/yard/a.jpg` -> `yard/a.jpg`."""
    *folders, last = path.split("/")
    return "/".join([*(folder for folder in folders if not split_of_folders(folder)), last])


@cache
def split_of_folders(folders: str) -> str | None:
    matches = filter(None, map(_SPLIT_FOLDER.fullmatch, folders.split("/")))
    words = (next(filter(None, match.groups())).lower() for match in matches)
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)

"""Compute SHA-256 digests of the files that convert reads besides the source; None for a missing file.

Convert records the digests that it used, and `params` compares them with the current ones. Dates are not enough:
convert itself writes the splits that it reads next time, and a deleted file has no date.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline import files, fixes
from pipeline.config.data import Convert
from pipeline.errors import PipelineError
from pipeline.labels import file as labels
from pipeline.run import Run

Digests = dict[str, str | None]


def digests(config: Convert, run: Run) -> Digests:
    """Return the digests of the fixes, of the labels, and of the splits drawn earlier.

    `splits` is None if the source gives its own.
    """
    drawn = None if config.split == "given" else _digest(run.splits)
    return {"fixes": _digest(fixes.file_of(run)), "splits": drawn, "labels": _labels(run)}


def _digest(path: Path) -> str | None:
    return files.sha256(path) if path.is_file() else None


def _labels(run: Run) -> str | None:
    """Hash the label files with the sizes and dates of their images, which may be on a disk that is not mounted."""
    paths = labels.files_of(run)
    if not paths:
        return None
    state = [f"{path.name} {files.sha256(path)}" for path in paths]
    root = run.project
    for path in paths:
        try:
            images = labels.load(path).images
        except PipelineError:
            continue  # convert says what is wrong with it
        for image in images:
            try:
                status = (root / image.file).stat()
                state.append(f"{image.file} {status.st_size} {status.st_mtime_ns}")
            except OSError:
                state.append(image.file)
    return hashlib.sha256("\n".join(state).encode()).hexdigest()

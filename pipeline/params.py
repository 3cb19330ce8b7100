"""The slices of a config, one file a stage: how make knows which stages a change concerns.

A file whose text would not change keeps its date, so a comment in the YAML, or an edit of another
section, makes nothing run again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pipeline import files
from pipeline.config import Config
from pipeline.run import Run
from pipeline.walk import walk

STAGES = ("convert", "augment", "train", "validate", "inspect", "export", "report")


def main(config: Config, run: Run) -> None:
    for stage in STAGES:
        _write_if_new(run.params(stage), files.to_json(config.slice(stage)))
    _write_if_new(run.source_listing, files.to_json(_listing(config.convert.source)))


def _write_if_new(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        files.write_text(path, text)


def _listing(folder: Path) -> dict[str, int | str]:
    """Sum up the source by names, sizes and dates, through links as its readers do: an edited label makes convert run.

    Contents are not read: 100,000 images take a fraction of a second. What cannot be read is listed with its problem,
    for convert to refuse.
    """
    lines = []
    for name, entry, problem in walk(folder):
        if entry:
            try:
                status = entry.stat()
                problem = f"{status.st_size} {status.st_mtime_ns}"
            except OSError as error:  # deleted meanwhile
                problem = str(error.strerror)
        lines.append(f"{name} {problem}\n")
    listing = os.fsencode("".join(lines))  # a name may hold bytes that are no UTF-8
    return {"files": len(lines), "listing_sha256": hashlib.sha256(listing).hexdigest()}

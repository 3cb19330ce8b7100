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

STAGES = ("convert", "augment", "train", "validate", "inspect", "export", "report")


def main(config: Config, run: Run) -> None:
    for stage in STAGES:
        _write_if_new(run.params(stage), files.to_json(config.slice(stage)))
    _write_if_new(run.source_listing, files.to_json(_listing(config.convert.source)))


def _write_if_new(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        files.write_text(path, text)


def _listing(folder: Path) -> dict[str, int | str]:
    """The state of the source by names, sizes and dates: an edited label makes convert run again.

    Contents are not read: 100,000 images take a fraction of a second.
    """
    digest, count = hashlib.sha256(), 0
    for root, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(names):
            status = os.stat(os.path.join(root, name), follow_symlinks=True)
            digest.update(f"{os.path.relpath(root, folder)}/{name} {status.st_size} {status.st_mtime_ns}\n".encode())
            count += 1
    return {"files": count, "listing_sha256": digest.hexdigest()}

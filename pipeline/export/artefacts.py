"""Handle artefacts. Each is a file or, in some formats, a folder."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from pipeline import files


def remove(artefact: Path) -> None:
    if artefact.is_dir():
        shutil.rmtree(artefact)
    else:
        artefact.unlink()


def sha256(artefact: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's `sha256sum` listing."""
    if artefact.is_file():
        return files.sha256(artefact)
    listing = "".join(
        f"{files.sha256(path)}  {path.relative_to(artefact).as_posix()}\n"
        for path in sorted(artefact.rglob("*"))
        if path.is_file()
    )
    return hashlib.sha256(listing.encode()).hexdigest()


def size(artefact: Path) -> int:
    paths = [artefact] if artefact.is_file() else [path for path in artefact.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in paths)

"""SHA-256 digests of the files that convert reads beside the source; None for a missing file.

Convert records the digests it used, and `params` compares them with the current ones. Dates would not do: convert
itself writes the splits that it reads next time, and a deleted file has no date.
"""

from __future__ import annotations

from pathlib import Path

from pipeline import files, fixes
from pipeline.config.data import Convert
from pipeline.run import Run

Digests = dict[str, str | None]


def digests(config: Convert, run: Run) -> Digests:
    """Return the digests of the fixes and of the splits drawn earlier; `splits` is None if the source gives its own."""
    drawn = None if config.split == "given" else _digest(run.splits)
    return {"fixes": _digest(fixes.file_of(run)), "splits": drawn}


def _digest(path: Path) -> str | None:
    return files.sha256(path) if path.is_file() else None

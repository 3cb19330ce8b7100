"""Allow one writer per run, by a lock that is released when the process that holds it ends, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pipeline import files
from pipeline.errors import ConfigError, PipelineError
from pipeline.run import Run


@contextmanager
def of(run: Run) -> Iterator[None]:
    """Lock the folder of the run itself, so that no lock file remains. Raises PipelineError if it is locked already.

    A folder that was created for the lock is removed if nothing was written into it.
    """
    created = [folder for folder in (run.root, run.root.parent) if not folder.exists()]
    run.root.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as held:
            try:
                held.enter_context(files.holding(run.root, wait=False))
            except BlockingIOError:
                raise PipelineError(
                    f"{run.root}: is being written by {_holder(run.root)}; wait until it ends, or stop it"
                ) from None
            yield
    finally:
        with suppress(OSError):  # not empty
            for empty in created:
                empty.rmdir()


def is_held(run: Run) -> bool:
    """Return whether another command holds the lock of the run."""
    try:
        with files.holding(run.root, wait=False):
            return False
    except BlockingIOError:
        return True
    except OSError:  # there is no run yet
        return False


def _holder(folder: Path) -> str:
    """Return which process holds the lock of a folder, from Linux's list of locks."""
    inode = str(folder.stat().st_ino)
    try:
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if "FLOCK" in words and words[5].rpartition(":")[2] == inode and "->" not in words:
                command = " ".join(
                    Path(f"/proc/{words[4]}/cmdline").read_text(errors="replace").replace("\0", " ").split()
                )
                return f"process {words[4]} ({command[-200:]})"
    except (OSError, IndexError):
        pass
    return "another process"


def check_config(run: Run, config: Path) -> None:
    """Raise ConfigError if the run was made by another config file that still exists."""
    note = run.params("made_by")
    if not note.is_file():
        return
    theirs = Path(files.read_json(note)["config"])
    if theirs.is_file() and not theirs.samefile(config):
        raise ConfigError(
            f"{run.root}: was made by {theirs}, not by {config}; a run has the name of its config file, so rename "
            f"{config}, or delete {run.root}"
        )


def note_config(run: Run, config: Path) -> None:
    """Record which config made the run, for `check_config` to compare."""
    made_by = {"config": os.path.relpath(config)}
    if not run.params("made_by").is_file() or files.read_json(run.params("made_by")) != made_by:
        files.write_json(run.params("made_by"), made_by)

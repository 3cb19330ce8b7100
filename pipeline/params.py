"""Write the small files in `runs/NAME/params` that tell make which stages a change affects.

    STAGE.json      the stage's slice of the config
    source.json     the state of `convert.source`         retention.json  the state of the `validate.retention` set
    beside.json     fixes and drawn splits                weights.json    source weights and teacher
    against.json    the run that AGAINST names

A file is rewritten only if its text changes. A comment in the YAML or an edit of another section reruns nothing.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from pipeline import files, inputs, lock
from pipeline.config.experiment import Config
from pipeline.config.training import Train
from pipeline.errors import DataError
from pipeline.inputs import Digests
from pipeline.run import Run
from pipeline.upstream import checkpoints
from pipeline.walk import walk

STAGES = ("convert", "augment", "train", "validate", "inspect", "export", "report")


def main(config: Config, run: Run, against: Path | None = None) -> None:
    """Rewrite what has changed. Raises PipelineError if something has and another command is writing to the run.

    That command began with the old state, and what it writes would be newer than the new one.
    """
    states: dict[Path, Any] = {run.params(stage): config.slice(stage) for stage in STAGES}
    states[run.params("against")] = {"against": None if against is None else str(against)}
    states[run.source_listing] = _listing(config.convert.source)
    retention = config.validate_.retention
    labelled = None if retention is None else _listing(retention if retention.is_dir() else retention.parent)
    states[run.params("retention")] = labelled
    texts = {path: files.to_json(state) for path, state in states.items()}
    changed = {path: text for path, text in texts.items() if not _holds(path, text)}

    receipt, record = _record(run.receipt), _record(run.train_record)
    for path, now, used in (
        (run.params("beside"), inputs.digests(config.convert, run), receipt and receipt.get("inputs")),
        (run.params("weights"), _weights_now(config.train, record) if record else {}, record and _weights_used(record)),
    ):
        # Its date is renewed until a stage has used the present state; nothing was used before the first run.
        if not path.is_file() or used not in (None, now):
            changed[path] = files.to_json(now)
    if changed:
        with lock.of(run):
            for path, text in changed.items():
                files.write_text(path, text)


def _record(path: Path) -> dict[str, Any] | None:
    """Return the record of a finished stage, or None if it has not run. Raises DataError for a damaged file."""
    if not path.is_file():
        return None
    record = files.read_json(path)
    if not isinstance(record, dict):
        raise DataError(f"{path}: not a record of this version; delete it and run the same command again")
    return record


def _weights_now(config: Train, record: dict[str, Any]) -> Digests:
    """Return the SHA-256 of the source weights and of the teacher, given the record of a finished training.

    Weights that are no longer on this machine count as unchanged.
    """
    teacher = checkpoints.locate(str(config.args.get("distill_model", "")))
    source = checkpoints.locate(config.weights)
    if source is None and (record.get("weights") or {}).get("instead_of"):
        source = checkpoints.locate(config.fallback or "")
    paths = {"weights": source, "teacher": teacher}
    return _weights_used(record) | {part: files.sha256(path) for part, path in paths.items() if path}


def _weights_used(record: dict[str, Any]) -> Digests:
    return {part: (record.get(part) or {}).get("sha256") for part in ("weights", "teacher")}


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _listing(folder: Path) -> dict[str, int | str]:
    """Return the number of files in the source and a digest of their names, sizes and dates.

    Links are followed as in the readers. Contents are not read, so 100,000 images take a fraction of a second. An
    unreadable file is listed with its problem, and convert refuses it.
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
    listing = os.fsencode("".join(lines))  # file names need not be valid UTF-8
    return {"files": len(lines), "listing_sha256": hashlib.sha256(listing).hexdigest()}

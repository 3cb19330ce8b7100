"""How make learns which stages a change concerns: small files in `runs/NAME/params` that change when they must run.

    STAGE.json      the stage's slice of the config
    source.json     the state of `convert.source`         retention.json  that of the `validate.retention` set
    beside.json     corrections and drawn splits          weights.json    source weights and teacher
    against.json    the run that AGAINST names

A file whose text would not change keeps its date, so a comment in the YAML, or an edit of another section, makes
nothing run again.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from pipeline import files, inputs
from pipeline.config import Config, Train
from pipeline.errors import DataError
from pipeline.inputs import Digests
from pipeline.run import Run
from pipeline.upstream import checkpoints
from pipeline.walk import walk

STAGES = ("convert", "augment", "train", "validate", "inspect", "export", "report")


def main(config: Config, run: Run, against: Path | None = None) -> None:
    for stage in STAGES:
        _write_if_new(run.params(stage), files.to_json(config.slice(stage)))
    _write_if_new(run.params("against"), files.to_json({"against": None if against is None else str(against)}))
    _write_if_new(run.source_listing, files.to_json(_listing(config.convert.source)))
    retention = config.validate_.retention
    state = None if retention is None else _listing(retention if retention.is_dir() else retention.parent)
    _write_if_new(run.params("retention"), files.to_json(state))
    receipt = _record(run.receipt)
    _write_if_other(run.params("beside"), inputs.digests(config.convert, run), receipt and receipt.get("inputs"))
    record = _record(run.train_record)
    used = record and _weights_used(record)
    _write_if_other(run.params("weights"), _weights_now(config.train, record) if record else {}, used)


def _write_if_other(path: Path, now: Digests, used: Digests | None) -> None:
    """Give the file a new date until a stage has used what is there now; `used` is None before it has run."""
    if not path.is_file() or used not in (None, now):
        files.write_json(path, now)


def _record(path: Path) -> dict[str, Any] | None:
    """Return what a finished stage recorded; None where it has not run. Raises DataError for a damaged file."""
    if not path.is_file():
        return None
    record = files.read_json(path)
    if not isinstance(record, dict):
        raise DataError(f"{path}: not what a stage writes; delete it and run `make` again")
    return record


def _weights_now(config: Train, record: dict[str, Any]) -> Digests:
    """Return the source weights and the teacher, given the record of a finished training.

    Weights that are no longer on this machine count as unchanged: there is nothing else to train from.
    """
    teacher = checkpoints.locate(str(config.args.get("distill_model", "")))
    source = checkpoints.locate(config.weights)
    if source is None and (record.get("weights") or {}).get("instead_of"):
        source = checkpoints.locate(config.fallback or "")
    found = {"weights": source, "teacher": teacher}
    return _weights_used(record) | {part: files.sha256(path) for part, path in found.items() if path}


def _weights_used(record: dict[str, Any]) -> Digests:
    return {part: (record.get(part) or {}).get("sha256") for part in ("weights", "teacher")}


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

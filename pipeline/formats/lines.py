"""JSON Lines: one record per line, as in Labelbox exports, Ultralytics NDJSON and Hugging Face's `metadata.jsonl`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from pipeline.errors import DataError
from pipeline.formats.text import read_text

SUFFIXES = {".ndjson", ".jsonl"}


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each record with its line number. Raises DataError for a line that is not a JSON object."""
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise DataError(f"{path}: line {number}: not a JSON object; export it again")
        yield number, record

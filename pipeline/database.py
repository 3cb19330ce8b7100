"""FiftyOne with its database: whether there is one, and words for it where there is none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import PipelineError

INSTALL_DATABASE = "make database"
MONGO_HOST = "127.0.0.1"
MONGO_PORT = 27017


@contextmanager
def fiftyone() -> Iterator[Any]:
    """FiftyOne's package, quiet and without telemetry, its database in place.

    Raises PipelineError where there is no database, or it does not start.
    """
    os.environ["FIFTYONE_DO_NOT_TRACK"] = "true"
    os.environ.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")  # or it nags about MongoDB's version at each start
    os.environ.setdefault("FIFTYONE_LOGGING_LEVEL", "ERROR")  # or it explains ssh to a person who needs none
    _ensure()
    import fiftyone as fo

    fo.config.show_progress_bars = sys.stderr.isatty()
    try:
        yield fo
    except (fo.core.config.FiftyOneConfigError, ConnectionError) as error:
        first = " ".join(str(error).split())[:200]
        raise PipelineError(
            f"FiftyOne's database does not start ({first}); `{INSTALL_DATABASE}` puts one in place"
        ) from None


def _ensure() -> None:
    if uri := os.environ.get("FIFTYONE_DATABASE_URI"):
        parts = urlsplit(uri)
        server = f"{parts.hostname}:{parts.port or MONGO_PORT}"
        try:  # FiftyOne itself waits half a minute for a server that is not there
            socket.create_connection((parts.hostname or MONGO_HOST, parts.port or MONGO_PORT), timeout=3).close()
        except OSError as error:
            raise PipelineError(
                f"FIFTYONE_DATABASE_URI: no answer from {server} ({error}); start it, or unset the variable"
            ) from None
        return
    spec = find_spec("fiftyone")
    assert spec is not None and spec.origin is not None
    if (Path(spec.origin).parent / "db" / "bin" / "mongod").is_file():
        return
    missing = "FiftyOne's own database is missing: its installer could not download it"
    if sys.stdin.isatty():
        answer = input(f"{missing}. Run `{INSTALL_DATABASE}` now? [y/N] ").strip().lower()
        if answer in ("y", "yes") and subprocess.run(INSTALL_DATABASE.split(), check=False).returncode == 0:
            return
    raise PipelineError(f"{missing}; `{INSTALL_DATABASE}` installs it, or point FIFTYONE_DATABASE_URI to a MongoDB")

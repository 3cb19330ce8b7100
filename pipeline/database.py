"""Start FiftyOne with its database, and say what to do if there is none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline import files, logs
from pipeline.errors import PipelineError, in_a_line

INSTALL_DATABASE = "make database"
PROBE_SECONDS = 3
START_SECONDS = 600  # a busy machine takes minutes


@contextmanager
def fiftyone() -> Iterator[Any]:
    """Yield FiftyOne's package, quiet and without telemetry, with its database running.

    Raises PipelineError if there is no database, or if it does not start.
    """
    os.environ["FIFTYONE_DO_NOT_TRACK"] = "true"
    os.environ.setdefault("FIFTYONE_DATABASE_VALIDATION", "false")  # no warning about MongoDB's version
    os.environ.setdefault("FIFTYONE_LOGGING_LEVEL", "ERROR")  # no advice about ssh
    package = _ensure()
    import fiftyone as fo
    from pymongo.errors import PyMongoError

    fo.config.show_progress_bars = sys.stderr.isatty()
    try:
        # One start at a time: two would each run a database on the same files, and one of them would end. The second
        # command finds the database of the first, and waits until it answers.
        with files.holding(package):
            _start(fo)
    except Exception as error:  # types of FiftyOne, of the operating system and of the driver
        raise PipelineError(
            f"FiftyOne's database does not start ({_first(error)}); `{INSTALL_DATABASE}` installs another one, and "
            "FIFTYONE_DATABASE_DIR=FOLDER moves its data to another folder"
        ) from None
    try:
        yield fo
    except PyMongoError as error:
        raise PipelineError(f"FiftyOne's database failed ({_first(error)}); try again") from None


def _start(fo: Any) -> None:
    """Start the database, or connect to a running one, and wait for it. FiftyOne alone gives up after a minute."""
    from fiftyone.core import service
    from fiftyone.core.odm import database

    try:
        fo.list_datasets()
    except service.ServiceListenTimeout:
        slow, until = database._db_service, time.monotonic() + START_SECONDS
        while _runs(slow.child) and time.monotonic() < until:
            with suppress(service.ServiceListenTimeout):
                os.environ["FIFTYONE_PRIVATE_DATABASE_PORT"] = str(slow.port)  # where FiftyOne looks for it
                fo.list_datasets()
                return
        raise


def _runs(process: Any) -> bool:
    """Return whether a process is running. A child of ours is still listed after its end, until it is polled."""
    return bool(process.is_running() and (not hasattr(process, "poll") or process.poll() is None))


def _ensure() -> Path:
    """Return the folder of FiftyOne's package. Raises PipelineError if there is no database."""
    spec = find_spec("fiftyone")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    if uri := os.environ.get("FIFTYONE_DATABASE_URI"):
        _reach(uri)
        return package
    if (package / "db" / "bin" / "mongod").is_file():
        return package
    missing = "FiftyOne's own database is missing: its installer could not download it"
    if sys.stdin.isatty():
        answer = ""
        logs.say(f"{missing}. Run `{INSTALL_DATABASE}` now? [y/N]")
        with suppress(EOFError):  # Ctrl-D means no
            answer = input().strip().lower()
        if answer in ("y", "yes"):
            done = subprocess.run(INSTALL_DATABASE.split(), check=False, stdout=logs.screen().out)
            if done.returncode == 0:
                return package
    raise PipelineError(f"{missing}; `{INSTALL_DATABASE}` installs it, or point FIFTYONE_DATABASE_URI to a MongoDB")


def _reach(uri: str) -> None:
    """Raise PipelineError unless a server answers; FiftyOne itself would wait half a minute for a missing one."""
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    try:
        with MongoClient[Any](uri, serverSelectionTimeoutMS=1000 * PROBE_SECONDS) as client:
            client.admin.command("ping")
    except (PyMongoError, ValueError) as error:
        server = re.sub(r"^\w+(\+srv)?://([^/@]*@)?|[/?].*", "", uri)  # without the password
        raise PipelineError(
            f"FIFTYONE_DATABASE_URI: no answer from {server} ({_first(error)}); start it, or unset the variable"
        ) from None


def _first(error: Exception) -> str:
    """Return the beginning of an error's message, because the driver goes on to describe its whole topology."""
    return in_a_line(error, 1000).split(" (configured")[0].split(", Timeout:")[0][:200]

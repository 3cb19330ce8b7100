"""Serve FiftyOne's App on this machine only, until it is stopped."""

from __future__ import annotations

import hashlib
import re
import shlex
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

from pipeline import logs
from pipeline.errors import PipelineError

CLOSED = "the App is closed"  # the last line of a stage that served it
ADDRESS = "127.0.0.1"  # the App has no password, so no other machine may reach it
MOST_BUTTONS = 12  # classes; a button takes one click, a list takes two, but more buttons would not fit on the screen
PATIENCE = 180  # seconds for the server to answer once the dataset is ready; a busy machine takes more than 60


def command(stage: str, name: str, config: Path | None, *options: str) -> str:
    """Return the command line of a stage on the run `name`; without the path of its config, `configs/NAME.yaml`."""
    path = shlex.quote(str(config or f"configs/{name}.yaml"))
    return " ".join((f".venv/bin/python -m pipeline {stage} --config {path}", *options))


def check_port(port: int, stage: str, name: str) -> None:
    """Check the port before any work of a stage on the run `name`. Raises PipelineError if it is invalid or taken."""
    if not 0 < port < 65536:
        raise PipelineError(f"--port {port}: ports are 1 to 65535; omit --port for 5151")
    with socket.socket() as probe:
        if probe.connect_ex((ADDRESS, port)) == 0:
            other = port - 1 if port == 65535 else port + 1
            again = command(stage, name, None, f"--port {other}")
            raise PipelineError(f"port {port} is in use; stop the other program, or run {again}")


def server(port: int) -> Callable[[], bool]:
    """Start the App's slow server in the background; return a function that waits until it answers."""
    from fiftyone.core.service import ServerService, ServiceException
    from fiftyone.core.session import session

    class Server(ServerService):  # type: ignore[misc]  # no types
        def _wait_for_child_port(self, *_: Any, **__: Any) -> None:
            """Do not give up after FiftyOne's 60 seconds: `answers` waits longer."""

    def start() -> None:
        with suppress(ServiceException):
            # The session finds its server in this private list of FiftyOne, and stops it when it closes.
            session._server_services[port] = Server(port, address=ADDRESS, do_not_track=True)

    starting = Thread(target=start, daemon=True)  # a daemon, so that an error in the main thread ends it
    starting.start()

    def answers() -> bool:
        starting.join()
        return port in session._server_services and _answers(port, session._server_services[port].child)

    return answers


def _answers(port: int, process: Any) -> bool:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and (process is None or process.is_running()):  # None: it was running before
        with suppress(OSError), urllib.request.urlopen(f"http://{ADDRESS}:{port}/fiftyone", timeout=5):
            return True
        time.sleep(0.2)
    return False


def dataset_name(run: str, ending: str = "") -> str:
    """Return the name of FiftyOne's dataset for the run `run`.

    FiftyOne makes an address of it, from Latin letters and digits alone, so a name without any gets a hash.
    """
    if not re.search("[A-Za-z0-9]", run):
        run = f"{run}-{hashlib.sha256(run.encode()).hexdigest()[:8]}"
    return run + ending


def check_name(name: str) -> None:
    """Raise PipelineError if another dataset has nearly the same name, because it has the same address."""
    import fiftyone as fo
    from fiftyone.core.utils import to_slug

    for other in fo.list_datasets():
        if other != name and to_slug(other) == to_slug(name):
            raise PipelineError(
                f"FiftyOne already has a dataset {other!r}, and cannot tell it from {name!r}; rename this config"
            )


@contextmanager
def new_dataset(name: str) -> Iterator[Any]:
    """Yield an empty dataset to fill; it replaces the one of this name if the block ends without an error."""
    import fiftyone as fo

    partial = f"{name} (unfinished)"
    if fo.dataset_exists(partial):
        fo.delete_dataset(partial)
    dataset = fo.Dataset(partial)  # not persistent yet, so that FiftyOne deletes it after a kill
    yield dataset
    if fo.dataset_exists(name):
        fo.delete_dataset(name)
    dataset.name = name
    dataset.persistent = True


def make_editable(dataset: Any, field: str, classes: Sequence[str]) -> None:
    """Let the App's "Annotate" tab draw and change the boxes of a field; `classes` are the choices."""
    component = "radio" if len(classes) <= MOST_BUTTONS else "dropdown"
    schema: dict[str, Any] = {"type": "detections", "component": component, "classes": list(classes), "attributes": []}
    if len(classes) == 1:
        schema["default"] = classes[0]
    dataset.set_label_schemas({field: schema})
    dataset.activate_label_schemas(field)


def serve(dataset: Any, port: int, stage: str, summary: str, answers: Callable[[], bool]) -> None:
    """Open the App and wait for Ctrl-C or SIGTERM. Raises PipelineError if it does not start."""
    import fiftyone as fo

    if not answers():
        raise PipelineError(
            f"FiftyOne's App does not answer on port {port}; try again when the machine is less busy, or give "
            "another --port"
        )
    # `remote` keeps FiftyOne from opening a browser; there may be none.
    session = fo.launch_app(dataset, remote=True, address=ADDRESS, port=port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logs.say(f"{stage}: {summary}")
    logs.say(f"{stage}: http://{ADDRESS}:{port}/datasets/{dataset.slug} (press Ctrl-C to stop; the dataset is kept)")
    try:
        session.wait(-1)
    except KeyboardInterrupt:
        pass
    finally:
        session.close()

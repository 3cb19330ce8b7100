"""The App, on this machine alone, until it is stopped."""

from __future__ import annotations

import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any

from pipeline import logs
from pipeline.errors import PipelineError

ADDRESS = "127.0.0.1"  # the App has no password: nobody else is to reach it
PATIENCE = 60  # seconds for the server to answer, once there is something to show


def check_port(port: int) -> None:
    """Before the work, not after it. Raises PipelineError where the port is taken, or none."""
    if not 0 < port < 65536:
        raise PipelineError(f"--port {port}: ports are 1 to 65535; leave it out for 5151")
    with socket.socket() as probe:
        if probe.connect_ex((ADDRESS, port)) == 0:
            raise PipelineError(f"--port {port}: something listens there already; close it or give another --port")


def server(port: int) -> Callable[[], bool]:
    """Start the App's server beside other work, which it is slower than; gives how to wait until it answers."""
    from fiftyone.core.service import ServerService, ServiceException
    from fiftyone.core.session import session

    def start() -> None:
        with suppress(ServiceException):
            # FiftyOne's own list: the session takes the server from there, and stops it when it is closed.
            session._server_services[port] = ServerService(port, address=ADDRESS, do_not_track=True)

    starting = Thread(target=start, daemon=True)  # after a mistake meanwhile it ends with the process
    starting.start()

    def answers() -> bool:
        starting.join()
        return port in session._server_services and _answers(port)

    return answers


def _answers(port: int) -> bool:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(OSError), urllib.request.urlopen(f"http://{ADDRESS}:{port}/fiftyone", timeout=5):
            return True
        time.sleep(0.2)
    return False


def serve(dataset: Any, port: int, summary: str, answers: Callable[[], bool]) -> None:
    """Open the App and stay until Ctrl-C or a SIGTERM. Raises PipelineError where it does not start."""
    import fiftyone as fo

    if not answers():
        raise PipelineError(
            f"FiftyOne's App did not start on port {port} within a minute; try again when the machine is less busy, "
            "or give another --port"
        )
    # `remote`: do not open a browser by yourself, there may be none.
    session = fo.launch_app(dataset, remote=True, address=ADDRESS, port=port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logs.say(f"inspect: {summary}")
    logs.say(f"inspect: http://{ADDRESS}:{port}/datasets/{dataset.slug} (Ctrl-C ends it; the data set stays)")
    try:
        session.wait(-1)
    except KeyboardInterrupt:
        pass
    finally:
        session.close()

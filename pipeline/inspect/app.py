"""The App, on this machine alone, until it is stopped."""

from __future__ import annotations

import signal
import socket
import sys
from typing import Any

from pipeline.errors import PipelineError

ADDRESS = "127.0.0.1"  # the App has no password: nobody else is to reach it


def check_port(port: int) -> None:
    """Before the work, not after it. Raises PipelineError where the port is taken, or none."""
    if not 0 < port < 65536:
        raise PipelineError(f"--port {port}: ports are 1 to 65535; leave it out for 5151")
    with socket.socket() as probe:
        if probe.connect_ex((ADDRESS, port)) == 0:
            raise PipelineError(f"--port {port}: something listens there already; close it or give another --port")


def serve(dataset: Any, port: int, summary: str) -> None:
    """Open the App and stay until Ctrl-C or a SIGTERM. Raises PipelineError where it does not start."""
    import fiftyone as fo
    from fiftyone.core.service import ServiceException

    check_port(port)
    try:
        # `remote`: do not open a browser by yourself, there may be none.
        session = fo.launch_app(dataset, remote=True, address=ADDRESS, port=port)
    except ServiceException:
        raise PipelineError(
            f"FiftyOne's App did not start on port {port} within a minute; try again when the machine is less busy, "
            "or give another --port"
        ) from None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(
        f"inspect: {summary}\n"
        f"inspect: http://{ADDRESS}:{port}/datasets/{dataset.slug} (Ctrl-C ends it; the data set stays)",
        flush=True,
    )
    try:
        session.wait(-1)
    except KeyboardInterrupt:
        pass
    finally:
        session.close()

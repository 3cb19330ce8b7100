"""FiftyOne's App as a person sees it: the grid with boxes, a saved view, the figures in their panel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Trained, needs_browser, needs_database

pytestmark = [needs_browser, needs_database, pytest.mark.usefixtures("own_database")]


@pytest.fixture(scope="module")
def address(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The App with the trained run, until the tests are done."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "runs").symlink_to(trained.run.root.parent)
    (folder / "tiny.yaml").write_text("convert: {source: nowhere}\n")
    command = [sys.executable, "-m", "pipeline", "inspect", "--config", "tiny.yaml", "--port", "5164"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield next(line for line in process.stdout if line.startswith("inspect: http")).split()[1]
        process.send_signal(signal.SIGTERM)


def test_look(address: str, browser: Any) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(address)
    page.wait_for_timeout(15000)
    page.screenshot(path="/tmp/app1.png")
    Path("/tmp/app.html").write_text(page.content())

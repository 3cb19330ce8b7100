"""Make the images of the README: the report and FiftyOne's App as Chromium shows a run (two minutes).

make report CONFIG=configs/bccd.yaml
python benchmarks/pictures.py configs/bccd.yaml
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import ViewportSize, sync_playwright

from pipeline.run import Run

FOLDER = Path(__file__).parents[1] / "docs" / "images"
SIZE = ViewportSize(width=1100, height=760)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def app(config: Path) -> Iterator[str]:
    """Yield the address of the App that `inspect` opens; stop the App afterwards."""
    command = [sys.executable, "-m", "pipeline", "inspect", "--config", str(config), "--port", "5199"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield next(line for line in process.stdout if line.startswith("inspect: http")).split()[1]
        finally:
            process.send_signal(signal.SIGTERM)


def save(page: Any, name: str) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=FOLDER / name, type="jpeg", quality=80)


def report(page: Any, run: Run) -> None:
    page.goto((run.report / "index.html").resolve().as_uri())
    save(page, "report.jpg")


def fiftyone(page: Any, address: str) -> None:
    page.set_default_timeout(120_000)
    page.goto(address)
    page.wait_for_selector("canvas")
    hint = page.get_by_text("Dismiss").first  # FiftyOne's hints for new users
    if hint.is_visible():
        hint.click()
    before, now = b"", page.screenshot()
    for _ in range(100):  # the App keeps polling its server, so wait until the page no longer changes
        if before == now:
            break
        page.wait_for_timeout(500)
        before, now = now, page.screenshot()
    save(page, "app.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    config = parser.parse_args().config
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        report(browser.new_page(viewport=SIZE, color_scheme="light"), Run.of(config))
        with app(config) as address:
            fiftyone(browser.new_page(viewport=SIZE), address)
        browser.close()


if __name__ == "__main__":
    main()

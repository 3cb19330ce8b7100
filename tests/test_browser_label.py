"""A batch corrected in FiftyOne's App as a user would, offline: one box moved, one drawn, one relabelled, one deleted."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from batches import batch
from conftest import ROOT, needs_browser, needs_database, settings

from pipeline import convert
from pipeline.config.experiment import Config
from pipeline.files import read_json
from pipeline.label import correct
from pipeline.records.label import Next
from pipeline.run import Run

pytestmark = [needs_browser, needs_database, pytest.mark.usefixtures("own_database")]
PORT = 5165
OPEN = """
import sys
from pathlib import Path
from pipeline.label import correct
from pipeline.run import Run
correct.main(Run(Path(sys.argv[1])), int(sys.argv[2]))
"""


@pytest.fixture
def record(tiles: Path, run: Run) -> Next:
    return batch(tiles, run, run.root.parent.parent / "data" / "raw" / "more", count=2)


@pytest.fixture
def page(run: Run, record: Next, browser: Any) -> Iterator[Any]:
    """The first image of the batch in the tab "Annotate"."""
    command = [sys.executable, "-c", OPEN, str(run.root), str(PORT)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = next(line for line in process.stdout if line.startswith("label: http")).split()[1]
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(120_000)  # for a busy machine
        # FiftyOne's message to new users, whenever it appears.
        page.add_locator_handler(page.get_by_text("Dismiss").first, lambda dismiss: dismiss.click())
        page.goto(address)
        page.wait_for_selector("canvas")
        page.locator('[data-cy="looker"]').first.click()
        page.locator('[data-cy="annotate"]').click()
        page.locator("#modal").get_by_text(record["images"][0]["boxes"][0]["label"], exact=True).first.wait_for()
        yield page
        page.close()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


def until(page: Any, holds: Callable[[], bool]) -> None:
    """Wait until the App has written it to the database."""
    for _ in range(1200):
        if holds():
            return
        page.wait_for_timeout(100)
    raise AssertionError("the App has not saved it within two minutes")


def boxes() -> dict[str, Any]:
    """The first image's boxes by id, as stored in the database."""
    import fiftyone as fo

    dataset = fo.load_dataset("tiny-label")
    dataset.reload()
    sample = dataset.load_saved_view(correct.VIEW).first()
    return {detection.id: detection for detection in sample["labels"].detections}


def place(page: Any, x: float, y: float) -> tuple[float, float]:
    """The screen position of a point of the 320 x 320 image, which fills the canvas, centred."""
    area = page.locator("#modal canvas").first.bounding_box()
    scale = min(area["width"], area["height"]) / 320
    left, top = area["x"] + area["width"] / 2 - 160 * scale, area["y"] + area["height"] / 2 - 160 * scale
    return left + x * scale, top + y * scale


def drag(page: Any, x: float, y: float, right: float, down: float) -> None:
    """Drag by whole image pixels, slowly enough for the App to follow the pointer."""
    page.mouse.move(*place(page, x, y), steps=3)
    page.mouse.down()
    page.mouse.move(*place(page, x + right / 2, y + down / 2), steps=5)
    page.mouse.move(*place(page, x + right, y + down), steps=5)
    page.mouse.up()


def choose(page: Any, identity: str) -> None:
    page.locator(f'[data-cy="annotate-label-{identity}"]').click()
    page.locator('[data-cy="annotate-edit-back"]').wait_for()


def back(page: Any) -> None:
    page.locator('[data-cy="annotate-edit-back"]').click()


def test_corrections_in_the_app_reach_the_data_set(tiles: Path, run: Run, record: Next, page: Any) -> None:
    drawn = record["images"][0]["boxes"]
    before = boxes()
    moved, relabelled, deleted, *others = before
    # Move: a box is dragged by its centre.
    choose(page, moved)
    x, y, width, height = drawn[0]["bbox"]
    right, down = (-12 if x > 160 else 12), (-9 if y > 160 else 9)
    drag(page, x + width / 2, y + height / 2, right, down)
    until(page, lambda: boxes()[moved].bounding_box != before[moved].bounding_box)
    back(page)
    # Relabel.
    choose(page, relabelled)
    other = next(name for name in record["classes"] if name != drawn[1]["label"])
    page.locator("#modal").get_by_role("radio", name=other, exact=True).check()
    until(page, lambda: boxes()[relabelled].label == other)
    back(page)
    # Delete.
    choose(page, deleted)
    page.locator('[data-cy="label-menu-trigger"]').click()
    page.locator('[data-cy="label-menu-delete"]').click()
    until(page, lambda: deleted not in boxes())
    # Draw. Selecting a box has already switched the tool on; a second click would switch it off.
    page.locator('[data-cy="select-action"]').click()
    page.locator('[data-cy="detection-mode"]').click()
    page.get_by_text("Click and drag to create a bounding box").wait_for()
    drag(page, 200, 190, 40, 25)  # away from other boxes and the buttons at the bottom
    until(page, lambda: len(boxes()) == len(before))
    [new] = set(boxes()) - set(before)
    if not boxes()[new].label:
        page.locator("#modal").get_by_role("radio", name="open", exact=True).check()
        until(page, lambda: bool(boxes()[new].label))

    said = correct.save(run)
    assert "1 moved, 1 relabelled, 1 added, 1 deleted) -> " in said and "1 image is neither changed" in said
    convert.main(Config.model_validate(settings(tiles)).convert, run, 0)
    [line] = read_json(run.receipt)["labels"]
    assert {"moved": 1, "relabelled": 1, "added": 1, "deleted": 1, "kept": len(others)}.items() <= line.items()
    [target] = [name for name, source in read_json(run.receipt)["sources"].items() if source == line["image"]]
    assert len((run.dataset / "labels" / target).with_suffix(".txt").read_text().splitlines()) == len(before)

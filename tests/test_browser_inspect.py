"""FiftyOne's App as the user sees it: the grid with boxes, a saved view, and the figures in their panel."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from conftest import Trained, app, needs_browser, needs_database
from PIL import Image

from pipeline.files import read_json

pytestmark = [needs_browser, needs_database, pytest.mark.usefixtures("own_database")]


@pytest.fixture(scope="module")
def address(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The App with the trained run, until the tests end."""
    folder = tmp_path_factory.mktemp("app")
    shutil.copytree(trained.run.root, folder / "runs" / trained.run.name)  # the App writes files there
    with app(folder, 5164) as found:
        yield found
    import fiftyone as fo

    fo.delete_dataset("tiny")  # all tests share the database


@pytest.fixture
def page(address: str, browser: Any) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(120_000)  # for a busy machine
    page.goto(address)
    page.wait_for_selector("canvas")
    hint = page.get_by_text("Dismiss").first  # FiftyOne's message to new users
    if hint.is_visible():
        hint.click()
    yield page
    page.close()


def grid(page: Any) -> Any:
    return page.locator('[data-cy="panel-content-Samples"]')


def colours(page: Any) -> int:
    """The number of colours in the grid once it has settled: boxes add colours that the tiles lack."""
    before, now = b"", grid(page).screenshot()
    for _ in range(100):
        if before == now:
            break
        before, now = now, grid(page).screenshot()
    image = Image.open(io.BytesIO(now)).convert("RGB")
    return len(np.unique(np.asarray(image).reshape(-1, 3), axis=0))


def test_the_grid_shows_every_image_with_its_boxes(trained: Trained, page: Any) -> None:
    images = sum(part["images"] for part in read_json(trained.run.receipt)["splits"].values())
    page.get_by_text(f"{images} samples").wait_for()
    with_boxes = colours(page)
    for field in ("ground_truth", "predictions"):
        page.locator(f'[data-cy="checkbox-{field}"]').click()
    assert colours(page) < with_boxes


def test_a_saved_view_can_be_chosen_from_the_list(page: Any) -> None:
    import fiftyone as fo

    missed = len(fo.load_dataset("tiny").load_saved_view("missed-objects"))
    assert missed
    page.locator('[data-cy="saved-views-selection"]').click()
    page.get_by_text("missed-objects").click()
    page.wait_for_url("**view=missed-objects")
    page.get_by_text(f"{missed} samples").wait_for()


def test_the_panel_shows_the_figures(page: Any) -> None:
    import fiftyone as fo

    missed = int(fo.load_dataset("tiny").sum("eval_fn"))
    assert missed
    page.locator('[data-cy="new-panel-btn"]').first.click()
    page.locator('[data-cy="new-panel-option-model_evaluation_panel_builtin"]').click()
    page.get_by_text("eval", exact=True).click()
    row = page.get_by_role("row").filter(has_text="False Negatives")
    row.get_by_text(str(missed), exact=True).wait_for()

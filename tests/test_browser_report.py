"""The report in a browser: no sideways scrolling, nothing fetched, readable in both colour schemes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Trained, needs_browser, read_coco, settings, write_coco

from pipeline import convert, params, report, train, validate
from pipeline.config.experiment import Config
from pipeline.run import Run

pytestmark = needs_browser

# WCAG 2.2 asks for 4.5:1 for text.
CONTRAST = """() => {
  const light = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0)
  const parts = text => text.match(/[\\d.]+/g).map(Number).slice(0, 3)
  const ground = light(parts(getComputedStyle(document.body).backgroundColor))
  return ['body', '.quiet', 'figcaption', 'h1', 'td'].map(name => {
    const ink = light(parts(getComputedStyle(document.querySelector(name)).color))
    return (Math.max(ink, ground) + .05) / (Math.min(ink, ground) + .05)
  })
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 768, 390])
def test_the_report_fits_its_window_and_fetches_nothing(
    trained: Trained, browser: Any, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    address = (trained.run.report / "index.html").resolve().as_uri()
    page.goto(address)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    # A plot fills its figure, and two share a row on a desktop screen.
    plots = page.evaluate("[...document.querySelectorAll('.plot svg')].map(svg => svg.getBoundingClientRect().width)")
    assert plots and all(width / 3 < plot < width / 2 for plot in plots) == (width == 1280)
    assert min(page.evaluate(CONTRAST)) >= 4.5
    # Plot labels take the page's text colour.
    ink, label = (page.evaluate(f"getComputedStyle(document.querySelector('{name}'))['{key}']") for name, key in (("body", "color"), (".plot svg text", "fill")))  # fmt: skip
    assert ink == label
    page.close()
    assert said == []
    assert [url for url in asked if url != address and not url.startswith("data:")] == []


LONG = ["unbreakable" * 5, "a component with a name of many words, as catalogues of suppliers have them", "缺口" * 12]
CLASSES = {1: ["one"], 6: [*LONG, "Open_circuit", "x", "<b>"], 40: [*LONG, *(f"component no. {n}" for n in range(37))]}


@pytest.fixture(scope="module", params=CLASSES)
def classes(request: pytest.FixtureRequest, tiles: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose boxes cycle through this many classes."""
    names, folder = CLASSES[request.param], tmp_path_factory.mktemp("classes")
    source = Path(shutil.copytree(tiles, folder / "source"))
    for split in ("train", "val", "test"):
        data = read_coco(source, split)
        for number, box in enumerate(data["annotations"]):
            box["category_id"] = number % len(names)
        data["categories"] = [{"id": number, "name": name} for number, name in enumerate(names)]
        write_coco(source, split, data)
    run = Run(folder / "runs" / "tiny")
    config = Config.model_validate(
        settings(source, start, train={"phases": [{"epochs": 1}]}, convert={"classes": names}, augment={"copies": 0})
    )
    params.main(config, run)
    convert.main(config.convert, run, config.seed)
    shutil.copytree(run.dataset, run.augmented)
    train.main(config.train, run, config.seed, "cpu", 0)
    validate.main(config.validate_, run, "cpu")
    report.main(config.report, run)
    return run


# How many pixels each table is wider than its container, in which it then scrolls.
TABLES = """() => Object.fromEntries([...document.querySelectorAll('.scroll')].map(region =>
  [region.getAttribute('aria-label') || region.textContent, region.scrollWidth - region.clientWidth]))"""
# Confusion-matrix headings whose text overflows their cell.
HEADINGS = """() => [...document.querySelectorAll('.heat th')].filter(th => {
  const cell = th.getBoundingClientRect()
  const range = document.createRange(); range.selectNodeContents(th); const text = range.getBoundingClientRect()
  return text.width > cell.width + 1 || text.height > cell.height + 1}).map(th => th.textContent)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_any_number_of_classes_fits_the_page(classes: Run, browser: Any, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto((classes.report / "index.html").resolve().as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    hidden = {name for name, pixels in page.evaluate(TABLES).items() if pixels}
    assert not hidden if width == 1280 else "Kinds of errors" not in hidden
    assert page.evaluate(HEADINGS) == []
    # Row headings stay visible when a table is scrolled to its end.
    page.evaluate("document.querySelector('.heat').parentElement.scrollLeft = 9999")
    assert page.evaluate("document.querySelector('.heat th.name').getBoundingClientRect().left") >= 0
    page.close()

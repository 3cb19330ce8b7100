"""The report as a browser shows it: nothing to scroll sideways, nothing fetched, readable in both schemes."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import Trained, needs_browser

pytestmark = needs_browser

# WCAG 2.2: 4.5:1 for text.
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
def test_it_fits_and_asks_for_nothing(trained: Trained, browser: Any, width: int, scheme: str) -> None:
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
    # A plot is as wide as its figure, and two stand in a row on a desk.
    plots = page.evaluate("[...document.querySelectorAll('.plot svg')].map(svg => svg.getBoundingClientRect().width)")
    assert plots and all(width / 3 < plot < width / 2 for plot in plots) == (width == 1280)
    assert min(page.evaluate(CONTRAST)) >= 4.5
    # Labels of the plots take the page's colour.
    ink, label = (page.evaluate(f"getComputedStyle(document.querySelector('{name}'))['{key}']") for name, key in (("body", "color"), (".plot svg text", "fill")))  # fmt: skip
    assert ink == label
    page.close()
    assert said == []
    assert [url for url in asked if url != address and not url.startswith("data:")] == []

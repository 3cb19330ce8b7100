from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from conftest import Trained

from pipeline import report
from pipeline.config import Report
from pipeline.errors import DataError
from pipeline.files import read_json, write_json
from pipeline.run import Run


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page(run: Run) -> Page:
    return Page((run.report / "index.html").read_text(encoding="utf-8"))


def test_it_needs_no_network(trained: Trained) -> None:
    tags = page(trained.run).tags
    assert not [tag for tag, _ in tags if tag in ("script", "link", "iframe")]
    sources = [
        value for tag, attributes in tags for name, value in attributes.items() if name in ("src", "href", "xlink:href")
    ]
    assert all(value is not None and value.startswith(("data:", "#")) for value in sources)
    assert [path.name for path in trained.run.report.iterdir()] == ["index.html"]


def test_it_shows_the_figures_of_the_run(trained: Trained) -> None:
    shown = page(trained.run)
    figures = read_json(trained.run.metrics)["splits"]["test"]
    assert f"{figures['map50_95']:.3f}" in shown.text and f"{figures['map50']:.3f}" in shown.text
    for name, row in figures["per_class"].items():
        assert re.search(
            rf"{re.escape(name)}.*?{row['map50_95']:.3f}" if row["map50_95"] is not None else name, shown.text, re.S
        )
    assert "proven" in shown.text and "No image is in two splits." in shown.text


def test_every_picture_has_a_text(trained: Trained) -> None:
    images = [attributes for tag, attributes in page(trained.run).tags if tag == "img"]
    assert images and all(
        re.search(r"\d+ of \d+ objects missed, \d+ invented", attributes["alt"] or "") for attributes in images
    )


def test_worst_images_come_first_and_are_counted_right(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    """Predictions made by hand: all right in one image, one missed in another, two invented in a third."""
    run = copy_of(trained.run)
    truth = read_json(run.ground_truth("test"))
    truth["annotations"] = [
        {"id": i + 1, "image_id": i + 1, "category_id": 0, "bbox": [50, 50, 40, 40], "area": 1600, "iscrowd": 0}
        for i in range(3)
    ]
    right = [{"image_id": i, "category_id": 0, "bbox": [51, 50, 40, 40], "score": 0.9} for i in (1, 3)]
    wrong = [{"image_id": 3, "category_id": 0, "bbox": [50, 50, 40, 40], "score": 0.5}]  # the object is taken
    wrong += [{"image_id": 3, "category_id": 1, "bbox": [50, 50, 40, 40], "score": 0.5}]
    unsure = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.1}]
    write_json(run.ground_truth("test"), truth)
    write_json(run.predictions("test"), right + wrong + unsure)
    report.main(Report(), run)
    names = [image["file_name"] for image in truth["images"]]
    alts = [attributes["alt"] for tag, attributes in page(run).tags if tag == "img"]
    assert alts == [
        f"{names[2]}: 0 of 1 objects missed, 2 invented",
        f"{names[1]}: 1 of 1 objects missed, 0 invented",
    ]


def test_names_are_text_not_html(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    receipt = read_json(run.receipt)
    receipt["problems"] = [
        {"file": "<script>alert(1)</script>", "id": "1", "class": "<b>", "action": "dropped", "reason": "&"}
    ]
    write_json(run.receipt, receipt)
    report.main(Report(), run)
    shown = page(run)
    assert not [tag for tag, _ in shown.tags if tag == "script"]
    assert "<script>alert(1)</script>" in shown.text


def test_an_unfinished_run(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    run = copy_of(trained.run)
    run.metrics.unlink()
    with pytest.raises(DataError, match=r"metrics\.json: not there; `make validate` writes it"):
        report.main(Report(), run)


def test_it_shows_what_was_exported(trained: Trained, copy_of: Callable[[Run], Run]) -> None:
    shown = page(trained.run).text
    [entry] = read_json(trained.run.manifest)["artefacts"]
    assert "For the device" in shown and "tiny.onnx" in shown and str(entry["parity"]["boxes"]) in shown
    run = copy_of(trained.run)
    run.manifest.unlink()  # an export that has not run, or was refused
    report.main(Report(), run)
    assert "For the device" not in page(run).text

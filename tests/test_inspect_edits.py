"""Existing labels corrected in the App's "Annotate" tab become fixes, like tagged ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import needs_database
from test_convert import labels as written
from test_inspect import build, validated

from pipeline import convert, fixes, inspect
from pipeline.config.data import Convert
from pipeline.files import read_json
from pipeline.inspect import tags
from pipeline.run import Run

__all__ = ["validated"]  # a fixture
pytestmark = [needs_database, pytest.mark.usefixtures("own_database")]


def training_images(dataset: Any) -> Any:
    return dataset.match_tags("train").sort_by("filepath")


def test_labels_can_be_edited_with_the_classes_of_the_run(validated: Run) -> None:
    dataset = build(validated)
    assert dataset.active_label_schemas == ["ground_truth"]
    assert dataset.label_schemas["ground_truth"]["classes"] == read_json(validated.receipt)["classes"]
    assert tags.unsaved(dataset) == 0


def test_edits_become_fixes_and_convert_applies_them(validated: Run, source: Path) -> None:
    import fiftyone as fo

    dataset = build(validated)
    before = written(validated)
    images = list(training_images(dataset)[:3])
    moved, relabelled, deleted = (image["ground_truth"].detections[0] for image in images)
    moved.bounding_box = [0.4, 0.4, 0.1, 0.2]
    relabelled.label = other = "short" if relabelled.label != "short" else "open"
    images[2]["ground_truth"].detections.remove(deleted)
    images[2]["ground_truth"].detections.append(fo.Detection(label="spur", bounding_box=[0.2, 0.9, -0.1, 0.2]))
    images[2]["ground_truth"].detections.append(fo.Detection(label="spur", bounding_box=[0.2, 0.9, 0, 0.2]))  # a slip
    for image in images:
        image.save()
    assert tags.unsaved(dataset) == 6
    said = inspect.save_fixes(validated)
    assert said.startswith("6 fixes -> ")
    assert tags.unsaved(dataset) == 0
    names = [image["source"] for image in images]
    lines = [(names.index(fix.image), fix.action, fix.label) for fix in fixes.load(fixes.file_of(validated)).boxes]
    first = [before[Path(name).stem][0][0] for name in names]
    assert sorted(lines) == sorted([
        (0, "remove", first[0]),
        (0, "add", first[0]),
        (1, "remove", first[1]),
        (1, "add", other),
        (2, "remove", first[2]),
        (2, "add", "spur"),
    ])  # fmt: skip
    convert.main(Convert(source=source), validated, 0)
    assert [line["applied"] for line in read_json(validated.receipt)["fixes"]] == [True] * 6
    now = written(validated)
    assert [label for label, *_ in now[Path(names[1]).stem]].count(other) == 1 + [
        label for label, *_ in before[Path(names[1]).stem]
    ].count(other)
    assert any(box[1:] == pytest.approx((128, 128, 160, 192), abs=0.01) for box in now[Path(names[0]).stem])
    assert any(box[1:] == pytest.approx((32, 288, 64, 320), abs=0.01) for box in now[Path(names[2]).stem])
    assert len(now[Path(names[2]).stem]) == len(before[Path(names[2]).stem])


def test_a_box_without_a_class_is_reported_and_changes_nothing(validated: Run) -> None:
    import fiftyone as fo

    dataset = build(validated)
    image = training_images(dataset).first()
    image["ground_truth"].detections[0].label = None
    image["ground_truth"].detections.append(fo.Detection(bounding_box=[0.1, 0.1, 0.1, 0.1]))
    image.save()
    assert tags.unsaved(dataset) == 0
    assert f"left out boxes without a class in {image['source']}; choose one" in inspect.save_fixes(validated)

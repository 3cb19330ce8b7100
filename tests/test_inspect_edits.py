"""Existing labels corrected in the App's "Annotate" tab become fixes, like tagged ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import needs_database
from test_convert import labels as written
from test_inspect import build, convert_and_validate, validated

from pipeline import convert, fixes, inspect
from pipeline.config.data import Convert
from pipeline.config.judging import Inspect
from pipeline.errors import PipelineError
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


def first_label(run: Run) -> tuple[Any, Any]:
    """The first training image and its first label."""
    image = training_images(build(run)).first()
    return image, image["ground_truth"].detections[0]


def saved_lines(run: Run) -> list[tuple[str, list[float]]]:
    return sorted((fix.action, [round(side) for side in fix.bbox]) for fix in fixes.load(fixes.file_of(run)).boxes)


def test_a_box_adjusted_again_after_saving_is_there_once(validated: Run) -> None:
    image, label = first_label(validated)
    original = [round(320 * side) for side in label.bounding_box]
    for left in (0.4, 0.5):
        label.bounding_box = [left, 0.4, 0.1, 0.2]
        image.save()
        said = inspect.save_fixes(validated)
    assert said.startswith("1 fix, 1 saved fix taken back -> ")
    assert saved_lines(validated) == [("add", [160, 128, 32, 64]), ("remove", original)]


def test_a_drawn_box_deleted_again_after_saving_is_taken_back(validated: Run) -> None:
    import fiftyone as fo

    image, label = first_label(validated)
    label.label = "short" if label.label != "short" else "open"
    image["ground_truth"].detections.append(fo.Detection(label="spur", bounding_box=[0.4, 0.4, 0.1, 0.2]))
    image.save()
    assert inspect.save_fixes(validated).startswith("3 fixes -> ")
    image["ground_truth"].detections.pop()
    image.save()
    # Otherwise a rebuild would lose what was undone.
    with pytest.raises(PipelineError, match="it has 1 fix that you made or took back and did not save"):
        build(validated, Inspect(confident=0.5))
    assert inspect.save_fixes(validated).startswith("1 saved fix taken back -> ")
    assert tags.unsaved(build(validated)) == 0
    assert [action for action, _ in saved_lines(validated)] == ["add", "remove"]


def test_a_saved_fix_undone_after_its_file_was_deleted_stops_nothing(validated: Run) -> None:
    image, label = first_label(validated)
    label.tags.append("wrong")
    image.save()
    inspect.save_fixes(validated)
    fixes.file_of(validated).unlink()
    label.tags.remove("wrong")
    image.save()
    assert inspect.save_fixes(validated).startswith("nothing new to save")
    assert tags.unsaved(build(validated, Inspect(confident=0.5))) == 0


def test_lines_written_by_hand_are_not_taken_back(validated: Run) -> None:
    image, label = first_label(validated)
    image.tags.append("drop")
    label.bounding_box = [0.4, 0.4, 0.1, 0.2]
    image.save()
    inspect.save_fixes(validated)
    path = fixes.file_of(validated)
    path.write_text(path.read_text().replace("boxes:", "  by hand.jpg: relabel\nboxes:"))
    image.tags.remove("drop")
    image.save()
    inspect.save_fixes(validated)
    assert fixes.load(path).images == {"by hand.jpg": "relabel"} and len(saved_lines(validated)) == 2


def test_an_earlier_fix_counts_again_if_what_replaced_it_is_taken_back(
    validated: Run, source: Path, start: Path
) -> None:
    """A box that an earlier fix added is tagged as wrong, so its line is dropped; then the tag is removed."""
    name = first_label(validated)[0]["source"]
    added = {"image": name, "action": "add", "class": "spur", "bbox": [128.0, 128.0, 32.0, 64.0]}
    path = fixes.file_of(validated)
    fixes.save(path, fixes.Fixes.model_validate({"images": {name: "relabel"}, "boxes": [added]}))
    before = path.read_text()
    convert_and_validate(source, validated, start)
    image = build(validated).match({"source": name}).first()
    label = next(box for box in image["ground_truth"].detections if box.bounding_box[0] == pytest.approx(0.4))
    label.tags.append("wrong")
    image.tags.append("drop")
    image.save()
    inspect.save_fixes(validated)
    assert saved_lines(validated) == [] and fixes.load(path).images == {name: "drop"}
    label.tags.remove("wrong")
    image.tags.remove("drop")
    image.save()
    assert inspect.save_fixes(validated).startswith("2 saved fixes taken back -> ")
    assert path.read_text() == before

"""Fixes: the file, its effect on boxes, and how tags in a real FiftyOne become fixes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline import fixes
from pipeline.boxes import Box
from pipeline.convert import corrections
from pipeline.errors import ConfigError, DataError
from pipeline.fixes import Fixes
from pipeline.run import Run


def made(**content: Any) -> Fixes:
    return Fixes.model_validate(content)


def fix(image: str, action: str, label: str, *bbox: float) -> dict[str, Any]:
    return {"image": image, "action": action, "class": label, "bbox": list(bbox)}


def test_the_fixes_file_is_under_data_fixes() -> None:
    assert fixes.file_of(Run(Path("runs/bccd"))) == Path("data/fixes/bccd.yaml")


def test_written_fixes_read_back(tmp_path: Path) -> None:
    """Including names that YAML would take for something else."""
    written = made(
        images={"no": "drop", "it's: a.jpg": "relabel", "1.5": "drop", "sub/ü .jpg": "drop", "back\\slash.jpg": "drop"},
        boxes=[fix("a, {b}.jpg", "add", "null", 1, 2.125, 3.5, 1e-3), fix("123", "remove", "# x", 0, 0, 12345.678, 1)],
    )
    path = tmp_path / "data" / "fixes" / "mine.yaml"
    fixes.save(path, written)
    read = fixes.load(path)
    assert read.images == written.images
    assert sorted(read.boxes, key=str) == sorted(written.boxes, key=str)
    lines = path.read_text().splitlines()
    assert len([line for line in lines if not line.startswith("#")]) == 2 + len(
        written
    )  # one per line, and two headings
    fixes.save(path, Fixes(images=dict(reversed(read.images.items())), boxes=tuple(reversed(read.boxes))))
    assert path.read_text().splitlines() == lines  # in a fixed order, so that a diff shows what changed


def test_a_missing_or_empty_file_has_no_fixes(tmp_path: Path) -> None:
    assert len(fixes.load(tmp_path / "none.yaml")) == 0
    (tmp_path / "empty.yaml").write_text("# nothing left\n")
    assert len(fixes.load(tmp_path / "empty.yaml")) == 0


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("images: {a.jpg: drop", ["not YAML: while parsing a flow mapping"]),
        ("- a", ["write `key: value` lines"]),
        ("images: []\nboxes: {}", ["images: write `key: value` lines", "boxes: write a list, each item beginning with `- `"]),
        ("image: {a.jpg: drop}", ["image: unknown key; did you mean 'images'?"]),
        ("images: {a.jpg: drop}\nimages: {b.jpg: drop}", ["not YAML: key 'images' appears twice"]),
        ("images: {a.jpg: dropp}", ["images.a.jpg: input should be 'drop' or 'relabel', got 'dropp'"]),
        ("images: {7: drop}", ["images: YAML reads 7 here, not text; put it in quotes"]),
        ("images: {/etc/passwd: drop}", ["images: '/etc/passwd' is not the path of an image below the source; write it as in the receipt"]),
        ("images: {..: drop}", ["images: '..' is not the path of an image below the source; write it as in the receipt"]),
        ("boxes: [{image: ../a, action: add, class: x, bbox: [1, 1, 2, 2]}]", ["boxes.1.image: '../a' is not the path of an image below the source; write it as in the receipt"]),
        ("images: {\"a\\udce9\": drop}", ["images: 'a\\udce9' is not the path of an image below the source; write it as in the receipt"]),
        ("boxes: [{image: a, action: delete, class: x, bbox: [1, 1, 2, 2]}]", ["boxes.1.action: input should be 'remove' or 'add', got 'delete'"]),
        ("boxes: [{image: a, action: add, class: no, bbox: [1, 1, 2, 2]}]", ["boxes.1.class: YAML reads False here, not text; put it in quotes"]),
        ("boxes: [{image: a, action: add, klass: x, bbox: [1, 1, 2]}]", ["boxes.1.class: missing; add it", "boxes.1.bbox.4: missing; add it", "boxes.1.klass: unknown key; did you mean 'class'?"]),
        ("boxes: [{image: a, action: add, class: x, bbox: [1, 1, 2, .nan]}]", ["boxes.1.bbox.4: input should be a finite number, got 'nan'"]),
        ("boxes: [{image: a, action: add, class: x, bbox: [1, 1, 2, 1e400]}]", ["boxes.1.bbox.4: input should be a finite number, got 'inf'"]),
        ("boxes: [{image: a, action: add, class: x, bbox: [1, 1, 0, 5]}]", ["boxes.1.bbox: width and height must be above 0, got [1.0, 1.0, 0.0, 5.0]; correct them"]),
        ("a: " + "[" * 5_000, ["not YAML: maximum recursion depth exceeded"]),
        ("a: 2026-13-45", ["not YAML: month must be in 1..12"]),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_errors_in_the_file_are_reported(text: str, lines: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        fixes.load(path)
    said = str(caught.value).splitlines()
    assert len(said) == len(lines), said
    assert [found for found, line in zip(said, lines, strict=True) if not found.startswith(f"{path}: {line}")] == []


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"mine\.yaml: cannot be read .*save it as UTF-8 text"):
        fixes.load(tmp_path / "mine.yaml")


RBC, WBC = Box("RBC", 10, 20, 40, 60, "line 1"), Box("WBC", 10, 20, 40, 60, "line 2")


def test_boxes_are_removed_and_added() -> None:
    removed, added = fix("a.jpg", "remove", "RBC", 10, 20, 30, 40), fix("a.jpg", "add", "WBC", 50.5, 60, 5, 6)
    given = made(boxes=[removed, added, fix("b.jpg", "remove", "WBC", 10, 20, 30, 40)])
    boxes, notes = fixes.apply(given, "a.jpg", [RBC, WBC])
    assert boxes == (WBC, Box("WBC", 50.5, 60, 55.5, 66, "fix 2"))  # the RBC is gone, the WBC in the same place stays
    assert [(note.action, note.reason, note.box, note.stale) for note in notes] == [
        ("remove", "marked wrong", RBC, False),
        ("add", "was missing", boxes[1], False),
    ]
    assert fixes.apply(given, "c.jpg", [RBC]) == ((RBC,), [])


def test_a_box_is_matched_by_position_with_tolerance() -> None:
    """A label file has six decimals of the image side: 0.004 px in a 4,000 px image."""
    near, far = (made(boxes=[fix("a", "remove", "RBC", 10 + shift, 20, 30, 40)]) for shift in (0.05, 0.5))
    assert fixes.apply(near, "a", [RBC])[0] == ()
    boxes, [note] = fixes.apply(far, "a", [RBC])
    assert boxes == (RBC,)
    assert (note.stale, note.reason) == (True, "there is no such box; the nearest is RBC [10, 20, 30, 40]")


def test_the_closer_of_two_boxes_is_removed() -> None:
    other = Box("RBC", 10.05, 20, 40, 60)
    boxes, _ = fixes.apply(made(boxes=[fix("a", "remove", "RBC", 10, 20, 30, 40)]), "a", [other, RBC])
    assert boxes == (other,)


def test_a_class_is_corrected_by_removing_one_box_and_adding_another() -> None:
    given = made(boxes=[fix("a", "add", "WBC", 10, 20, 30, 40), fix("a", "remove", "RBC", 10, 20, 30, 40)])
    boxes, notes = fixes.apply(given, "a", [RBC])
    assert [box.label for box in boxes] == ["WBC"]
    assert [note.action for note in notes] == ["remove", "add"]


def test_a_box_redrawn_in_almost_the_same_place_is_added() -> None:
    """Removal comes first: otherwise the new box would be taken for the old one and not added."""
    given = made(boxes=[fix("a", "add", "RBC", 10, 20, 30.1, 40), fix("a", "remove", "RBC", 10, 20, 30, 40)])
    [box], notes = fixes.apply(given, "a", [RBC])
    assert box.xmax == pytest.approx(40.1) and not any(note.stale for note in notes)


def test_two_nearly_equal_labels_are_both_removed() -> None:
    """An object that was labelled twice."""
    twice = [Box("RBC", 10, 20, 40, 60), Box("RBC", 10.05, 20, 40.05, 60)]
    both = made(boxes=[fix("a", "remove", "RBC", 10, 20, 30, 40), fix("a", "remove", "RBC", 10.05, 20, 30, 40)])
    assert fixes.merge(made(), both) == both
    assert fixes.apply(both, "a", twice)[0] == ()
    assert fixes.merge(both, both) == both


def test_a_box_beside_a_nearly_equal_one_can_be_moved() -> None:
    twice = [Box("RBC", 10, 20, 40, 60), Box("RBC", 10.05, 20, 40.05, 60)]
    given = made(boxes=[fix("a", "remove", "RBC", 10, 20, 30, 40), fix("a", "add", "RBC", 10, 20.06, 30, 40)])
    boxes, notes = fixes.apply(given, "a", twice)
    assert [round(box.ymin, 2) for box in boxes] == [20, 20.06] and not any(note.stale for note in notes)


def test_a_box_the_source_now_has_is_not_added_twice() -> None:
    boxes, [note] = fixes.apply(made(boxes=[fix("a", "add", "RBC", 10, 20, 30, 40)]), "a", [RBC])
    assert boxes == (RBC,)
    assert (note.stale, note.reason) == (True, "there is such a box already")


def test_an_image_to_relabel_is_noted() -> None:
    boxes, [note] = fixes.apply(made(images={"a": "relabel"}), "a", [RBC])
    assert (boxes, note.action, note.reason, note.stale) == ((RBC,), "relabel", "marked for labelling again", False)


def test_fixes_use_the_names_of_the_source() -> None:
    given = made(
        images={"b.jpg": "drop", "gone.jpg": "drop", "one/a.jpg": "relabel", "spare.jpg": "drop"},
        boxes=[fix("a.jpg", "remove", "RBC", 1, 1, 2, 2), fix("b.jpg", "add", "RBC", 1, 1, 2, 2)],
    )
    used = ["one/a.jpg", "two/b.jpg"]
    every = [*used, "two/a.jpg", "unused/b.jpg", "unused/spare.jpg"]
    found, notes = corrections.resolve(given, used, every, Path("mine.yaml"))
    # Used images take precedence: their names are what the App shows.
    assert found.images == {"two/b.jpg": "drop", "one/a.jpg": "relabel", "unused/spare.jpg": "drop"}
    assert [fix.image for fix in found.boxes] == ["one/a.jpg", "two/b.jpg"]
    assert [(note.image, note.reason, note.stale) for note in notes] == [("gone.jpg", "is not in the source", True)]


@pytest.mark.parametrize("used", [["one/a.jpg", "two/a.jpg"], []], ids=["used", "unused"])
def test_an_ambiguous_file_name_is_refused_naming_both_images(used: list[str]) -> None:
    given = made(images={"a.jpg": "drop"})
    with pytest.raises(
        DataError, match=r"^mine\.yaml: 'a\.jpg' matches both one/a\.jpg and two/a\.jpg; give its path$"
    ):
        corrections.resolve(given, used, ["one/a.jpg", "two/a.jpg"], Path("mine.yaml"))


def test_an_earlier_file_name_matches_the_current_path() -> None:
    """Otherwise a fix that undoes it would not match."""
    earlier = made(images={"a.jpg": "drop", "b.jpg": "drop"}, boxes=[fix("a.jpg", "add", "WBC", 50, 50, 9, 9)])
    new = made(images={"one/a.jpg": "relabel"}, boxes=[fix("one/a.jpg", "remove", "WBC", 50, 50, 9, 9)])
    merged = fixes.merge(fixes.in_full(earlier, ["one/a.jpg", "one/b.jpg", "two/b.jpg"]), new)
    assert merged == made(images={"one/a.jpg": "relabel", "b.jpg": "drop"})


def test_new_fixes_are_merged_with_earlier_ones() -> None:
    earlier = made(
        images={"a": "drop", "b": "relabel"},
        boxes=[fix("a", "remove", "RBC", 1, 1, 9, 9), fix("a", "add", "WBC", 50, 50, 9, 9)],
    )
    assert fixes.merge(earlier, earlier) == earlier
    more = fixes.merge(earlier, made(images={"b": "drop"}, boxes=[fix("a", "remove", "WBC", 1, 1, 9, 9)]))
    assert more.images == {"a": "drop", "b": "drop"}
    assert len(more.boxes) == 3
    moved_by_little = made(boxes=[fix("c", "remove", "RBC", 1, 1, 99, 99), fix("c", "add", "RBC", 1.2, 1, 99, 99)])
    assert fixes.merge(earlier, moved_by_little).boxes == earlier.boxes + moved_by_little.boxes
    # The added box is marked wrong: it is in no source, so both fixes are removed.
    undone = fixes.merge(earlier, made(boxes=[fix("a", "remove", "WBC", 50.01, 50, 9, 9)]))
    assert undone.boxes == earlier.boxes[:1]

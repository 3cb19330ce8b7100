"""A batch in FiftyOne: what the user changes there comes back, and none of it is lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batches import batch
from conftest import needs_database

from pipeline.errors import DataError, PipelineError
from pipeline.label import correct, saving
from pipeline.labels import file as labels
from pipeline.records.label import Next
from pipeline.run import Run

pytestmark = [needs_database, pytest.mark.usefixtures("own_database")]


@pytest.fixture
def pool(run: Run) -> Path:
    return run.project / "data" / "raw" / "more"


@pytest.fixture
def record(tiles: Path, run: Run, pool: Path) -> Iterator[Next]:
    yield batch(tiles, run, pool)
    import fiftyone as fo

    for name in fo.list_datasets("tiny-label*"):
        fo.delete_dataset(name)


def dataset() -> Any:
    import fiftyone as fo

    return fo.load_dataset("tiny-label")


def test_the_app_shows_the_batch_in_order_and_can_edit_it(run: Run, record: Next) -> None:
    said = correct.main(run)
    shown = dataset()
    assert f"3 images with {sum(len(image['boxes']) for image in record['images'])} boxes" in said
    view = shown.load_saved_view(correct.VIEW)
    assert view.values("source") == [image["path"] for image in record["images"]]
    assert view.values("reasons") == [image["reasons"] for image in record["images"]]
    for sample, image in zip(view, record["images"], strict=True):
        assert sample.filepath == image["path"]
        for detection, box in zip(sample["labels"].detections, image["boxes"], strict=True):
            assert (detection.label, detection.confidence, detection.kind) == (box["label"], 0.75, "sure")
            assert [round(320 * side, 6) for side in detection.bounding_box] == box["bbox"]
    assert shown.active_label_schemas == ["labels"]
    assert shown.label_schemas["labels"]["classes"] == record["classes"]


def edit(run: Run) -> tuple[str, str]:
    """Move one box far away, delete one, relabel one and draw one; return the edited image and the one tagged done."""
    import fiftyone as fo

    correct.main(run)
    first, second, _ = dataset().load_saved_view(correct.VIEW)
    boxes = first["labels"].detections
    boxes[0].bounding_box = [0.8, 0.8, 0.1, 0.1]
    boxes[1].label = "short" if boxes[1].label != "short" else "open"
    del boxes[2]
    boxes.append(fo.Detection(label="spur", bounding_box=[0.95, 0.5, 0.1, -0.1]))  # beyond the border, drawn upwards
    first.save()
    second.tags.append("done")
    second.save()
    return first["source"], second["source"]


def test_changes_are_saved_with_their_history(run: Run, record: Next) -> None:
    edit(run)
    said = correct.save(run)
    assert "2 images (" in said and "1 moved, 1 relabelled, 1 added, 1 deleted) -> " in said
    assert "1 image is neither changed nor tagged `done`" in said
    images = {image.file: image for image in labels.load(labels.file_of(run)).images}
    assert set(images) == {f"data/raw/more/{name}" for name in ("some é/train_0000.jpg", "train_0001.jpg")}
    first = images["data/raw/more/some é/train_0000.jpg"]
    by_origin = {label.origin: label for label in first.labels if label.origin != "kept"}
    assert by_origin["moved"].bbox == (256, 256, 32, 32) and by_origin["moved"].score == 0.75
    assert by_origin["added"].bbox == (304, 128, 16, 32) and by_origin["added"].model == ""
    assert [label.bbox for label in first.deleted] == [tuple(record["images"][0]["boxes"][2]["bbox"])]
    assert {label.origin for label in images["data/raw/more/train_0001.jpg"].labels} == {"kept"}
    text = labels.file_of(run).read_text()
    correct.save(run)
    assert labels.file_of(run).read_text() == text  # saving again changes nothing
    assert "3 images (" in correct.save(run, every=True)


def test_an_undone_correction_is_saved_too(run: Run, record: Next) -> None:
    correct.main(run)
    sample = dataset().first()
    [name], before = [image for image in record["images"] if image["path"] == sample["source"]], sample["labels"].copy()
    for boxes, number in ((sample["labels"].detections[1:], 1), ([], 2), (before.detections, 0)):
        sample["labels"].detections = boxes
        sample.save()
        assert "1 image (" in correct.save(run) and not correct.check(run, 5999)
        [image] = labels.load(labels.file_of(run)).images
        drawn = len(name["boxes"])
        assert len(image.labels) == {0: drawn, 1: drawn - 1, 2: 0}[number]
    assert "nothing to save" in correct.save(run)


def test_a_box_that_is_drawn_while_the_others_are_saved_stays_unsaved(
    run: Run, record: Next, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fiftyone as fo

    edit(run)
    save = saving.save

    def slow(*arguments: Any) -> str:
        sample = dataset().first()
        sample["labels"].detections.append(fo.Detection(label="spur", bounding_box=[0.1, 0.1, 0.1, 0.1]))
        sample.save()
        return save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(saving, "save", slow)
        correct.save(run)
    assert correct.check(run, 5999)
    correct.save(run)
    assert not correct.check(run, 5999)


def test_closing_the_app_half_way_loses_nothing(
    tiles: Path, run: Run, pool: Path, record: Next, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(run)
    correct.main(run)  # opens the same batch as it was left
    assert len(dataset().match_tags("done")) == 1 and correct.check(run, 5999)
    batch(tiles, run, pool, count=2)  # another batch has been chosen meanwhile
    capsys.readouterr()
    correct.main(run)
    said = capsys.readouterr().out
    assert "has unsaved corrections, so it is opened again; `.venv/bin/python -m pipeline label --config" in said
    assert len(dataset()) == 3 and len(dataset().match_tags("done")) == 1
    assert "2 images (" in correct.save(run) and not correct.check(run, 5999)
    run.label_next.rename(run.label / "kept.json")
    correct.main(run)
    assert len(dataset()) == 3  # the rest of the batch; there is no other
    (run.label / "kept.json").rename(run.label_next)
    correct.main(run)
    assert len(dataset()) == 2  # the batch that `make label` named last
    assert "nothing to save" in correct.save(run)
    assert len(labels.load(labels.file_of(run)).images) == 2  # from the earlier batch


def test_corrections_survive_a_move_of_the_project(run: Run, record: Next, tmp_path: Path) -> None:
    edit(run)
    moved = Run(tmp_path / "elsewhere" / "runs" / "tiny")
    (tmp_path / "elsewhere").mkdir()
    for name in ("runs", "data"):
        shutil.move(run.project / name, tmp_path / "elsewhere" / name)
    assert "2 images (" in correct.save(moved)
    assert len(labels.load(labels.file_of(moved)).images) == 2
    assert labels.load(labels.file_of(moved)).images[0].file.startswith("data/raw/more/")
    first = next((tmp_path / "elsewhere" / "data" / "raw" / "more").rglob("*.jpg"))
    first.write_bytes(first.read_bytes() + b"changed")
    with pytest.raises(DataError, match="that is gone, and its images are not where they were"):
        correct.save(moved)


def test_a_box_without_a_class_is_reported(run: Run, record: Next) -> None:
    import fiftyone as fo

    correct.main(run)
    sample = dataset().first()
    sample["labels"].detections.append(fo.Detection(bounding_box=[0.1, 0.1, 0.1, 0.1]))
    sample.save()
    with pytest.raises(DataError, match=r"train_0000.jpg: has a box without a class at 32, 32; choose one of open, "):
        correct.save(run)
    assert not labels.file_of(run).exists()


def test_other_data_sets_are_left_alone(run: Run, record: Next, tmp_path: Path) -> None:
    import fiftyone as fo

    with pytest.raises(DataError, match="has no dataset 'tiny-label'"):
        correct.save(run)
    fo.Dataset("tiny-label")
    with pytest.raises(PipelineError, match="another program created"):
        correct.main(run)
    fo.delete_dataset("tiny-label")
    correct.main(run)
    with pytest.raises(DataError, match="tiny-label' shows "):
        correct.save(Run(tmp_path / "elsewhere" / "tiny"))

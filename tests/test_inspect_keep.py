"""What users add in FiftyOne stays: corrections after a project was moved, their own tags, fields and views."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MONGOD, ROOT, needs_database
from test_inspect import build, convert_and_validate, in_test, names_of

from pipeline import fixes, inspect
from pipeline.config.judging import Inspect
from pipeline.errors import DataError, PipelineError
from pipeline.files import read_json, write_json
from pipeline.inspect import contents
from pipeline.run import Run

pytestmark = pytest.mark.usefixtures("own_database")
ANEW = Inspect(confident=0.5)


@pytest.fixture
def validated(source: Path, run: Run, start: Path) -> Iterator[Run]:
    convert_and_validate(source, run, start)
    yield run
    if MONGOD.is_file() and "fiftyone" in sys.modules:
        import fiftyone as fo

        fo.delete_datasets(f"{run.name}*")


@needs_database
def test_corrections_are_saved_after_the_project_moves(
    validated: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = build(validated)
    in_test(dataset).limit(1).tag_samples("drop")
    in_test(dataset).skip(2).limit(1).tag_labels("wrong", label_fields="ground_truth")
    moved = Run(tmp_path / "elsewhere" / "runs" / validated.name)
    moved.root.parent.mkdir(parents=True)
    validated.root.rename(moved.root)
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="it has 2 fixes that you made or took back and did not save"):
        build(moved)
    assert inspect.save_fixes(moved).startswith("2 fixes -> ")
    saved = fixes.load(fixes.file_of(moved))
    assert list(saved.images.items()) == [(names_of(moved)[0], "drop")]
    assert [(fix.image, fix.action) for fix in saved.boxes] == [(names_of(moved)[2], "remove")]
    assert build(moved).info["run"] == str(moved.root.resolve())


@needs_database
def test_corrections_of_other_images_are_not_saved_into_a_run_of_the_same_name(validated: Run, tmp_path: Path) -> None:
    in_test(build(validated)).limit(1).tag_samples("drop")
    other = Run(Path(shutil.copytree(validated.root, tmp_path / "other" / validated.name)))
    receipt = read_json(other.receipt)
    receipt["sources"] = {name: f"other/{source}" for name, source in receipt["sources"].items()}
    write_json(other.receipt, receipt)
    with pytest.raises(DataError, match=r"shows .*, not "):
        inspect.save_fixes(other)
    assert not fixes.file_of(other).exists()


@needs_database
def test_corrections_of_another_project_are_not_saved_into_one_with_the_same_names(
    validated: Run, tmp_path: Path
) -> None:
    """Two projects with a config and images of the same names share the database."""
    in_test(build(validated)).limit(1).tag_samples("drop")
    other = Run(Path(shutil.copytree(validated.root, tmp_path / "other" / "runs" / validated.name)))
    way_out = f"{validated.root.resolve()}.*; save (them|the fixes) there, or rename this config"
    with pytest.raises(PipelineError, match=way_out):
        build(other)
    with pytest.raises(DataError, match=way_out):
        inspect.save_fixes(other)
    assert not fixes.file_of(other).exists()
    assert inspect.save_fixes(validated).startswith("1 fix -> ")
    assert build(other).info["run"] == str(other.root.resolve())  # nothing is lost any more


@needs_database
def test_a_data_set_that_names_no_folder_is_of_no_other_project(validated: Run) -> None:
    dataset = build(validated)
    in_test(dataset).limit(1).tag_samples("drop")
    dataset.info["run"] = ""
    dataset.save()
    assert inspect.save_fixes(validated).startswith("1 fix -> ")


@needs_database
def test_user_tags_fields_and_views_survive_a_rebuild(validated: Run, capsys: pytest.CaptureFixture[str]) -> None:
    import fiftyone as fo

    dataset = build(validated)
    first, third = in_test(dataset).limit(1), in_test(dataset).skip(2).limit(1)
    first.tag_samples("ask Anna")
    third.tag_labels("unsure", label_fields="ground_truth")
    dataset.add_sample_field("note", fo.StringField)
    dataset.add_sample_field("looked_at", fo.BooleanField)
    first.set_values("note", ["blurred"])
    third.set_values("looked_at", [True])
    dataset.save_view("Anna's", dataset.match_tags("ask Anna"), description="to be asked")
    views, unsure = dataset.list_saved_views(), third.count("ground_truth.detections")
    after = build(validated, ANEW)
    assert in_test(after).values("note") == ["blurred", None, None]
    assert in_test(after).values("looked_at") == [None, None, True]
    assert after.match_tags("ask Anna").values("source") == names_of(validated)[:1]
    assert after.count_sample_tags() == {"train": 8, "val": 3, "test": 3, "ask Anna": 1}
    assert after.count_label_tags() == {"unsure": unsure}
    assert after.match_labels(tags="unsure").values("source") == names_of(validated)[2:3]
    assert sorted(after.list_saved_views()) == sorted(views)
    assert after.load_saved_view("Anna's").values("source") == names_of(validated)[:1]
    assert after.get_saved_view_info("Anna's")["description"] == "to be asked"
    assert "not carried over" not in capsys.readouterr().out
    # And once more: what was carried over still counts as the user's.
    again = build(validated, Inspect(confident=0.6))
    assert in_test(again).values("note") == ["blurred", None, None] and "Anna's" in again.list_saved_views()


@needs_database
def test_additions_to_another_projects_dataset_are_not_lost_or_mixed_up(
    validated: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two projects with a config of the same name share the database."""
    import fiftyone as fo

    dataset = build(validated)
    other = Run(Path(shutil.copytree(validated.root, tmp_path / "other" / "runs" / validated.name)))
    dataset.match_tags("test").limit(1).tag_samples("ask Anna")
    dataset.match_tags("test").limit(1).tag_labels("odd", label_fields="predictions")
    dataset.add_sample_field("note", fo.StringField)
    dataset.save_view("Anna's", dataset.match_tags("ask Anna"))
    added = "the field 'note', the tag 'ask Anna', the tag 'odd', the saved view \"Anna's\""
    with pytest.raises(
        PipelineError, match=f"shows {validated.root.resolve()}, and people added {added} to it; rename"
    ):
        build(other)
    fo.delete_dataset(validated.name)
    build(validated)
    capsys.readouterr()
    assert build(other).info["run"] == str(other.root.resolve())
    assert f"replaces FiftyOne's dataset of the same name, which showed {validated.root}" in capsys.readouterr().out


@needs_database
def test_tags_on_predictions_of_another_run_are_named_if_they_go(
    validated: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Run(Path(shutil.copytree(validated.root, tmp_path / "runs" / "b")))
    dataset = build(validated, against=other)
    dataset.match_tags("test").tag_labels("odd", label_fields="predictions_b")
    number = dataset.count_label_tags()["odd"]
    capsys.readouterr()
    build(validated)
    assert f"the tag 'odd' of {number} boxes that are no longer there" in capsys.readouterr().out


@needs_database
def test_a_batch_of_make_label_is_not_replaced(validated: Run, tmp_path: Path) -> None:
    """Its dataset is called NAME-label, as a config may be."""
    import fiftyone as fo

    batch = fo.Dataset("tiny-label")
    batch.info = {"run": str(validated.root.resolve()), "made_from": "x", "batch": {}}
    batch.save()
    other = Run(Path(shutil.copytree(validated.root, tmp_path / "runs" / "tiny-label")))
    with pytest.raises(PipelineError, match="'tiny-label' that is not one of `make inspect`; rename it there, or this"):
        build(other)


@needs_database
@pytest.mark.parametrize("name", ["данные", "日本語"])
def test_a_name_without_latin_letters_has_a_dataset(validated: Run, tmp_path: Path, name: str) -> None:
    import fiftyone as fo

    run = Run(Path(shutil.copytree(validated.root, tmp_path / "runs" / name)))
    dataset = build(run)
    try:
        assert dataset.name.startswith(f"{name}-") and dataset.slug
        assert inspect.save_fixes(run).startswith("nothing new to save")
    finally:
        fo.delete_dataset(dataset.name)


@needs_database
def test_a_name_that_fiftyone_cannot_tell_from_another_is_refused(validated: Run, tmp_path: Path) -> None:
    build(validated)
    other = Run(Path(shutil.copytree(validated.root, tmp_path / "runs" / "Tiny")))
    with pytest.raises(
        PipelineError, match="already has a dataset 'tiny', and cannot tell it from 'Tiny'; rename this"
    ):
        build(other)


@needs_database
def test_what_cannot_be_kept_is_named(validated: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = build(validated)
    dataset.match_tags("test").tag_labels("odd", label_fields="predictions")
    in_test(dataset).limit(1).tag_samples("wet")
    before = dataset.count("predictions.detections")
    # The model was retrained, and one prediction has changed.
    errors = read_json(validated.errors("test"))
    errors["predictions"][0]["bbox"][2] += 7
    write_json(validated.errors("test"), errors)
    after = build(validated)
    said = capsys.readouterr().out
    assert "not carried over from the earlier dataset: the tag 'odd' of 1 boxes that are no longer" in said
    assert after.count_label_tags() == {"odd": before - 1}
    assert after.match_tags("wet").count() == 1


# FiftyOne waits a minute for its database, which a busy machine can exceed. Here it does not wait at all.
HURRIED = "from fiftyone.core.service import Service\nService._wait_for_child_port.__defaults__ = (None, 0.001)\n"


@needs_database
@pytest.mark.parametrize("patience", ["", HURRIED], ids=["a minute", "none"])
def test_two_simultaneous_starts_both_work(tmp_path: Path, patience: str) -> None:
    code = (
        patience + "from pipeline import database\nwith database.fiftyone() as fo: print(len(fo.list_datasets()) >= 0)"
    )
    environment = {**os.environ, "FIFTYONE_DATABASE_DIR": str(tmp_path / "db"), "PYTHONPATH": str(ROOT)}
    environment["FIFTYONE_DATABASE_VALIDATION"] = "false"  # the pipeline sets this too, but too late for HURRIED
    del environment["FIFTYONE_DATABASE_URI"]
    # Into files: the database briefly outlives its clients and would hold a pipe open.
    said = [tmp_path / f"{number}.txt" for number in range(2)]
    both = []
    for file in said:
        with file.open("w") as out:
            both.append(
                subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=out, stderr=out)
            )
    codes, texts = [one.wait() for one in both], [file.read_text() for file in said]
    assert (codes, texts) == ([0, 0], ["True\n"] * 2)


def test_classes_in_another_order_than_validated_are_refused(validated: Run) -> None:
    file = validated.dataset / "data.yaml"
    names = list(contents.class_names(validated))
    text = file.read_text(encoding="utf-8").replace(names[0], "#").replace(names[1], names[0]).replace("#", names[1])
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"its classes are .*, but those of .*; run `make validate` again"):
        inspect.main(Inspect(), validated, "cpu")

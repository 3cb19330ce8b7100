"""Links, broken links and names that are not text: one rule for all formats, for `params` and for convert."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import as_voc, as_yolo, needs_database, pipeline_process, read_coco, settings, write_coco
from test_cli import keep_permissions, linux_only, one_line
from test_convert import assert_refused, do, tree
from test_mutations import RATIOS, WRITERS

from pipeline import formats, params
from pipeline.__main__ import main
from pipeline.config.experiment import Config
from pipeline.files import read_json
from pipeline.run import Run

# --- A source of links is read like the same source without links --------------------------------------


def link_files(folder: Path, store: Path) -> None:
    """Move every file and replace it by a link; folders stay."""
    for number, path in enumerate(path for path in sorted(folder.rglob("*")) if path.is_file()):
        target = store / f"{number}{path.suffix}"  # as in git-annex, a link's name differs from its target's
        path.rename(target)
        path.symlink_to(target)


def link_folders(folder: Path, store: Path) -> None:
    """Replace every folder in the source, including nested ones, by a link."""
    for number, path in enumerate(sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)):
        path.rename(store / str(number))
        path.symlink_to(store / str(number))


def link_source(folder: Path, store: Path) -> None:
    folder.rename(store / "of another name")
    folder.symlink_to(store / "of another name")


def link_all(folder: Path, store: Path) -> None:
    for name, link in (("files", link_files), ("folders", link_folders), ("source", link_source)):
        (store / name).mkdir()
        link(folder, store / name)


LINKS = {"files": link_files, "folders": link_folders, "source": link_source, "all": link_all}


def linked(source: Path, how: str) -> Path:
    store = source.with_name("store")
    store.mkdir()
    LINKS[how](source, store)
    return source


def account(source: Path, run: Run, **settings: Any) -> dict[str, Any]:
    """Everything convert makes of a source, including the pixels."""
    return {**do(source, run, split=RATIOS, **settings), "tree": {**tree(run.dataset), "receipt.json": b""}}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_read_through_links(name: str, tiles: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    WRITERS[name][0](tiles, source)
    expected = account(source, Run(tmp_path / "one" / "runs" / "mine"))
    assert expected["format"] == name and expected["boxes"]["kept"] > 0
    linked(source, "all")
    assert account(source, Run(tmp_path / "two" / "runs" / "mine")) == {
        **expected,
        "splits_by": str(tmp_path / "two" / "data" / "splits" / "mine.json"),
    }


@pytest.mark.parametrize("how", LINKS)
@pytest.mark.parametrize("write", [shutil.copytree, as_voc, as_yolo], ids=["coco", "voc", "yolo"])
def test_every_kind_of_link_is_followed(
    write: Callable[[Path, Path], Path], how: str, tiles: Path, tmp_path: Path
) -> None:
    source = write(tiles, tmp_path / "source")
    expected = formats.read(source)
    assert formats.read(linked(source, how)) == expected


@needs_database
@pytest.mark.parametrize("how", LINKS)
def test_fiftyone_reads_through_links(how: str, tiles: Path, tmp_path: Path, own_database: None) -> None:
    source = as_yolo(tiles, tmp_path / "source")
    (source / "data.yaml").rename(source / "dataset.yaml")
    expected = formats.read(source, "fiftyone:YOLOv5Dataset")
    assert formats.read(linked(source, how), "fiftyone:YOLOv5Dataset") == expected


def test_errors_name_a_linked_source_as_the_config_does(source: Path, run: Run) -> None:
    linked(source, "all")
    (source / "images" / "extra.jpg").symlink_to(source / "images" / "train_0000.jpg")
    (source / "images" / "train_0000.jpg").unlink()
    assert_refused(source, run, rf"^{source}/images/extra\.jpg: no annotation")


def test_the_data_set_hard_links_the_targets_of_links(source: Path, run: Run) -> None:
    linked(source, "all")
    do(source, run)
    assert (run.dataset / "images" / "train" / "train_0000.jpg").samefile(source / "images" / "train_0000.jpg")
    assert not [path for path in run.dataset.rglob("*") if path.is_symlink()]


# --- Paths in annotation files never leave the source -----------------------------------------------------


def test_a_path_that_leaves_the_source_is_refused_by_its_text(source: Path, run: Run) -> None:
    """`images` is a link, so to the kernel `images/../` is the parent of the link's target, not the source."""
    linked(source, "folders")
    store = source.with_name("store")
    shutil.copy(source / "images" / "train_0000.jpg", store / "secret.jpg")
    data = read_coco(source, "train")
    data["images"][0]["file_name"] = "../images/../secret.jpg"
    write_coco(source, "train", data)
    # Not the one in the store.
    assert_refused(source, run, r"source/secret\.jpg: image missing", unlabelled="background")
    data["images"][0]["file_name"] = "../../store/secret.jpg"
    write_coco(source, "train", data)
    assert_refused(source, run, r"train\.json: names '\.\./\.\./store/secret\.jpg', outside .*, or link it there$")
    data["images"][0]["file_name"] = "../images/train_0000.jpg"
    write_coco(source, "train", data)
    assert do(source, run)["images"]["used"] == 14


def test_an_absolute_path_may_go_through_links_or_to_their_targets(source: Path, run: Run) -> None:
    linked(source, "source")
    data = read_coco(source, "train")
    data["images"][0]["file_name"] = str(source / "images" / "train_0000.jpg")
    data["images"][1]["file_name"] = str(source.resolve() / "images" / "train_0001.jpg")
    write_coco(source, "train", data)
    assert do(source, run)["sources"]["train/train_0001.jpg"] == "images/train_0001.jpg"


# --- One file by two paths ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "images"), [(shutil.copytree, "images"), (as_voc, "JPEGImages")], ids=["coco", "voc"]
)
def test_a_folder_linked_twice_gives_each_image_once(
    write: Callable[[Path, Path], Path], images: str, tiles: Path, tmp_path: Path, run: Run
) -> None:
    """Either path may be in an annotation, and no image becomes its own background copy."""
    source = write(tiles, tmp_path / "source")
    expected = do(source, run, unlabelled="background")
    (source / images).rename(source / "store")
    for name in ("one", "two"):
        (source / name).symlink_to("store")
    receipt = do(source, run, unlabelled="background")
    assert receipt["splits"] == expected["splits"] and receipt["boxes"] == expected["boxes"]
    assert len(receipt["images"]["linked_again"]) == 2 * 14 and receipt["images"]["used"] == 14
    assert receipt["images"]["linked_again"]["store/val_0000.jpg"] == "the same file as one/val_0000.jpg"


def test_a_hard_link_is_also_the_same_file(source: Path, run: Run) -> None:
    (source / "images" / "copy.jpg").hardlink_to(source / "images" / "val_0000.jpg")
    (source / "images" / "other.jpg").hardlink_to(source / "images" / "copy.jpg")
    assert do(source, run)["images"]["linked_again"] == {
        f"images/{name}.jpg": "the same file as images/val_0000.jpg" for name in ("copy", "other")
    }


def test_the_last_line_counts_links_and_groups(source: Path, tmp_path: Path) -> None:
    (source / "again").symlink_to("images")
    shutil.copy(source / "images" / "train_0000.jpg", source / "images" / "val_0001.jpg")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings(source)))
    done = pipeline_process("convert", "--config", "tiny.yaml", cwd=tmp_path)
    assert done.stdout.endswith(
        "(14 links to an image that is in the source already, 1 group of identical images in more than one split: "
        "see receipt.json)\n"
    )


def test_an_image_labelled_by_two_paths_in_two_splits_is_a_leak(tiles: Path, tmp_path: Path, run: Run) -> None:
    source = as_yolo(tiles, tmp_path / "yolo")
    for kind, suffix in (("images", "jpg"), ("labels", "txt")):
        (source / kind / "val" / f"twin.{suffix}").symlink_to(f"../train/train_0000.{suffix}")
    assert do(source, run)["leaks"]["exact"] == [["train/images/train/train_0000.jpg", "val/images/val/twin.jpg"]]


# --- Unreadable entries ----------------------------------------------------------------------------------


def broken(name: str, target: str) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        path = source / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(target)

    return spoil


def deep(source: Path) -> None:
    """Nest folders until the path is longer than the system allows."""
    start = Path.cwd()
    os.chdir(source)
    try:
        for _ in range(45):
            Path("d" * 100).mkdir()
            os.chdir("d" * 100)
    finally:
        os.chdir(start)


def copy_as(name: bytes) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        shutil.copy(source / "labels/train/train_0001.txt", os.fsencode(source) + b"/" + name)

    return spoil


NOWHERE = r"which cannot be read; restore that, or remove the link"
ITSELF = r"a folder that contains the link itself; remove the link"

# What is in a YOLO source -> what convert reports in one line, "" if it does not matter.
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing labels": (broken("labels/train/train_0001.txt", "/mnt/gone/1.txt"), rf"labels/train/train_0001\.txt: is a link to '/mnt/gone/1\.txt', {NOWHERE}$"),
    "missing image": (broken("images/train/train_0001.jpg", "gone.jpg"), rf"images/train/train_0001\.jpg: is a link to 'gone\.jpg', {NOWHERE} \(its annotation is .*train_0001\.txt\)$"),
    "missing image whose target is not text": (broken("images/train/train_0001.jpg", "gone\udce9.jpg"), rf"is a link to 'gone\\udce9\.jpg', {NOWHERE}"),
    "missing folder": (broken("labels/train", "/mnt/gone"), rf"labels/train: is a link to '/mnt/gone', {NOWHERE}$"),
    "a link to itself": (broken("labels/train/train_0001.txt", "train_0001.txt"), rf"train_0001\.txt: is a link to 'train_0001\.txt', {NOWHERE}$"),
    "an image linked to itself": (broken("images/train/train_0001.jpg", "train_0001.jpg"), rf"train_0001\.jpg: is a link to 'train_0001\.jpg', {NOWHERE}"),
    "two such": (lambda s: (broken("x", "y")(s), broken("y", "x")(s)), rf"source/x: is a link to 'y', {NOWHERE} \(and 1 more such\)$"),
    "a link to its folder": (broken("images/all", "."), rf"images/all: is a link to '\.', {ITSELF}"),
    "a link to a folder above": (broken("images/all", "../.."), rf"images/all: is a link to '\.\./\.\.', {ITSELF}"),
    "a link to everything": (broken("images/all", "/"), rf"images/all: is a link to '/', {ITSELF}"),
    "circular links through another folder": (
        lambda s: (s.with_name("far").mkdir(), broken("images/far", "../../far")(s), broken("../far/back", "../source/images")(s)),
        rf"images/far/back: is a link to '\.\./source/images', {ITSELF}",
    ),
    "endless folders": (deep, r"cannot be read \(File name too long\)"),
    "a pipe as an image": (lambda s: os.mkfifo(s / "images/train/pipe.jpg"), r"pipe\.jpg: is not a readable file or folder; remove it"),
    "a link to a pipe": (lambda s: (os.mkfifo(s.with_name("pipe")), broken("images/train/pipe.jpg", "../../../pipe")(s)), r"pipe\.jpg: is not a readable file or folder"),
    "an image's name": (copy_as(b"images/train/caf\xe9.jpg"), r"source: the file name b'images/train/caf\\xe9\.jpg' is not one line of UTF-8; rename the file"),
    "an annotation's name": (copy_as(b"labels/train/caf\xe9.txt"), r"the file name b'labels/train/caf\\xe9\.txt' is not one line of UTF-8"),
    "a name of two lines": (copy_as(b"images/train/a\nb.jpg"), r"the file name b'images/train/a\\nb\.jpg' is not one line of UTF-8"),
    "an unused name": (copy_as(b"caf\xe9.pdf"), ""),
    "a hidden broken link": (broken(".cache", "/mnt/gone"), ""),
    "no source": (shutil.rmtree, r"source: no such folder; put the images"),
    "a file as source": (lambda s: (shutil.rmtree(s), s.touch()), r"source: no such folder; put the images"),
    "a broken link as source": (lambda s: (shutil.rmtree(s), s.symlink_to("gone")), r"source: no such folder; put the images"),
    "a link to itself as source": (lambda s: (shutil.rmtree(s), s.symlink_to(s)), r"source: no such folder; put the images"),
}  # fmt: skip


@linux_only
@pytest.mark.parametrize("case", BAD)
def test_params_continues_and_convert_reports_it_in_one_line(
    case: str, tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`unlabelled: background` would turn every overlooked label into a background image."""
    spoil, said = BAD[case]
    monkeypatch.chdir(tmp_path)
    source = as_yolo(tiles, tmp_path / "source")
    Path("tiny.yaml").write_text(yaml.safe_dump({"convert": {"source": "source", "unlabelled": "background"}}))
    run = Run.of(Path("tiny.yaml"))
    assert main(["params", "--config", "tiny.yaml"]) == 0
    before = run.source_listing.read_text()
    spoil(source)
    assert main(["params", "--config", "tiny.yaml"]) == 0
    # Listed, so that convert reruns once it is fixed; hidden files are ignored.
    assert (run.source_listing.read_text() == before) == ("hidden" in case)
    assert main(["convert", "--config", "tiny.yaml", "--workers", "1"]) == (1 if said else 0)
    stderr = capfd.readouterr().err
    assert run.dataset.exists() == (not said)
    if said:
        line = one_line(stderr)
        assert re.search(said, line), line
    else:
        assert stderr == ""


@linux_only
def test_a_folder_without_permission_is_reported(tiles: Path, tmp_path: Path) -> None:
    source = as_yolo(tiles, tmp_path / "source")
    (source / "labels" / "train").chmod(0)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"convert": {"source": "source", "unlabelled": "background"}}))
    for stage, said in (("params", ""), ("convert", "labels/train: cannot be read (Permission denied); make it read")):
        done = pipeline_process(stage, "--config", "tiny.yaml", cwd=tmp_path, preexec_fn=keep_permissions)
        assert done.returncode == bool(said) and said in (one_line(done.stderr) if said else done.stderr)
    (source / "labels" / "train").chmod(0o755)


def test_images_that_are_broken_links_can_be_dropped(source: Path, run: Run) -> None:
    """What git-annex and DVC leave for images that were not fetched."""
    for name in ("train_0001.jpg", "test_0000.jpg"):
        broken(f"images/{name}", f"../.git/annex/{name}")(source)
    receipt = do(source, run, on_problem="drop")
    assert receipt["images"]["used"] == 12
    assert set(receipt["images"]["dropped"]) == {"images/train_0001.jpg", "images/test_0000.jpg"}
    assert "is a link to '../.git/annex/test_0000.jpg'" in receipt["images"]["dropped"]["images/test_0000.jpg"]


@pytest.mark.parametrize("name", ["caf\udce9.jpg", "half a letter \ud83d.jpg", "two\nlines.jpg"])
def test_a_json_name_that_is_not_valid_text_is_refused(name: str, source: Path, run: Run) -> None:
    """If dropped, it would have to be written to the receipt."""
    data = read_coco(source, "train")
    data["images"][0]["file_name"] = name
    write_coco(source, "train", data)
    assert_refused(source, run, r"train\.json: names an impossible path, '.*\\[un]", on_problem="drop")


# --- What make notices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", LINKS)
def test_an_edit_behind_a_link_is_noticed(how: str, source: Path, run: Run) -> None:
    linked(source, how)
    config = Config.model_validate({"convert": {"source": source}})
    params.main(config, run)
    before = read_json(run.source_listing)
    assert before["files"] == 14 + 3
    path = source / "annotations" / "val.json"
    path.write_text(path.read_text() + " ")
    params.main(config, run)
    assert read_json(run.source_listing) != before

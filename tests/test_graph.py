"""What make runs, with the real make, real stages and a tiny real training: nothing needless, nothing stale.

`make -n` overstates, as `params` always runs. After a real `make params`, `make -n -o params` does not: it lists the
stages that would run. So one run of everything serves many edits.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Trained, as_yolo, checkout, make_environment, settings

from pipeline.files import read_json

ALL = ["convert", "augment", "train", "validate", "export", "report"]
AGAINST = "AGAINST=runs/other"


def make(folder: Path, *arguments: str) -> str:
    """Run make on configs/mine.yaml, which must succeed; return its standard output."""
    # VERBOSE: make prints the commands.
    command = ["make", "CONFIG=configs/mine.yaml", f"PIPELINE={sys.executable} -m pipeline", "VERBOSE=1", *arguments]
    done = subprocess.run(command, cwd=folder, env=make_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def stages(output: str) -> list[str]:
    """The stages in the commands that make printed; `validate --against` counts as `compare`."""
    found = re.findall(r"-m pipeline (?!params)(\w+) .*?(--against|$)", output, re.M)
    return ["compare" if flag and stage == "validate" else stage for stage, flag in found]


def would_run(folder: Path, *arguments: str) -> list[str]:
    make(folder, "params", *arguments)
    return stages(make(folder, "-n", "-o", "params", "all", *arguments))


def copy(project: Path, target: Path) -> Path:
    """Copy by hard links, keeping all dates: an edit replaces a file, as editors do."""
    return Path(shutil.copytree(project, target, copy_function=os.link))


def write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def touch(path: Path) -> None:
    """Give a file a new date by replacing it, since `copy` shares it with others."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


def edit(project: Path, **changes: object) -> None:
    """Change the config section by section; a value that is not a mapping replaces the section."""
    path = project / "configs" / "mine.yaml"
    config = yaml.safe_load(path.read_text())
    for section, values in changes.items():
        config[section] = {**config.get(section, {}), **values} if isinstance(values, dict) else values
    write(path, yaml.safe_dump(config))


RATIOS = {"train": 0.6, "val": 0.2, "test": 0.2}
FIX = "images:\n  images/{name}: drop\n"


@pytest.fixture(scope="module")
def project(trained: Trained, tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which every stage has run, using all a config can name. Read-only: `copy` makes a copy."""
    folder = tmp_path_factory.mktemp("graph") / "project"
    folder.mkdir()
    checkout(folder)
    source = folder / "data" / "raw" / "mine"
    shutil.copytree(tiles, source)
    as_yolo(tiles, folder / "data" / "raw" / "known")
    (folder / "data" / "weights").mkdir()
    shutil.copy(trained.run.model, folder / "data" / "weights" / "mine.pt")
    shutil.copy(trained.run.model, folder / "data" / "weights" / "teacher.pt")
    name = sorted(path.name for path in (source / "images").iterdir())[0]
    write(folder / "data" / "fixes" / "mine.yaml", FIX.format(name=name))
    config = settings(
        Path("data/raw/mine"),
        "mine.pt",
        convert={"split": RATIOS, "group_by": r"(\d)\.", "near_duplicates": False},
        train={"phases": [{"epochs": 1}], "args": {"distill_model": "teacher.pt", "plots": False}},
        validate={"retention": "data/raw/known/data.yaml"},
    )
    write(folder / "configs" / "mine.yaml", yaml.safe_dump(config))
    output = make(folder, "all")
    assert stages(output) == ALL
    return folder


@pytest.fixture
def edited(project: Path, tmp_path: Path) -> Path:
    return copy(project, tmp_path / "project")


def test_the_second_make_runs_nothing(edited: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in edited.rglob("*")}
    for _ in range(2):
        output = make(edited, "all")
        assert stages(output) == []
        assert output.count("up to date") == 3
    assert {path: path.stat().st_mtime_ns for path in edited.rglob("*")} == before


SECTIONS: list[tuple[dict[str, object], list[str]]] = [
    ({"seed": 1}, ALL),
    ({"convert": {"min_side": 2}}, ALL),
    ({"augment": {"min_visibility": 0.5}}, ALL[1:]),
    ({"train": {"batch": 8}}, ALL[2:]),
    ({"validate": {"iou": 0.6}}, ALL[3:]),
    ({"export": {"images": 1}}, ALL[4:]),  # the report shows the export
    ({"report": {"worst": 3}}, ALL[5:]),
    ({"inspect": {"confident": 0.4}}, []),
]


def test_the_documentation_contains_this_table() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", (ROOT / "docs" / "running.md").read_text(), re.M)
    documented: dict[str, list[str]] = {}
    for change, runs in rows[[change for change, _ in rows].index("you change") :]:
        named = re.findall(r"`(\w+)`", runs)
        if "all that follow" in runs:
            named = ALL[ALL.index(named[0]) :]
        for key in re.findall(r"`(\w+):?`", change):
            documented.setdefault(key, ALL if runs == "every stage" else [] if runs == "nothing" else named)
    assert {next(iter(change)): expected for change, expected in SECTIONS}.items() <= documented.items()


@pytest.mark.parametrize(("change", "expected"), SECTIONS, ids=lambda value: "+".join(value))
def test_an_edited_section_reruns_its_stages(edited: Path, change: dict[str, object], expected: list[str]) -> None:
    edit(edited, **change)
    assert would_run(edited) == expected


def test_a_comment_or_another_key_order_runs_nothing(edited: Path) -> None:
    path = edited / "configs" / "mine.yaml"
    config = yaml.safe_load(path.read_text())
    write(path, "# a note\n" + yaml.safe_dump(dict(reversed(config.items())), sort_keys=False))
    assert would_run(edited) == []


def other_weights(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data + b"\0")  # a zip archive may have trailing data


def other_label(path: Path) -> None:
    text = path.read_text()
    write(path, text + text.splitlines()[0] + "\n")


def new_image(project: Path) -> None:
    """Add one more image, in the JSON and as a file."""
    path = project / "data" / "raw" / "mine" / "annotations" / "train.json"
    data = json.loads(path.read_text())
    first = data["images"][0]
    shutil.copy(path.parents[1] / "images" / first["file_name"], path.parents[1] / "images" / "new9.png")
    data["images"].append({**first, "id": 999, "file_name": "new9.png"})
    write(path, json.dumps(data))


RAW, WEIGHTS = "data/raw", "data/weights"
FILES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "an image is added": (new_image, ALL),
    "an annotation file has a new date": (lambda at: touch(at / RAW / "mine/annotations/val.json"), ALL),
    "an image is deleted": (lambda at: next((at / RAW / "mine/images").glob("test*")).unlink(), ALL),
    "corrections change": (lambda at: write(at / "data/fixes/mine.yaml", "images: {}\n"), ALL),
    "corrections are deleted": (lambda at: (at / "data/fixes/mine.yaml").unlink(), ALL),
    "the drawn splits are deleted": (lambda at: (at / "data/splits/mine.json").unlink(), ALL),
    "the weights change": (lambda at: other_weights(at / WEIGHTS / "mine.pt"), ALL[2:]),
    "the teacher changes": (lambda at: other_weights(at / WEIGHTS / "teacher.pt"), ALL[2:]),
    "the weights have a new date": (lambda at: touch(at / WEIGHTS / "mine.pt"), []),
    "the weights are gone": (lambda at: (at / WEIGHTS / "mine.pt").unlink(), []),
    "the retention set changes": (lambda at: other_label(next((at / RAW / "known/labels/val").iterdir())), ALL[3:]),
    "corrections of another run": (lambda at: write(at / "data/fixes/other.yaml", "images: {}\n"), []),
    "the export is deleted": (lambda at: shutil.rmtree(at / "runs/mine/export"), ALL[4:]),
    "the report is deleted": (lambda at: shutil.rmtree(at / "runs/mine/report"), ALL[5:]),
    "cached features are deleted": (lambda at: shutil.rmtree(at / "runs/mine/features", ignore_errors=True), []),
}


@pytest.mark.parametrize("change", FILES)
def test_a_changed_file_reruns_its_stages(edited: Path, change: str) -> None:
    do, expected = FILES[change]
    do(edited)
    assert would_run(edited) == expected


def test_a_comparison_reruns_only_when_either_run_has_changed(edited: Path) -> None:
    shutil.copytree(edited / "runs" / "mine", edited / "runs" / "other")
    assert stages(make(edited, "all", AGAINST)) == ["compare", "report"]
    assert "runs/other" in (edited / "runs/mine/report/index.html").read_text()
    assert stages(make(edited, "all", AGAINST)) == []
    touch(edited / "runs/other/metrics.json")
    assert stages(make(edited, "all", AGAINST)) == ["compare", "report"]
    # Without AGAINST, the page is again that of a plain `make all`.
    assert stages(make(edited, "all")) == ["report"]
    assert "runs/other" not in (edited / "runs/mine/report/index.html").read_text()
    shutil.copytree(edited / "runs" / "other", edited / "runs" / "third")
    assert would_run(edited, "AGAINST=runs/third") == ["compare", "report"]


def test_the_report_shows_the_current_export(edited: Path) -> None:
    """Also when both are requested at once, with parallel jobs."""
    assert "mine.onnx" in (edited / "runs/mine/report/index.html").read_text()
    edit(edited, export={"targets": [{"format": "torchscript"}]})
    make(edited, "params")
    assert stages(make(edited, "-n", "-o", "params", "report")) == ["export", "report"]
    assert stages(make(edited, "-j4", "all")) == ["export", "report"]
    page = (edited / "runs/mine/report/index.html").read_text()
    assert "mine.torchscript" in page and "mine.onnx" not in page
    assert stages(make(edited, "all")) == []


def test_a_report_does_not_wait_for_an_export_nobody_requested(edited: Path) -> None:
    shutil.rmtree(edited / "runs/mine/export")
    assert stages(make(edited, "report")) == []  # the page is newer than everything else it shows
    write(edited / "runs/mine/report/index.html", "")
    os.utime(edited / "runs/mine/report/index.html", (0, 0))
    assert stages(make(edited, "report")) == ["report"]
    assert not (edited / "runs/mine/export").exists()


@pytest.fixture
def source_only(tiles: Path, tmp_path: Path) -> Path:
    """A project with a source and a config that names it."""
    folder = tmp_path / "project"
    folder.mkdir()
    checkout(folder)
    shutil.copytree(tiles, folder / "data" / "raw" / "mine")
    write(folder / "configs" / "mine.yaml", yaml.safe_dump(settings(Path("data/raw/mine"))))
    return folder


def linked_images(project: Path) -> None:
    images = project / "data/raw/mine/images"
    images.rename(project / "big")
    images.symlink_to(project / "big")


def linked_source(project: Path) -> None:
    (project / "data/raw/mine").rename(project / "elsewhere")
    (project / "data/raw/mine").symlink_to(project / "elsewhere")


def odd_names(project: Path) -> None:
    """Files no reader needs: one whose name is not UTF-8, and a hidden dangling link."""
    (project / "data/raw/mine/.cache").symlink_to(project / "nowhere")
    Path(os.fsdecode(os.fsencode(project / "data/raw/mine") + b"/notes-\xff.bin")).write_text("a note")


SOURCES: dict[str, Callable[[Path], object]] = {
    "given splits": lambda at: None,
    "ratios": lambda at: edit(at, convert={"split": RATIOS}),
    "ratios, groups": lambda at: edit(at, convert={"split": RATIOS, "group_by": r"(\d)\."}),
    "ratios, splits from git": lambda at: write(
        at / "data/splits/mine.json",
        json.dumps({"seed": 0, "split": RATIOS, "group_by": None, "near_duplicates": True, "images": {}}),
    ),
    "corrections": lambda at: write(at / "data/fixes/mine.yaml", "images: {images/train_0001.jpg: drop}\n"),
    "a linked folder of images": linked_images,
    "a linked source": linked_source,
    "odd names": odd_names,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_convert_reruns_only_when_its_source_changes(source_only: Path, kind: str) -> None:
    SOURCES[kind](source_only)
    assert stages(make(source_only, "convert")) == ["convert"]
    receipt = (source_only / "runs/mine/dataset/receipt.json").read_bytes()
    assert stages(make(source_only, "convert")) == []
    touch(next((source_only / "data/raw/mine/annotations").iterdir()))
    assert stages(make(source_only, "convert")) == ["convert"]
    assert (source_only / "runs/mine/dataset/receipt.json").read_bytes() == receipt
    assert stages(make(source_only, "convert")) == []


def test_deleted_splits_are_redrawn(source_only: Path) -> None:
    edit(source_only, convert={"split": RATIOS})
    splits = source_only / "data/splits/mine.json"
    make(source_only, "convert")
    drawn = splits.read_text()
    images = read_json(splits)["images"]
    other = {name: {"train": "val", "val": "train"}.get(split, split) for name, split in images.items()}
    write(splits, json.dumps({**read_json(splits), "images": other}))
    assert stages(make(source_only, "convert")) == ["convert"]
    assert read_json(splits)["images"] == other  # the user's splits stay
    assert stages(make(source_only, "convert")) == []
    splits.unlink()
    assert stages(make(source_only, "convert")) == ["convert"]
    assert splits.read_text() == drawn

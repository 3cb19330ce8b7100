"""What reruns after which edit, with the real make, Makefile and `params`.

A script stands in for the stages, writing their targets and recording its name: this is about code edits and
failures. `test_graph.py` has the real stages.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, checkout, make_environment
from test_architecture import imports

from pipeline import files

ALL = ["convert", "augment", "train", "validate", "export", "report"]
TARGETS = {
    "convert": "dataset/data.yaml",
    "augment": "augmented/data.yaml",
    "train": "model.pt",
    "validate": "metrics.json",
    "export": "export/manifest.json",
    "report": "report/index.html",
}
PLAYER = """
import os, subprocess, sys
from pathlib import Path
TARGETS = {targets!r}
stage = sys.argv[1]
if stage == "params":
    sys.exit(subprocess.run([{python!r}, "-m", "pipeline", *sys.argv[1:]], check=False).returncode)
with open("played.txt", "a") as file:
    file.write(stage + "\\n")
if os.environ.get("FAIL") == stage:
    sys.exit(1)
target = Path("runs/mine") / TARGETS[stage]
target.parent.mkdir(parents=True, exist_ok=True)
target.write_text("x")
"""


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "configs" / "mine.yaml"

    def build(self) -> None:
        folder = self.folder
        checkout(folder)
        (folder / "raw").mkdir()
        (folder / "raw" / "label.txt").write_text("one")
        (folder / "player.py").write_text(PLAYER.format(targets=TARGETS, python=sys.executable))
        self.write({"convert": {"source": "raw"}})
        for path in sorted(folder.rglob("*")):
            self.age(path, 1000)
        (folder / ".venv" / "installed.txt").touch()

    def age(self, path: Path, seconds: int) -> None:
        date = path.stat().st_mtime - seconds
        os.utime(path, (date, date))

    def write(self, config: dict[str, object]) -> None:
        self.config.write_text(yaml.safe_dump(config))

    def age_all(self) -> None:
        """Set all dates back: make compares them, and a test is faster than some disks' clock tick."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path.parent.name != "raw":  # make watches the source's own dates
                self.age(path, 10)

    def make(self, *arguments: str, age: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "played.txt").unlink(missing_ok=True)
        if age:
            self.age_all()
        command = ["make", "CONFIG=configs/mine.yaml", f"PIPELINE={sys.executable} player.py", *arguments]
        everything = make_environment(**environment)
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, env=everything)

    def played(self) -> list[str]:
        path = self.folder / "played.txt"
        return path.read_text().split() if path.is_file() else []


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with every stage done. Read-only: `project` is a copy, with the same dates."""
    made = Project(tmp_path_factory.mktemp("built") / "project")
    made.build()
    done = made.make("all")
    assert done.returncode == 0, done.stderr
    assert made.played() == ALL
    return made


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    return Project(Path(shutil.copytree(built.folder, tmp_path / "project")))


def test_nothing_reruns_without_a_change(project: Project) -> None:
    done = project.make("train")
    assert (done.stdout, project.played()) == ("train: up to date in runs/mine\n", [])


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ({"seed": 1}, ALL),
        ({"convert": {"source": "raw", "unlabelled": "background"}}, ALL),
        ({"augment": {"min_visibility": 0.5}}, ALL[1:]),
        ({"tiles": {"size": 320}}, ALL[1:]),
        ({"train": {"batch": 8}}, ALL[2:]),
        ({"validate": {"iou": 0.6}}, ["validate", "export", "report"]),  # bundles contain its thresholds
        ({"export": {"images": 8}}, ["export", "report"]),
        ({"report": {"worst": 3}}, ["report"]),
        ({"inspect": {"confident": 0.4}}, []),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_an_edited_section_reruns_its_stages(project: Project, change: dict[str, object], stages: list[str]) -> None:
    project.write({"convert": {"source": "raw"}, **change})
    assert project.make("all").returncode == 0
    assert project.played() == stages


def test_a_comment_reruns_nothing(project: Project) -> None:
    project.config.write_text("# a note\n" + project.config.read_text() + "\n# another\n")
    assert project.make("all").returncode == 0
    assert project.played() == []


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("pipeline/convert/judge.py", ALL),
        ("pipeline/formats/voc.py", ALL),
        ("pipeline/boxes.py", ALL),
        ("pipeline/augment/balance.py", ALL[1:]),
        ("pipeline/train/stage.py", ALL[2:]),
        ("pipeline/train/trainer.py", ALL[2:]),
        ("pipeline/train/freeze.py", ALL[2:]),
        ("pipeline/metrics/coco.py", ["validate", "export", "report"]),
        ("pipeline/metrics/bootstrap.py", ALL[2:]),  # train uses it to judge a phase's gain
        ("pipeline/metrics/iou.py", ALL),  # fixes use it to match boxes
        ("pipeline/device/runner/model.py", ["export", "report"]),
        ("pipeline/report/page.html.jinja", ["report"]),
        ("pipeline/pixels.py", ALL[1:]),
        ("pipeline/upstream/checkpoints.py", ALL[2:]),
        ("pipeline/upstream/predictor.py", ["validate", "export", "report"]),
        ("pipeline/inspect/views.py", []),
        ("README.md", []),
    ],
)
def test_edited_code_reruns_its_stages(project: Project, file: str, stages: list[str]) -> None:
    project.age_all()
    path = project.folder / file
    path.write_text(path.read_text() + "\n" if path.is_file() else "x")
    assert project.make("all", age=False).returncode == 0
    assert project.played() == stages


def test_an_edited_label_is_noticed(project: Project) -> None:
    (project.folder / "raw" / "label.txt").write_text("two")
    assert project.make("all").returncode == 0
    assert project.played() == ALL


def test_a_failed_stage_is_not_marked_done(project: Project) -> None:
    project.write({"convert": {"source": "raw"}, "train": {"batch": 8}})
    assert project.make("all", FAIL="train").returncode != 0
    assert project.played() == ["train"]
    assert project.make("all").returncode == 0
    assert project.played() == ["train", "validate", "export", "report"]


def test_an_invalid_config_stops_before_any_stage(project: Project) -> None:
    project.write({"convert": {"source": "raw"}, "trian": {}})
    done = project.make("all")
    assert done.returncode != 0 and project.played() == []
    assert "error: configs/mine.yaml: trian: unknown key; did you mean 'train'?" in done.stderr


def test_a_missing_config_is_named(project: Project) -> None:
    done = subprocess.run(
        ["make", "clean", "CONFIG="],
        cwd=project.folder,
        env=make_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0 and "no such file; there are: configs/mine.yaml" in done.stderr
    assert (project.folder / "runs" / "mine").is_dir()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trian", "error: no target or file 'trian'; `make help` lists the targets; did you mean train?"),
        ("qqqqq", "error: no target or file 'qqqqq'; `make help` lists the targets\n"),
        ("config=configs/sample.yaml", "config: no such variable; there are: CONFIG DEVICE "),
        ("WORKER=2", "WORKER: no such variable; there are: CONFIG DEVICE "),
    ],
)
def test_a_misspelled_word_is_an_error(word: str, said: str) -> None:
    """It would otherwise go unnoticed: without CONFIG, make runs the sample."""
    done = subprocess.run(["make", word], cwd=ROOT, env=make_environment(), capture_output=True, text=True, check=False)
    assert done.returncode != 0 and said in done.stderr


def test_values_with_spaces_and_equal_signs_are_not_variables(project: Project) -> None:
    command = ["make", "new", "SOURCE=a b=c", f"PIPELINE={sys.executable} player.py"]
    done = subprocess.run(
        command, cwd=project.folder, env=make_environment(), capture_output=True, text=True, check=False
    )
    assert "no such variable" not in done.stderr


def test_a_config_with_a_space_is_refused(project: Project) -> None:
    """Make would see two files and clean another config's run."""
    project.config.rename(project.folder / "configs" / "my set.yaml")
    done = project.make("clean", "CONFIG=configs/my set.yaml")
    assert done.returncode != 0 and "make takes no spaces in the name of a file; rename it" in done.stderr
    assert (project.folder / "runs" / "mine").is_dir()


@pytest.mark.parametrize("config", ["configs/", ".", "configs/*.yaml", "configs/mine(1).yaml", "configs/'mine'.yaml"])
def test_clean_takes_only_the_name_of_one_config(project: Project, config: str) -> None:
    """The name becomes part of `rm -rf runs/NAME`."""
    if config.endswith(".yaml") and "*" not in config:
        project.config.rename(project.folder / config)
    done = project.make("clean", f"CONFIG={config}")
    assert done.returncode == 2 and re.search(r"name one file|no quotes, brackets or wildcards", done.stderr)
    assert (project.folder / "runs" / "mine").is_dir()


def test_clean_keeps_the_run_of_another_config_of_the_same_name(project: Project, tmp_path: Path) -> None:
    made_by = project.folder / "runs" / "mine" / "params" / "made_by.json"
    made_by.parent.mkdir(exist_ok=True)
    files.write_json(made_by, {"config": "configs/mine.yaml"})
    other = tmp_path / "other" / "mine.yaml"
    other.parent.mkdir()
    shutil.copy(project.config, other)
    done = project.make("clean", f"CONFIG={other}")
    assert f"runs/mine: was made by configs/mine.yaml, not by {other}; name that file" in done.stderr
    assert made_by.is_file()
    assert project.make("clean").returncode == 0 and not made_by.exists()


def test_stages_do_not_run_at_once(project: Project) -> None:
    """With `make -j`, export and report would both want to write to the run."""
    project.write({"convert": {"source": "raw"}, "report": {"worst": 3}, "export": {"conf": 0.3}})
    assert project.make("all", "-j4").returncode == 0
    assert project.played() == ["export", "report"]


def test_a_stage_that_ran_is_not_reported_as_up_to_date(project: Project) -> None:
    project.write({"convert": {"source": "raw"}, "report": {"worst": 3}})
    done = project.make("convert", "report")
    assert (done.stdout, project.played()) == ("convert: up to date in runs/mine\n", ["report"])


@pytest.mark.parametrize(("verbose", "given"), [("1", True), ("0", False), ("", False)])
def test_verbose_reaches_every_stage(project: Project, verbose: str, given: bool) -> None:
    project.write({"convert": {"source": "raw"}, "seed": 5})
    done = project.make("all", "-n", VERBOSE=verbose)
    commands = [line for line in done.stdout.splitlines() if "player.py" in line and " params " not in line]
    assert len(commands) == len(ALL)
    assert all((" --verbose" in command) is given for command in commands)


@pytest.mark.parametrize(
    ("source", "command"),
    [("data/raw/sample", "sample"), ('"data/raw/sample-large/"', "sample --large"), ("data/raw/sample-larger", "")],
)
def test_generated_data_is_generated_for_the_configs_that_use_it(project: Project, source: str, command: str) -> None:
    project.config.write_text(f"convert:\n  source: {source}\n")
    planned = project.make("convert", "-n", VERBOSE="1").stdout
    assert re.findall(r"player.py (sample.*)", planned) == [command] * bool(command)


def test_clean_removes_only_this_run(project: Project) -> None:
    (project.folder / "runs" / "other").mkdir()
    assert project.make("clean").returncode == 0
    assert [path.name for path in (project.folder / "runs").iterdir()] == ["other"]


def test_labels_for_a_tool_stop_clean(project: Project) -> None:
    folder = project.folder / "runs" / "mine" / "label" / "labelme" / "images"
    folder.mkdir(parents=True)
    done = project.make("clean")
    assert "error: runs/mine/label/labelme: may hold labels that are saved nowhere else; save them" in done.stderr
    assert done.returncode == 2 and folder.is_dir()


@pytest.mark.parametrize(
    ("given", "stages", "options"),
    [
        ((), [*ALL[:4]], ""),
        (("AS=cvat", "NOAPP=1"), [*ALL[:4]], "--as cvat --no-app"),
        (("OPEN=1", "PORT=5152"), [], "--open --port 5152"),
    ],
)
def test_label_passes_what_was_given_and_an_open_batch_needs_no_model(
    project: Project, given: tuple[str, ...], stages: list[str], options: str
) -> None:
    """Make itself sets AS, and many machines set PORT."""
    project.write({"convert": {"source": "raw", "unlabelled": "background"}, "label": {"pool": "more"}})
    planned = project.make("label", "-n", *given, PORT="80").stdout
    assert re.findall(r"player.py (?!params)(\w+)", planned) == [*stages, "label"]
    [line] = re.findall(r"player.py label.*", planned)
    assert " ".join(line.split()[4:]) == options


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("label",), "configs/mine.yaml: label: is missing; name the folder with more images"),
        (("report", "AGAINST=runs/nobody"), "AGAINST=runs/nobody: no validated run; there are: runs/mine"),
        (("train", "CONFIG=mine"), "CONFIG=mine: no such file; write CONFIG=configs/mine.yaml."),
    ],
)
def test_what_is_missing_is_said_before_anything_is_built(
    project: Project, arguments: tuple[str, ...], said: str
) -> None:
    done = project.make(*arguments)
    assert done.returncode != 0 and said in done.stderr
    assert project.played() == []


def code_of(stage: str) -> set[str]:
    """The files of a stage and everything it imports, minus what every stage has."""
    folder = ROOT / "pipeline" / ("extras/sample" if stage == "sample" else stage)
    waiting, found = set(folder.glob("*.py")), set()
    while waiting:
        path = waiting.pop()
        found.add(path)
        for name in imports(path):
            parts = name.split(".")
            for end in range(2, len(parts) + 1):  # `pipeline.a.b` is a module, or a name in the module pipeline.a
                module = ROOT.joinpath(*parts[:end])
                files = [module.with_suffix(".py"), module / "__init__.py"]
                waiting |= {file for file in files if parts[0] == "pipeline" and file.is_file()} - found
        # Export puts the whole folder into its bundles; other stages use only the parts of the runner they import.
        device = ROOT / "pipeline" / "device"
        waiting -= {device / "__init__.py", device / "runner" / "__init__.py"}
        if stage == "export":
            found |= set(device.rglob("*.py"))
    every = {f"pipeline/{name}.py" for name in ("run", "errors", "logs")}
    every |= {path.relative_to(ROOT).as_posix() for path in ROOT.glob("pipeline/config/*.py")}
    return {path.relative_to(ROOT).as_posix() for path in found} - every


@pytest.mark.parametrize("stage", [*TARGETS, "sample"])
def test_prerequisites_match_what_the_stage_imports(stage: str) -> None:
    target = "data/raw/sample/annotations/test.json" if stage == "sample" else f"runs/sample/{TARGETS[stage]}"
    command = ["make", "-qpr", "CONFIG=configs/sample.yaml", target]
    done = subprocess.run(command, cwd=ROOT, env=make_environment(), capture_output=True, text=True, check=False)
    [line] = [line for line in done.stdout.splitlines() if line.startswith(f"{target}:")]
    code = {word for word in line.split() if word.endswith(".py")}
    assert code == code_of(stage)


def test_make_in_another_folder_says_where_to_run_it(tmp_path: Path) -> None:
    command = ["make", "-f", str(ROOT / "Makefile"), "all"]
    done = subprocess.run(command, cwd=tmp_path, env=make_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "CONFIG=configs/sample.yaml: no such file; run make in the project's folder" in done.stderr


def test_every_target_is_explained() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^TARGETS := (.*)$", text, re.M)[1].split())  # type: ignore[index]
    explained = set(re.findall(r"^([a-z-]+):.*## ", text, re.M))
    assert phony - explained == {"params"}
    done = subprocess.run(["make"], cwd=ROOT, env=make_environment(), capture_output=True, text=True, check=True)
    assert all(f"make {name} " in done.stdout for name in explained)

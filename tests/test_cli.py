"""The command line as users meet it: one line per error, exit status 1, nothing half-written."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, command_line, pipeline_process, read_coco, settings, write_coco

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are set as Linux has them")


@pytest.fixture
def project(tmp_path: Path, source: Path) -> Path:
    """A folder with a config, like a user's checkout."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings(source)))
    return tmp_path


def one_line(stderr: str) -> str:
    lines = stderr.strip().splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_help_names_every_stage(tmp_path: Path) -> None:
    done = pipeline_process("--help", cwd=tmp_path)
    assert done.returncode == 0
    for stage in ("convert", "augment", "train", "validate", "inspect", "export", "report", "params", "sample"):
        assert f"    {stage}" in done.stdout


def test_another_python_gets_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-m", "pipeline", "--help"]  # -S: without installed packages
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(
        r" lacks the package \w+; run `make setup`, then \.venv/bin/python -m pipeline$", one_line(done.stderr)
    )


def test_a_stage_reports_what_it_did_in_one_line(project: Path) -> None:
    done = pipeline_process("convert", "--config", "tiny.yaml", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("convert: 14 images (train 8, val 3, test 3), ")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("convert", "--config", "tinny.yaml"), "error: tinny.yaml: no such file; did you mean 'tiny.yaml'?"),
        (
            ("validate", "--config", "tiny.yaml"),
            "error: runs/tiny/dataset/data.yaml: does not exist; `make` runs the stage that writes it",
        ),
        (
            ("train", "--config", "tiny.yaml"),
            "error: runs/tiny/augmented/data.yaml: does not exist; `make` runs the stage that writes it",
        ),
        (
            ("report", "--config", "tiny.yaml"),
            "error: runs/tiny/metrics.json: does not exist; `make validate` writes it",
        ),
    ],
)
def test_errors_are_one_line_and_leave_no_run(
    project: Path,
    arguments: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(project)
    assert command_line(capsys, *arguments) == (1, "", f"{said}\n")
    assert not (project / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("report", "--workers", "2"), "report: --workers has no effect on this stage, only on augment, convert, label, starter-weights, train"),
        (("convert", "--device", "cpu"), "convert: --device has no effect on this stage, only on inspect, label, rank, starter-weights, study, train, validate"),
    ],
)  # fmt: skip
def test_an_option_without_effect_is_named(project: Path, arguments: tuple[str, ...], said: str) -> None:
    done = pipeline_process(*arguments, "--config", "tiny.yaml", cwd=project)
    assert done.stdout.splitlines()[0] == said
    done = pipeline_process(arguments[0], "--config", "tiny.yaml", cwd=project)
    assert "no effect" not in done.stdout


def test_names_from_files_cannot_control_the_terminal(project: Path, source: Path) -> None:
    data = read_coco(source, "train")
    data["categories"][0]["name"] = "\x1b[31mred"
    data["annotations"][0] |= {"category_id": data["categories"][0]["id"], "bbox": [900, 900, 5, 5]}
    write_coco(source, "train", data)
    done = pipeline_process("convert", "--config", "tiny.yaml", cwd=project)
    assert done.returncode == 1
    assert "(?[31mred): " in one_line(done.stderr) and "\x1b" not in done.stderr


@pytest.mark.parametrize("number", ["-1", "x", "1.5"])
def test_an_invalid_number_of_workers_is_refused(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, said = command_line(capsys, "convert", "--config", "tiny.yaml", f"--workers={number}")
    assert status == 2 and f"--workers: must be a non-negative integer, got '{number}'" in said


def test_an_unknown_stage_is_refused(project: Path) -> None:
    done = pipeline_process("trian", "--config", "tiny.yaml", cwd=project)
    assert done.returncode == 2 and "invalid choice: 'trian'" in done.stderr


def test_every_config_error_gets_its_own_line(project: Path) -> None:
    (project / "bad.yaml").write_text("convert: {sorce: x}\nseed: -1\n")
    done = pipeline_process("convert", "--config", "bad.yaml", cwd=project)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: bad.yaml: seed: input should be greater than or equal to 0, got -1",
        "error: bad.yaml: convert.source: required key is missing; add it",
        "error: bad.yaml: convert.sorce: unknown key; did you mean 'source'?",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("trian", "--config", "tiny.yaml"), "argument STAGE: invalid choice: 'trian'; did you mean 'train'?"),
        (("label", "--config", "tiny.yaml", "--as", "labelm"), "argument --as: invalid choice: 'labelm'; did you mean 'labelme'?"),
        (("xyz",), "argument STAGE: invalid choice: 'xyz'; `python -m pipeline --help` lists the choices"),
        (("train", "--confg", "tiny.yaml"), "the following arguments are required: --config; did you mean '--config'?"),
        (("train", "tiny.yaml"), "the following arguments are required: --config; write --config tiny.yaml"),
        (("train", "--config", "tiny.yaml", "--devise", "cpu"), "unrecognized arguments: --devise cpu; did you mean '--device'?"),
        (("convert", "--config"), "argument --config: expected one argument; `python -m pipeline convert --help` lists the choices"),
    ],
)  # fmt: skip
def test_a_mistyped_argument_gets_one_line(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line(capsys, *arguments) == (2, "", f"error: {said}\n")


def test_version_is_printed_and_no_arguments_show_the_usage(project: Path) -> None:
    released = re.search(r"^## \[([\d.]+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert released and cited["version"] == released[1]
    done = pipeline_process("--version", cwd=project)
    assert (done.returncode, done.stdout) == (0, f"detection-transfer-pipeline {released[1]}\n")
    done = pipeline_process(cwd=project)
    assert done.returncode == 2 and done.stdout.startswith("usage: python -m pipeline ")


def test_a_folder_in_place_of_a_config_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    said = "error: .: cannot be read (Is a directory); name a readable YAML file\n"
    assert command_line(capsys, "convert", "--config", ".") == (1, "", said)


def test_relative_paths_count_from_the_current_folder(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """An error names the current folder where that may be the cause."""
    (project / "near.yaml").write_text("convert: {source: source}\n")
    elsewhere = tmp_path_factory.mktemp("else where")
    done = pipeline_process("convert", "--config", str(project / "near.yaml"), cwd=elsewhere)
    assert done.returncode == 1
    assert one_line(done.stderr).startswith("error: source: no such folder; ")
    assert done.stderr.endswith(f"; paths are relative to the current folder, {elsewhere}\n")
    done = pipeline_process("convert", "--config", "near.yaml", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")


def test_paths_may_contain_spaces(project: Path, source: Path) -> None:
    shutil.copytree(source, project / "my images")
    (project / "my config.yaml").write_text("convert: {source: my images}\n")
    done = pipeline_process("convert", "--config", "my config.yaml", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    assert (project / "runs" / "my config" / "dataset" / "data.yaml").is_file()
    done = pipeline_process("augment", "--config", "my config.yaml", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_in_the_place_of_a_folder_is_named(project: Path) -> None:
    (project / "runs").write_text("")
    done = pipeline_process("convert", "--config", "tiny.yaml", cwd=project)
    assert done.returncode == 1
    assert one_line(done.stderr).endswith("; a file is in the place of a folder; move it away")


def keep_permissions() -> None:
    """Drop the capabilities that let root ignore file permissions."""
    PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


@linux_only
def test_a_read_only_runs_folder_is_reported(project: Path) -> None:
    (project / "runs").mkdir(mode=0o555)
    done = pipeline_process("convert", "--config", "tiny.yaml", cwd=project, preexec_fn=keep_permissions)
    assert done.returncode == 1
    assert one_line(done.stderr).startswith("error: runs/tiny: Permission denied; make the folder writable")
    assert not list((project / "runs").iterdir())


def test_a_file_named_runs_is_reported(project: Path) -> None:
    (project / "runs").touch()
    done = pipeline_process("convert", "--config", "tiny.yaml", cwd=project)
    assert done.returncode == 1
    assert one_line(done.stderr).startswith("error: runs/tiny")


def limit_file_size() -> None:
    """Allow no file over 2 kB: the kernel refuses as on a full disk, at a point the test can choose."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))


@linux_only
def test_a_full_disk_is_reported(project: Path, source: Path) -> None:
    path = source / "images" / "train_0000.jpg"
    path.write_bytes(path.read_bytes() + b"tail")  # must be rewritten, not linked
    done = pipeline_process("convert", "--config", "tiny.yaml", cwd=project, preexec_fn=limit_file_size)
    assert done.returncode == 1
    assert "free some disk space" in one_line(done.stderr)
    assert not list((project / "runs").rglob("*"))


@linux_only
def test_a_full_disk_while_augmenting_is_reported(project: Path) -> None:
    assert pipeline_process("convert", "--config", "tiny.yaml", cwd=project).returncode == 0
    done = pipeline_process("augment", "--config", "tiny.yaml", cwd=project, preexec_fn=limit_file_size)
    assert done.returncode == 1
    assert "free some disk space" in one_line(done.stderr)
    assert sorted(path.name for path in (project / "runs" / "tiny").iterdir()) == ["dataset"]


def test_missing_weights_without_network_are_reported(project: Path) -> None:
    config = yaml.safe_load((project / "tiny.yaml").read_text())
    config["train"]["weights"] = "yolo26x.pt"
    (project / "tiny.yaml").write_text(yaml.safe_dump(config))
    for stage in ("convert", "augment"):
        assert pipeline_process(stage, "--config", "tiny.yaml", cwd=project).returncode == 0
    # Nothing listens on port 443 of this machine, and there is no proxy: this process has no network.
    script = "import sys; from pipeline.upstream import checkpoints; checkpoints.DOWNLOAD_HOST = '127.0.0.1'; from pipeline.__main__ import main; sys.exit(main(sys.argv[1:]))"
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", script, "train", "--config", "tiny.yaml"],
        cwd=project, env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "yolo26x.pt: not in data/weights, and 127.0.0.1 cannot be reached" in done.stderr.splitlines()[-1]
    assert not (project / "runs" / "tiny" / "train").exists()
    assert not list(project.rglob("*.pt"))

"""What reaches the screen and what the log: output of Python, C, subprocesses, workers and interpreter exit."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Trained, pipeline_process, settings

CHATTER = """
import ctypes, logging, multiprocessing, os, subprocess, sys, warnings

def talk(number):
    print("worker", number)
    os.write(2, b"worker's stderr\\n")

def everything():
    print("print to stdout")
    print("print to stderr", file=sys.stderr)
    logging.warning("a logger")
    warnings.warn("a warning")
    libc = ctypes.CDLL(None)
    libc.printf(b"printf without an end of line ")
    libc.puts(b"puts")
    os.write(1, b"write to 1\\n")
    os.write(2, b"write to 2\\n")
    subprocess.run(["sh", "-c", "echo a child; echo its stderr >&2"], check=True)
    worker = multiprocessing.get_context("spawn").Process(target=talk, args=(1,))
    worker.start()
    worker.join()
"""
SAID = [
    "print to stdout", "print to stderr", "a logger", "a warning", "printf without an end of line puts", "write to 1", "write to 2", "a child",
    "its stderr", "worker 1", "worker's stderr",
]  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, source: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings(source)))
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    (tmp_path / "chatter.py").write_text(CHATTER)
    return tmp_path


def stage(project: Path, body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a subprocess, with `convert` replaced by `body`."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    (project / "stage.py").write_text(
        "import ctypes, os, sys\nimport chatter\nfrom pipeline import convert, errors, logs\n"
        f"from pipeline.__main__ import main\ndef act(*_):\n{lines}\n"
        "if __name__ == '__main__':\n    convert.main = act\n    with logs.process():\n        sys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "stage.py", "convert", "--config", "tiny.yaml", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONUNBUFFERED", None)  # it would also unbuffer C's output
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


LOG = Path("runs/tiny/logs/convert.log")


def test_only_the_stages_own_line_is_shown(project: Path) -> None:
    done = stage(project, "chatter.everything()\nreturn 'done'")
    assert (done.returncode, done.stdout, done.stderr) == (0, "convert: done\n", "")
    log = (project / LOG).read_text()
    assert not [text for text in SAID if text not in log]
    assert log.index("print to stdout") < log.index("write to 1") < log.index("a child") < log.index("worker 1")


def test_verbose_shows_all_output(project: Path) -> None:
    done = stage(project, "chatter.everything()\nreturn 'done'", "--verbose")
    assert "convert: done\n" in done.stdout
    assert not [text for text in SAID if text not in done.stdout + done.stderr]
    assert not (project / LOG).exists()


def test_messages_are_shown_immediately_and_in_order(project: Path) -> None:
    done = stage(project, "logs.say('first')\nchatter.everything()\nlogs.say('second')\nreturn 'done'")
    assert done.stdout == "first\nsecond\nconvert: done\n"


def test_an_error_names_the_log(project: Path) -> None:
    done = stage(project, "chatter.everything()\nraise errors.DataError('a.xml: broken; fix it')")
    assert (done.returncode, done.stderr) == (1, f"error: a.xml: broken; fix it (log: {LOG})\n")
    assert "print to stdout" in (project / LOG).read_text()


def test_no_log_is_kept_without_output(project: Path) -> None:
    (project / LOG).parent.mkdir()
    (project / LOG).write_text("of an earlier run")
    done = stage(project, "raise errors.DataError('a.xml: broken; fix it')")
    assert done.stderr == "error: a.xml: broken; fix it\n"
    assert not (project / LOG).parent.exists()


def test_a_traceback_is_shown(project: Path) -> None:
    done = stage(project, "chatter.everything()\nraise RuntimeError('a bug of ours')")
    assert done.returncode == 1 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == f"log: {LOG}" and lines[1].startswith("Traceback") and lines[-1] == "RuntimeError: a bug of ours"


def test_a_crash_in_c_is_shown(project: Path) -> None:
    done = stage(project, "chatter.everything()\nctypes.string_at(0)")
    assert done.returncode < 0
    assert "Segmentation fault" in done.stderr and "string_at" in done.stderr


def test_output_at_interpreter_exit_is_not_shown(project: Path) -> None:
    """Like nanobind's leak warnings after `main`: from C's exit handlers, straight to the file descriptors."""
    late = (
        "import atexit\natexit.register(os.write, 2, b'leaked 3 types\\n')\natexit.register(os.write, 1, b'leaked')\n"
    )
    done = stage(project, late + "atexit.register(ctypes.CDLL(None).printf, b'leaked')\nreturn 'done'")
    assert (done.returncode, done.stdout, done.stderr) == (0, "convert: done\n", "")


LEAK = """
import ctypes

from triton._C.libtriton import ir


def leak() -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(ir.context()))
"""


def test_nanobind_leak_warnings_are_not_shown(project: Path) -> None:
    """A real leak in a real module, at the end of a stage and of the tests."""
    pytest.importorskip("triton", reason="comes with torch for x86-64 Linux alone")
    (project / "leaking.py").write_text(f"{LEAK}\n\ndef test_leak() -> None:\n    leak()\n")
    alone = subprocess.run(
        [sys.executable, "-c", "import leaking; leaking.leak()"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "nanobind: leaked 1 instances" in alone.stderr
    done = stage(project, "import leaking\nleaking.leak()\nreturn 'done'")
    assert (done.returncode, done.stdout, done.stderr) == (0, "convert: done\n", "")
    for more in ([], ["--numprocesses", "1"]):
        command = [sys.executable, "-m", "pytest", "--confcutdir", str(ROOT), "-p", "conftest", "leaking.py", *more]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        tests = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
        assert tests.returncode == 0 and "1 passed" in tests.stdout, tests.stdout
        assert "leaked" not in tests.stdout + tests.stderr


def test_only_a_stage_that_creates_its_run_leaves_a_log(project: Path) -> None:
    (project / "runs" / "tiny").rmdir()
    (project / "runs").rmdir()
    done = stage(project, "chatter.everything()\nraise errors.DataError('broken')")
    assert (done.stderr, (project / "runs").exists()) == ("error: broken\n", False)
    done = stage(project, "chatter.everything()\nopen('runs/tiny/receipt.json', 'w').close()\nreturn 'done'")
    assert done.returncode == 0 and "worker 1" in (project / LOG).read_text()


def test_an_unwritable_log_does_not_stop_the_stage(project: Path) -> None:
    (project / "runs" / "tiny" / "logs").touch()
    done = stage(project, "chatter.everything()\nreturn 'done'")
    assert (done.returncode, done.stdout, done.stderr) == (0, "convert: done\n", "")


# A bar shows nothing in its first second; here tqdm's clock advances by one whenever it is read.
BAR = """
import itertools
from tqdm import std
clock = itertools.count()
std.time = lambda: next(clock)
for _ in logs.progress(range(3), 'work'):
    pass
return 'done'
"""


def test_a_pipe_shows_no_progress_bar(project: Path) -> None:
    done = stage(project, BAR)
    assert (done.stdout, done.stderr) == ("convert: done\n", "")


def test_a_terminal_shows_a_progress_bar(project: Path) -> None:
    stage(project, BAR)  # writes stage.py
    master, slave = pty.openpty()
    command = [sys.executable, "stage.py", "convert", "--config", "tiny.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=project, env=environment, stdout=slave, stderr=slave) as process:
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 1024)
            except OSError:  # how Linux signals the end of a terminal
                break
            if not part:
                break
            shown += part
        assert process.wait() == 0
    os.close(master)
    assert b"work: " in shown and b"\r" in shown
    assert shown.replace(b"\r\n", b"\n").endswith(b"convert: done\n")


# --- A real training ------------------------------------------------------------------------------

EPOCH = r"train: phase \d of 2, epoch \d of \d: loss box [\d.]+ cls [\d.]+ (dfl|l1) [\d.]+(, val mAP50-95 [\d.]+)?(, (\d+ min )?\d+ s left)?"


@pytest.mark.slow
def test_a_training_shows_a_line_per_epoch(trained: Trained, project: Path, source: Path) -> None:
    phases = [{"epochs": 2, "freeze": "backbone"}, {"epochs": 2, "patience": 9}]
    changes = {"phases": phases, "args": {"plots": False}}
    (project / "tiny.yaml").write_text(yaml.safe_dump(settings(source, trained.config.train.weights, train=changes)))
    for name in ("convert", "augment"):
        assert pipeline_process(name, "--config", "tiny.yaml", cwd=project).returncode == 0
    done = pipeline_process("train", "--config", "tiny.yaml", "--device", "cpu", cwd=project)
    assert (done.returncode, done.stderr) == (0, "") and "\r" not in done.stdout
    plan, *epochs, last = done.stdout.splitlines()
    first = "2 epochs (8 steps) with 11 layers frozen (computed once, images not augmented)"
    assert plan == f"train: 16 images, {first}, then 2 epochs (8 steps) with nothing frozen"
    assert [re.fullmatch(EPOCH, line) is not None for line in epochs] == [True] * 4, done.stdout
    assert [re.findall(r"\d of \d", line) for line in epochs] == [
        ["1 of 2", "1 of 2"],
        ["1 of 2", "2 of 2"],
        ["2 of 2", "1 of 2"],
        ["2 of 2", "2 of 2"],
    ]
    # A phase without `patience` is validated only at its end.
    assert ["val mAP" in line for line in epochs] == [False, True, True, True]
    assert [" left" in line for line in epochs] == [True, True, True, False]
    assert last.startswith("train: 4 epochs from ")
    # The figures are those Ultralytics recorded.
    for phase, pair in ((1, epochs[:2]), (2, epochs[2:])):
        header, *rows = (project / f"runs/tiny/train/phase{phase}/results.csv").read_text().splitlines()
        columns = [name.strip() for name in header.split(",")]
        for line, row in zip(pair, rows, strict=True):
            values = dict(zip(columns, map(float, row.split(",")), strict=True))
            shown = dict(re.findall(r"(box|cls|mAP50-95) ([\d.]+)", line))
            assert float(shown["box"]) == pytest.approx(values["train/box_loss"], abs=6e-4)  # three decimals
            assert float(shown["cls"]) == pytest.approx(values["train/cls_loss"], abs=6e-4)
            if "mAP50-95" in shown:
                assert float(shown["mAP50-95"]) == pytest.approx(values["metrics/mAP50-95(B)"], abs=6e-4)
    assert "Freezing layer" in (project / "runs/tiny/logs/train.log").read_text()

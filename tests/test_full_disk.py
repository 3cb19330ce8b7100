"""A disk that fills up at any byte of a training's resume state: one error that names the file, nothing half-written."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from pipeline import __main__, files

SAVE = """
import errno, resource, signal, sys
from pathlib import Path
from types import SimpleNamespace
import torch
from pipeline.train import exact

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as for a full disk, the write fails and the process goes on
path, model = Path(sys.argv[1]), torch.nn.Linear(64, 64)
loader = SimpleNamespace(generator=torch.Generator(), dataset=SimpleNamespace(buffer=[]))
optimizer = torch.optim.SGD(model.parameters())
trainer = SimpleNamespace(model=model, ema=SimpleNamespace(ema=model), optimizer=optimizer, train_loader=loader)
trainer.since_step = 0
exact.save(path, trainer)
whole = path.read_bytes()
failed = 0
for room in [0, 1, 63, 64, 65, *range(500, len(whole), 1777), len(whole) - 1]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        exact.save(path, trainer)
    except OSError as error:
        failed += error.errno == errno.EFBIG and error.filename == str(path)
    assert [one.name for one in path.parent.iterdir()] == [path.name] and path.read_bytes() == whole, room
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(failed, "of", len([0, 1, 63, 64, 65, *range(500, len(whole), 1777), len(whole) - 1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on file sizes there")
def test_the_resume_state_is_whole_or_absent(tmp_path: Path) -> None:
    state = tmp_path / "state" / "exact.pt"
    state.parent.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", SAVE, str(state)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    failed, _, tried = done.stdout.split()
    assert failed == tried and int(tried) > 10


@pytest.mark.parametrize("write", [lambda path: files.write_text(path, "ü" * 9), lambda path: files.copy(path, path)])
def test_a_write_error_names_its_file(tmp_path: Path, write: object, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    (tmp_path / "a").write_text("text")
    monkeypatch.setattr(files, "aside", lambda path: full)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(OSError, match="No space left") as error:
        write(tmp_path / "a")  # type: ignore[operator]
    assert error.value.filename == str(tmp_path / "a")


def copied_by_the_kernel(source: Path, target: Path) -> None:
    """Fail as `shutil.copyfile` does between two files on one disk: it names the source first."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))


def test_the_error_names_the_folder_not_a_file_that_is_read_or_gone(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    (tmp_path / "image.png").write_bytes(b"pixels")
    for write in (
        lambda: shutil.copyfile(tmp_path / "image.png", full),
        lambda: full.write_bytes(b"1"),  # names nothing
        lambda: copied_by_the_kernel(tmp_path / "image.png", tmp_path / "b.png"),
    ):
        with pytest.raises(OSError, match="No space left") as error, files.new_folder(tmp_path / "dataset"):
            write()
        assert (error.value.filename, error.value.filename2) == (str(tmp_path / "dataset"), None)
        assert not list(tmp_path.glob(".dataset*"))
    with pytest.raises(FileNotFoundError) as missing, files.new_folder(tmp_path / "dataset"):
        files.link_or_copy(tmp_path / "none.png", tmp_path / "b.png")
    assert missing.value.filename == str(tmp_path / "none.png")


def test_pytorchs_full_disk_errors_become_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The messages are PyTorch 2.15's, from a full disk."""
    (tmp_path / "tiny.yaml").write_text("convert: {source: x}")
    monkeypatch.chdir(tmp_path)
    for words, code in (
        ("[enforce fail at inline_container.cc:671] . unexpected pos 9227968 vs 9227864", 1),
        ("PytorchStreamWriter failed writing file data/3: file write failed", 1),
        ("mat1 and mat2 shapes cannot be multiplied", None),
    ):

        def fail(*_: object, words: str = words) -> str:
            raise RuntimeError(words)

        monkeypatch.setattr(__main__, "_run", fail)
        if code is None:
            with pytest.raises(RuntimeError):
                __main__.main(["convert", "--config", "tiny.yaml"])
            continue
        assert __main__.main(["convert", "--config", "tiny.yaml"]) == code
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert line.startswith(f"error: {Path('runs/tiny')}: No space left on device; free some disk space")

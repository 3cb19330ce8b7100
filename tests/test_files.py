"""A folder takes the place of another: killed at any call to the system, one of them is whole, and nothing is left over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from pipeline.files import new_folder

# Puts version 2 in the place of version 1, and dies at the n-th call that changes the disk, n counted from 1.
WRITER = """
import os, signal, sys
from pathlib import Path
from pipeline.files import new_folder

left = int(sys.argv[2])

def watch(event, arguments):
    global left
    changes = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir") or event == "open" and "w" in str(arguments[1])
    if changes:
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
with new_folder(Path(sys.argv[1])) as folder:
    for name in "abc":
        (folder / name).write_text("2")
"""
FILES = {name: {"a": number, "b": number, "c": number} for name, number in (("old", "1"), ("new", "2"))}


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def fill(folder: Path, number: str) -> None:
    with new_folder(folder) as new:
        for name in "abc":
            (new / name).write_text(number)


def write(folder: Path, count: int) -> int:
    command = [sys.executable, "-c", WRITER, str(folder), str(count)]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False).returncode


@pytest.mark.parametrize("again", ["ends well", "fails", "fails where nothing is"])
def test_killed_anywhere_one_of_the_two_is_whole(tmp_path: Path, again: str) -> None:
    """`again`: what the next call comes to. One that fails leaves what there was, and that is never half of it."""
    seen = []
    for count in range(1, 100):
        folder = tmp_path / str(count) / "folder"
        fill(folder, "1")
        ended = write(folder, count)
        whole = content(folder if folder.exists() else folder.with_name(".folder.old"))
        assert whole in FILES.values()
        seen.append((folder.exists(), whole["a"]))
        if again == "ends well":
            fill(folder, "3")
            assert content(folder) == {"a": "3", "b": "3", "c": "3"}
        else:
            if again == "fails where nothing is":
                shutil.rmtree(folder, ignore_errors=True)
            with pytest.raises(ZeroDivisionError), new_folder(folder):
                raise ZeroDivisionError
            if again == "fails":
                assert content(folder) == whole
            assert not folder.exists() or content(folder) in FILES.values()
        assert [path.name for path in folder.parent.iterdir()] in ([], ["folder"])
        if ended != -signal.SIGKILL:
            break
    assert ended == 0
    # Before, between the two renames, and after.
    assert list(dict.fromkeys(seen)) == [(True, "1"), (False, "1"), (True, "2")]
    assert seen.count((False, "1")) == 1


def test_a_folder_that_is_a_link_is_filled_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk/folder")
    for number in "12":
        fill(tmp_path / "link", number)
        assert (tmp_path / "link").is_symlink() and content(tmp_path / "disk" / "folder")["a"] == number
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["folder"]

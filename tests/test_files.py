"""Replacing files and folders: killed at any system call, one of both is whole and nothing is left over."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from pipeline.files import aside, link, new_folder

# Replaces version 1 by version 2, and dies at the n-th call that changes the disk, counted from 1.
WRITER = """
import os, signal, sys
from pathlib import Path
from pipeline.files import aside, link, new_folder

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
def test_a_kill_at_any_point_leaves_one_of_the_two_whole(tmp_path: Path, again: str) -> None:
    """`again`: how the next call ends. If it fails, it keeps what there was, which is never partial."""
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
    # Before, between and after the two renames.
    assert list(dict.fromkeys(seen)) == [(True, "1"), (False, "1"), (True, "2")]
    assert seen.count((False, "1")) == 1


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "report").touch()
    with pytest.raises(NotADirectoryError) as error, new_folder(tmp_path / "report"):
        pass
    assert error.value.filename == str(tmp_path / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_a_linked_folder_is_replaced_at_its_target(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk/folder")
    for number in "12":
        fill(tmp_path / "link", number)
        assert (tmp_path / "link").is_symlink() and content(tmp_path / "disk" / "folder")["a"] == number
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["folder"]


def test_a_link_is_another_name_of_the_file(tmp_path: Path) -> None:
    last, kept = tmp_path / "last.pt", tmp_path / "kept.pt"
    for content in "12":
        last.unlink(missing_ok=True)
        last.write_text(content)
        for _ in range(2):  # again, with the same file
            link(last, kept)
            assert kept.samefile(last) and kept.read_text() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.pt", "last.pt"]


def test_a_file_is_copied_where_links_are_impossible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    (tmp_path / "last.pt").write_text("1")
    monkeypatch.setattr(os, "link", refused)
    link(tmp_path / "last.pt", tmp_path / "kept.pt")
    assert (tmp_path / "kept.pt").read_text() == "1" and (tmp_path / "kept.pt").stat().st_nlink == 1


def test_the_leftover_of_a_killed_link_is_not_written_to(tmp_path: Path) -> None:
    """It may be another name of a file that is still needed."""
    (tmp_path / "best.pt").write_text("best")
    (tmp_path / "last.pt").write_text("last")
    os.link(tmp_path / "best.pt", aside(tmp_path / "kept.pt"))
    link(tmp_path / "last.pt", tmp_path / "kept.pt")
    assert [(tmp_path / f"{name}.pt").read_text() for name in ("best", "last", "kept")] == ["best", "last", "last"]

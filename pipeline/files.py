"""Write to a temporary path, then rename: a reader sees the old file or the new one, never half of one.

A folder cannot replace another one in one step: it is missing between two renames, but never half-written.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import FULL_DISK_NUMBERS, ConfigError, DataError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def aside(path: Path) -> Path:
    """Return the temporary path of a file or folder, in the same folder so that the rename is atomic.

    It keeps the suffix, by which Ultralytics and Pillow choose the format.
    """
    return path.with_name(f".{path.stem}.partial{path.suffix}")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the written file into an OSError: a failed write has no file name, and a failed copy names its source."""
    try:
        yield
    except OSError as error:
        if error.filename is None or error.errno in FULL_DISK_NUMBERS:
            error.filename, error.filename2 = str(path), None
        raise


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8"))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` if the block ends without an error, else it is deleted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = aside(path)
    try:
        with naming(path):
            yield partial
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    with replacing(path) as partial:
        partial.write_bytes(data)


def read_edited(path: Path) -> str | None:
    """Return the text of a file that people edit; None if there is none. Raises ConfigError if it is not UTF-8 text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); save it as UTF-8 text") from None


def to_json(value: Any) -> str:
    # allow_nan=False: a NaN figure is a bug, and only Python's JSON reader accepts it.
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    write_text(path, to_json(value))


def read_json(path: Path) -> Any:
    """Read a JSON file that an earlier stage wrote. Raises DataError if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: does not exist; `make` runs the stage that writes it") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: damaged ({error}); delete it and run the same command again") from None


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it replaces `path` if the block ends without an error.

    The old folder is renamed to `.NAME.old` first, and to the partial name before it is deleted. So after a kill only
    the partial name can hold an incomplete folder. The next call restores an old folder that was not replaced and
    deletes all other leftovers. A link at `path` is followed.
    """
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    partial, old = aside(path), path.with_name(f".{path.name}.old")
    if partial.exists():
        shutil.rmtree(partial)
    if old.exists():
        os.replace(old, partial if path.exists() else path)
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        with naming(path):
            yield partial
        if path.is_dir():
            os.replace(path, old)
        os.replace(partial, path)
        if old.exists():
            os.replace(old, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link `source` to save disk space; copy it where a link is impossible, for example to another disk.

    Raises FileExistsError for an existing target, because a copy would also change the file that it is a link to.
    """
    try:
        os.link(source.resolve(), target)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        if hasattr(hashlib, "file_digest"):  # Python 3.11
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def copy(source: Path, target: Path) -> None:
    with replacing(target) as partial:
        shutil.copyfile(source, partial)


def link(source: Path, target: Path) -> None:
    """Let `target` be another name of the file `source`, or a copy of it where that is impossible.

    So nobody may write to either of them in place.
    """
    with replacing(target) as partial:
        partial.unlink(missing_ok=True)  # of a killed process; it may be another name of a file that is still needed
        link_or_copy(source, partial)


@contextmanager
def holding(folder: Path, wait: bool = True) -> Iterator[None]:
    """Lock a folder that several commands write to. While another process holds it, wait, or raise BlockingIOError.

    On file systems that cannot lock a folder, nothing is locked.
    """
    descriptor = os.open(folder, os.O_RDONLY) if fcntl else None
    try:
        if descriptor is not None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:
                pass
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)

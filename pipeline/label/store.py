"""Cache what the model saw in each image, so that a stopped command resumes and only new images take time.

A file is identified by its path, size and date; what a model sees in an image, by the digests of both. Only the last
model counts. The cache is safe to delete, and a damaged one is replaced.
"""

from __future__ import annotations

import errno
import io
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import parallel
from pipeline.errors import PipelineError
from pipeline.image_files import reading
from pipeline.image_files.duplicates import Fingerprint

Array = NDArray[np.float32]
TABLES = """
create table if not exists checked (
    state text primary key, sha256, width, height, fingerprint, orientation, rewrite, peak
);
create table if not exists seen (key text primary key, arrays blob);
"""
COMMIT_EVERY = 256  # files, the most that a kill loses


class File(NamedTuple):
    """An image file. `problem` says why it cannot be used; if it is set, nothing else is known.

    `orientation`, `rewrite` and `peak` are as in `reading.Checked`.
    """

    path: Path
    sha256: str = ""
    width: int = 0  # of the upright image, as is height
    height: int = 0
    fingerprint: Fingerprint = b""
    orientation: int = 1
    rewrite: str | None = None
    peak: int = 0
    problem: str | None = None


class Store:
    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._writing():
            try:
                self._connect(path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                path.unlink()
                self._connect(path)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Raise OSError for a full disk and for a folder that is not writable, in place of SQLite's own error."""
        try:
            yield
        except sqlite3.OperationalError as error:
            text = str(error)
            if "full" in text or "disk I/O" in text:
                number = errno.ENOSPC
            elif "readonly" in text or "unable to open" in text:
                number = errno.EACCES
            else:
                raise PipelineError(f"{self.path}: {text}; it is only a cache: delete it and try again") from None
            raise OSError(number, os.strerror(number), str(self.path)) from None

    def _connect(self, path: Path) -> None:
        self.database = sqlite3.connect(path)
        self.database.executescript(TABLES)
        if self.database.execute("pragma quick_check").fetchone() != ("ok",):
            self.database.close()
            raise sqlite3.DatabaseError

    def close(self) -> None:
        self.database.close()

    def files(self, paths: Sequence[Path], workers: int | None, description: str) -> list[File]:
        """Read and decode files that are not cached yet, in parallel; return all in the given order.

        Problems are not cached, because a disk or a server may be back the next time.
        """
        states = [_state(path) for path in paths]
        missing = [(path, state) for path, state in zip(paths, states, strict=True) if not self._file(state)]
        if len(missing) >= parallel.FEWEST_ITEMS and workers not in (0, 1):
            parallel.start(preload=["pipeline.image_files.reading"])
        found = parallel.ordered(reading.check, [path for path, _ in missing], workers, description)
        problems: dict[str, str] = {}
        with self._writing():
            for number, ((_, state), checked) in enumerate(zip(missing, found, strict=True), start=1):
                if checked.problem:
                    problems[state] = checked.problem
                    continue
                more = checked.orientation, checked.rewrite, checked.peak
                row = (state, checked.sha256, *checked.size, checked.fingerprint, *more)
                self.database.execute("insert or replace into checked values (?, ?, ?, ?, ?, ?, ?, ?)", row)
                if number % COMMIT_EVERY == 0:
                    self.database.commit()
            self.database.commit()
        return [
            File(path, problem=problems[state]) if state in problems else File(path, *(self._file(state) or ()))
            for path, state in zip(paths, states, strict=True)
        ]

    def _file(self, state: str) -> tuple[Any, ...] | None:
        query = "select sha256, width, height, fingerprint, orientation, rewrite, peak from checked where state = ?"
        row: tuple[Any, ...] | None = self.database.execute(query, (state,)).fetchone()
        return row

    def seen(
        self, keys: Sequence[str], look: Callable[[Sequence[int]], Iterable[tuple[int, Mapping[str, Array]]]]
    ) -> list[dict[str, Array] | None]:
        """Return the arrays of each key; None for those that `look` leaves out.

        `look` gets the indices of missing keys and yields their arrays one by one.
        """
        missing = [index for index, key in enumerate(keys) if not self._holds(key)]
        with self._writing():
            for index, arrays in look(missing) if missing else ():
                packed = io.BytesIO()
                np.savez(packed, **dict[str, Any](arrays))
                self.database.execute("insert or replace into seen values (?, ?)", (keys[index], packed.getvalue()))
                self.database.commit()
        return [self._arrays(key) for key in keys]

    def forget_other_models(self, model: str) -> None:
        """Delete what other models saw than the one with this digest, or each training would add as much again."""
        with self._writing():
            self.database.execute("delete from seen where instr(key, ?) = 0", (model,))
            self.database.commit()

    def _holds(self, key: str) -> bool:
        return self.database.execute("select 1 from seen where key = ?", (key,)).fetchone() is not None

    def _arrays(self, key: str) -> dict[str, Array] | None:
        row = self.database.execute("select arrays from seen where key = ?", (key,)).fetchone()
        if row is None:
            return None
        with np.load(io.BytesIO(row[0]), allow_pickle=False) as arrays:
            return dict(arrays)


def _state(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError as error:  # a broken link, which reading reports
        return f"{path} {error.errno}"
    return f"{path.absolute()} {stat.st_size} {stat.st_mtime_ns}"

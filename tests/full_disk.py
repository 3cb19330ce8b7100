"""Run stages on a disk that fills up: `unshare -rm python full_disk.py FOLDER FACTOR STAGE...` prints a line per attempt.

FOLDER holds tiny.yaml and `before`, a run with every stage done. The stage runs on its own small disk with 0, 1, ...
pages free, growing by FACTOR until an attempt succeeds. Files left by failed attempts stay. The disk allocates whole
pages, so with a factor near 1 every write fails in some attempt.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from pipeline import __main__
from pipeline.export import targets
from pipeline.upstream import environment

PAGE = 4096
# What each stage writes; an output written in one step comes last.
TARGETS = {
    "convert": "dataset",
    "augment": "augmented",
    "train": "model.pt",
    "validate": "metrics.json",
    "export": "export",
    "report": "report",
    "rank": "rank.json",
    "label": "label/next.json",
    "inspect": "embeddings.npz",
}
OPTIONS = {"label": ["--no-app"], "inspect": ["--no-app"]}
DISK = Path("runs")
RUN = DISK / "tiny"


def attempt(stage: str) -> tuple[int, str]:
    """Return the exit status and stderr. Forks, so that PyTorch is imported only once."""
    said = Path("said.txt")
    if (child := os.fork()) == 0:
        status = 99
        try:
            with said.open("wb") as err, Path(os.devnull).open("wb") as out:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
            status = __main__.main([stage, "--config", "tiny.yaml", *OPTIONS.get(stage, [])])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, said.read_text(errors="replace")


def content(path: Path) -> dict[str, str]:
    paths = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {str(one): hashlib.sha256(one.read_bytes()).hexdigest() for one in paths if one.is_file()}


def fill(pages: int) -> None:
    disk = os.statvfs(DISK)
    with (DISK / "full").open("wb") as filler:
        if (size := disk.f_bavail * disk.f_frsize - pages * PAGE) > 0:
            os.posix_fallocate(filler.fileno(), 0, size)


def sweep(stage: str, factor: float) -> None:
    target, pages, status = RUN / TARGETS[stage], 0, 1
    shutil.rmtree(RUN, ignore_errors=True)
    shutil.copytree("before", RUN)
    if stage == "validate":  # it first deletes its earlier files, which would make as much room as it needs
        target.unlink()
        shutil.rmtree(RUN / "predictions")
    before = content(target)
    while status:
        fill(pages)
        status, said = attempt(stage)
        (DISK / "full").unlink()
        now = content(target)
        found: dict[str, Any] = {"stage": stage, "pages": pages, "status": status, "said": said.splitlines()}
        found["target"] = "as before" if now == before else "gone" if not now else "changed"
        found["left"] = [str(path) for path in sorted(RUN.rglob("*")) if ".partial" in path.name]
        print(json.dumps(found), flush=True)
        pages = max(pages + 1, round(pages * factor))


def problems(attempt: dict[str, Any]) -> list[str]:
    """Describe what an attempt did wrong."""
    where, found = f"{attempt['stage']} with {attempt['pages']} pages free", []
    if attempt["status"] not in (0, 1):
        found.append(f"{where}: exit status {attempt['status']}: {' '.join(attempt['said'])[-300:]}")
    elif attempt["status"]:
        lines = attempt["said"]
        if (
            len(lines) != 1
            or not lines[0].startswith(f"error: {RUN}")
            or "No space left on device; free some" not in lines[0]
        ):
            found.append(f"{where}: says {lines}")
        if attempt["target"] == "changed":
            found.append(f"{where}: {TARGETS[attempt['stage']]} is another one, though the stage failed")
        if attempt["left"]:
            found.append(f"{where}: leaves {attempt['left']}")
    return found


def main() -> None:
    folder, factor, *stages = sys.argv[1:]
    os.chdir(folder)
    DISK.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(DISK)], check=True)
    environment.prepare()
    from pipeline.train import trainer  # noqa: F401  (imported once here; a stage imports it late)

    targets.ROOM_PER_TARGET = 0  # otherwise it refuses up front, and no write fails
    for stage in stages:
        sweep(stage, float(factor))


if __name__ == "__main__":
    main()

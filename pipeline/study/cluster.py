"""Run trials on the machines of a Ray cluster.

A trial is a task with its own CPU, or its own GPU if the cluster has GPUs. Ray restarts it if its node or worker is
lost. Only this process writes `results.jsonl`, which holds at most one line per trial.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import PipelineError, in_a_line
from pipeline.study import folders, trials
from pipeline.study.local import ended_by_sigterm
from pipeline.study.planning import Place
from pipeline.study.results import Line
from pipeline.study.trials import Trial

SHARED, COPIED = "ray", "ray-copy"
RETRIES = 5  # for a trial whose node or worker was lost
STOP_SECONDS = 10  # time for trials to end when the study is stopped
# Not sent to nodes with COPIED, except this study's images in data/raw.
LEFT_BEHIND = ("/runs", "/.*", "__pycache__", "/tests", "/docs", "/benchmarks", "/data/raw/*")


def connect(waiting: Sequence[Trial], place: Place, on: str, device: str) -> int:
    """Join the cluster at RAY_ADDRESS, or on this machine, and return how many trials run at a time.

    With SHARED, every node sees the project's folder under the same path. With COPIED, Ray sends code and images to
    each node. Raises PipelineError without Ray or without a cluster.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no telemetry
    os.environ["RAY_RUNTIME_ENV_IGNORE_GITIGNORE"] = "1"  # git ignores the images
    try:
        import ray
    except ImportError:
        way_out = "run .venv/bin/python -m pip install -c constraints.txt -e '.[dev,cluster]'"
        raise PipelineError(f"study: Ray is not installed; {way_out}") from None
    environment: dict[str, Any] = {"env_vars": {"PYTHONPATH": str(folders.CODE)}}
    if on == COPIED:
        needed = sorted({path for trial in waiting for path in _needed(trial)})
        environment = {"working_dir": str(place.project), "excludes": excluding(needed)}
    address = os.environ.get("RAY_ADDRESS") or "auto"
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=False, configure_logging=False)
    except Exception as error:  # ConnectionError, ValueError, Ray's own errors and gRPC's
        first = in_a_line(error).replace(";", ",")
        way_out = "start one with `ray start --head`, or set RAY_ADDRESS"
        raise PipelineError(f"study: no Ray cluster at {address} ({first}); {way_out}") from None
    return max(1, int(ray.cluster_resources().get("GPU" if _on_gpus(ray, device) else "CPU", 1)))


def _needed(trial: Trial) -> list[str]:
    """Return what a trial reads in `data/raw`. Raises PipelineError for a file in `runs`, which is not sent."""
    named = folders.named(trial.sections)
    if lost := next((path for path in named if path.startswith("runs/")), ""):
        raise PipelineError(f"study: ON={COPIED} does not send {lost}; copy it into data/weights or data/raw")
    paths = [Path(path) for path in named if path.startswith("data/raw/")]
    return [(path.parent if path.suffix in (".yaml", ".yml") else path).as_posix() for path in paths]


def excluding(needed: Sequence[str]) -> list[str]:
    """Return what is not sent, in the form of .gitignore: everything in `data/raw` but the `needed` folders.

    Ray does not look into an excluded folder, so each parent of a needed one is sent without its other content.
    """
    paths = {PurePosixPath(path) for path in needed}
    patterns = list(LEFT_BEHIND)
    for path in sorted(path for path in paths if paths.isdisjoint(path.parents)):
        for parent in reversed(path.parents[:-3]):  # below data/raw
            patterns += [f"!/{parent}", f"/{parent}/*"]
        patterns.append(f"!/{path}")
    return list(dict.fromkeys(patterns))


def run(waiting: Sequence[Trial], place: Place, on: str, device: str) -> Iterator[tuple[Trial, Line | PipelineError]]:
    """Run trials on the cluster that `connect` joined, and yield each with its line, or its error, as it ends."""
    import ray

    gpus = int(_on_gpus(ray, device))
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(one)
    where = (str(place.project), str(place.study)) if on == SHARED else None
    with ended_by_sigterm():
        running = {
            task.remote(asdict(trial), where, place.study.name, "0" if gpus else device): trial for trial in waiting
        }
        try:
            while running:
                [ready], _ = ray.wait(list(running), num_returns=1)
                yield running.pop(ready), _line(ray, ready)
        finally:
            for reference in running:
                ray.cancel(reference)  # raises an interrupt, on which `one` stops its make
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=STOP_SECONDS)
            ray.shutdown()


def _on_gpus(ray: Any, device: str) -> bool:
    return device not in ("cpu", "mps") and ray.cluster_resources().get("GPU", 0) >= 1


def _line(ray: Any, reference: Any) -> Line | PipelineError:
    try:
        line: Line | str = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return PipelineError(f"{error.cause!r}; see Ray's logs")
    except ray.exceptions.RayError as error:
        return PipelineError(
            f"lost with its node or worker {RETRIES + 1} times ({type(error).__name__}); see Ray's logs"
        )
    return PipelineError(line) if isinstance(line, str) else line


def one(trial: dict[str, Any], where: tuple[str, str] | None, name: str, device: str) -> Line | str:
    """Run a trial on a node, and return its line, or its error message.

    `where` holds the folders of project and study; None means Ray's copy of the project.
    """
    folders.STOPPING.clear()
    project, study = map(Path, where) if where else (Path.cwd(), Path.cwd() / "runs" / "studies" / name)
    if where and not study.is_dir():
        return f"{study}: this folder does not exist on a node; share it with all nodes, or set ON={COPIED}"
    try:
        with nullcontext() if device == "0" else _core() as core:
            return trials.perform(Trial(**trial), project, study, device, core)
    except PipelineError as error:
        return str(error)
    except BaseException:  # Ray's interrupt
        folders.stop()
        raise


@contextmanager
def _core() -> Iterator[int | None]:
    """Hold a core that no other trial on this machine holds; yield None if all are taken."""
    locks = Path(tempfile.gettempdir(), f"detection-study-cores-{os.getuid()}")
    locks.mkdir(mode=0o700, exist_ok=True)
    for core in sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ():
        with (locks / str(core)).open("w") as file, suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield core
            return
    yield None

"""Build folders that make can run in: `configs/NAME.yaml`, `runs/NAME`, and links to code and data.

`prepared/` holds the results of convert and augment, once for all trials with the same sections. A trial links its
training images from there, and all val and test images.
"""

from __future__ import annotations

import copy
import hashlib
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import yaml

from pipeline import files
from pipeline.boxes import YoloDataset, write_data_yaml
from pipeline.config.experiment import Config
from pipeline.config.loading import Dumper
from pipeline.errors import DataError, PipelineError, counted
from pipeline.run import Run
from pipeline.study import results

CODE = Path(__file__).resolve().parents[2]  # the checkout that this code is part of
# Files that make would remake in a folder other than the project; trials use them as they are.
INSTALLED, SAMPLE = ".venv/installed.txt", "data/raw/sample/annotations/test.json"
# Keys that name files or folders.
NAMING = (
    ("convert", "source"),
    ("train", "weights"),
    ("train", "fallback"),
    ("train", "args", "distill_model"),
    ("validate", "retention"),
    ("label", "pool"),
)


def prepare(
    project: Path, study: Path, name: str, config: Config, sections: Mapping[str, Any], *, again: bool = True
) -> Path:
    """Run convert and augment in `prepared/` and return the folder. If not `again`, existing results are reused.

    Convert starts from the base's splits and writes its own: other rules, as in `every`, must not change the base's.
    `sections` are those of the YAML, `config` the parsed ones. Raises PipelineError if a stage fails.
    """
    slices = files.to_json([config.slice("convert"), config.slice("augment")])
    folder = study / "prepared" / hashlib.sha256(slices.encode()).hexdigest()[:8]
    with results.locked(folder / "lock", f"study: {folder} is in use by another process; waiting for it") as lock:
        if not again and (folder / "runs" / name / "augmented" / "data.yaml").is_file():
            return folder
        _link(project, folder)
        _bring_splits(Run(project / "runs" / name).splits, Run(folder / "runs" / name).splits)
        _write_config(folder, name, project, {**sections, "train": {}})
        make(folder, name, ["augment"], lock)
    return folder


def make_trial(
    project: Path,
    folder: Path,
    name: str,
    prepared: Path,
    sections: Mapping[str, Any],
    names: Sequence[str],
    length: int,
) -> Run:
    """Fill the folder of a trial: its config, its training images, and all of val and test.

    `names` are the originals; their copies are included. An epoch's list has `length` images: if there are fewer, they
    are repeated under other names, in an order that depends on the seed. Raises DataError if one is missing.
    """
    _link(project, folder)
    _write_config(folder, name, project, sections)
    run, shared = Run(folder / "runs" / name), Run(prepared / "runs" / name)
    wanted = {Path(file).stem for file in names}
    if missing := wanted - {path.stem for path in YoloDataset.read(shared.dataset / "data.yaml").files("train")}:
        raise DataError(f"{shared.dataset}: lacks {counted(len(missing), 'training image')}, such as {min(missing)}")
    if not (run.dataset / "data.yaml").is_file():
        dataset = YoloDataset.read(shared.dataset / "data.yaml")
        with files.new_folder(run.dataset) as new:
            for split in dataset.images:
                paths = [path for path in dataset.files(split) if split != "train" or path.stem in wanted]
                _link_images(((path, path.stem) for path in paths), new, split)
            shutil.copyfile(shared.receipt, new / "receipt.json")
            write_data_yaml(new / "data.yaml", {split: f"images/{split}" for split in dataset.images}, dataset.names)
    if not (run.augmented / "data.yaml").is_file():
        dataset = YoloDataset.read(shared.augmented / "data.yaml")
        originals = {path.stem for path in YoloDataset.read(shared.dataset / "data.yaml").files("train")}
        paths = [path for path in dataset.files("train") if original(path.stem, originals) in wanted]
        random.Random(sections["seed"]).shuffle(paths)  # each seed repeats other images, in all rows the same ones
        with files.new_folder(run.augmented) as new:
            _link_images(_repeated(paths, max(length, len(paths))), new, "train")
            splits = {split: f"../dataset/images/{split}" for split in dataset.images if split != "train"}
            write_data_yaml(new / "data.yaml", {"train": "images/train", **splits}, dataset.names)
    return run


def _repeated(paths: Sequence[Path], length: int) -> Iterator[tuple[Path, str]]:
    """Yield so many of the paths, in turns, each with a stem that no other one has."""
    stems = {path.stem for path in paths}
    for number, path in enumerate(islice(cycle(paths), length)):
        stem = path.stem if number < len(paths) else f"{path.stem}-again{number // len(paths)}"
        while number >= len(paths) and stem in stems:
            stem += "-"
        yield path, stem


def original(stem: str, originals: Collection[str]) -> str:
    """Return the stem of the original of a training file: its own, or without the end `-copyN` of a copy."""
    return stem if stem in originals else stem.rpartition("-copy")[0]


def _link_images(paths: Iterable[tuple[Path, str]], folder: Path, split: str) -> None:
    for kind in ("images", "labels"):
        (folder / kind / split).mkdir(parents=True)
    for path, stem in paths:
        files.link_or_copy(path, folder / "images" / split / f"{stem}{path.suffix}")
        files.link_or_copy(YoloDataset.label_file(path), folder / "labels" / split / f"{stem}.txt")


def _link(project: Path, folder: Path) -> None:
    """Link the code, the cache and all data but the splits, which convert writes."""
    project = project.resolve()
    (project / ".cache").mkdir(exist_ok=True)
    data = folder / "data"
    if data.is_symlink():  # of an earlier version, which linked the whole folder
        data.unlink()
    data.mkdir(parents=True, exist_ok=True)
    inside = [path for path in (project / "data").glob("*") if path.name != "splits"]
    for target in (CODE / "pipeline", project / ".cache", *inside):
        link = (data if target in inside else folder) / target.name
        if link.is_symlink() and link.readlink() != target:
            link.unlink()
        if not link.is_symlink():
            link.symlink_to(target)


def _bring_splits(base: Path, own: Path) -> None:
    """Copy the splits of the base, but keep those that the study drew by other rules."""

    def rules(path: Path) -> dict[str, Any]:
        return {key: value for key, value in files.read_json(path).items() if key != "images"}

    if base.is_file() and (not own.is_file() or rules(own) == rules(base)):
        files.copy(base, own)


def _write_config(folder: Path, name: str, project: Path, sections: Mapping[str, Any]) -> None:
    text = yaml.dump(absolute(sections, project), Dumper=Dumper, sort_keys=False)
    files.write_text(folder / "configs" / f"{name}.yaml", text)


def absolute(sections: Mapping[str, Any], project: Path) -> dict[str, Any]:
    """Return the sections with absolute paths of the project's files, valid from any folder."""
    result = copy.deepcopy(dict(sections))
    for keys in NAMING:
        *outer, last = keys
        section = _inside(result, outer)
        if section.get(last) and (path := project / str(section[last])).exists():
            section[last] = str(path.absolute())
    return result


def named(sections: Mapping[str, Any]) -> list[str]:
    """Return the files and folders that the sections name."""
    return [str(value) for *outer, last in NAMING if (value := _inside(sections, outer).get(last))]


def _inside(sections: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        sections = sections.get(key) or {}
    return sections


def make(
    folder: Path, name: str, targets: Sequence[str], lock: int, *, old: Sequence[str] = (), core: int | None = None
) -> None:
    """Run make in the folder, with its log there; on one core if `core` is given. Raises PipelineError if it fails."""
    interpreter = f"PIPELINE={shlex.quote(sys.executable)} -m pipeline"
    kept = [word for path in (INSTALLED, SAMPLE, *old) for word in ("-o", path)]
    command = ["make", "-f", str(CODE / "Makefile"), f"CONFIG=configs/{name}.yaml", interpreter, *kept]
    threads = {} if core is None else {"OMP_NUM_THREADS": "1"}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")} | threads
    if STOPPING.is_set():
        raise KeyboardInterrupt
    with (folder / "log.txt").open("ab") as log:
        began = log.tell()
        process = subprocess.Popen(
            [*command, *targets],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],
            start_new_session=True,
        )
        RUNNING.add(process)
        try:
            if STOPPING.is_set():  # `stop` did not see this process
                _end(process)
            if core is not None and hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(process.pid, {core})
            status = process.wait()
        except BaseException:  # Ctrl-C does not reach make, which has its own session
            _end(process)
            raise
        finally:
            RUNNING.discard(process)
    if status:
        lines = (folder / "log.txt").read_bytes()[began:].decode(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("error: ")] or lines[-1:] or [f"make ended with {status}"]
        raise PipelineError(f"{folder}: {errors[0].removeprefix('error: ')} (full log: {folder / 'log.txt'})")


RUNNING: set[subprocess.Popen[bytes]] = set()  # every make of this process
STOPPING = threading.Event()  # no further make starts


def stop() -> None:
    """End every make of this process, and all that it started, and start no other one."""
    STOPPING.set()
    for process in list(RUNNING):
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)

"""The command line: load the config, run one stage."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from pipeline import lock, logs, options
from pipeline.config.experiment import Config
from pipeline.config.loading import load
from pipeline.errors import FULL_DISK_NUMBERS, PipelineError
from pipeline.run import Run

# Errors of the machine, not of the program: reported in one line.
MACHINE_ERRORS = {
    *FULL_DISK_NUMBERS,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
}
# What PyTorch's writers say of a full disk, without its number.
FULL_DISK = ("inline_container.cc", "PytorchStreamWriter", "No space left on device")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status of the process. A bug of ours keeps its traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = options.parser()
    if not arguments:
        parser.print_help()
        return 2
    options.Parser.given = arguments
    given = parser.parse_args(arguments)
    for line in options.without_effect(given):
        logs.say(line)
    log = _log(given)
    try:
        with logs.caught(log) if log else nullcontext():
            summary = _run(given)
    except PipelineError as error:
        return _fail(f"{error}{_folder_hint(given)}", log)
    except KeyboardInterrupt:
        print("\nstopped; the next `make` resumes here", file=sys.stderr)
        return 130
    except Exception as error:
        if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
            return _fail(f"{error.filename or _written(given)}: {error.strerror}; {_way_out(error)}", log)
        if isinstance(error, RuntimeError) and any(word in str(error) for word in FULL_DISK):
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return _fail(f"{_written(given)}: {full.strerror}; {_way_out(full)}", log)
        if log and log.is_file():
            print(f"log: {log}", file=sys.stderr)
        raise
    if summary:
        logs.say(f"{given.command}: {summary}")
    return 0


def _log(given: argparse.Namespace) -> Path | None:
    """Return the log file for what libraries write; None if it is shown, or if the command writes none."""
    if getattr(given, "verbose", True):
        return None
    if given.command == "starter-weights":
        return Path(".cache/starter/logs/starter-weights.log")
    if given.command == "new":
        from pipeline.new import stage

        return Run.of(given.config or stage.config_for(given.source)).log("new")
    if given.command == "study":
        return Path("runs/studies", given.study.stem, "logs", "study.log")
    return Run.of(given.config).log("bench-export" if getattr(given, "bench", False) else given.command)


def _written(given: argparse.Namespace) -> str:
    """Return the folder that the command writes to, or the command's name if it has none of its own."""
    config = getattr(given, "config", None)
    return str(Run.of(config).root) if config else str(given.command)


def _folder_hint(given: argparse.Namespace) -> str:
    """Return a hint that names the current folder if the config lies elsewhere: its paths may be relative to there."""
    config = getattr(given, "config", None)
    if config is None or (config.absolute().is_relative_to(Path.cwd()) and ".." not in config.parts):
        return ""
    return f"; paths are relative to the current folder, {Path.cwd()}"


def _fail(message: str, log: Path | None) -> int:
    """Print each line of an error with its prefix, name the log if there is one, and return exit status 1."""
    lines = message.splitlines()
    if log and log.is_file():
        lines[-1] += f" (log: {log})"
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    return 1


def _way_out(error: OSError) -> str:
    if error.errno in FULL_DISK_NUMBERS:
        return "free some disk space, or move runs/ to another disk and link it here"
    return "make the folder writable for this user, or move runs/ to a writable folder and link it here"


def _run(given: argparse.Namespace) -> str:
    # Import only the stage that runs: `--help`, `params` and `convert` need no torch.
    if given.command == "sample":
        from pipeline.extras import sample

        return sample.main(large=given.large)
    if given.command == "starter-weights":
        from pipeline.extras import starter

        return starter.main(given.device, given.workers)
    if given.command == "new":
        from pipeline import new

        return new.main(given.source, given.config, given.format)
    if given.command == "study":
        from pipeline import study

        return study.main(given.study, max(1, given.jobs), given.device, given.on)
    if (against := getattr(given, "against", None)) is not None and against.is_file():
        raise PipelineError(f"--against {against}: is a file; name the folder of a validated run, such as runs/OTHER")
    config, run = load(given.config), Run.of(given.config)
    lock.check_config(run, given.config)
    if given.command in ("params", "train"):
        lock.note_config(run, given.config)
    if given.command == "params":
        from pipeline import params

        params.main(config, run, given.against)
        return ""
    # The App stays open for hours, and writes nothing into the run that another command reads.
    with nullcontext() if given.command in ("inspect", "label") else lock.of(run):
        return STAGE_CALLS[given.command](config, run, given)


def _convert(config: Config, run: Run, given: argparse.Namespace) -> str:
    from pipeline import convert

    pool = config.label.pool if config.label else None
    return convert.main(config.convert, run, config.seed, given.workers, pool)


def _augment(config: Config, run: Run, given: argparse.Namespace) -> str:
    from pipeline import augment

    return augment.main(config.augment, run, config.seed, given.workers, config.tiles, config.train.imgsz)


def _train(config: Config, run: Run, given: argparse.Namespace) -> str:
    from pipeline import train

    return train.main(config.train, run, config.seed, given.device, given.workers)


def _rank(config: Config, run: Run, given: argparse.Namespace) -> str:
    from pipeline import rank

    return rank.main(config.rank, config.train, run, config.seed, given.device)


def _validate(config: Config, run: Run, given: argparse.Namespace) -> str:
    from pipeline import validate

    return validate.main(config.validate_, run, given.device, given.against)


def _inspect(config: Config, run: Run, given: argparse.Namespace) -> str:
    from pipeline import inspect

    if given.save_fixes:
        return inspect.save_fixes(run)
    return inspect.main(config.inspect, run, given.device, None if given.no_app else given.port, given.against)


def _export(config: Config, run: Run, given: argparse.Namespace) -> str:
    if given.bench:
        from pipeline.export import bench

        return bench.main(run)
    from pipeline import export

    return export.main(config.export, run, config.seed, given.device)


def _report(config: Config, run: Run, given: argparse.Namespace) -> str:
    from pipeline import report

    return report.main(config.report, run, given.against)


def _label(config: Config, run: Run, given: argparse.Namespace) -> str:
    from pipeline.label import correct, stage, tools

    if given.save:
        return tools.save(run, given.tool, given.all) if given.tool else correct.save(run, given.all)
    with lock.of(run):
        said = stage.main(config.label, config.convert.source, run, config.seed, given.device, given.workers)
        if given.tool:
            logs.say(f"label: {said}")
            return tools.lay_out(run, given.tool)
    if given.no_app:
        return said
    logs.say(f"label: {said}")
    return correct.main(run, given.port)


STAGE_CALLS: dict[str, Callable[[Config, Run, argparse.Namespace], str]] = {
    "convert": _convert,
    "augment": _augment,
    "train": _train,
    "rank": _rank,
    "validate": _validate,
    "inspect": _inspect,
    "export": _export,
    "report": _report,
    "label": _label,
}


if __name__ == "__main__":
    with logs.process():
        sys.exit(main())

"""The command line: load the config, run one stage."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

try:
    from pipeline import lock, logs, options
    from pipeline.config.experiment import Config
    from pipeline.config.loading import load
    from pipeline.errors import FULL_DISK_NUMBERS, PipelineError
    from pipeline.run import Run
except ModuleNotFoundError as missing:  # most often because another Python runs this
    if (missing.name or "").startswith("pipeline"):
        raise
    way_out = "run `make setup`, then .venv/bin/python -m pipeline"
    sys.exit(f"error: {sys.executable} lacks the package {missing.name}; {way_out}")

# Errors of the machine, not the program, which are reported in one line.
MACHINE_ERRORS = {
    *FULL_DISK_NUMBERS,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
}
# What PyTorch's writers say about a full disk, without an error number.
FULL_DISK = ("inline_container.cc", "PytorchStreamWriter", "No space left on device")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return the exit status of the process. Bugs keep their traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = options.parser()
    if not arguments:
        parser.print_help()
        return 2
    options.Parser.given = arguments
    parsed = parser.parse_args(arguments)
    for line in options.without_effect(parsed):
        logs.say(line)
    log = _log(parsed)
    if log and _takes_lock(parsed) and lock.is_held(Run.of(parsed.config)):
        log = None  # the command will be refused, and the log is that of the one that runs
    try:
        with logs.caught(log) if log else nullcontext():
            summary = _run(parsed)
    except PipelineError as error:
        return _fail(f"{error}{_folder_hint(parsed)}", log)
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to resume", file=sys.stderr)
        return 130
    except Exception as error:
        if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
            return _fail(f"{error.filename or _written(parsed)}: {error.strerror}; {_remedy(error)}", log)
        if isinstance(error, RuntimeError) and any(word in str(error) for word in FULL_DISK):
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return _fail(f"{_written(parsed)}: {full.strerror}; {_remedy(full)}", log)
        if log and log.is_file():
            print(f"log: {log}", file=sys.stderr)
        raise
    if summary:
        logs.say(f"{parsed.command}: {summary}")
    return 0


def _log(parsed: argparse.Namespace) -> Path | None:
    """Return the log file for the output of libraries; None if it is shown, or if the command has no log."""
    if getattr(parsed, "verbose", True):
        return None
    if parsed.command == "starter-weights":
        return Path(".cache/starter/logs/starter-weights.log")
    if parsed.command == "new":
        from pipeline.new import stage

        return Run.of(parsed.config or stage.config_for(parsed.source)).log("new")
    if parsed.command == "study":
        return Path("runs/studies", parsed.study.stem, "logs", "study.log")
    return Run.of(parsed.config).log("bench-export" if getattr(parsed, "bench", False) else parsed.command)


def _written(parsed: argparse.Namespace) -> str:
    """Return the folder that the command writes to, or the command's name if it has no run."""
    config = getattr(parsed, "config", None)
    return str(Run.of(config).root) if config else str(parsed.command)


def _folder_hint(parsed: argparse.Namespace) -> str:
    """Return a hint that paths are relative to the current folder; empty if the config lies below it."""
    config = getattr(parsed, "config", None)
    if config is None or (config.absolute().is_relative_to(Path.cwd()) and ".." not in config.parts):
        return ""
    return f"; paths are relative to the current folder, {Path.cwd()}"


def _fail(message: str, log: Path | None) -> int:
    """Print each line of an error with its prefix, name the log if there is one, and return exit status 1."""
    lines = message.splitlines()
    if log and log.is_file():
        lines[-1] += f" (log: {log})"
    for line in lines:
        # Names from files may hold codes that a terminal would obey.
        print("error:", "".join(letter if letter.isprintable() else "?" for letter in line), file=sys.stderr)
    return 1


def _remedy(error: OSError) -> str:
    if error.errno in FULL_DISK_NUMBERS:
        return "free some disk space, or move runs/ to another disk and link it here"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return "a file is in the place of a folder; move it away"
    return "make the folder writable for this user, or move runs/ to a writable folder and link it here"


def _run(parsed: argparse.Namespace) -> str:
    # Import only the stage that runs: `--help`, `params` and `convert` need no torch.
    if parsed.command == "sample":
        from pipeline.extras import sample

        return sample.main(large=parsed.large)
    if parsed.command == "starter-weights":
        from pipeline.extras import starter

        return starter.main(parsed.device, parsed.workers)
    if parsed.command == "new":
        from pipeline import new

        return new.main(parsed.source, parsed.config, parsed.format)
    if parsed.command == "study":
        from pipeline import study

        return study.main(parsed.study, max(1, parsed.jobs), parsed.device, parsed.on)
    if (against := getattr(parsed, "against", None)) is not None and against.is_file():
        raise PipelineError(f"--against {against}: is a file; name the folder of a validated run, such as runs/OTHER")
    config, run = load(parsed.config), Run.of(parsed.config)
    lock.check_config(run, parsed.config)
    if parsed.command == "params" or (parsed.command == "train" and run.root.is_dir()):
        lock.note_config(run, parsed.config)
    if parsed.command == "params":
        from pipeline import params

        params.main(config, run, parsed.against)
        return ""
    with lock.of(run) if _takes_lock(parsed) else nullcontext():
        return STAGE_CALLS[parsed.command](config, run, parsed)


def _takes_lock(parsed: argparse.Namespace) -> bool:
    """Return whether a command writes into a run what another one reads. The App may stay open for hours."""
    return parsed.command in STAGE_CALLS and parsed.command not in ("inspect", "label")


def _convert(config: Config, run: Run, parsed: argparse.Namespace) -> str:
    from pipeline import convert

    pool = config.label.pool if config.label else None
    return convert.main(config.convert, run, config.seed, parsed.workers, pool)


def _augment(config: Config, run: Run, parsed: argparse.Namespace) -> str:
    from pipeline import augment

    return augment.main(config.augment, run, config.seed, parsed.workers, config.tiles, config.train.imgsz)


def _train(config: Config, run: Run, parsed: argparse.Namespace) -> str:
    from pipeline import train
    from pipeline.validate import retention

    if config.validate_.retention:
        retention.labelled_set(config.validate_.retention)  # raises before the training, not after it
    return train.main(config.train, run, config.seed, parsed.device, parsed.workers)


def _rank(config: Config, run: Run, parsed: argparse.Namespace) -> str:
    from pipeline import rank

    return rank.main(config.rank, config.train, run, config.seed, parsed.device)


def _validate(config: Config, run: Run, parsed: argparse.Namespace) -> str:
    from pipeline import validate

    return validate.main(config.validate_, run, parsed.device, parsed.against)


def _inspect(config: Config, run: Run, parsed: argparse.Namespace) -> str:
    from pipeline import inspect

    if parsed.save_fixes:
        return inspect.save_fixes(run)
    port = None if parsed.no_app else parsed.port
    return inspect.main(config.inspect, run, parsed.device, port, parsed.against, parsed.config)


def _export(config: Config, run: Run, parsed: argparse.Namespace) -> str:
    if parsed.bench:
        from pipeline.export import bench

        return bench.main(run)
    from pipeline import export

    return export.main(config.export, run, config.seed, parsed.device)


def _report(config: Config, run: Run, parsed: argparse.Namespace) -> str:
    from pipeline import report

    return report.main(config.report, run, parsed.against)


def _label(config: Config, run: Run, parsed: argparse.Namespace) -> str:
    from pipeline.label import command

    return command.main(config, run, parsed)


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

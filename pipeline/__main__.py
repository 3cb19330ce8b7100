"""The command line: load the config, run one stage."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline import config as configs
from pipeline.errors import PipelineError
from pipeline.run import Run

STAGES = {
    "convert": "annotations of any known format -> an Ultralytics data set with a receipt",
    "augment": "more training images by transforming the ones there are",
    "train": "fine-tune from COCO weights, in phases, with frozen layers",
    "validate": "COCO figures with error bars, kinds of errors, thresholds, and the predictions behind them",
    "inspect": "the run as a FiftyOne data set, in the App on 127.0.0.1",
    "export": "files for the device, each compared with the model on real images, in a bundle that tests itself",
    "report": "one page for people",
}
# Where these options have an effect. All stages take them, so that one line of options serves a whole chain.
USES = {
    "--device": {"train", "validate", "inspect", "starter-weights"},
    "--workers": {"convert", "augment", "train", "starter-weights"},
}
# Errors of the machine, not of the program: reported in one line.
MACHINE_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
}


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    _say_without_effect(options)
    try:
        said = _run(options)
    except PipelineError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in MACHINE_ERRORS:
            raise
        print(f"error: {error.filename or options.command}: {error.strerror}; {_way_out(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the next `make` goes on from here", file=sys.stderr)
        return 130
    if said:
        print(f"{options.command}: {said}")
    return 0


def _say_without_effect(options: argparse.Namespace) -> None:
    for option, stages in USES.items():
        given = getattr(options, option.removeprefix("--"), None)
        if given not in (None, "") and options.command not in stages:
            print(f"{options.command}: {option} has no effect on this stage, only on {', '.join(sorted(stages))}")


def _way_out(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room on the disk, or move runs/ to another one and link it here"
    return "make the folder writable for this user, or move runs/ to one that is and link it here"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline", description="One stage of the pipeline; `make help` shows how they chain."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="STAGE")
    for stage, description in STAGES.items():
        command = commands.add_parser(stage, help=description, description=description)
        command.add_argument("--config", type=Path, required=True, metavar="FILE")
        _add_device(command)
        _add_workers(
            command,
            "worker processes (convert, augment: default one per core; train: data loading on a GPU, default 4)",
        )
        if stage == "validate":
            command.add_argument(
                "--against",
                type=Path,
                metavar="RUN",
                help="compare with runs/OTHER, on the predictions that both have; predicts only where there are none",
            )
        if stage == "report":
            command.add_argument(
                "--against", type=Path, metavar="RUN", help="show what `validate --against` said of runs/OTHER, too"
            )
        if stage == "inspect":
            command.add_argument("--no-app", action="store_true", help="build the data set and leave")
            command.add_argument("--port", type=_natural, default=5151, help="of the App (default 5151)")
            command.add_argument(
                "--against",
                type=Path,
                metavar="RUN",
                help="show the predictions of runs/OTHER, on the same images, too",
            )
            command.add_argument(
                "--save-fixes", action="store_true", help="write what was tagged in the App to data/fixes/NAME.yaml"
            )
        if stage == "export":
            command.add_argument("--bench", action="store_true", help="measure the speed of what is there")
    params = commands.add_parser("params", help="write runs/NAME/params, by which make detects changes")
    params.add_argument("--config", type=Path, required=True, metavar="FILE")
    params.add_argument("--against", type=Path, metavar="RUN", help="the run that validate and report compare with")
    commands.add_parser("sample", help="draw the sample data set into data/raw/sample")
    starter = commands.add_parser(
        "starter-weights", help="draw scenes and train data/weights/starter-yolo26n.pt on them; hours"
    )
    _add_device(starter)
    _add_workers(starter, "processes that draw scenes (default: one per core)")
    return parser


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device", default="", metavar="D", help="cpu, 0 for the first GPU, mps; the best there is if not given"
    )


def _add_workers(command: argparse.ArgumentParser, meaning: str) -> None:
    command.add_argument("--workers", type=_natural, metavar="N", help=meaning)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a non-negative integer, got {text!r}")
    return int(text)


def _run(options: argparse.Namespace) -> str:
    # Stages are imported when asked for: `--help`, `params` and `convert` need no torch.
    if options.command == "sample":
        from pipeline.extras import sample

        return sample.main()
    if options.command == "starter-weights":
        from pipeline.extras import starter

        return starter.main(options.device, options.workers)
    config, run = configs.load(options.config), Run.of(options.config)
    if options.command == "params":
        from pipeline import params

        params.main(config, run, options.against)
        return ""
    return STAGE_CALLS[options.command](config, run, options)


def _convert(config: configs.Config, run: Run, options: argparse.Namespace) -> str:
    from pipeline import convert

    return convert.main(config.convert, run, config.seed, options.workers)


def _augment(config: configs.Config, run: Run, options: argparse.Namespace) -> str:
    from pipeline import augment

    return augment.main(config.augment, run, config.seed, options.workers)


def _train(config: configs.Config, run: Run, options: argparse.Namespace) -> str:
    from pipeline import train

    return train.main(config.train, run, config.seed, options.device, options.workers)


def _validate(config: configs.Config, run: Run, options: argparse.Namespace) -> str:
    from pipeline import validate

    return validate.main(config.validate_, run, options.device, options.against)


def _inspect(config: configs.Config, run: Run, options: argparse.Namespace) -> str:
    from pipeline import inspect

    if options.save_fixes:
        return inspect.save_fixes(run)
    return inspect.main(config.inspect, run, options.device, None if options.no_app else options.port, options.against)


def _export(config: configs.Config, run: Run, options: argparse.Namespace) -> str:
    if options.bench:
        from pipeline.export import bench

        return bench.main(run)
    from pipeline import export

    return export.main(config.export, run, config.seed, options.device)


def _report(config: configs.Config, run: Run, options: argparse.Namespace) -> str:
    from pipeline import report

    return report.main(config.report, run, options.against)


STAGE_CALLS: dict[str, Callable[[configs.Config, Run, argparse.Namespace], str]] = {
    "convert": _convert,
    "augment": _augment,
    "train": _train,
    "validate": _validate,
    "inspect": _inspect,
    "export": _export,
    "report": _report,
}


if __name__ == "__main__":
    sys.exit(main())

"""Define the commands of the command line and their options."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import ClassVar, NoReturn

from pipeline.errors import did_you_mean

VERSION = "0.2.0"
STAGES = {
    "convert": "convert annotations of any known format to an Ultralytics dataset with a receipt",
    "augment": "make more training images by transforming the existing ones",
    "train": "fine-tune from COCO weights, in phases, with frozen layers",
    "rank": "score pretrained weights and suggest a freeze depth, from one pass over the images",
    "validate": "compute COCO metrics with confidence intervals, error types and thresholds, and save the predictions",
    "inspect": "open the run as a FiftyOne dataset, in the App on 127.0.0.1",
    "export": "write files for the device, each compared with the model on real images, in a bundle that tests itself",
    "report": "show the run on one HTML page",
    "label": "choose images to label next, draw boxes on them, and open them in the App for correction",
}
OTHERS = {
    "new": "look at a folder of labelled images and write a config for it",
    "study": "compare training setups over several amounts of labels and seeds",
    "params": "write the per-stage config slices that make uses to detect changes",
    "sample": "draw the sample dataset into data/raw/sample",
    "starter-weights": "draw synthetic scenes and train data/weights/starter-yolo26n.pt on them (hours)",
}
TOOLS = ("labelstudio", "cvat", "labelme", "xanylabeling", "coco", "yolo")  # a test compares with label/layouts.py
# The commands on which these options have an effect. All stages accept them, so one set of options serves them all.
USES = {
    "--device": {"train", "rank", "validate", "inspect", "label", "starter-weights", "study"},
    "--workers": {"convert", "augment", "train", "label", "starter-weights"},
}
AGAINST = {
    "validate": "compare with runs/OTHER on the same images; existing predictions are reused",
    "report": "also show the comparison that `validate --against` made with runs/OTHER",
    "inspect": "also show the predictions of runs/OTHER, on the same images",
    "params": "the run that validate and report compare with",
}


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one line with a suggestion, like the rest of the pipeline."""

    given: ClassVar[list[str]] = []  # every argument of the command line

    def error(self, message: str) -> NoReturn:
        hint = ""
        if wrong := re.search(r"invalid choice: '([^']*)'", message):
            message, _, choices = message.partition(" (choose from ")
            hint = did_you_mean(wrong[1], re.findall(r"[\w.-]+", choices))
        elif wrong := re.search(r"unrecognized arguments: (\S+)", message):
            hint = did_you_mean(wrong[1], self._known())
        elif message.endswith("required: --config"):
            unknown = [word for word in self.given if word.startswith("--") and word not in self._known()]
            files = [word for word in self.given if word.endswith((".yaml", ".yml")) and not unknown]
            hint = "".join(did_you_mean(word, ["--config"]) for word in unknown[:1])
            hint += "".join(f"; write --config {file}" for file in files[:1])
        self.exit(2, f"error: {message}{hint or f'; `{self.prog} --help` lists the choices'}\n")

    def _known(self) -> list[str]:
        """Return the options of this parser and of its commands, because the outer parser reports unknown ones."""
        commands = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        parsers = [self, *(command for action in commands for command in action.choices.values())]
        return [word for parser in parsers for action in parser._actions for word in action.option_strings]


def parser() -> Parser:
    """Return the parser of the whole command line."""
    root = Parser(
        prog="python -m pipeline",
        description="Run one stage of the pipeline; `make help` shows how they chain. Paths are relative to the "
        "current folder. Results go to runs/NAME there, where NAME is the config's file name without .yaml.",
    )
    root.add_argument("--version", action="version", version=f"detection-transfer-pipeline {VERSION}")
    commands = root.add_subparsers(dest="command", required=True, metavar="STAGE")
    for name, description in {**STAGES, **OTHERS}.items():
        command = commands.add_parser(name, help=description, description=f"{description[0].upper()}{description[1:]}.")
        if name in STAGES or name == "params":
            command.add_argument("--config", type=Path, required=True, metavar="FILE", help="configs/NAME.yaml")
        if name in AGAINST:
            command.add_argument("--against", type=Path, metavar="RUN", help=AGAINST[name])
        if name in STAGES or name == "starter-weights":
            _add_common(command)
        if name not in ("params", "sample"):
            command.add_argument(
                "--verbose", action="store_true", help="show what libraries write instead of logging it"
            )
        _add_own(command, name)
    return root


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device",
        default="",
        metavar="D",
        help="cpu, mps, or 0 for the first GPU (default: a CUDA GPU if there is one, otherwise the CPU)",
    )
    command.add_argument(
        "--workers",
        type=natural,
        metavar="N",
        help="worker processes (default: one per core for convert and augment; 4 for train, on a GPU only)",
    )


def _add_own(command: argparse.ArgumentParser, name: str) -> None:
    if name in ("inspect", "label"):
        command.add_argument("--port", type=natural, default=5151, metavar="N", help="port of the App (default: 5151)")
    if name == "inspect":
        command.add_argument("--no-app", action="store_true", help="build the dataset without opening the App")
        command.add_argument(
            "--save-fixes",
            action="store_true",
            help="write the tags and edits made in the App to data/fixes/NAME.yaml",
        )
    elif name == "sample":
        command.add_argument("--large", action="store_true", help="draw large boards into data/raw/sample-large")
    elif name == "label":
        command.add_argument("--open", action="store_true", help="open the last batch again instead of choosing one")
        command.add_argument("--no-app", action="store_true", help="choose the images without opening the App")
        command.add_argument(
            "--as", choices=TOOLS, dest="tool", help="write the batch for another tool instead of the App"
        )
        command.add_argument(
            "--save",
            action="store_true",
            help="write corrected labels to data/labels/NAME.json; with --as, those of that tool",
        )
        command.add_argument("--all", action="store_true", help="with --save: also save images that nobody has changed")
    elif name == "export":
        command.add_argument("--bench", action="store_true", help="measure the speed of the exported models")
    elif name == "study":
        command.add_argument("--study", type=Path, required=True, metavar="FILE", help="configs/studies/NAME.yaml")
        command.add_argument("--jobs", type=natural, default=1, metavar="N", help="trials at a time (default: 1)")
        command.add_argument(
            "--on", choices=("ray", "ray-copy"), default="", help="run on a Ray cluster (docs/study.md)"
        )
        command.add_argument("--device", default="", metavar="D", help="cpu, mps, or 0 for the first GPU")
    elif name == "new":
        command.add_argument(
            "source",
            type=Path,
            metavar="SOURCE",
            help="folder of images and labels, in any format that data/README.md lists",
        )
        command.add_argument(
            "--config", type=Path, metavar="FILE", help="config to write (default: configs/FOLDER.yaml)"
        )
        command.add_argument("--format", default="auto", metavar="F", help="annotation format (default: detect it)")


def natural(text: str) -> int:
    """Parse a non-negative integer. Raises ArgumentTypeError for anything else."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a non-negative integer, got {text!r}")
    return int(text)


def without_effect(given: argparse.Namespace) -> list[str]:
    """Return a warning for each option on the command line that has no effect on this command."""
    return [
        f"{given.command}: {option} has no effect on this stage, only on {', '.join(sorted(stages))}"
        for option, stages in USES.items()
        if getattr(given, option.removeprefix("--"), None) not in (None, "") and given.command not in stages
    ]

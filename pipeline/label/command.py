"""Do what `python -m pipeline label` asks for: choose and open a batch, lay it out for a tool, or save the labels."""

from __future__ import annotations

from argparse import Namespace

from pipeline import lock, logs
from pipeline.config.experiment import Config
from pipeline.errors import PipelineError
from pipeline.label import correct, stage, tools
from pipeline.run import Run


def main(config: Config, run: Run, given: Namespace) -> str:
    """Return a line about the result. What can fail is checked before the choice, which may take minutes."""
    if given.save:
        return tools.save(run, given.tool, given.all) if given.tool else correct.save(run, given.all)
    if given.all:
        raise PipelineError("--all: has an effect only on what is saved; add --save")
    if given.open and given.no_app and not given.tool:
        raise PipelineError("--open and --no-app: exclude each other; leave one out")
    in_app = not given.tool and not given.no_app
    if given.tool:
        tools.check_free(run, given.tool)
    elif in_app and correct.check(run, given.port):
        return correct.main(run, given.port, given.config)
    if not given.open:
        with lock.of(run):
            summary = stage.main(config, run, given.device, given.workers)
        if given.no_app and not given.tool:
            return summary
        logs.say(f"label: {summary}")
    if given.tool:
        with lock.of(run):
            return tools.lay_out(run, given.tool)
    return correct.main(run, given.port, given.config)

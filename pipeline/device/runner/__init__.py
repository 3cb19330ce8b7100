# SPDX-License-Identifier: AGPL-3.0-only
"""The parts of run.py, for programs of your own: `from runner import Model, read_image`.

`Model(folder, spec).detect(read_image(path))` finds objects; `spec` is the content of model.json in `folder`.
Needs Python 3.8, numpy, OpenCV or Pillow, and the runtime that model.json names; no torch, no Ultralytics.
"""

from .base import Found, Trouble
from .bench import BENCH_SECONDS
from .crew import Crew
from .images import read_image
from .letterbox import prepare
from .model import Model, read_output
from .runtimes import RUNTIMES
from .selftest import overlap

__all__ = [
    "BENCH_SECONDS",
    "RUNTIMES",
    "Crew",
    "Found",
    "Model",
    "Trouble",
    "overlap",
    "prepare",
    "read_image",
    "read_output",
]

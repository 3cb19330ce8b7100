# SPDX-License-Identifier: AGPL-3.0-only
"""What a program of your own needs of the parts."""

from .base import Found, Trouble
from .bench import BENCH_SECONDS
from .crew import Crew
from .images import read_image
from .letterbox import prepare
from .model import Model, read_output
from .runtimes import RUNTIMES
from .selftest import overlap
from .tiles import merge, views

__all__ = [
    "BENCH_SECONDS",
    "RUNTIMES",
    "Crew",
    "Found",
    "Model",
    "Trouble",
    "merge",
    "overlap",
    "prepare",
    "read_image",
    "read_output",
    "views",
]

# SPDX-License-Identifier: AGPL-3.0-only
"""The names that your own program can import from `runner`."""

from .base import Detections, RunnerError, Spec, read_spec
from .bench import BENCH_SECONDS
from .images import read_image
from .letterbox import prepare
from .model import Model, read_output
from .runtimes import RUNTIMES
from .selftest import overlap
from .tiles import merge, views
from .workers import Workers

__all__ = [
    "BENCH_SECONDS",
    "RUNTIMES",
    "Detections",
    "Model",
    "RunnerError",
    "Spec",
    "Workers",
    "merge",
    "overlap",
    "prepare",
    "read_image",
    "read_output",
    "read_spec",
    "views",
]

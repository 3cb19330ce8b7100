# SPDX-License-Identifier: AGPL-3.0-only
"""Define what the other modules share: OpenCV if it is installed, errors, model.json, detections, and messages."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Any, TypedDict, cast

from .quota import quota

BROKEN_OPENCV = ""  # what to add to "needs OpenCV" if it is installed, but cannot be imported
try:
    import cv2 as cv2  # the other modules import it from here
except ImportError as error:  # Pillow can read images, but no videos or cameras
    cv2 = None  # type: ignore[assignment,unused-ignore]
    if error.name != "cv2" or not isinstance(error, ModuleNotFoundError):
        BROKEN_OPENCV = f" (installed, but: {' '.join(str(error).split())})"


class RunnerError(Exception):
    """An error to show to the user of the device, as one line."""


class Input(TypedDict):
    size: int
    layout: str
    colour: str
    fit: str
    pad: int
    scale: float
    upright: str
    bits: int | None


class Output(TypedDict):
    layout: str
    normalised: bool
    conf: float
    iou: float
    max_det: int


class Tiles(TypedDict):
    size: int
    overlap: float
    whole: bool


class Profile(TypedDict):
    """The smallest, usual and largest shape of a dynamic model's input."""

    input: str
    min: list[int]
    opt: list[int]
    max: list[int]


class Engine(TypedDict):
    onnx: str
    onnx_sha256: str
    profile: Profile | None


class Spec(TypedDict, total=False):
    """What the runner reads of model.json."""

    model: str
    format: str
    precision: str
    classes: list[str]
    thresholds: dict[str, float]
    input: Input
    output: Output
    tiles: Tiles | None
    selftest: dict[str, float]
    engine: Engine


def read_spec(folder: str | Path) -> Spec:
    """Return the content of model.json in a bundle's folder. Raises RunnerError if it is missing or damaged."""
    file = Path(folder) / "model.json"
    try:
        spec: Any = json.loads(file.read_text(encoding="utf-8"))
        sections = {"input": Input, "output": Output, **({"engine": Engine} if spec["format"] == "engine" else {})}
        complete = (
            Spec.__annotations__.keys() - {"engine"} <= spec.keys()
            and all(section.__annotations__.keys() <= spec[name].keys() for name, section in sections.items())
            and set(spec["classes"]) <= spec["thresholds"].keys()
        )
    except FileNotFoundError:
        raise RunnerError(f"{file}: does not exist; unpack the whole bundle again") from None
    except OSError as error:
        raise RunnerError(f"{file}: {error.strerror}; make it readable") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        complete = False
    if not complete:
        raise RunnerError(f"{file}: damaged; unpack the whole bundle again")
    return cast(Spec, spec)


class Detections:
    """Boxes of one image: (n, 4) corners in its pixels, (n,) scores and (n,) class indices, highest score first."""

    def __init__(self, corners: Any, scores: Any, classes: Any) -> None:
        self.corners, self.scores, self.classes = corners, scores, classes

    def __len__(self) -> int:
        return len(self.scores)

    def only(self, keep: Any) -> Detections:
        """Return the boxes that `keep`, a mask or indices, selects."""
        return Detections(self.corners[keep], self.scores[keep], self.classes[keep])


def cores() -> list[int]:
    """Return the cores that this process may use. A quota of 1.5 CPUs gives one: two threads would be throttled."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return allowed[: max(1, math.floor(min(len(allowed), quota())))]


def in_a_line(error: BaseException) -> str:
    """Return the message of a library's error on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def say(text: str) -> None:
    """Print a line on stderr. A name may contain a line break, and the terminal may be gone."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # AttributeError: there is no stderr at all
        sys.stderr.write(f"{shown}\n")
        sys.stderr.flush()

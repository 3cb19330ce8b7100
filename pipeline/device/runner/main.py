# SPDX-License-Identifier: AGPL-3.0-only
"""The command line of run.py."""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

from .base import BROKEN_OPENCV, RunnerError, cv2, in_a_line, read_spec, say
from .bench import bench
from .images import draw, label, write_jpeg
from .lines import Lines, as_json
from .selftest import selftest
from .stopping import Signals
from .workers import Workers

WINDOW = "found"
MOST_OF_A_NAME = 200  # bytes; with number and suffix, a name stays below file systems' limit of 255


def run(workers: Workers, options: argparse.Namespace) -> int:
    """Write, draw and show the detections. Return the exit status: 1 for unreadable sources, more after a signal."""
    if options.draw:
        options.draw.mkdir(parents=True, exist_ok=True)
    if options.draw or options.show:
        labels = [label(workers.classes, index) for index in range(len(workers.classes))]
        by_number = [f"{text} is {name}" for text, name in zip(labels, workers.classes) if text != name]
        if by_number:
            say(f"drawn by number: {', '.join(by_number)}")
    workers.signals.listen()
    lines, ended, objects = Lines(options.json), False, 0
    try:
        for count, (name, frame, image, detections) in enumerate(workers.each()):
            lines.write(as_json(name, frame, image, detections, workers.classes))
            objects += len(detections.scores)
            if options.draw or options.show:
                drawn = draw(image, detections, workers.classes)
                if options.draw:
                    write_jpeg(options.draw / f"{count:06d}_{_short(name)}.jpg", drawn)
                if options.show and not _shown(drawn, frame is None, workers.signals):
                    break
        ended = not workers.signals.caught
    finally:
        lines.finish(ended)
    if workers.signals.caught:
        place = f"are in {lines.name}" if options.json else "were printed"
        say(f"stopped; the results of {lines.count} images {place}" if lines.count else "stopped before any result")
        return 128 + workers.signals.caught
    places = [str(place) for place in (options.json, options.draw) if place]
    if places and lines.count:
        say(f"{lines.count} images, {objects} objects; see {' and '.join(places)}")
    return int(workers.problems > 0)


def _short(name: str) -> str:
    """Return the stem of a file name, or an address turned into a valid file name."""
    stem = re.sub(r"[^\w.-]+", "_", name) if "://" in name else Path(name).stem
    while len(os.fsencode(stem)) > MOST_OF_A_NAME:
        stem = stem[:-1]
    return stem


def _shown(drawn: Any, wait: bool, signals: Signals) -> bool:
    """Show the image in the window, with `wait` until a key or a signal. Return False if the user wants no more.

    That is after q or Escape, or if the window was closed while it waits.
    """
    try:
        cv2.imshow(WINDOW, drawn)
        key = cv2.waitKey(1)
        known = _is_open()  # older OpenCV does not know with every toolkit
        while wait and key < 0 and not signals.caught:
            if known and not _is_open():
                return False
            key = cv2.waitKey(100)  # milliseconds: a signal does not interrupt it
        return key not in (27, ord("q"))
    except cv2.error:
        raise RunnerError(
            "--show: OpenCV was built without windows; install opencv-python instead of opencv-python-headless"
        ) from None


def _is_open() -> bool:
    return bool(cv2.getWindowProperty(WINDOW, cv2.WND_PROP_VISIBLE) >= 1)


def number(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def main(about: str | None, arguments: list[str] | None = None) -> int:
    """Run the command line; `about` is the docstring of run.py. Return the exit status."""
    parser = argparse.ArgumentParser(
        prog="run.py", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="*", help="images, folders, videos, addresses, or the number of a camera")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the lines to FILE instead of printing them")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="write the images with boxes drawn")
    parser.add_argument("--show", action="store_true", help="show the images with boxes in a window; q closes it")
    parser.add_argument("--threads", type=number, default=0, metavar="N", help="number of threads (default: all cores)")
    parser.add_argument("--tiles", choices=["on", "off"], default="on", help="off: do not cut large images into tiles")
    parser.add_argument("--selftest", action="store_true", help="check that this device gives the proven results")
    parser.add_argument(
        "--bench", type=number, default=0, metavar="RUNS", help="measure the speed with this many runs instead"
    )
    options = parser.parse_args(arguments)
    if not options.sources and not options.selftest:
        parser.error("name an image, a folder, a video or a camera, or --selftest")
    try:
        status = _do(Path(__file__).resolve().parents[1], options)
    except RunnerError as error:
        say(f"error: {error}")
        return 1
    except OSError as error:
        say(f"error: {error.filename or 'run.py'}: {error.strerror}")
        return 1
    except Exception as error:  # damaged bundles and runtimes can raise any error
        say(f"error: run.py: {type(error).__name__}: {in_a_line(error)}")
        return 1
    if status > 1:  # a normal exit would wait for a camera that hangs
        os._exit(status)
    return status


def _do(folder: Path, options: argparse.Namespace) -> int:
    spec = read_spec(folder)
    if BROKEN_OPENCV:
        say(f"images are read with Pillow, not OpenCV{BROKEN_OPENCV}")
    if options.selftest:
        Lines(None).put(f"{selftest(folder, spec, options.threads)}\n".encode())
        return 0
    if options.tiles == "off":
        spec["tiles"] = None
    if options.bench:
        measured, problems = bench(folder, spec, options.sources, options.threads, options.bench)
        Lines(None).put(f"{json.dumps(measured)}\n".encode())
        return int(problems > 0)
    if options.show and cv2 is None:
        raise RunnerError(f"--show: a window needs OpenCV{BROKEN_OPENCV}; pip install opencv-python")
    workers = Workers(folder, spec, options.sources, options.threads)
    return run(workers, options) if workers.sources else 1

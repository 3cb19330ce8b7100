# SPDX-License-Identifier: AGPL-3.0-only
"""The command line of run.py."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .base import Found, Trouble, cv2
from .bench import bench
from .images import draw, write_jpeg
from .selftest import selftest
from .sources import Crew


def as_json(name: str, frame: int | None, picture: Any, found: Found, classes: list[str]) -> dict[str, Any]:
    """Boxes are x, y of the upper left corner, width, height, in pixels of the original image."""
    boxes = np.concatenate([found.corners[:, :2], found.corners[:, 2:] - found.corners[:, :2]], axis=1)
    return {
        "file": name,
        **({} if frame is None else {"frame": frame}),
        "height": picture.shape[0],
        "width": picture.shape[1],
        "objects": [
            {"class": classes[index], "score": round(float(score), 5), "bbox": [round(float(side), 2) for side in box]}
            for box, score, index in zip(boxes, found.scores, found.classes)
        ],
    }


def run(crew: Crew, options: argparse.Namespace) -> None:
    classes = crew.classes
    if options.show and cv2 is None:
        raise Trouble("--show: a window needs OpenCV; pip install opencv-python")
    if options.draw:
        options.draw.mkdir(parents=True, exist_ok=True)
    partial = options.json.with_name(f".{options.json.name}.partial") if options.json else None
    lines = partial.open("w", encoding="utf-8") if partial else sys.stdout
    try:
        for count, (name, frame, picture, found) in enumerate(crew.each()):
            print(json.dumps(as_json(name, frame, picture, found, classes), ensure_ascii=False), file=lines)
            if options.draw or options.show:
                drawn = draw(picture, found, classes)
            if options.draw:
                write_jpeg(options.draw / f"{count:06d}_{Path(name).stem}.jpg", drawn)
            if options.show:
                try:
                    cv2.imshow("found", drawn)
                    if cv2.waitKey(1 if frame is not None else 0) in (27, ord("q")):
                        break
                except cv2.error:
                    raise Trouble("--show: this OpenCV has no windows; pip install opencv-python") from None
        if partial:
            lines.close()
            os.replace(partial, options.json)
    finally:
        if partial:
            lines.close()
            partial.unlink(missing_ok=True)


def main(about: str | None, arguments: list[str] | None = None) -> int:
    """Do what the command line asks; `about` is the docstring of run.py. Return the exit status."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # run.py's doing
        signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(
        prog="run.py", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="*", help="images, folders, videos, or the number of a camera")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the lines there instead of on the screen")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="write the pictures with boxes drawn")
    parser.add_argument("--show", action="store_true", help="in a window; q ends it")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="all cores if not given")
    parser.add_argument("--selftest", action="store_true", help="compare this device with where the model was made")
    parser.add_argument("--bench", type=int, default=0, metavar="RUNS", help="measure instead of telling what is found")
    options = parser.parse_args(arguments)
    folder = Path(__file__).resolve().parents[1]
    try:
        spec_file = folder / "model.json"
        try:
            spec = json.loads(spec_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise Trouble(f"{spec_file}: not there or damaged; unpack the whole bundle again") from None
        if options.selftest:
            print(selftest(folder, spec, options.threads))
        elif not options.sources:
            parser.error("name an image, a folder, a video or a camera, or --selftest")
        elif options.bench:
            print(json.dumps(bench(folder, spec, options.sources, options.threads, options.bench)))
        else:
            run(Crew(folder, spec, options.sources, options.threads), options)
    except Trouble as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error.filename or 'run.py'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0

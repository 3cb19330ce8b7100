#!/usr/bin/env python3
# SPDX-License-Identifier: AGPL-3.0-only
"""Detect objects with the model beside this file: in images, folders and videos, or from a camera.

    python run.py photo.jpg folder/ film.mp4          print one line of JSON per image
    python run.py 0 --show                            show camera 0 in a window
    python run.py rtsp://address /dev/video0          a network camera and a local one
    python run.py folder/ --json found.jsonl --draw drawn/
    python run.py --selftest                          check that this device gives the proven results

Unreadable files are reported and skipped, and the exit status is 1. Ctrl-C ends a run and keeps its results so far.

Needs Python 3.8 or newer, numpy, OpenCV (or Pillow, for images only) and the runtime that model.json names.
"""

# Every Python must be able to parse this file, so that an old one prints a message and not a SyntaxError. The program
# itself is in the folder `runner`, in small files that your own program can import.
import os
import signal
import sys

if sys.version_info < (3, 8):
    sys.exit("error: run.py needs Python 3.8 or newer, but this is " + sys.version.split()[0])

# OpenCV's messages would repeat ours.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing needs cleaning up during the imports
# All bundles give their files the same date, so Python would use the bytecode of an older bundle.
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
try:
    from runner.main import main
except ImportError as error:
    sys.exit("error: " + str(error) + "; pip install -r requirements.txt, or unpack the whole bundle again")

if __name__ == "__main__":
    sys.exit(main(__doc__))

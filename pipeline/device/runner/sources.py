# SPDX-License-Identifier: AGPL-3.0-only
"""Find the sources that the command line names: files, folders, videos, cameras and addresses."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Callable

from .base import cv2, say
from .live import Newest

IMAGES = {
    *(".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm", ".png"),
    *(".pnm", ".ppm", ".tif", ".tiff", ".webp"),
}
VIDEOS = {
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv"),
    *(".ts", ".webm", ".wmv"),
}
# Images that neither OpenCV nor Pillow reads.
OTHER_IMAGES = {
    *(".arw", ".cr2", ".cr3", ".dng", ".exr", ".hdr", ".heic", ".heif", ".hif", ".jxl", ".nef", ".orf", ".psd"),
    *(".raf", ".rw2"),
}
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# User and password of an address: up to the last @ before a slash or, as people type passwords with slashes, up to the
# last @ if no port follows the colon.
USER = re.compile(r"(?<=://)(?:[^/?#]*@|[^/?#:\[]*:(?!\d*[/?#]).*@)")
PASSWORD = re.compile(r"((?:pas\w*|pwd|psw|token|secret|key)=)[^&\s]*", re.IGNORECASE)
# The headers of these hold the number of frames; for other containers OpenCV guesses it.
COUNTED = {".avi", ".m4v", ".mov", ".mp4"}


class Video:
    """A video or a camera: OpenCV's source, the name to show, and whether it has no end.

    A `live` one gives only its newest frame, because it waits for nobody. A film, its address and a pipe give all.
    """

    def __init__(self, source: str | int, name: str, endless: bool = False, live: bool = False) -> None:
        self.source, self.name, self.endless, self.live = source, name, endless, live

    def open(self) -> cv2.VideoCapture | Newest:
        capture = cv2.VideoCapture(self.source)
        return Newest(capture) if self.live else capture

    def end(self, capture: cv2.VideoCapture | Newest, frames: int) -> str | None:
        """Return what is wrong if the video ended after this many frames, else None."""
        promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if not frames:
            return "cannot be opened, or has no image"
        if self.endless and promised <= 0:
            return f"broke off after {frames} frames"
        if Path(self.name).suffix.lower() == ".avi" and promised <= 0:
            return f"has {frames} frames that can be read; its header is damaged"
        # The last few frames may be incomplete where the recording was stopped.
        if Path(self.name).suffix.lower() in COUNTED and frames < 0.99 * promised - 2:
            return f"broke off after {frames} of {promised:.0f} frames; the file is damaged"
        return None


def expand(sources: list[str], tell: Callable[[str], None]) -> list[Path | Video]:
    """Return images and videos in the given order. `tell` gets a message for everything else."""
    found: list[Path | Video] = []
    for source in sources:
        path = Path(source)
        try:
            if ADDRESS.match(source):
                live = source.lower().startswith("rtsp")
                found.append(Video(source, without_passwords(source), endless=True, live=live))
            elif path.is_dir():
                found += _inside(path, tell)
            elif source.isascii() and source.isdigit() and not path.exists():
                found.append(Video(int(source), f"camera {int(source)}", endless=True, live=True))
            elif path.is_char_device() or path.is_fifo():
                found.append(Video(source, source, endless=True, live=path.is_char_device()))
            elif path.is_file():
                found.append(_file(path))
            else:
                tell(f"{source}: no such file or folder")
        except OSError as error:  # a name that is too long, or a folder without permission
            tell(f"{source}: {error.strerror}")
    return found


def without_passwords(address: str) -> str:
    """Return the address as it may be printed: without the user, and with `***` for a password in the path or query."""
    return PASSWORD.sub(r"\1***", USER.sub("", address, count=1))


def _file(path: Path) -> Path | Video:
    return Video(str(path), str(path)) if path.suffix.lower() in VIDEOS else path


def _inside(folder: Path, tell: Callable[[str], None]) -> list[Path | Video]:
    """Return the sources directly in a folder, sorted by name; say what was skipped, and `tell` if nothing is left."""
    found: list[Path | Video] = []
    others: Counter[str] = Counter()
    folders = 0
    for path in sorted(folder.iterdir()):
        suffix = path.suffix.lower()
        if path.is_dir():
            folders += 1
        elif path.name.startswith("."):  # on some disks macOS writes `._photo.jpg` too
            continue
        elif suffix in IMAGES | VIDEOS and (
            path.is_file() or not path.exists()
        ):  # a broken link is reported when it is read
            found.append(_file(path))
        else:
            others[suffix or "without suffix"] += 1
    skipped = []
    if others:
        kinds = ", ".join(f"{suffix} {number}" for suffix, number in sorted(others.items(), key=lambda item: -item[1]))
        skipped.append(f"{_counted(sum(others.values()), 'file')} that run.py cannot read ({kinds})")
    if folders:
        skipped.append(f"{_counted(folders, 'folder')}, not entered unless named")
    message = f"skipped {' and '.join(skipped)}" if skipped else ""
    if not found:
        tell(f"{folder}: no images or videos in it{message and '; ' + message}")
    elif OTHER_IMAGES & others.keys():
        tell(f"{folder}: {message}")
    elif message:
        say(f"{folder}: {message}")
    return found


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

# SPDX-License-Identifier: AGPL-3.0-only
"""Where images come from: files, folders, videos, cameras; and a model that works on several at once."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Iterator

from .base import Found, Trouble, cores, cv2
from .images import IMAGES, read_image
from .model import Model

VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}


class Crew:
    """A model that works on as many images at once as there are threads: more a second than all threads on one image.

    Frames of a video or a camera come one by one, and soon is better than many: they have all threads.
    """

    def __init__(
        self, folder: Path, spec: dict[str, Any], sources: list[str], threads: int = 0, one_by_one: bool = False
    ) -> None:
        threads = threads or len(cores())
        self.sources = _expanded(sources)
        images = sum(not _moves(source) for source in self.sources)
        # Frames are in a hurry, a GPU is one for all, and a single image has all threads to itself.
        alone = one_by_one or images < len(self.sources) or spec["format"] == "engine"
        self.size = 1 if alone else max(1, min(threads, images))
        self.classes = spec["classes"]
        self.model = Model(folder, spec, threads // self.size, self.size)

    def each(self) -> Iterator[tuple[str, int | None, Any, Found]]:
        """Name, number of the frame (None for an image), picture and what is in it, in the order of the sources."""
        with ThreadPoolExecutor(self.size) as pool:
            waiting: deque[Future[tuple[str, int | None, Any, Found]]] = deque()
            for source in self.sources:
                if _moves(source):
                    while waiting:
                        yield waiting.popleft().result()
                    for name, number, frame in _frames(source):
                        yield name, number, frame, self.model.detect(frame)
                    continue
                assert isinstance(source, Path)
                waiting.append(pool.submit(self._image, source))
                if len(waiting) > 2 * self.size:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _image(self, path: Path) -> tuple[str, None, Any, Found]:
        picture = read_image(path)
        return str(path), None, picture, self.model.detect(picture)


def _moves(source: Path | int) -> bool:
    return isinstance(source, int) or source.suffix.lower() in VIDEOS


def _expanded(sources: list[str]) -> list[Path | int]:
    found: list[Path | int] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES | VIDEOS)
            if not inside:
                raise Trouble(f"{path}: no images or videos in it")
            found += inside
        elif source.isdigit() and not path.exists():
            found.append(int(source))
        elif not path.is_file():
            raise Trouble(f"{path}: no such file or folder")
        else:
            found.append(path)
    return found


def _frames(source: Path | int) -> Iterator[tuple[str, int, Any]]:
    what = f"camera {source}" if isinstance(source, int) else str(source)
    if cv2 is None:
        raise Trouble(f"{what}: videos and cameras need OpenCV; pip install opencv-python-headless")
    capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
    number = 0
    try:
        while True:
            there, frame = capture.read()
            if not there:
                break
            yield what, number, frame
            number += 1
    finally:
        capture.release()
    if not number:
        raise Trouble(f"{what}: cannot be opened, or has no picture")

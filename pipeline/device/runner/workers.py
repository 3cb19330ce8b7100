# SPDX-License-Identifier: AGPL-3.0-only
"""Run the model on several images at once; report unreadable ones and continue."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Iterator, Tuple

from .base import BROKEN_OPENCV, Detections, RunnerError, Spec, cores, cv2, in_a_line, say
from .images import read_image
from .model import Model
from .sources import Video, expand
from .stopping import Signals, Stop
from .tiles import views

Seen = Tuple[str, "int | None", Any, Detections]


class Workers:
    """A model that works on one image per thread, which is faster than all threads on one image.

    Frames of a video or a camera get all threads, because latency matters there. So do the tiles of an image, while the
    next image is read. `problems` counts the sources that were reported and skipped.
    """

    def __init__(
        self, folder: Path, spec: Spec, sources: list[str], threads: int = 0, one_by_one: bool = False
    ) -> None:
        self.problems, self.signals = 0, Signals()
        threads = threads or len(cores())
        self.sources = expand(sources, self.tell)
        if not self.sources:
            return
        images = sum(isinstance(source, Path) for source in self.sources)
        # One at a time: frames, for low latency; a GPU, which all share; a single image, which gets all threads.
        gpu, tiled = spec["format"] == "engine", bool(spec.get("tiles"))
        alone = one_by_one or images < len(self.sources) or (gpu and not tiled)
        self.size = 1 if alone else max(1, min(2 if tiled else threads, images))
        self.classes, self.bits = spec["classes"], spec["input"].get("bits")
        self.threads, self.tiled = threads, tiled and not gpu
        self.at_once = 1 if gpu else threads if tiled else self.size
        self.folder, self.spec = folder, spec
        self.models: dict[int, Model] = {}
        self._load(self.at_once)

    def tell(self, problem: str) -> None:
        self.problems += 1
        say(f"error: {problem}")

    def each(self) -> Iterator[Seen]:
        """Yield name, frame number (None for an image), image and detections, in the order of the sources.

        Unreadable sources are reported and skipped. After a signal only finished images follow.
        """
        pool = ThreadPoolExecutor(self.threads if self.tiled and self.size > 1 else self.size)
        waiting: deque[Future[Seen | str]] = deque()
        try:
            for source in self.sources:
                if isinstance(source, Video):
                    yield from self._results(waiting, 0)
                    yield from self._frames(pool, source)
                else:
                    waiting.append(pool.submit(self._image, source))
                    # The next image is read meanwhile. With tiles, no more: a decoded slide takes a gigabyte.
                    yield from self._results(waiting, max(1, self.size - bool(self.spec.get("tiles"))))
            yield from self._results(waiting, 0)
        except Stop:
            for future in waiting:
                result = future.result() if future.done() else ""
                if not isinstance(result, str):
                    yield result
        finally:
            for future in waiting:
                future.cancel()
            pool.shutdown(wait=False)

    def _results(self, waiting: deque[Future[Seen | str]], most: int) -> Iterator[Seen]:
        """Yield the first results until no more than `most` are waiting."""
        while len(waiting) > most:
            result = self.signals.result_of(waiting[0])
            waiting.popleft()
            if isinstance(result, str):
                self.tell(result)
            else:
                yield result

    def _image(self, path: Path) -> Seen | str:
        try:
            image = read_image(path, self.bits)
            return str(path), None, image, self._detect(image)
        except RunnerError as error:
            return str(error)
        except Exception as error:  # out of memory, or an error of the runtime
            return f"{path}: {in_a_line(error)}"

    def _detect(self, image: Any) -> Detections:
        """Detect with all threads: with tiles, how many inputs the model gets at a time depends on the image."""
        at_once = self.at_once
        if self.tiled:
            number = len(views(image.shape, self.spec["tiles"]))
            if self.size > 1:  # images of one view keep one thread each busy
                self.size = 2 if number > 1 else max(2, self.threads)
            else:
                at_once = min(number, self.threads)
        return self._load(at_once).detect(image)

    def _load(self, at_once: int) -> Model:
        """Return the model for this number of inputs at a time; load it the first time."""
        if at_once not in self.models:
            self.models[at_once] = Model(self.folder, self.spec, self.threads // at_once, at_once)
        return self.models[at_once]

    def _frames(self, pool: ThreadPoolExecutor, video: Video) -> Iterator[Seen]:
        """Yield frames. Reads them in another thread, because a signal cannot interrupt OpenCV while it waits.

        Of a live source, it yields the newest frame each time; the numbers count those between too.
        """
        if cv2 is None:
            why = f"videos and cameras need OpenCV{BROKEN_OPENCV}; pip install opencv-python-headless"
            self.tell(f"{video.name}: {why}")
            return
        number = 0
        capture: Any = None
        try:
            capture = self.signals.result_of(pool.submit(video.open))
            while True:
                success, frame = self.signals.result_of(pool.submit(capture.read))
                number = capture.number if video.live else number
                if not success:
                    break
                yield video.name, number, frame, self._detect(frame)
                number += 1
            problem = video.end(capture, number)
            capture.release()
        except Exception as error:  # from OpenCV or the runtime
            problem = f"broke off after {number} frames: {in_a_line(error)}"
        finally:
            if video.live and capture:
                capture.release()
        if problem:
            self.tell(f"{video.name}: {problem}")

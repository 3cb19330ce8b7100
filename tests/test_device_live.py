"""Cameras: run.py takes the newest frame, and ends cleanly however the camera does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import handmade
import pytest

from pipeline.device.runner import Workers, main, read_spec, sources
from pipeline.device.runner.stopping import Signals

FRAMES = [handmade.image(64, {divmod(number, 4): 0}) for number in range(9)]  # an object in another cell each
MOST_S = 60


class Camera:
    """Takes the place of OpenCV's capture. Before the frames in `pauses` it waits until the test goes on."""

    def __init__(self, *pauses: int, fault: Exception | None = None) -> None:
        self.number, self.fault = 0, fault
        self.reached = {number: threading.Event() for number in pauses}
        self.go = {number: threading.Event() for number in pauses}

    def read(self) -> tuple[bool, Any]:
        if self.number in self.go:
            self.reached[self.number].set()
            assert self.go[self.number].wait(MOST_S)
        if self.number == len(FRAMES):
            if self.fault:
                raise self.fault
            return False, None
        self.number += 1
        return True, FRAMES[self.number - 1]

    def get(self, fact: int) -> float:
        return 0.0

    def release(self) -> None:
        pass


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade.bundled(tmp_path_factory.mktemp("handmade"))


@pytest.fixture(autouse=True)
def no_thread_remains() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(MOST_S)
        assert not thread.is_alive()


def workers_for(bundle: Path, source: str, camera: Camera, monkeypatch: pytest.MonkeyPatch) -> Workers:
    monkeypatch.setattr(cv2, "VideoCapture", lambda source: camera)
    return Workers(bundle, read_spec(bundle), [source], 1)


@pytest.mark.parametrize("source", ["0", "rtsp://127.0.0.1/stream"])
@pytest.mark.parametrize("fault", [None, RuntimeError("unplugged")])
def test_a_camera_gives_its_newest_frame(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: str, fault: Any
) -> None:
    camera = Camera(1, 9, fault=fault)
    workers = workers_for(bundle, source, camera, monkeypatch)
    seen = workers.each()
    assert next(seen)[1] == 0
    camera.go[1].set()  # while the model works, eight frames come
    assert camera.reached[9].wait(MOST_S)
    _, number, image, found = next(seen)
    assert number == 8 and (image == FRAMES[8]).all() and found.corners.tolist() == [[0, 32, 16, 48]]
    camera.go[9].set()
    assert list(seen) == [] and workers.problems == 1
    said = "broke off after 9 frames: unplugged" if fault else "broke off after 9 frames"
    assert capsys.readouterr().err.endswith(f": {said}\n")


@pytest.mark.parametrize("source", ["http://127.0.0.1/film.mp4", "film.mp4"])
def test_a_film_gives_every_frame(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("film.mp4").touch()
    workers = workers_for(bundle, source, Camera(), monkeypatch)
    assert [number for _, number, _, _ in workers.each()] == list(range(9))


def test_a_window_that_is_closed_ends_the_camera(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `q` does; `no_thread_remains` would wait for frame 9 for ever."""
    camera = Camera(1, 9)
    seen = workers_for(bundle, "0", camera, monkeypatch).each()
    next(seen)
    seen.close()  # type: ignore[attr-defined]  # a generator
    camera.go[1].set()


class Window:
    """Takes the place of OpenCV's window. It has `keys`, then none, and `at` a call of `waitKey` something happens."""

    def __init__(self, keys: list[int], at: int, event: Callable[[], Any], knows: bool = True) -> None:
        self.keys, self.at, self.event = keys, at, event
        self.visible = 1.0 if knows else -1.0
        self.calls = 0

    def wait(self, milliseconds: int) -> int:
        assert 0 < milliseconds <= 100 and self.calls < 50
        self.calls += 1
        if self.calls == self.at:
            self.event()
        return self.keys.pop(0) if self.keys else -1

    def close(self) -> None:
        self.visible = 0.0


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize(("key", "more"), [(ord("n"), True), (ord("q"), False), (27, False)])
def test_a_key_ends_the_wait(monkeypatch: pytest.MonkeyPatch, key: int, more: bool, knows: bool) -> None:
    window = Window([-1, -1, key], 0, print, knows)
    assert shown_in(window, Signals(), monkeypatch) is more and window.calls == 3


def test_a_signal_or_closing_the_window_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    signals = Signals()
    window = Window([], 5, lambda: signals._catch(signal.SIGINT, None))
    assert shown_in(window, signals, monkeypatch) and window.calls == 5
    window = Window([], 5, lambda: window.close())
    assert not shown_in(window, Signals(), monkeypatch) and window.calls == 5


def shown_in(window: Window, signals: Signals, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(cv2, "imshow", lambda name, drawn: None)
    monkeypatch.setattr(cv2, "waitKey", window.wait)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda name, fact: window.visible)
    return main._shown(FRAMES[0], True, signals)


@pytest.mark.parametrize(
    ("source", "live"),
    [("0", True), ("RTSP://a/b", True), ("rtsps://a/b", True), ("/dev/null", True), ("http://a/b", False), ("udp://@:1", False)],
)  # fmt: skip
def test_only_cameras_leave_out_frames(source: str, live: bool) -> None:
    [video] = sources.expand([source], pytest.fail)
    assert isinstance(video, sources.Video) and video.live == live


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://cam/live", "rtsp://cam/live"),
        ("rtsp://cam:554/live@1", "rtsp://cam:554/live@1"),
        ("rtsp://cam/live@1", "rtsp://cam/live@1"),
        ("http://[::1]:8080/live@1", "http://[::1]:8080/live@1"),
        ("http://cam?at=me@home:1", "http://cam?at=me@home:1"),
        ("rtsp://admin@cam/live", "rtsp://cam/live"),
        ("rtsp://admin:p@ss@cam:554/live@1", "rtsp://cam:554/live@1"),
        ("rtsp://admin:p@ss@cam:554/live", "rtsp://cam:554/live"),
        ("rtsp://admin:pa/ss@cam/live", "rtsp://cam/live"),
        ("rtsp://admin:pa?s#s@cam/live", "rtsp://cam/live"),
        ("rtsp://admin:@cam/live", "rtsp://cam/live"),
        ("rtsp://ad@min:secret@cam/live", "rtsp://cam/live"),
        ("rtsp://cam/user=admin&password=secret&channel=1", "rtsp://cam/user=admin&password=***&channel=1"),
        ("rtsp://cam/user=admin_password=secret_channel=1", "rtsp://cam/user=admin_password=***"),
        ("http://cam/video?loginuse=me&loginpas=secret&access_token=secret", "http://cam/video?loginuse=me&loginpas=***&access_token=***"),
        ("http://cam/video?usr=me&PWD=secret", "http://cam/video?usr=me&PWD=***"),
    ],
)  # fmt: skip
def test_passwords_are_not_shown(address: str, shown: str) -> None:
    [video] = sources.expand([address], pytest.fail)
    assert isinstance(video, sources.Video) and (video.source, video.name) == (address, shown)


HANGING = """
import runpy, sys, threading
import cv2
import numpy as np

class Hanging:
    frames = [np.zeros((64, 64, 3), np.uint8)]

    def __init__(self, source): pass

    def read(self):
        if not self.frames:
            threading.Event().wait()
        return True, self.frames.pop()

cv2.VideoCapture = Hanging
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals as on Linux")
def test_ctrl_c_ends_a_run_whose_camera_hangs(bundle: Path) -> None:
    command = [sys.executable, "-c", HANGING, str(bundle / "run.py"), "0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # the tests may run under nohup
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["frame"] == 0
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=MOST_S)
    assert (process.returncode, stderr) == (128 + signal.SIGINT, "stopped; the results of 1 images were printed\n")

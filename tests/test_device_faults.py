"""run.py when things go wrong: each kind of fault a few times. `benchmarks/device_faults.py` runs hundreds."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import cv2
import faults
import handmade
import numpy as np
import pytest

from pipeline.device.runner import bench, read_spec


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade.bundled(tmp_path_factory.mktemp("handmade"), faults.SIZE, faults.NAMES)


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals, limits and names of files as on Linux")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.__name__)
def test_no_detection_is_lost(bundle: Path, tmp_path: Path, fault: faults.Fault, seed: int) -> None:
    fault(faults.Device(sys.executable, bundle, tmp_path), random.Random(seed))


@pytest.fixture
def device(bundle: Path, tmp_path: Path) -> faults.Device:
    return faults.Device(sys.executable, bundle, tmp_path)


def stopped_by(number: signal.Signals, device: faults.Device, folder: Path, file: Path, writing: Path) -> str:
    """Start a run that writes `file`, send the signal once `writing` has a line, and return what the run says."""
    with subprocess.Popen(
        device.command(folder, "--json", file),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # the tests may run under nohup
    ) as process:
        while not faults.lines_of(writing):
            assert process.poll() is None
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    return stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_the_run_and_the_file_gets_its_final_name(device: faults.Device, number: signal.Signals) -> None:
    folder, held = faults.folder_of(device.place, random.Random(0), faults.numbered(1500))
    file = device.place / "found.jsonl"
    said = stopped_by(number, device, folder, file, file)
    found = faults.images_named(file.read_bytes(), held)
    assert 0 < len(found) < len(held)
    assert said == f"stopped; the results of {len(found)} images are in {file}\n"
    assert not list(device.place.glob("*.partial*"))


def test_a_signal_does_not_replace_the_file_of_an_earlier_run(device: faults.Device) -> None:
    folder, held = faults.folder_of(device.place, random.Random(0), faults.numbered(1500))
    file, partial = device.place / "found.jsonl", device.place / "found.jsonl.partial"
    file.write_text("earlier\n")
    said = stopped_by(signal.SIGINT, device, folder, file, partial)
    found = faults.images_named(partial.read_bytes(), held)
    assert file.read_text() == "earlier\n" and 0 < len(found) < len(held)
    first, second = said.splitlines()
    assert first == f"{partial}: holds the results so far; {file} is still that of an earlier run"
    assert second == f"stopped; the results of {len(found)} images are in {partial}"


def test_an_interrupted_run_keeps_the_file_of_an_earlier_one(device: faults.Device) -> None:
    folder, held = faults.folder_of(device.place, random.Random(0), faults.numbered(40))
    file, limit = device.place / "found.jsonl", (2500, 2500)
    file.write_text("earlier\n")
    done = device.run(folder, "--json", file, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    partial = device.place / "found.jsonl.partial"
    assert done.returncode == 1 and file.read_text() == "earlier\n"
    found = faults.images_named(partial.read_bytes(), held)
    first, second = done.stderr.decode().splitlines()
    assert first == f"{partial}: holds the results so far; {file} is still that of an earlier run"
    assert second == f"error: {file}: File too large; the {len(found)} lines before are complete"


@pytest.mark.parametrize(("name", "code"), [("film.avi", "MJPG"), ("film.mp4", "mp4v"), ("film.mkv", "MJPG")])
def test_a_truncated_video_is_an_error_and_a_whole_one_is_not(device: faults.Device, name: str, code: str) -> None:
    film = device.place / name
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*code), 10, (64, 64))
    for _ in range(50):
        writer.write(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    writer.release()
    done = device.run(film)
    assert (len(done.stdout.splitlines()), done.stderr, done.returncode) == (50, b"", 0)
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    done = device.run(film)
    frames = [json.loads(line)["frame"] for line in done.stdout.splitlines()]
    assert frames == list(range(len(frames))) and len(frames) < 50
    if name != "film.mkv":  # whose number of frames is unknown
        assert done.returncode == 1 and done.stderr.startswith(f"error: {film}: ".encode())


def film_of(frames: int, path: Path, side: int = 64) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (side, side))
    cells = {(row, column): 0 for row in range(side // 64) for column in range(side // 64)}  # one object at 64 pixels
    for _ in range(frames):
        writer.write(handmade.image(side, cells))
    writer.release()
    return path


def test_bench_names_each_problem_once_and_measures_the_rest(device: faults.Device) -> None:
    good, bad, missing = (device.place / name for name in ("good.png", "bad.png", "missing.png"))
    good.write_bytes(cv2.imencode(".png", handmade.image(64, {(0, 0): 0, (1, 1): 1}))[1].tobytes())
    bad.write_bytes(b"no image")
    film = film_of(50, device.place / "film.avi")
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    done = device.run(good, bad, missing, film, "--bench", "3")
    assert json.loads(done.stdout)["boxes"] >= 2 and done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert lines[:2] == [
        f"error: {missing}: no such file or folder",
        f"error: {bad}: not an image that OpenCV can read",
    ]
    assert len(lines) == 3 and lines[2].startswith(f"error: {film}: ")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("missing.jpg", "no image can be read, so there is nothing to measure; name readable images"),
        ("0", "camera 0: --bench measures files; name images or films"),
        ("rtsp://me:secret@127.0.0.1:1/stream", "rtsp://127.0.0.1:1/stream: --bench measures files; name images or films"),
    ],
)  # fmt: skip
def test_bench_refuses_what_it_cannot_measure(device: faults.Device, source: str, said: str) -> None:
    done = device.run(source, "--bench", "3")
    assert done.stderr.decode().splitlines()[-1] == f"error: {said}" and (done.stdout, done.returncode) == (b"", 1)


def test_bench_holds_one_frame_at_a_time(device: faults.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BENCH_SECONDS", 0)
    film = film_of(200, device.place / "film.avi", 320)
    tracemalloc.start()
    try:
        measured, problems = bench.bench(device.bundle, read_spec(device.bundle), [str(film)], 0, 1)
        assert (measured["boxes"], problems) == (200, 0)
        assert tracemalloc.get_traced_memory()[1] < 100 * 320 * 320 * 3
    finally:
        tracemalloc.stop()


def test_a_password_in_an_address_is_not_shown(device: faults.Device) -> None:
    done = device.run("rtsp://me:secret@127.0.0.1:1/stream")
    assert done.stderr.endswith(b"error: rtsp://127.0.0.1:1/stream: cannot be opened, or has no image\n")
    assert b"secret" not in done.stderr and done.returncode == 1


def test_devices_and_pipes_are_written_to_and_not_replaced(device: faults.Device) -> None:
    folder, _ = faults.folder_of(device.place, random.Random(0), faults.numbered(3))
    link = device.place / "found.jsonl"
    link.symlink_to("elsewhere.jsonl")
    assert device.run(folder, "--json", link).returncode == 0
    assert link.is_symlink() and len(link.read_bytes().splitlines()) == 3
    assert device.run(folder, "--json", "/dev/null").returncode == 0 and Path("/dev/null").is_char_device()
    done = device.run(folder, "--json", "/dev/full")
    assert done.returncode == 1 and done.stderr == b"error: /dev/full: No space left on device\n"
    done = device.run(folder, "--json", folder)
    assert done.returncode == 1 and done.stderr == f"error: {folder}: a folder; name a file\n".encode()


def test_a_stream_that_ends_is_an_error(device: faults.Device) -> None:
    """A pipe with a video in it counts as a live stream, like an address or a camera."""
    film, pipe = device.place / "film.mjpeg", device.place / "pipe"
    image = cv2.imencode(".jpg", handmade.image(64, {(0, 0): 0}))[1].tobytes()
    film.write_bytes(image * 9)
    os.mkfifo(pipe)
    with subprocess.Popen(["cp", film, pipe]):
        done = device.run(pipe)
    assert done.returncode == 1 and b": broke off after " in done.stderr
    assert len(done.stdout.splitlines()) == 9

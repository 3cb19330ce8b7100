"""Seeded faults for run.py: what goes wrong on a device, and what must hold regardless.

The model is handmade, so the objects in each image are known and every output line is checked against them. Each
fault takes the device and a random generator, returns what it did, and raises AssertionError on a failure.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import handmade
import numpy as np

SIZE = 64
CELLS = [(row, column) for row in range(SIZE // handmade.CELL) for column in range(SIZE // handmade.CELL)]
NAMES = ("disc", "Ölfleck", "裂纹")
Objects = set[tuple[str, float, float]]


@dataclass
class Device:
    """A bundle, the Python that runs it, and an empty folder per fault."""

    python: str
    bundle: Path
    place: Path

    def command(self, *arguments: str | Path) -> list[str | Path]:
        return [self.python, self.bundle / "run.py", *arguments]

    def run(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(self.command(*arguments), capture_output=True, check=False, timeout=120, **options)
        quiet(done.stderr)
        return done


def quiet(stderr: bytes) -> None:
    assert b"Traceback" not in stderr and b"Exception ignored" not in stderr, stderr.decode(errors="replace")


def draw(rng: random.Random) -> tuple[np.ndarray[Any, Any], Objects]:
    cells = {cell: rng.randrange(len(NAMES)) for cell in rng.sample(CELLS, rng.randint(0, 6))}
    objects = {(NAMES[kind], 16.0 * column, 16.0 * row) for (row, column), kind in cells.items()}
    return handmade.image(SIZE, cells), objects


def folder_of(place: Path, rng: random.Random, names: list[bytes]) -> tuple[Path, dict[bytes, Objects]]:
    """Write images under these names; return the objects in each."""
    folder = place / "images"
    folder.mkdir()
    held = {}
    for name in names:
        image, objects = draw(rng)
        path = os.fsencode(folder) + b"/" + name
        suffix = os.fsdecode(name[-4:]) if name[-4:] in (b".png", b".bmp", b".tif") else ".png"
        Path(os.fsdecode(path)).write_bytes(cv2.imencode(suffix, image)[1].tobytes())
        held[path] = objects
    return folder, held


def numbered(count: int) -> list[bytes]:
    return [b"%04d.png" % number for number in range(count)]


def images_named(data: bytes, held: dict[bytes, Objects]) -> list[bytes]:
    """The images these lines name, after checking that each line is whole, unique, and lists the image's objects."""
    assert not data or data.endswith(b"\n")
    found = []
    for line in data.splitlines():
        record = json.loads(line)
        path = os.fsencode(record["file"])
        assert {(one["class"], *one["bbox"][:2]) for one in record["objects"]} == held[path]
        assert (record["height"], record["width"]) == (SIZE, SIZE)
        found.append(path)
    assert len(set(found)) == len(found)
    return found


def lines_of(file: Path) -> bytes:
    """The output a run has left, under its final name or its name until it is finished."""
    for path in (file, file.with_name(f"{file.name}.partial"), file):  # it may be renamed meanwhile
        with contextlib.suppress(FileNotFoundError):
            return path.read_bytes()
    return b""


# --- The faults -----------------------------------------------------------------------------------


def a_signal(device: Device, rng: random.Random) -> str:
    """A signal at any moment, once or twice. Lines cover the first images, and each drawn image has its line."""
    folder, held = folder_of(device.place, rng, numbered(150))
    file, drawn = device.place / "found.jsonl", device.place / "drawn"
    which = rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
    command = device.command(folder, "--json", file, "--draw", drawn, "--threads", str(rng.choice([1, 2, 4])))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        if rng.random() < 0.3:  # while libraries are loaded
            time.sleep(rng.uniform(0.05, 0.5))
        else:
            wanted = rng.randrange(len(held) * 3 // 4)
            while process.poll() is None and lines_of(file).count(b"\n") < wanted:
                time.sleep(0.001)
        for _ in range(rng.choice([1, 1, 2])):
            process.send_signal(which)
        _, stderr = process.communicate(timeout=60)
    quiet(stderr)
    found = images_named(lines_of(file), held)
    assert found == sorted(held)[: len(found)]
    shown = {path.stem for path in drawn.glob("[!.]*")} if drawn.is_dir() else set()
    # An image is drawn only after its line is written.
    assert len(shown) <= len(found)
    if process.returncode > 0:
        assert process.returncode == 128 + which and file.exists() == bool(found)
    elif process.returncode == 0:
        assert len(found) == len(held) and file.exists()
    else:  # killed before it listens, or after everything is done
        assert process.returncode == -which
    return f"{signal.Signals(which).name} after {len(found)} of {len(held)} images"


def cut_off_and_started_again(device: Device, rng: random.Random) -> str:
    """As after a power cut: the first run's results stay beside the second's."""
    folder, held = folder_of(device.place, rng, numbered(100))
    file = device.place / "found.jsonl"
    partial = file.with_name("found.jsonl.partial")
    with subprocess.Popen(device.command(folder, "--json", file), stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (partial.exists() and partial.stat().st_size > 100):
            time.sleep(0.001)
        process.kill()
    before = lines_of(file)
    done = device.run(folder, "--json", file)
    assert done.returncode == 0 and images_named(file.read_bytes(), held) == sorted(held)
    kept = partial.read_bytes() if partial.exists() else file.read_bytes()
    assert kept == before
    return f"{len(images_named(before, held))} images before"


def damaged_images(device: Device, rng: random.Random) -> str:
    """Intact images are processed, damaged ones named, and the exit status shows it."""
    names = [b"%02d.%s" % (number, rng.choice([b"png", b"bmp", b"tif"])) for number in range(12)]
    folder, held = folder_of(device.place, rng, names)
    spoilt = {}
    for path in rng.sample(sorted(held), rng.randint(1, 5)):
        file = Path(os.fsdecode(path))
        data = file.read_bytes()
        ways: dict[str, bytes] = {
            "empty": b"",
            "cut": data[: rng.randrange(1, len(data) // 2)],
            "zeros": bytes(len(data)),
            "noise": rng.randbytes(len(data)),
            "text": b"<html>404</html>",
            "HEIC": b"\0\0\0\x18ftypheic" + rng.randbytes(99),
            "half a JPEG": cv2.imencode(".jpg", draw(rng)[0])[1].tobytes()[: rng.randrange(30, 400)],
        }
        spoilt[path] = rng.choice(sorted(ways))
        file.write_bytes(ways[spoilt[path]])
    done = device.run(folder)
    assert done.returncode == 1
    assert images_named(done.stdout, held) == sorted(held.keys() - spoilt.keys())
    named = [
        line for line in done.stderr.decode().splitlines() if line.startswith("error: ")
    ]  # libpng adds its own lines
    assert [line.split(": ")[1] for line in named] == [os.fsdecode(path) for path in sorted(spoilt)]
    return ", ".join(spoilt.values())


def a_damaged_video(device: Device, rng: random.Random) -> str:
    """Frames up to the damage, a line that reports it, and the images after it."""
    folder, held = folder_of(device.place, rng, numbered(3))
    film, frames = folder / "0001film.avi", rng.randint(8, 40)
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 10, (SIZE, SIZE))
    contents = [draw(rng) for _ in range(frames)]
    for image, _ in contents:
        writer.write(image)
    writer.release()
    whole = film.read_bytes()
    way = rng.choice(["whole", "cut", "zeros in it", "noise at its head"])
    if way == "cut":
        film.write_bytes(whole[: rng.randrange(len(whole))])
    elif way == "zeros in it":
        at = rng.randrange(len(whole) // 2)
        film.write_bytes(whole[:at] + bytes(len(whole) - at))
    elif way == "noise at its head":
        film.write_bytes(rng.randbytes(300) + whole[300:])
    done = device.run(folder)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    seen = [record["frame"] for record in records if "frame" in record]
    rest = b"".join(line + b"\n" for line in done.stdout.splitlines() if b'"frame"' not in line)
    assert seen == list(range(len(seen))) and images_named(rest, held) == sorted(held)
    if way == "whole":
        assert len(seen) == frames and done.returncode == 0
    named = b"0001film.avi: " in done.stderr
    assert named == (done.returncode == 1) and (len(seen) >= 0.99 * frames - 2 or named)
    return f"{way}: {len(seen)} of {frames} frames"


def a_full_disk(device: Device, rng: random.Random) -> str:
    """Whole lines as far as they fit; the file of an earlier run stays."""
    folder, held = folder_of(device.place, rng, numbered(60))
    file, room = device.place / "found.jsonl", rng.randrange(0, 6000)
    earlier = rng.choice([b"", b"{}\n"])
    if earlier:
        file.write_bytes(earlier)
    to_screen = rng.random() < 0.4

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    if to_screen:
        screen = device.place / "screen.txt"
        with screen.open("wb") as output:
            done = subprocess.run(device.command(folder), stdout=output, stderr=subprocess.PIPE, preexec_fn=limit, check=False)  # fmt: skip
        quiet(done.stderr)
        data = screen.read_bytes()
    else:
        done = device.run(folder, "--json", file, preexec_fn=limit)
        partial = file.with_name("found.jsonl.partial")
        data = (partial.read_bytes() if partial.exists() else b"") if earlier else lines_of(file)
        assert not earlier or file.read_bytes() == earlier
        assert not earlier or not data or str(partial).encode() in done.stderr
    found = images_named(data, held)
    assert done.returncode == 1 and found == sorted(held)[: len(found)] and len(data) <= room
    assert (b"standard output: " if to_screen else b"found.jsonl: ") in done.stderr
    assert room - len(data) < 600  # longer than any line, so no line is missing that would have fitted
    return f"{room} bytes: {len(found)} images"


def odd_names(device: Device, rng: random.Random) -> str:
    """Every name can be traced back to its file."""
    parts = [
        "é".encode("latin-1"),
        "图".encode(),
        b"\n",
        b'"',
        b"\\",
        b"-",
        b" ",
        b"\xff\xfe",
        "😀".encode(),
        b"%d",
        b"'",
        b"\x1b[31m",
        b"a",
    ]
    names = {b"".join(rng.choices(parts, k=rng.randint(1, 9))) + b"%d.png" % number for number in range(8)}
    names.add(b"n" * rng.randint(200, 251) + b".png")
    folder, held = folder_of(device.place, rng, sorted(names))
    file, drawn = device.place / os.fsdecode(b"found \xe9.jsonl"), device.place / "drawn"
    done = device.run(folder, "--json", file, "--draw", drawn)
    assert done.returncode == 0 and images_named(file.read_bytes(), held) == sorted(
        held, key=lambda path: os.fsdecode(path)
    )
    assert len(list(drawn.iterdir())) == len(held)
    by_number, summary = done.stderr.splitlines()
    assert b"drawn by number" in by_number and summary.startswith(b"%d images, " % len(held))
    return f"{len(names)} names"


def an_odd_terminal(device: Device, rng: random.Random) -> str:
    """Valid JSON whatever the terminal supports, and one line where there is no terminal."""
    folder, held = folder_of(device.place, rng, ["图0.png".encode(), b"\xe9.png", b"2.png"])
    way = rng.choice(
        ["ascii", "latin-1", "cp1252", "utf-8", "C", "POSIX", "no stdout", "no stderr", "a full device", "closed pipe"]
    )
    environment = {**os.environ}
    if way in ("C", "POSIX"):
        environment.update(LC_ALL=way, LANG=way)
    elif len(way.split()) == 1:
        environment["PYTHONIOENCODING"] = way
    (folder / "3.png").write_bytes(b"no image")
    if way == "closed pipe":
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(device.command(folder), stdout=write, stderr=subprocess.PIPE, check=False)
        os.close(write)
        expected = b"error: standard output: Broken pipe"
    elif way == "a full device":
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(device.command(folder), stdout=full, stderr=subprocess.PIPE, check=False)
        expected = b"error: standard output: No space left on device"
    elif way in ("no stdout", "no stderr"):
        closed = {"no stdout": ">&-", "no stderr": "2>&-"}[way]
        done = subprocess.run(["sh", "-c", f'"$@" {closed}', "sh", *device.command(folder)], capture_output=True, check=False)  # fmt: skip
        expected = b"error: there is no standard output; name a file with --json" if way == "no stdout" else b""
    else:
        done = device.run(folder, env=environment)
        expected = f"error: {folder}/3.png: not an image that OpenCV can read".encode()
    quiet(done.stderr)
    assert done.returncode == 1 and (done.stderr.splitlines() or [b""])[-1] == expected
    if way not in ("no stdout", "a full device", "closed pipe"):
        assert set(images_named(done.stdout, held)) == held.keys()
    return way


def odd_sources(device: Device, rng: random.Random) -> str:
    """Invalid sources are named, and the rest is processed."""
    folder, held = folder_of(device.place, rng, numbered(4))
    (folder / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "notes.txt").write_bytes(b"x")
    (folder / "._0000.png").write_bytes(b"x")
    (folder / "inside").mkdir()
    (folder / "gone.png").symlink_to("nowhere")
    wrong = [
        "missing.png",
        "99",
        "²",
        "x" * 300,
        "rtsp://a:secret@127.0.0.1:1/s",
        "http://127.0.0.1:1/a.mp4",
        "/dev/video77",
        str(device.place / "empty"),
        "nul\u2028.jpg",
    ]
    (device.place / "empty").mkdir()
    chosen = rng.sample(wrong, rng.randint(1, 4))
    sources = [*chosen, str(folder)]
    rng.shuffle(sources)
    done = device.run(*sources)
    assert done.returncode == 1 and images_named(done.stdout, held) == sorted(held)
    named = done.stderr.decode()
    assert b"secret" not in done.stderr
    assert (
        f"{folder}: skipped 2 files that run.py cannot read (.heic 1, .txt 1) and 1 folder, not entered unless named"
        in named
    )
    assert f"{folder}/gone.png: No such file" in named
    # Older OpenCV adds its own lines.
    assert sum(line.startswith("error: ") for line in named.splitlines()) == len(chosen) + 2
    return ", ".join(name.rpartition("/")[2][:20] for name in chosen)


Fault = Callable[[Device, random.Random], str]
FAULTS: list[Fault] = [
    a_signal,
    cut_off_and_started_again,
    damaged_images,
    a_damaged_video,
    a_full_disk,
    odd_names,
    an_odd_terminal,
    odd_sources,
]

"""Time the conversion of COCO JSON to YOLO text: ours beside its peers, in turns, each run in a separate process.

make bench-convert      (installs the peers into .venv-peers: datumaro and supervision need other versions than we do)

The dataset is generated, with as many images and boxes as COCO's val2017. `annotations` covers reading the JSON,
checking every box and writing a label file for each image; the peers do the same without any checks. Supervision is
left out of the runs with polygons: it paints a mask for each, which takes minutes and is not needed for boxes.
What only we do (decoding and hashing every image, and searching for near-duplicates) is reported separately below.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import math
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

VAL_IMAGES, VAL_BOXES = 5_000, 36_781  # of COCO's val2017
CLASSES = 80
ROUNDS = 5
SIZES = (1_000, 5_000, 20_000, 50_000)
PICTURES = 50  # distinct images; the others are links to them under other names, and count as duplicates


def generate(folder: Path, images: int, boxes: int, polygons: bool = False, seed: int = 0) -> None:
    """Write a COCO source of 640x480 images in COCO's own folders, with polygons of twenty points on request."""
    import cv2
    import numpy as np

    rng = random.Random(seed)
    (folder / "images" / "train").mkdir(parents=True)
    (folder / "annotations").mkdir()
    noise = np.random.default_rng(seed)
    pictures = []
    for number in range(min(PICTURES, images)):
        coarse = noise.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
        pictures.append(folder / f".picture{number}.jpg")
        cv2.imwrite(str(pictures[-1]), picture)
    records = []
    for number in range(images):
        name = f"{number:012d}.jpg"
        (folder / "images" / "train" / name).hardlink_to(pictures[number % len(pictures)])
        records.append({"id": number, "file_name": name, "width": 640, "height": 480})
    annotations = []
    for number in range(boxes):
        w, h = rng.uniform(8, 200), rng.uniform(8, 200)
        x, y = rng.uniform(0, 640 - w), rng.uniform(0, 480 - h)
        outline = [
            round(coordinate, 2)
            for angle in range(0, 360, 18)
            for coordinate in (
                x + w / 2 * (1 + math.cos(math.radians(angle))),
                y + h / 2 * (1 + math.sin(math.radians(angle))),
            )
        ]
        annotations.append(
            {
                "id": number,
                "image_id": rng.randrange(images),
                "category_id": rng.randrange(1, CLASSES + 1),
                "bbox": [round(side, 2) for side in (x, y, w, h)],
                "area": round(w * h, 2),
                "iscrowd": 0,
            }
            | ({"segmentation": [outline]} if polygons else {})
        )
    categories = [{"id": number, "name": f"class {number}", "supercategory": ""} for number in range(1, CLASSES + 1)]
    (folder / "annotations" / "instances_train.json").write_text(
        json.dumps({"images": records, "annotations": annotations, "categories": categories})
    )


# --- One job each: (source, target) -> seconds of the work itself, without imports ----------------------


def ours(source: Path, target: Path) -> float:
    from pipeline import files, formats
    from pipeline.boxes import write_labels
    from pipeline.config.data import Convert
    from pipeline.convert import judge, receipt, stage
    from pipeline.formats.source import Source
    from pipeline.image_files.reading import Checked

    @formats.without_collection()  # as in convert.main
    def judge_and_write(read: Source) -> None:
        # The sizes that the annotations declare, instead of decoding the images.
        sizes = {item.image: item.declared_size or (0, 0) for item in read.images}
        checked = {image: Checked(None, size, size) for image, size in sizes.items()}
        classes = stage.class_map(read, config)
        names = tuple(filter(None, classes.values()))
        judged = stage.judge_all(read, checked, judge.frames(read.images, checked), classes, config)
        target.mkdir()
        for image in judged:
            write_labels(f"{target}/{image.item.image.stem}.txt", image.boxes, names, image.checked.size)
        split_of = {image.name: "train" for image in judged}
        files.write_json(target / "receipt.json", receipt.make(judged, split_of, names, source))

    start = time.perf_counter()
    config = Convert(source=source, format="coco")
    judge_and_write(formats.read(source, "coco")[1])
    return time.perf_counter() - start


def ultralytics(source: Path, target: Path) -> float:
    from ultralytics.data.converter import convert_coco

    start = time.perf_counter()
    convert_coco(str(source / "annotations"), str(target), use_segments=False, cls91to80=False)
    return time.perf_counter() - start


def globox(source: Path, target: Path) -> float:
    from globox import AnnotationSet

    start = time.perf_counter()
    found = AnnotationSet.from_coco(source / "annotations" / "instances_train.json")
    label_to_id = {label: number for number, label in enumerate(sorted(found._labels()))}
    found.save_yolo_v5(target, label_to_id=label_to_id)
    return time.perf_counter() - start


def supervision(source: Path, target: Path) -> float:
    from supervision import DetectionDataset

    start = time.perf_counter()
    found = DetectionDataset.from_coco(
        str(source / "images" / "train"), str(source / "annotations" / "instances_train.json")
    )
    found.as_yolo(annotations_directory_path=str(target))
    return time.perf_counter() - start


def datumaro(source: Path, target: Path) -> float:
    from datumaro import Dataset

    start = time.perf_counter()
    found = Dataset.import_from(str(source), "coco_instances")
    found.export(str(target), "yolo", save_media=False)
    return time.perf_counter() - start


class Watched(threading.Thread):
    """Track the peak memory (MB) of the largest worker process, sampled ten times per second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.over = 0.0, threading.Event()

    def run(self) -> None:
        import psutil  # imported late, because peers' environments run this file too

        while not self.over.wait(0.1):
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):  # the process has ended
                    self.most = max(self.most, child.memory_info().rss / 2**20)

    def __enter__(self) -> Watched:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()


def extra(source: Path, target: Path) -> float:
    """Print the cost of checking the pixels, which no other tool does."""
    from pipeline import formats, parallel
    from pipeline.image_files import duplicates, reading

    paths = [item.image for item in formats.read(source, "coco")[1].images]
    start = time.perf_counter()
    with Watched() as watched:
        checked = list(parallel.ordered(reading.check, paths, None, "check"))
    read = time.perf_counter()
    duplicates.near_duplicates([item.fingerprint for item in checked if item.fingerprint])
    done = time.perf_counter()
    print(json.dumps({"check": read - start, "near": done - read, "megabytes": watched.most}), file=sys.stderr)
    return done - start


JOBS: dict[str, Callable[[Path, Path], float]] = {
    job.__name__: job for job in (ours, ultralytics, globox, supervision, datumaro, extra)
}


# --- Turns ----------------------------------------------------------------------------------------------


def run(job: str, source: Path, python: Path) -> tuple[float, dict[str, float]]:
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        command = [str(python), __file__, "--job", job, "--source", str(source), "--target", f"{folder}/out"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{job}: {done.stderr.strip().splitlines()[-1]}")
    extra = json.loads(done.stderr.splitlines()[-1]) if job == "extra" else {}
    return float(done.stdout.splitlines()[-1]), extra


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", choices=JOBS)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--target", type=Path)
    parser.add_argument("--peers", type=Path, default=Path(".venv-peers/bin/python"))
    parser.add_argument("--no-growth", action="store_true", help="leave out the sets up to 50,000 images")
    options = parser.parse_args()
    if options.job:
        print(JOBS[options.job](options.source.resolve(), options.target))
        return
    own = Path(sys.executable)
    pythons = {"ours": own, "ultralytics": own, "globox": own}
    if options.peers.is_file():
        pythons |= {"supervision": options.peers, "datumaro": options.peers}
    work = Path(tempfile.mkdtemp(prefix="bench-convert-"))
    try:
        print("# Conversion, timed\n\nWritten by `make bench-convert`, with TMPDIR on a RAM disk.\n")
        print(machine(options.peers if options.peers.is_file() else own))
        compare(work / "boxes", pythons, polygons=False)
        pythons.pop("supervision", None)
        compare(work / "polygons", pythons, polygons=True)
        if not options.no_growth:
            growth(work, own)
    finally:
        shutil.rmtree(work)


def compare(source: Path, pythons: dict[str, Path], polygons: bool) -> None:
    generate(source, VAL_IMAGES, VAL_BOXES, polygons)
    seconds: dict[str, list[float]] = {job: [] for job in pythons}
    for _ in range(ROUNDS):
        for job, python in pythons.items():  # in turns, so that a slow minute affects all of them
            seconds[job].append(run(job, source, python)[0])
    mine = statistics.median(seconds["ours"])
    what = f"{VAL_IMAGES:,} images, {VAL_BOXES:,} boxes{', with polygons' if polygons else ''}"
    print(f"\n{what}, COCO -> YOLO, annotations only, without imports, median of {ROUNDS}:\n")
    print("| | seconds | spread | times ours |\n|---|---|---|---|")
    for job, times in seconds.items():
        middle = statistics.median(times)
        print(f"| {job} | {middle:.2f} | {min(times):.2f}-{max(times):.2f} | {middle / mine:.1f} |")


def growth(work: Path, python: Path) -> None:
    """Print the best time of several rounds per size: other load only adds time, and would distort the slope."""
    rows: list[tuple[int, float, dict[str, float]]] = []
    for images in SIZES:
        source = work / str(images)
        generate(source, images, images * VAL_BOXES // VAL_IMAGES)
        best = min(run("ours", source, python)[0] for _ in range(ROUNDS))
        more = [run("extra", source, python)[1] for _ in range(2)]
        rows.append((images, best, {key: min(one[key] for one in more) for key in more[0]}))
        shutil.rmtree(source)
    print(f"\nThe best of {ROUNDS} runs, or of 2 where pixels are read:\n")
    print("| images | annotations, s | decode, hash, fingerprint, s | near-duplicates, s | memory of a process, MB |")
    print("|---|---|---|---|---|")
    for images, best, least in rows:
        cells = (
            f"{images:,}",
            f"{best:.2f}",
            f"{least['check']:.1f}",
            f"{least['near']:.2f}",
            f"{least['megabytes']:.0f}",
        )
        print("| " + " | ".join(cells) + " |")
    columns: dict[str, list[float]] = {
        "annotations": [row[1] for row in rows],
        "images": [row[2]["check"] for row in rows],
        "near-duplicates": [row[2]["near"] for row in rows],
    }
    slopes = {name: slope([row[0] for row in rows], times) for name, times in columns.items()}
    print("\nlog-log slope: " + ", ".join(f"{name} {value:.2f}" for name, value in slopes.items()))


def slope(sizes: list[int], times: list[float]) -> float:
    xs, ys = [math.log(size) for size in sizes], [math.log(seconds) for seconds in times]
    return statistics.linear_regression(xs, ys).slope


def machine(peers: Path) -> str:
    code = (
        "import importlib.metadata as m; print(*[f'{n} {m.version(n)}' for n in ('datumaro', 'supervision')], sep=', ')"
    )
    theirs: Any = subprocess.run([str(peers), "-c", code], capture_output=True, text=True, check=False).stdout.strip()
    own = [f"{name} {importlib.metadata.version(name)}" for name in ("ultralytics-opencv-headless", "globox")]
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return f"{cpu}, Python {platform.python_version()}, {', '.join(own)}{', ' if theirs else ''}{theirs}"


if __name__ == "__main__":
    main()

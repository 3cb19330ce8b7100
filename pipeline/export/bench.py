"""Measure the speed of every artefact with its own bundle, each in a separate process: `make bench-export`.

For comparison, Ultralytics' `yolo predict` runs the same ONNX file under the same conditions: the same images one at a
time, the same threads, from files to boxes, one threshold for all classes. Each side's boxes are counted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipeline import files, logs, parallel
from pipeline.boxes import YoloDataset
from pipeline.device import runner
from pipeline.device.runner import bench
from pipeline.errors import ExportError
from pipeline.export import artefacts, bundle
from pipeline.records import manifest as manifest_record
from pipeline.records.base import write_record
from pipeline.records.benchmark import Speed
from pipeline.records.manifest import Artefact, Manifest
from pipeline.run import Run
from pipeline.upstream import environment

ROUNDS = 5  # artefacts take turns, so that a busy minute of the machine does not affect just one of them
RUNS = 20
IMAGES = 20
THREADS = (1, 2)
CONF = 0.25  # on both sides and for every class, because `yolo predict` does not support thresholds per class
# Ultralytics' own command on the same file, from image files to boxes.
PREDICT = """
import json, os, sys, time
files, model, imgsz, conf, threads, runs, least = json.loads(sys.argv[1])
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
import onnxruntime, torch; torch.set_num_threads(threads)
plain = onnxruntime.SessionOptions
def limited():  # by default onnxruntime uses every core, even those that the process may not use
    options = plain()
    options.intra_op_num_threads = threads
    return options
onnxruntime.SessionOptions = limited
from ultralytics import YOLO
model = YOLO(model, task="detect")
settings = dict(imgsz=imgsz, conf=conf, batch=1, rect=False, verbose=False, device="cpu")
boxes = sum(len(found.boxes) for found in model.predict(files, stream=True, **settings))
start, images, seconds = time.perf_counter(), 0, 0.0
while images < runs or seconds < least:
    for _ in model.predict(files, stream=True, **settings):
        images += 1
    seconds = time.perf_counter() - start
print(json.dumps({"images_per_s": round(images / seconds, 2), "boxes": boxes}))
"""


class Measured(bench.Speed, total=False):
    ultralytics_images_per_s: float
    ultralytics_boxes: int


def main(run: Run) -> str:
    """Measure the artefacts that the manifest lists, write the figures into it and return them as a table.

    Raises ExportError if no artefact was proven, or if one has changed since.
    """
    environment.prepare()
    manifest = manifest_record.read(run)
    images = YoloDataset.read(run.dataset / "data.yaml").files("val")[:IMAGES]
    entries = [entry for entry in manifest["artefacts"] if entry["format"] != "engine" and "bundle" in entry]
    if not entries:
        raise ExportError(f"{run.manifest}: has no verified model that runs here; change export.targets")
    for entry in entries:
        artefact = run.export / entry["file"]
        if not artefact.exists() or artefacts.sha256(artefact) != entry["sha256"]:
            raise ExportError(
                f"{artefact}: not the file that was verified (its SHA-256 differs); run `make export` again"
            )
        if not (run.export / entry["bundle"]).is_file():
            raise ExportError(f"{run.export / entry['bundle']}: does not exist; run `make export` again")
    threads = [number for number in THREADS if number <= parallel.cores()]
    measured: dict[tuple[int, int], list[Measured]] = {}
    with tempfile.TemporaryDirectory() as place:
        folders = [_unpacked(run.export / entry["bundle"], Path(place)) for entry in entries]
        turns = [(index, number) for _ in range(ROUNDS) for index in range(len(entries)) for number in threads]
        for index, number in logs.progress(turns, "bench-export", unit="measurement"):
            result = _measure(entries[index], folders[index], images, number, run.export)
            measured.setdefault((index, number), []).append(result)
    plain = next((index for index, entry in enumerate(entries) if _is_plain_onnx(entry)), None)
    rows = [
        _row(entries[index], number, results, None if plain is None else measured[plain, number])
        for (index, number), results in measured.items()
    ]
    machine = f"{environment.device_name('cpu')}, {parallel.cores()} cores"
    manifest["benchmark"] = {"machine": machine, "images": len(images), "rows": rows}
    write_record(run.manifest, Manifest, manifest)
    return f"{table(rows)}\n-> {run.manifest}"


def _unpacked(archive: Path, place: Path) -> Path:
    """Unpack the bundle and set the threshold of every class to CONF. Raises ExportError for outdated code."""
    folder = bundle.unpack(archive, place)
    if any(
        not (folder / name).is_file() or (folder / name).read_bytes() != ours for name, ours in bundle.code().items()
    ):
        raise ExportError(f"{archive}: its run.py is from another version of this pipeline; run `make export` again")
    spec = files.read_json(folder / "model.json")
    files.write_json(folder / "model.json", {**spec, "thresholds": dict.fromkeys(spec["classes"], CONF)})
    return folder


def _is_plain_onnx(entry: Artefact) -> bool:
    """Return whether this is the reference artefact, which `yolo predict` can run under the same conditions."""
    return bool(entry["format"] == "onnx" and entry["precision"] == "fp32" and entry["target"]["nms"] is None)


def _measure(entry: Artefact, folder: Path, images: list[Path], threads: int, export: Path) -> Measured:
    paths = [str(path.resolve()) for path in images]
    command = [sys.executable, str(folder / "run.py"), *paths, "--threads", str(threads), "--bench", str(RUNS)]
    measured: Measured = _json_of(command, threads, entry["file"])
    if _is_plain_onnx(entry) and not files.read_json(folder / "model.json")["tiles"]:  # `yolo predict` has no tiles
        arguments = [paths, str(export / entry["file"]), entry["imgsz"], CONF, threads, RUNS, runner.BENCH_SECONDS]
        predicted = _json_of([sys.executable, "-c", PREDICT, json.dumps(arguments)], threads, "yolo predict")
        measured["ultralytics_images_per_s"] = predicted["images_per_s"]
        measured["ultralytics_boxes"] = predicted["boxes"]
    return measured


def _row(entry: Artefact, threads: int, rounds: list[Measured], plain: list[Measured] | None) -> Speed:
    """Return medians over the rounds. Ratios are taken within each round, under the same load."""

    def middle(values: list[float]) -> float:
        return round(statistics.median(values), 2)

    def ratio(values: list[float]) -> list[float]:
        return [middle(values), round(min(values), 2), round(max(values), 2)]

    p50 = [figures["latency_ms"]["p50"] for figures in rounds]
    predicted = [figures["ultralytics_images_per_s"] for figures in rounds if "ultralytics_images_per_s" in figures]
    whole = [figures["images_per_s"] for figures in rounds]
    return {
        "file": entry["file"],
        "format": entry["format"],
        "precision": entry["precision"],
        "bytes": entry["bytes"],
        "map50_95": entry["ap"]["artefact"]["map50_95"],
        "threads": threads,
        "rounds": len(rounds),
        "runs": RUNS,
        "import_ms": middle([figures["import_ms"] for figures in rounds]),
        "load_ms": middle([figures["load_ms"] for figures in rounds]),
        "latency_ms": {"p50": middle(p50), "p95": middle([figures["latency_ms"]["p95"] for figures in rounds])},
        "boxes": rounds[0]["boxes"],
        "images_per_s": middle(whole),
        "images_per_s_at_once": middle([figures["images_per_s_at_once"] for figures in rounds]),
        "times_onnx": ratio([onnx["latency_ms"]["p50"] / ours for onnx, ours in zip(plain, p50, strict=True)])
        if plain
        else None,
        "ultralytics_boxes": rounds[0].get("ultralytics_boxes"),
        "ultralytics_images_per_s": middle(predicted) if predicted else None,
        "times_ultralytics": ratio([ours / theirs for ours, theirs in zip(whole, predicted, strict=True)])
        if predicted
        else None,
    }


def _json_of(command: list[str], threads: int, name: str) -> Any:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    completed = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if completed.returncode:
        raise ExportError(f"{name}: {(completed.stderr.strip() or 'failed without an error message').splitlines()[-1]}")
    return json.loads(completed.stdout.splitlines()[-1])


def table(rows: list[Speed]) -> str:
    """Format the figures as a Markdown table, for people and for benchmarks/export.md."""
    lines = [
        "| exported model | MB | threads | import ms | load ms | p50 ms | p95 ms | times ONNX fp32 | images/s "
        "| times `yolo predict` | images/s, several at once | mAP50-95 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        score = row["map50_95"]
        lines.append(
            f"| {row['file']} | {row['bytes'] / 1e6:.1f} | {row['threads']} | {row['import_ms']:.0f} | "
            f"{row['load_ms']:.0f} | {row['latency_ms']['p50']:.1f} | {row['latency_ms']['p95']:.1f} | "
            f"{_in_words(row['times_onnx'])} | {row['images_per_s']:.1f} | {_in_words(row['times_ultralytics'])} | "
            f"{row['images_per_s_at_once']:.1f} | {'–' if score is None else f'{score:.3f}'} |"
        )
    return "\n".join(lines)


def _in_words(ratio: list[float] | None) -> str:
    return "" if ratio is None else f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"

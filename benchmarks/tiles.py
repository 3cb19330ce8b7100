"""Predict on large images whole, through tiles, and through SAHI with the same model: average precision, time, memory.

python benchmarks/tiles.py runs/bccd --mosaic 3 > benchmarks/tiles.md           (minutes)
python benchmarks/tiles.py runs/trees --mosaic 1 --split test                   (the run's own images)

The images are those of a split. `mosaic` times `mosaic` of them are put together into a large one, so that its objects
have the size that the model was trained on if a tile is as large as one of them. Each row is a separate process on one
thread. Seconds are CPU time, so a busy machine changes them little, and are measured from the score that a device would
use; average precision counts from a lower score. SAHI is measured if it can be imported; our code does not need it.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files, pixels
from pipeline.boxes import YoloDataset, read_labels
from pipeline.metrics import bootstrap
from pipeline.metrics.matching import match
from pipeline.run import Run

CONF, LOWEST = 0.25, 0.01  # lowest score for timing and for average precision
IOU, MOST, BATCH, OVERLAP = 0.7, 300, 8, 0.2
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "tiles.png"


def mosaics(run: Run, split: str, side: int, number: int, folder: Path) -> dict[str, Any]:
    """Write mosaics of `side` times `side` images of the split. Return them as a COCO dataset."""
    data = YoloDataset.read(run.dataset / "data.yaml")
    paths = data.files(split)
    truth: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": index, "name": name} for index, name in enumerate(data.names)],
    }
    for image in range(min(number, len(paths) // side**2)):
        own = paths[image * side**2 : (image + 1) * side**2]
        pictures = [pixels.read(path) for path in own]
        high, wide = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
        canvas = np.full((high * side, wide * side, 3), 114, np.uint8)
        for index, (path, picture) in enumerate(zip(own, pictures, strict=True)):
            y, x = index // side * high, index % side * wide
            canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
            for box in read_labels(data.label_file(path), data.names, picture.shape[1], picture.shape[0]):
                truth["annotations"].append(
                    {
                        "id": len(truth["annotations"]) + 1,
                        "image_id": image + 1,
                        "category_id": data.names.index(box.label),
                        "bbox": [box.xmin + x, box.ymin + y, box.width, box.height],
                        "area": box.width * box.height,
                        "iscrowd": 0,
                    }
                )
        name = folder / f"{image + 1}.png"
        name.write_bytes(pixels.png(canvas))
        truth["images"].append(
            {"id": image + 1, "file_name": str(name), "width": canvas.shape[1], "height": canvas.shape[0]}
        )
    return truth


def look(way: dict[str, Any]) -> dict[str, Any]:
    """Return seconds per image, peak memory (MB) and COCO results of one method. Runs in a separate process."""
    from pipeline.upstream import environment

    environment.prepare()
    import torch

    torch.set_num_threads(1)
    see = _sahi(way) if way["sahi"] else _ours(way)
    see(np.zeros((64, 64, 3), np.uint8), CONF)  # loads the model and warms up
    pictures = [pixels.read(Path(path)) for path in way["images"]]
    before = _peak()
    start = time.process_time()
    shown = [see(picture, CONF) for picture in pictures]
    spent = time.process_time() - start
    memory = _peak() - before
    found = [
        {"image_id": number, "category_id": int(kind), "bbox": [*box[:2], *(box[2:] - box[:2])], "score": float(score)}
        for number, picture in enumerate(pictures, start=1)
        for box, score, kind in see(picture, LOWEST)
    ]
    for one in found:
        sides: Any = one["bbox"]
        one["bbox"] = [round(float(value), 3) for value in sides]
    boxes = sum(len(each) for each in shown)
    return {"seconds": spent / len(pictures), "memory": memory, "found": found, "shown": boxes / len(pictures)}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _ours(way: dict[str, Any]) -> Any:
    from ultralytics import YOLO

    from pipeline.upstream import predictor

    model = YOLO(way["model"], task="detect")

    def see(picture: Any, conf: float) -> list[Any]:
        settings = {"imgsz": way["imgsz"], "conf": conf, "iou": IOU, "max_det": MOST if way["tiles"] else 10 * MOST}
        [(best, _)] = predictor.detections(model, [picture], way["tiles"], "cpu", BATCH, **settings)
        return list(zip(best.corners, best.scores, best.classes, strict=True))

    return see


def _sahi(way: dict[str, Any]) -> Any:
    from sahi import AutoDetectionModel
    from sahi.predict import get_sliced_prediction

    model = AutoDetectionModel.from_pretrained(
        model_type="ultralytics", model_path=way["model"], device="cpu", image_size=way["imgsz"]
    )
    size = way["tiles"]["size"]

    def see(picture: Any, conf: float) -> list[Any]:
        model.confidence_threshold = conf
        result = get_sliced_prediction(
            picture[:, :, ::-1],
            model,
            slice_height=size,
            slice_width=size,
            overlap_height_ratio=OVERLAP,
            overlap_width_ratio=OVERLAP,
            perform_standard_pred=way["tiles"]["whole"],
            batch_size=BATCH,
            verbose=0,
        )
        return [
            (np.array(one.bbox.to_xyxy(), float), one.score.value, one.category.id)
            for one in result.object_prediction_list
        ]

    return see


def precision(truth: dict[str, Any], found: list[Any]) -> tuple[float, float]:
    """Return mAP50-95 and mAP50 over all boxes: COCO counts a hundred per class, and these images hold more."""
    matches = match(truth, found, math.inf)  # type: ignore[arg-type]
    figures = bootstrap.figures(matches, bootstrap.once(len(truth["images"]))).overall()
    return float(figures["map50_95"][0]), float(figures["map50"][0])


def ways(imgsz: int, truth: dict[str, Any], sizes: list[int], trained: int) -> list[dict[str, Any]]:
    """Return all methods. `trained` is the tile size at which objects are as large as in training."""
    longest = max(max(image["width"], image["height"]) for image in truth["images"])
    equal = -(-longest * imgsz // trained // 32) * 32
    found = [
        {"name": f"whole image at {imgsz}", "imgsz": imgsz, "tiles": None, "sahi": False},
        {"name": f"whole image at {equal}, the tiles' pixels", "imgsz": equal, "tiles": None, "sahi": False},
    ]
    for size in sizes:
        plan = {"size": size, "overlap": OVERLAP, "whole": True}
        found.append({"name": f"tiles of {size}", "imgsz": imgsz, "tiles": plan, "sahi": False})
        if size == trained:
            alone = {**plan, "whole": False}
            found.append({"name": f"tiles of {size} alone", "imgsz": imgsz, "tiles": alone, "sahi": False})
            if find_spec("sahi"):
                found.append({"name": f"SAHI, slices of {size}", "imgsz": imgsz, "tiles": plan, "sahi": True})
    return found


def picture(rows: list[tuple[dict[str, Any], float, float]]) -> None:
    """Plot seconds and average precision over tile sizes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sizes, aps, spent = zip(
        *sorted(
            (way["tiles"]["size"], both, took)
            for way, both, took in rows
            if way["tiles"] and way["tiles"]["whole"] and not way["sahi"]
        ),
        strict=True,
    )
    figure, left = plt.subplots(figsize=(6, 3.4), dpi=110)
    left.plot(sizes, aps, "o-", color="#1f6f8b", label="mAP50-95")
    left.axhline(rows[0][1], ls=":", color="#1f6f8b", label="mAP50-95, whole image")
    left.set(xlabel="side of the tiles, pixels of the image", ylabel="mAP50-95", ylim=(0, None), xticks=sizes)
    right = left.twinx()
    right.plot(sizes, spent, "s--", color="#c8553d", label="seconds per image")
    right.set(ylabel="seconds per image", ylim=(0, None))
    lines = left.get_lines() + right.get_lines()
    labels = [line.get_label() for line in lines]
    left.legend(lines, labels, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(PICTURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--mosaic", type=int, default=3)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--trained", type=int, default=640, help="side of a tile whose objects look as in training")
    parser.add_argument("--sizes", type=int, nargs="+", default=[320, 480, 640, 960, 1280])
    parser.add_argument("--look", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.look:
        print(json.dumps(look(json.loads(given.look))))
        return
    run = Run(given.run)
    imgsz = files.read_json(run.train_record)["imgsz"]
    rows = []
    with tempfile.TemporaryDirectory() as place:
        truth = mosaics(run, given.split, given.mosaic, given.images, Path(place))
        size = f"{truth['images'][0]['width']} x {truth['images'][0]['height']}"
        print(f"`{' '.join(['python', *sys.argv])}`: {len(truth['images'])} images of {size} pixels with ", end="")
        print(f"{len(truth['annotations'])} objects, {given.mosaic} x {given.mosaic} images of `{run.name}` each.\n")
        print("| | mAP50-95 | mAP50 | seconds per image, one thread | MB more | boxes per image from 0.25 |")
        print("|---|---|---|---|---|---|", flush=True)
        for way in ways(imgsz, truth, given.sizes, given.trained):
            asked = {**way, "model": str(run.model), "images": [image["file_name"] for image in truth["images"]]}
            command = [sys.executable, __file__, str(given.run), "--look", json.dumps(asked)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            result = json.loads(done.stdout.splitlines()[-1])
            both, half = precision(truth, result["found"])
            rows.append((way, both, result["seconds"]))
            print(f"| {way['name']} | {both:.3f} | {half:.3f} | {result['seconds']:.2f} | ", end="")
            print(f"{result['memory']:.0f} | {result['shown']:.0f} |", flush=True)
    picture(rows)


if __name__ == "__main__":
    main()

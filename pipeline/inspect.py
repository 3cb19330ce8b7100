"""The run in FiftyOne: every image with its labels and predictions, true and false, missed ones marked."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path
from typing import Any

from pipeline import database, files
from pipeline.boxes import YoloDataset
from pipeline.config import Inspect
from pipeline.errors import DataError, PipelineError
from pipeline.run import Run

ADDRESS = "127.0.0.1"  # the App has no password: nobody else is to reach it
CONFIDENT = 0.6


def main(config: Inspect, run: Run, port: int | None) -> str:
    """Build the FiftyOne data set `NAME` anew and, with a port, open the App and stay until stopped.

    Raises PipelineError where FiftyOne has no database, DataError where the run has no predictions.
    """
    if not run.metrics.is_file():
        raise DataError(f"{run.metrics}: not there; `make validate` writes it, and the predictions to look at")
    with database.fiftyone():
        dataset = _build(config, run)
    summary = (
        f"{len(dataset)} images, {dataset.sum('eval_tp')} found, {dataset.sum('eval_fn')} missed, "
        f"{dataset.sum('eval_fp')} invented -> FiftyOne data set {dataset.name!r}"
    )
    if port is not None:
        _serve(dataset, port, summary)
    return summary


def _build(config: Inspect, run: Run) -> Any:
    import fiftyone as fo

    source = YoloDataset.read(run.dataset / "data.yaml")
    if fo.dataset_exists(run.name):
        fo.delete_dataset(run.name)
    dataset = fo.Dataset(run.name, persistent=True)
    dataset.info = {"run": str(run.root.resolve())}
    predicted = []
    for split in [split for split in ("test", "val", "train") if split in source.images]:  # mistakes first
        if run.ground_truth(split).is_file():
            predicted.append(split)
            dataset.add_samples(_predicted_samples(config, run, source, split))
        else:
            dataset.add_samples(_labelled_samples(source, split))
    view = dataset.match_tags(predicted)
    view.evaluate_detections("predictions", gt_field="ground_truth", eval_key="eval", iou=config.iou, compute_mAP=False)
    _save_views(dataset)
    return dataset


def _predicted_samples(config: Inspect, run: Run, source: YoloDataset, split: str) -> list[Any]:
    import fiftyone as fo

    truth = files.read_json(run.ground_truth(split))
    boxes: dict[int, dict[str, list[Any]]] = {}
    for image in truth["images"]:
        boxes[image["id"]] = {"ground_truth": [], "predictions": []}
    sizes = {image["id"]: (image["width"], image["height"]) for image in truth["images"]}
    found = [found for found in files.read_json(run.predictions(split)) if found["score"] >= config.conf]
    for kind, records in (("ground_truth", truth["annotations"]), ("predictions", found)):
        for record in records:
            if record["image_id"] not in boxes:
                raise DataError(
                    f"{run.predictions(split)}: predicts image {record['image_id']}, which is not in the split; "
                    "delete metrics.json and `make validate` again"
                )
            label = source.names[record["category_id"]]
            box = _relative(record["bbox"], sizes[record["image_id"]])
            boxes[record["image_id"]][kind].append(
                fo.Detection(label=label, bounding_box=box, confidence=record.get("score"))
            )
    return [
        _sample(
            source.images[split] / image["file_name"],
            split,
            {kind: fo.Detections(detections=found) for kind, found in boxes[image["id"]].items()},
        )
        for image in truth["images"]
    ]


def _labelled_samples(source: YoloDataset, split: str) -> list[Any]:
    import fiftyone as fo
    from PIL import Image

    from pipeline.boxes import read_labels

    samples = []
    for path in source.files(split):
        with Image.open(path) as image:
            size = image.size
        detections = [
            fo.Detection(label=box.label, bounding_box=_relative([box.xmin, box.ymin, box.width, box.height], size))
            for box in read_labels(source.label_file(path), source.names, *size)
        ]
        samples.append(_sample(path, split, {"ground_truth": fo.Detections(detections=detections)}))
    return samples


def _sample(path: Path, split: str, fields: dict[str, Any]) -> Any:
    import fiftyone as fo

    return fo.Sample(filepath=str(path.resolve()), tags=[split], **fields)


def _relative(bbox: list[float], size: tuple[int, int]) -> list[float]:
    """COCO's pixels to FiftyOne's 0..1; both are [x, y, width, height] from the top left."""
    return [bbox[0] / size[0], bbox[1] / size[1], bbox[2] / size[0], bbox[3] / size[1]]


def _save_views(dataset: Any) -> None:
    """In the order in which a person needs them."""
    from fiftyone import ViewField as F

    confident = (F("eval") == "fp") & (F("confidence") >= CONFIDENT)
    dataset.save_view("most-invented", dataset.match(F("eval_fp") > 0).sort_by("eval_fp", reverse=True))
    dataset.save_view("confident-but-wrong", dataset.filter_labels("predictions", confident))
    dataset.save_view("most-missed", dataset.match(F("eval_fn") > 0).sort_by("eval_fn", reverse=True))
    dataset.save_view("missed-objects", dataset.filter_labels("ground_truth", F("eval") == "fn"))


def _serve(dataset: Any, port: int, summary: str) -> None:
    import fiftyone as fo

    with socket.socket() as probe:
        if probe.connect_ex((ADDRESS, port)) == 0:
            raise PipelineError(f"--port {port}: something listens there already; close it or give another --port")
    # `remote`: do not open a browser by yourself, there may be none.
    session = fo.launch_app(dataset, remote=True, address=ADDRESS, port=port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(
        f"inspect: {summary}\n"
        f"inspect: http://{ADDRESS}:{port}/datasets/{dataset.name} (Ctrl-C ends it; the data set stays)",
        flush=True,
    )
    try:
        session.wait(-1)
    except KeyboardInterrupt:
        pass
    finally:
        session.close()

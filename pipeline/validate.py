"""COCO figures of the model, and the predictions they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from pipeline import files, weights
from pipeline.boxes import YoloDataset, read_labels
from pipeline.config import Validate
from pipeline.errors import DataError
from pipeline.run import Run

SPLITS = ("val", "test")
# Names of COCOeval's twelve figures, in its order; the three of size bins are grouped below.
STATS = (
    "map50_95",
    "map50",
    "map75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar1",
    "ar10",
    "ar100",
    "ar_small",
    "ar_medium",
    "ar_large",
)
PREDICT_BATCH = 8


def main(config: Validate, run: Run, device: str) -> str:
    """Predict every validation and test image, write the predictions and `run.metrics`.

    Images go through the same square letterbox that exported models get, so that what is measured
    here is what a device will do.
    """
    weights.prepare()
    weights.check_device(device)
    from ultralytics import YOLO

    dataset = YoloDataset.read(run.dataset / "data.yaml")
    imgsz = weights.imgsz_of(run.model)
    model = YOLO(str(run.model), task="detect")
    splits = [split for split in SPLITS if dataset.files(split)]
    if not splits:
        raise DataError(f"{run.dataset}: neither a val nor a test split; there is nothing to validate on")
    figures = {}
    for split in splits:
        images = dataset.files(split)
        truth = ground_truth(dataset, images)
        predictions = predict(model, images, imgsz, config, device, f"validate: {split}")
        files.write_json(run.ground_truth(split), truth)
        files.write_json(run.predictions(split), predictions)
        figures[split] = evaluate(truth, predictions)
    # Last: a target that exists is a stage that finished.
    files.write_json(run.metrics, {"splits": figures, "imgsz": imgsz, "settings": config.model_dump(mode="json")})
    said = ", ".join(
        f"{split} mAP50 {figures[split]['map50']:.3f} mAP50-95 {figures[split]['map50_95']:.3f}" for split in splits
    )
    return f"{said} -> {run.metrics}"


def ground_truth(dataset: YoloDataset, images: list[Path]) -> dict[str, Any]:
    """The labels as a COCO data set. Image ids count from 1 in the order of `images`, category ids from 0."""
    coco: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": index, "name": name} for index, name in enumerate(dataset.names)],
    }
    for image_id, path in enumerate(images, start=1):
        with Image.open(path) as image:
            width, height = image.size
        coco["images"].append({"id": image_id, "file_name": path.name, "width": width, "height": height})
        for box in read_labels(dataset.label_file(path), dataset.names, width, height):
            coco["annotations"].append(
                {
                    "id": len(coco["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": dataset.names.index(box.label),
                    "bbox": [round(side, 3) for side in (box.xmin, box.ymin, box.width, box.height)],
                    "area": round(box.width * box.height, 3),
                    "iscrowd": 0,
                }
            )
    return coco


def predict(
    model: Any, images: list[Path], imgsz: int, config: Validate, device: str, description: str
) -> list[dict[str, Any]]:
    """COCO results: [x, y, width, height] in pixels of the original image, ids as in `ground_truth`.

    A box may come with several classes, each with its score, as in Ultralytics' own validation and in all
    published figures of YOLO models; `model.predict` alone would keep the best one and read up to five points
    lower where classes resemble each other.
    """
    results: list[dict[str, Any]] = []
    settings = {"imgsz": imgsz, "conf": config.conf, "iou": config.iou, "max_det": config.max_det}
    predictor = _every_label_predictor()
    with tqdm(total=len(images), desc=description, unit="image", leave=False, delay=1, disable=None) as bar:
        for first in range(0, len(images), PREDICT_BATCH):
            batch = [str(path) for path in images[first : first + PREDICT_BATCH]]
            found = model.predict(
                batch, predictor=predictor, rect=False, device=device or None, verbose=False, **settings
            )
            for offset, result in enumerate(found):
                for (x1, y1, x2, y2), score, category in zip(
                    result.boxes.xyxy.tolist(), result.boxes.conf.tolist(), result.boxes.cls.tolist(), strict=True
                ):
                    bbox = [round(side, 3) for side in (x1, y1, x2 - x1, y2 - y1)]
                    results.append(
                        {
                            "image_id": first + offset + 1,
                            "category_id": int(category),
                            "bbox": bbox,
                            "score": round(score, 6),
                        }
                    )
            bar.update(len(batch))
    return results


def _every_label_predictor() -> Any:
    from ultralytics.models.yolo.detect import DetectionPredictor
    from ultralytics.utils.nms import non_max_suppression

    class EveryLabelPredictor(DetectionPredictor):  # type: ignore[misc]  # Ultralytics has no types
        def postprocess(self, preds: Any, img: Any, orig_imgs: Any, **kwargs: Any) -> Any:
            found = non_max_suppression(
                preds,
                self.args.conf,
                self.args.iou,
                multi_label=True,
                max_det=self.args.max_det,
                end2end=getattr(self.model, "end2end", False),
            )
            return self.construct_results(found, img, orig_imgs, **kwargs)

    return EveryLabelPredictor


def evaluate(truth: dict[str, Any], predictions: list[dict[str, Any]]) -> dict[str, Any]:
    """COCO average precision and recall, 0..1; None where a class or size has no labelled object."""
    from faster_coco_eval import COCO, COCOeval_faster

    names = {category["id"]: category["name"] for category in truth["categories"]}
    objects = {index: 0 for index in names}
    for annotation in truth["annotations"]:
        objects[annotation["category_id"]] += 1
    if not predictions:  # the evaluator refuses an empty list, though the answer is plain
        stats: list[float] = [0.0] * len(STATS)
        per_class = {index: (0.0, 0.0, 0.0) for index in names}
    else:
        coco = COCO(truth)
        evaluator = COCOeval_faster(coco, coco.loadRes(predictions), "bbox", print_function=lambda *_: None)
        evaluator.run()
        stats = [float(figure) for figure in evaluator.stats[: len(STATS)]]
        # [IoU threshold 0.5:0.95, recall, class, area (0: all), detections per image (2: 100)]
        precision, recall = evaluator.eval["precision"][:, :, :, 0, 2], evaluator.eval["recall"][:, :, 0, 2]
        per_class = {
            index: (_mean(precision[:, :, column]), _mean(precision[0, :, column]), _mean(recall[:, column]))
            for column, index in enumerate(evaluator.params.catIds)
        }
    figure = dict(zip(STATS, stats, strict=True))
    return {
        **{name: _or_none(figure[name]) for name in ("map50_95", "map50", "map75", "ar1", "ar10", "ar100")},
        "per_size": {
            size: {"ap": _or_none(figure[f"ap_{size}"]), "ar": _or_none(figure[f"ar_{size}"])}
            for size in ("small", "medium", "large")
        },
        "per_class": {
            names[index]: {
                "map50_95": _or_none(both) if objects[index] else None,
                "map50": _or_none(half) if objects[index] else None,
                "ar100": _or_none(found) if objects[index] else None,
                "objects": objects[index],
            }
            for index, (both, half, found) in per_class.items()
        },
        "images": len(truth["images"]),
        "objects": len(truth["annotations"]),
        "predictions": len(predictions),
    }


def _mean(values: Any) -> float:
    """COCO's mean leaves out the entries of -1: classes without objects."""
    valid = values[values > -1]
    return float(np.mean(valid)) if valid.size else -1.0


def _or_none(figure: float) -> float | None:
    return None if figure < 0 else round(figure, 6)

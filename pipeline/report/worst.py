"""Find the images with the most errors, and the boxes to draw over them."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, get_args

from pipeline import logs, pixels
from pipeline.records.coco import Annotation, GroundTruth
from pipeline.records.errors import ErrorFile, JudgedObject, JudgedPrediction, Mistake
from pipeline.report import words

SIDE = 480  # pixels of the longer side: 24 images make about 1 MB
TYPES: tuple[str, ...] = get_args(Mistake)


@dataclass(slots=True)
class ImageErrors:
    """The results of `validate` for one image: a record for each object, and for each wrong prediction."""

    objects: list[JudgedObject] = field(default_factory=list)
    wrong: list[JudgedPrediction] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """The number of errors. A badly found object is not counted, because its wrong prediction is."""
        missed = [record for record in self.objects if record["type"] == "missed"]
        return len(self.wrong) + len(missed)

    @property
    def words(self) -> str:
        kinds = Counter[str](record["type"] for record in self.wrong)
        why = ", ".join(f"{kinds[kind]} {kind}" for kind in TYPES if kinds[kind])
        lost, total = sum(record["type"] != "tp" for record in self.objects), len(self.objects)
        found = f"{total - lost} of {words.counted(total, 'object')} found" if total else "no objects"
        return f"{found}, {words.counted(len(self.wrong), 'wrong prediction')}{f' ({why})' if why else ''}"


class DrawnImage(NamedTuple):
    file: str
    said: str
    uri: str
    width: int
    height: int
    boxes: list[dict[str, str | float]]


def worst_images(truth: GroundTruth, errors: ErrorFile, folder: Path, number: int) -> list[DrawnImage]:
    """Return at most `number` images that have errors, those with the most first, for the template to draw.

    `truth` is the COCO dataset of a split with its images in `folder`, `errors` the errors that `validate` found in
    its predictions. Boxes are in pixels of the scaled image.
    """
    names = {category["id"]: category["name"] for category in truth["categories"]}
    annotations = {record["id"]: record for record in truth["annotations"]}
    errors_of = {image["id"]: ImageErrors() for image in truth["images"]}
    for record in errors["objects"]:
        errors_of[record["image_id"]].objects.append(record)
    for prediction in errors["predictions"]:
        if prediction["type"] != "tp":
            errors_of[prediction["image_id"]].wrong.append(prediction)
    images = sorted(truth["images"], key=lambda image: (-errors_of[image["id"]].errors, image["file_name"]))
    shown = [image for image in images[:number] if errors_of[image["id"]].errors]
    bar = logs.progress(shown, "report")
    return [_drawn(image["file_name"], errors_of[image["id"]], annotations, names, folder) for image in bar]


def _drawn(
    file: str, errors: ImageErrors, annotations: dict[int, Annotation], names: dict[int, str], folder: Path
) -> DrawnImage:
    small, scale = pixels.fit(pixels.read(folder / file), SIDE, enlarge=1.5)
    boxes = []
    for record in errors.objects:
        annotation, is_found = annotations[record["annotation_id"]], record["type"] == "tp"
        label = "" if is_found else names[annotation["category_id"]]
        boxes.append(_box(annotation["bbox"], scale, "found" if is_found else "missed", label))
    for wrong in errors.wrong:
        boxes.append(_box(wrong["bbox"], scale, "wrong", f"{names[wrong['category_id']]} {wrong['score']:.2f}"))
    height, width = small.shape[:2]
    uri = "data:image/jpeg;base64," + base64.b64encode(pixels.jpeg(small, quality=80)).decode()
    return DrawnImage(file, errors.words, uri, width, height, boxes)


def _box(bbox: list[float], scale: float, kind: str, label: str) -> dict[str, str | float]:
    x, y, width, height = (round(side * scale, 1) for side in bbox)
    # Above the box, or inside it if the image ends there.
    text_y = y - 3 if y > 14 else y + 12
    return {"x": x, "y": y, "width": width, "height": height, "kind": kind, "label": label, "text_y": round(text_y, 1)}

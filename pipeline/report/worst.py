"""The images with most errors, with boxes drawn over them."""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline import logs, pixels
from pipeline.report import words

PICTURE_PIXELS = 480  # of the longer side: 24 pictures make about 1 MB
TYPES = ("classification", "localisation", "both", "duplicate", "background")


def worst_images(truth: dict[str, Any], errors: dict[str, Any], folder: Path, number: int) -> list[dict[str, Any]]:
    """Return at most `number` images that have an error, most errors first, for the template to draw.

    `truth` is the COCO data set of a split with its images in `folder`, `errors` what `validate` says of its
    predictions. A wrong prediction is an error, and so is an object that no prediction is about: an object found
    badly would otherwise count twice. Boxes are in pixels of the scaled image.
    """
    names = {category["id"]: category["name"] for category in truth["categories"]}
    annotations = {record["id"]: record for record in truth["annotations"]}
    objects: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    wrong: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    for record in errors["objects"]:
        objects[record["image_id"]].append(record)
    for record in errors["predictions"]:
        if record["type"] != "tp":
            wrong[record["image_id"]].append(record)

    def number_of_errors(image: dict[str, Any]) -> int:
        missed = [record for record in objects[image["id"]] if record["type"] == "missed"]
        return len(wrong[image["id"]]) + len(missed)

    images = sorted(truth["images"], key=lambda image: (-number_of_errors(image), image["file_name"]))
    shown = [image for image in images[:number] if number_of_errors(image)]
    pictures = []
    for image in logs.progress(shown, "report"):
        picture, scale = pixels.fit(pixels.read(folder / image["file_name"]), PICTURE_PIXELS, enlarge=1.5)
        boxes = []
        for record in objects[image["id"]]:
            annotation, found = annotations[record["annotation_id"]], record["type"] == "tp"
            label = "" if found else names[annotation["category_id"]]
            boxes.append(_box(annotation["bbox"], scale, "found" if found else "missed", label))
        for record in wrong[image["id"]]:
            boxes.append(_box(record["bbox"], scale, "wrong", f"{names[record['category_id']]} {record['score']:.2f}"))
        kinds = Counter(record["type"] for record in wrong[image["id"]])
        lost = sum(record["type"] != "tp" for record in objects[image["id"]])
        bad = len(wrong[image["id"]])
        why = ", ".join(f"{kinds[kind]} {kind}" for kind in TYPES if kinds[kind])
        height, width = picture.shape[:2]
        total = len(objects[image["id"]])
        not_found = f"{lost} of {words.counted(total, 'object')} not found" if total else "no objects"
        pictures.append(
            {
                "file": image["file_name"],
                "said": f"{not_found}, {words.counted(bad, 'wrong prediction')}{f' ({why})' if why else ''}",
                "uri": "data:image/jpeg;base64," + base64.b64encode(pixels.jpeg(picture, quality=80)).decode(),
                "width": width,
                "height": height,
                "boxes": boxes,
            }
        )
    return pictures


def _box(bbox: list[float], scale: float, kind: str, label: str) -> dict[str, Any]:
    x, y, width, height = (round(side * scale, 1) for side in bbox)
    # Above the box, or inside where the picture ends.
    text_y = y - 3 if y > 14 else y + 12
    return {"x": x, "y": y, "width": width, "height": height, "kind": kind, "label": label, "text_y": round(text_y, 1)}

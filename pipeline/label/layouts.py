"""Write the boxes of a batch in the formats of labelling tools, into a folder whose images are in `images/`.

Each writer takes the folder, the images as (path below `images`, candidate), and the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from pipeline import files
from pipeline.boxes import Box, write_data_yaml, write_labels
from pipeline.records.coco import Image
from pipeline.records.label import Candidate, Guess, Next

Items = Sequence[tuple[Path, Candidate]]
LABELSTUDIO, YOLO = "labelstudio", "yolo"
COCO_FILE = "annotations/instances_default.json"
LABELME_VERSION = "5.5.0"  # LabelMe compares only its first part, and only warns
XANYLABELING_VERSION = "3.0.0"


def coco(folder: Path, items: Items, batch: Next) -> None:
    """Write COCO's format under the name that CVAT and Datumaro look for; `score` is the model's."""
    number = {name: index for index, name in enumerate(batch["classes"], start=1)}
    images: list[Image] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, candidate) in enumerate(items, start=1):
        width, height = candidate["width"], candidate["height"]
        images.append({"id": image_id, "file_name": name.as_posix(), "width": width, "height": height})
        for box in candidate["boxes"]:
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "category_id": number[box["label"]]}
            area = box["bbox"][2] * box["bbox"][3]
            annotations.append({**annotation, "bbox": box["bbox"], "area": area, "iscrowd": 0, "score": box["score"]})
    categories = [{"id": index, "name": name, "supercategory": ""} for name, index in number.items()]
    data = {"images": images, "annotations": annotations, "categories": categories}
    files.write_json(folder / COCO_FILE, data)


def yolo(folder: Path, items: Items, batch: Next) -> None:
    """Write `labels/`, `data.yaml`, and `classes.txt`, from which LabelImg and others take the names.

    LabelImg also needs it beside the labels.
    """
    for name, candidate in items:
        path = (folder / "labels" / name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        boxes = [Box(box["label"], *_corners(box)) for box in candidate["boxes"]]
        write_labels(path, boxes, batch["classes"], (candidate["width"], candidate["height"]))
    write_data_yaml(folder / "data.yaml", {"train": "images"}, batch["classes"])
    for home in (folder, folder / "labels"):
        _write_names(home / "classes.txt", batch)


def _write_names(path: Path, batch: Next) -> None:
    files.write_text(path, "".join(f"{name}\n" for name in batch["classes"]))


def labelme(folder: Path, items: Items, batch: Next) -> None:
    """Write a JSON file beside each image, and `labels.txt` for LabelMe's option `--labels`."""

    def shape(box: Guess) -> dict[str, Any]:
        xmin, ymin, xmax, ymax = _corners(box)
        description = f"{box['kind']}, {box['score']:.2f}"
        return {"points": [[xmin, ymin], [xmax, ymax]], "description": description, "mask": None}

    _beside(folder, items, LABELME_VERSION, shape)
    _write_names(folder / "labels.txt", batch)


def xanylabeling(folder: Path, items: Items, batch: Next) -> None:
    """Write a JSON file beside each image: LabelMe's, but with scores, and the four corners of a rectangle."""

    def shape(box: Guess) -> dict[str, Any]:
        xmin, ymin, xmax, ymax = _corners(box)
        points = [[xmin, ymin], [xmax, ymin], [xmax, ymax], [xmin, ymax]]
        more = {"points": points, "description": box["kind"], "score": box["score"]}
        return {**more, "difficult": False, "attributes": {}, "kie_linking": []}

    _beside(folder, items, XANYLABELING_VERSION, shape)
    _write_names(folder / "classes.txt", batch)


def _beside(folder: Path, items: Items, version: str, shape: Callable[[Guess], dict[str, Any]]) -> None:
    """Write LabelMe's JSON beside each image; `shape` returns a box's fields that depend on the tool."""
    for name, candidate in items:
        every: dict[str, Any] = {"shape_type": "rectangle", "group_id": None, "flags": {}}
        data: dict[str, Any] = {
            "version": version,
            "flags": {},
            "shapes": [{"label": box["label"], **every, **shape(box)} for box in candidate["boxes"]],
            "imagePath": name.name,
            "imageData": None,
            "imageHeight": candidate["height"],
            "imageWidth": candidate["width"],
        }
        files.write_json((folder / "images" / name).with_suffix(".json"), data)


def cvat(folder: Path, items: Items, batch: Next) -> None:
    """Write `annotations.xml`, "CVAT for images 1.1", and `labels.json` for the raw labels of a new task."""
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    labels = SubElement(SubElement(SubElement(root, "meta"), "task"), "labels")
    for name in batch["classes"]:
        label = SubElement(labels, "label")
        SubElement(label, "name").text = name
        SubElement(label, "type").text = "rectangle"
        SubElement(label, "attributes")
    for number, (path, candidate) in enumerate(items):
        size = {"width": str(candidate["width"]), "height": str(candidate["height"])}
        image = SubElement(root, "image", {"id": str(number), "name": path.as_posix(), **size})
        for box in candidate["boxes"]:
            sides = zip(("xtl", "ytl", "xbr", "ybr"), _corners(box), strict=True)
            shape = {"label": box["label"], "source": "auto", "occluded": "0", "z_order": "0"}
            SubElement(image, "box", {**shape, **{side: f"{value:.2f}" for side, value in sides}})
    indent(root)
    files.write_text(folder / "annotations.xml", f"{tostring(root, encoding='unicode', xml_declaration=False)}\n")
    files.write_json(
        folder / "labels.json", [{"name": name, "type": "rectangle", "attributes": []} for name in batch["classes"]]
    )


def labelstudio(folder: Path, items: Items, batch: Next) -> None:
    """Write `tasks.json`, whose predictions a person accepts or corrects, and `config.xml` for the project.

    Positions are percentages of the image. Images are found if this folder is the document root of local files.
    """
    tasks = []
    model = batch["model"]["sha256"][:12]
    for number, (path, candidate) in enumerate(items, start=1):
        width, height = candidate["width"], candidate["height"]
        size = {"original_width": width, "original_height": height, "image_rotation": 0}
        results = []
        for index, box in enumerate(candidate["boxes"], start=1):
            x, y, w, h = box["bbox"]
            value = {
                "x": 100 * x / width,
                "y": 100 * y / height,
                "width": 100 * w / width,
                "height": 100 * h / height,
                "rotation": 0,
                "rectanglelabels": [box["label"]],
            }
            controls = {"from_name": "label", "to_name": "image", "type": "rectanglelabels"}
            results.append({"id": f"{number}-{index}", **controls, **size, "value": value, "score": box["score"]})
        scores = [box["score"] for box in candidate["boxes"]]
        prediction = {"model_version": model, "score": sum(scores) / len(scores) if scores else 0.0, "result": results}
        address = f"/data/local-files/?d={quote(f'images/{path.as_posix()}')}"
        tasks.append({"id": number, "data": {"image": address}, "predictions": [prediction]})
    files.write_json(folder / "tasks.json", tasks)
    view = Element("View")
    SubElement(view, "Image", {"name": "image", "value": "$image"})
    labels = SubElement(view, "RectangleLabels", {"name": "label", "toName": "image"})
    for name in batch["classes"]:
        SubElement(labels, "Label", {"value": name})
    indent(view)
    files.write_text(folder / "config.xml", f"{tostring(view, encoding='unicode')}\n")


def _corners(box: Guess) -> tuple[float, float, float, float]:
    x, y, width, height = box["bbox"]
    return x, y, x + width, y + height


LAYOUTS: dict[str, Callable[[Path, Items, Next], None]] = {
    LABELSTUDIO: labelstudio,
    "cvat": cvat,
    "labelme": labelme,
    "xanylabeling": xanylabeling,
    "coco": coco,
    YOLO: yolo,
}
# These name a label file, or Label Studio an upload, after the image without its suffix.
BY_STEM = {LABELSTUDIO, YOLO, "labelme", "xanylabeling"}
# These change the files of the batch itself, so that no box is lost in an export.
IN_PLACE = {YOLO, "labelme", "xanylabeling"}
# The formats that read the tools' labels back.
FORMATS = {tool: "labelme" if tool == "xanylabeling" else tool for tool in LAYOUTS}

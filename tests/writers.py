"""Datasets in three formats, written for tests that read them back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from pipeline.boxes import Box, write_data_yaml, write_labels
from pipeline.run import SPLITS

Size = tuple[int, int]  # width, height
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def coco(path: Path, items: Iterable[tuple[str, Size, Sequence[Box]]], names: Sequence[str]) -> None:
    """Write COCO JSON for images given as (file name, (width, height), boxes). Category ids count from 1, as COCO's do."""
    category = {name: number for number, name in enumerate(names, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (file_name, (width, height), boxes) in enumerate(items, start=1):
        images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for box in boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": category[box.label],
                    "bbox": [box.xmin, box.ymin, box.width, box.height],
                    "area": box.width * box.height,
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name, "supercategory": ""} for name, number in category.items()]
    data = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def yolo(folder: Path, items: Iterable[tuple[str, Size, Sequence[Box]]], names: Sequence[str]) -> None:
    """Write `labels/STEM.txt` for each (image file name, (width, height), boxes), and `data.yaml`.

    Folders in a file name are kept: `val/a.jpg` has its labels in `labels/val/`, its image belongs in
    `images/val/`, and `data.yaml` names that folder for the split.
    """
    folders = set()
    for name, size, boxes in items:
        assert not any(box.ignore or box.damage for box in boxes)
        path = (folder / "labels" / name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_labels(path, boxes, names, size)
        folders.add(name.partition("/")[0])
    write_data_yaml(folder / "data.yaml", {split: f"images/{split}" for split in SPLITS if split in folders}, names)


def voc(folder: Path, items: Iterable[tuple[str, Size, Sequence[Box]]], names: Sequence[str]) -> None:
    """Write `Annotations/STEM.xml` for each (image file name, (width, height), boxes).

    Folders in a file name are kept: `val/a.jpg` has its XML in `Annotations/val/`, its image belongs in
    `JPEGImages/val/`. Corners are in pixels, to a thousandth.
    """
    for name, (width, height), boxes in items:
        root = Element("annotation")
        SubElement(root, "filename").text = PurePosixPath(name).name
        sides = SubElement(root, "size")
        for tag, value in (("width", width), ("height", height), ("depth", 3)):
            SubElement(sides, tag).text = str(value)
        for box in boxes:
            assert box.label in names and not box.ignore and not box.damage
            item = SubElement(root, "object")
            SubElement(item, "name").text = box.label
            bndbox = SubElement(item, "bndbox")
            for tag in CORNERS:
                SubElement(bndbox, tag).text = f"{getattr(box, tag):.3f}".rstrip("0").rstrip(".")
        indent(root)
        path = (folder / "Annotations" / name).with_suffix(".xml")
        path.parent.mkdir(parents=True, exist_ok=True)
        ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)

"""Exports of annotation tools, laid out as their documentation or source defines them.

`BOXES` is the ground truth; each writer below knows one tool. Folders hold four images of 320 x 240.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline import convert, formats
from pipeline.config.experiment import Config
from pipeline.errors import DataError
from pipeline.files import read_json
from pipeline.run import Run

WIDTH, HEIGHT = 320, 240
STEMS = ("img0", "img1", "img2", "img3")
Corners = tuple[float, float, float, float]
# Two objects on each of three images, and one background image.
BOXES: dict[str, list[tuple[str, Corners]]] = {
    "img0": [("cat", (20, 30, 100, 90)), ("dog", (150, 60, 290, 220))],
    "img1": [("dog", (10, 12, 60, 52)), ("cat", (200, 100, 260, 180))],
    "img2": [("cat", (40, 40, 120, 200)), ("cat", (160, 20, 300, 100))],
    "img3": [],
}
NAMES = ("cat", "dog")
RATIOS = {"train": 0.5, "val": 0.5}


def image(stem: str, suffix: str = "jpg") -> bytes:
    rng = np.random.default_rng(zlib.crc32(stem.encode()))
    pixels = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8)
    data = io.BytesIO()
    resized = Image.fromarray(pixels).resize((WIDTH, HEIGHT))
    resized.save(data, {"jpg": "JPEG", "png": "PNG"}[suffix.lower()])
    return data.getvalue()


def images(folder: Path, name: Callable[[str], str] = lambda stem: f"{stem}.jpg") -> None:
    for stem in STEMS:
        path = folder / name(stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image(stem, path.suffix[1:]))


def write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))


def sides(corners: Corners) -> dict[str, float]:
    xmin, ymin, xmax, ymax = corners
    return {"x": xmin, "y": ymin, "width": xmax - xmin, "height": ymax - ymin}


def yolo_lines(stem: str) -> str:
    rows = []
    for label, (xmin, ymin, xmax, ymax) in BOXES[stem]:
        numbers = (xmin + xmax) / 2 / WIDTH, (ymin + ymax) / 2 / HEIGHT, (xmax - xmin) / WIDTH, (ymax - ymin) / HEIGHT
        rows.append(f"{NAMES.index(label)} " + " ".join(f"{number:.8f}" for number in numbers))
    return "\n".join(rows)


def coco(name: Callable[[str], str]) -> dict[str, Any]:
    boxes = [(n, label, corners) for n, stem in enumerate(STEMS) for label, corners in BOXES[stem]]
    return {
        "images": [
            {"id": n, "file_name": name(stem), "width": WIDTH, "height": HEIGHT} for n, stem in enumerate(STEMS)
        ],
        "categories": [{"id": n, "name": label} for n, label in enumerate(NAMES)],
        "annotations": [
            {"id": n, "image_id": of, "category_id": NAMES.index(label), "bbox": list(sides(corners).values())}
            for n, (of, label, corners) in enumerate(boxes)
        ],
    }


# --- The tools ----------------------------------------------------------------------------------------


def label_studio(folder: Path) -> None:
    """Label Studio's own JSON export, with uploads; images come from its media folder."""
    tasks = []
    for number, stem in enumerate(STEMS, start=1):
        results = [
            {
                "id": f"r{n}",
                "type": "rectanglelabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": WIDTH,
                "original_height": HEIGHT,
                "image_rotation": 0,
                "value": {
                    **{k: v * 100 / (WIDTH if k in ("x", "width") else HEIGHT) for k, v in sides(corners).items()},
                    "rotation": 0,
                    "rectanglelabels": [label],
                },
            }
            for n, (label, corners) in enumerate(BOXES[stem])
        ]
        annotation = {"id": number, "completed_by": 1, "result": results, "was_cancelled": False, "ground_truth": False}
        data = {"image": f"/data/upload/1/{number:08x}-{stem}.jpg"}
        tasks.append(
            {"id": number, "annotations": [annotation], "file_upload": f"{number:08x}-{stem}.jpg", "data": data}
        )
    write(folder / "project-1-at-2024.json", tasks)
    images(folder / "upload")


def label_studio_min(folder: Path) -> None:
    rows = []
    for number, stem in enumerate(STEMS, start=1):
        labels = [
            {
                **{k: v * 100 / (WIDTH if k in ("x", "width") else HEIGHT) for k, v in sides(corners).items()},
                "rotation": 0,
                "rectanglelabels": [label],
                "original_width": WIDTH,
                "original_height": HEIGHT,
            }
            for label, corners in BOXES[stem]
        ]
        row = {"image": f"/data/local-files/?d=shots/{stem}.jpg", "id": number, "annotator": 1, "lead_time": 3.5}
        # Without a result, the control's key is absent.
        rows.append({**row, **({"label": labels} if labels else {})})
    write(folder / "min.json", rows)
    images(folder / "shots")


def percent(corners: Corners) -> dict[str, float]:
    wide = {k: v * 100 / (WIDTH if k in ("x", "width") else HEIGHT) for k, v in sides(corners).items()}
    return {**wide, "rotation": 0}


SIZE = {"original_width": WIDTH, "original_height": HEIGHT}


def label_studio_apart(folder: Path) -> None:
    """`Rectangle`, `Labels` and a `Rating` of each region: three results with one id."""
    tasks = []
    for number, stem in enumerate(STEMS, start=1):
        results = [
            {"id": f"r{n}", "type": kind, "from_name": name, "to_name": "image", **SIZE, "image_rotation": 0,
             "value": {**percent(corners), **more}}
            for n, (label, corners) in enumerate(BOXES[stem])
            for kind, name, more in [("rectangle", "bbox", {}), ("labels", "label", {"labels": [label]}), ("rating", "quality", {"rating": 3})]
        ]  # fmt: skip
        annotation = {"id": number, "completed_by": 1, "result": results, "was_cancelled": False}
        tasks.append({"id": number, "annotations": [annotation], "data": {"image": f"/data/upload/1/{stem}.jpg"}})
    write(folder / "project-2.json", tasks)
    images(folder / "upload")


def label_studio_apart_min(folder: Path) -> None:
    """The same in JSON-MIN, where results have neither id nor type."""
    rows = []
    for number, stem in enumerate(STEMS, start=1):
        found = [{**percent(corners), **SIZE} for _, corners in BOXES[stem]]
        lists = {
            "bbox": found,
            "label": [{**place, "labels": [label]} for place, (label, _) in zip(found, BOXES[stem], strict=True)],
            "quality": [{**place, "rating": 3} for place in found],
        }
        row = {"image": f"/data/upload/1/{stem}.jpg", "id": number, **(lists if found else {})}
        rows.append({**row, "annotator": 1, "annotation_id": number, "lead_time": 3.5})
    write(folder / "project-2-min.json", rows)
    images(folder / "upload")


def label_studio_coco(folder: Path) -> None:
    write(folder / "result.json", coco(lambda stem: f"..\\..\\label-studio\\media\\upload\\4\\{stem}.jpg"))
    images(folder / "images")


def label_studio_yolo(folder: Path) -> None:
    images(folder / "images", lambda stem: f"0a1b2c3d-{stem}.jpg")
    for stem in STEMS:
        write(folder / "labels" / f"0a1b2c3d-{stem}.txt", yolo_lines(stem))
    write(folder / "classes.txt", "cat\ndog\n")
    write(folder / "notes.json", {"categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}], "info": {}})


def cvat_tracks(frames: Mapping[str, int], attributes: str = "") -> str:
    """Every frame of each track, with `outside` where it ends; `frames` are the numbers of the images."""
    tracks = []
    for label in NAMES:
        for number in range(2):
            of = [
                (n, [c for name, c in BOXES[stem] if name == label][number : number + 1]) for stem, n in frames.items()
            ]
            shapes = [
                f'<box frame="{n}" keyframe="1" outside="{int(not found)}" occluded="0" xtl="{(c := (found or [(1, 2, 30, 40)])[0])[0]}" '
                f'ytl="{c[1]}" xbr="{c[2]}" ybr="{c[3]}" z_order="0"/>'
                for n, found in of
            ]
            tracks.append(
                f'<track id="{len(tracks)}" label="{label}" source="manual"{attributes}>{"".join(shapes)}</track>'
            )
    return "".join(tracks)


ORIGINAL_SIZE = f"<original_size><width>{WIDTH}</width><height>{HEIGHT}</height></original_size>"
CVAT_LABELS = "<labels><label><name>cat</name></label><label><name>dog</name></label></labels>"


def cvat_xml(folder: Path, meta: str, tracks: str) -> None:
    write(folder / "annotations.xml", f"<annotations><version>1.1</version><meta>{meta}</meta>{tracks}</annotations>")


def cvat_video(folder: Path) -> None:
    """CVAT for video 1.1 of a task."""
    meta = f"<task><size>4</size><mode>interpolation</mode>{ORIGINAL_SIZE}{CVAT_LABELS}</task>"
    cvat_xml(folder, meta, cvat_tracks({stem: n for n, stem in enumerate(STEMS)}))
    images(folder / "images", lambda stem: f"frame_{STEMS.index(stem):06}.PNG")


def cvat_job(folder: Path) -> None:
    """The same of a job in a task with a start frame and a step; CVAT numbers frames as in the video."""
    frames = {stem: 100 + 11 * n for n, stem in enumerate(STEMS)}
    meta = (
        "<job><id>7</id><size>4</size><mode>interpolation</mode><subset>default</subset><start_frame>100</start_frame>"
        f"<stop_frame>133</stop_frame><frame_filter>step=11</frame_filter>{CVAT_LABELS}</job>{ORIGINAL_SIZE}"
    )
    cvat_xml(folder, meta, cvat_tracks(frames))
    images(folder / "images", lambda stem: f"frame_{frames[stem]:06}.PNG")


def cvat_images(folder: Path) -> None:
    """CVAT for images 1.1 from a video task: frames without a suffix (cvat issue 8839)."""
    found = [
        f'<image id="{n}" name="frame_{n:06}" width="{WIDTH}" height="{HEIGHT}">'
        + "".join(
            f'<box label="{label}" source="manual" occluded="0" xtl="{c[0]}" ytl="{c[1]}" xbr="{c[2]}" ybr="{c[3]}" z_order="0"/>'
            for label, c in BOXES[stem]
        )
        + "</image>"
        for n, stem in enumerate(STEMS)
    ]
    write(folder / "annotations.xml", f"<annotations><version>1.1</version>{''.join(found)}</annotations>")
    images(folder / "images", lambda stem: f"frame_{STEMS.index(stem):06}.PNG")


def cvat_yolo(folder: Path) -> None:
    """CVAT's YOLO 1.1 export of a task: obj.data, and paths that begin with `data/`."""
    write(folder / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    write(folder / "obj.names", "cat\ndog\n")
    write(folder / "train.txt", "".join(f"data/obj_train_data/{stem}.jpg\n" for stem in STEMS))
    images(folder / "obj_train_data")
    for stem in STEMS:
        write(folder / "obj_train_data" / f"{stem}.txt", yolo_lines(stem))


def darknet(folder: Path) -> None:
    write(folder / "obj.data", "classes= 2\ntrain  = data/train.txt\nvalid  = data/test.txt\nnames = data/obj.names\n")
    write(folder / "obj.names", "cat\ndog\n")
    write(folder / "train.txt", "data/obj/img0.jpg\ndata/obj/img1.jpg\n")
    write(folder / "test.txt", "data/obj/img2.jpg\ndata/obj/img3.jpg\n")
    images(folder / "obj")
    for stem in STEMS:
        write(folder / "obj" / f"{stem}.txt", yolo_lines(stem))


def roboflow_darknet(folder: Path) -> None:
    for split, stems in (("train", STEMS[:2]), ("valid", STEMS[2:])):
        write(folder / split / "_darknet.labels", "cat\ndog\n")
        for stem in stems:
            (folder / split / f"{stem}_jpg.rf.0123456789abcdef.jpg").write_bytes(image(stem))
            write(folder / split / f"{stem}_jpg.rf.0123456789abcdef.txt", yolo_lines(stem))


def roboflow_yolo(folder: Path) -> None:
    """Without a test split, although data.yaml names one."""
    write(
        folder / "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\nnames: ['cat', 'dog']\n",
    )
    for split, stems in (("train", STEMS[:2]), ("valid", STEMS[2:])):
        for stem in stems:
            write(folder / split / "labels" / f"{stem}.txt", yolo_lines(stem))
            (folder / split / "images").mkdir(parents=True, exist_ok=True)
            (folder / split / "images" / f"{stem}.jpg").write_bytes(image(stem))
    write(folder / "README.roboflow.txt", "Exported on 2024-01-01.\n")


def label_img(folder: Path) -> None:
    """LabelImg's YOLO: label files and classes.txt beside the images."""
    images(folder)
    write(folder / "classes.txt", "cat\ndog\n")
    for stem in STEMS:
        write(folder / f"{stem}.txt", yolo_lines(stem))


def voc_label(folder: Path) -> None:
    """Darknet's voc_label.py, with LabelImg's predefined_classes.txt."""
    images(folder / "JPEGImages")
    write(folder / "predefined_classes.txt", "cat\ndog\n")
    for stem in STEMS:
        write(folder / "labels" / f"{stem}.txt", yolo_lines(stem))


def make_sense_csv(folder: Path) -> None:
    rows = [
        f"{label},{c[0]},{c[1]},{c[2] - c[0]},{c[3] - c[1]},{stem}.jpg,{WIDTH},{HEIGHT}\n"
        for stem in STEMS
        for label, c in BOXES[stem]
    ]
    write(folder / "labels_my-project_2024.csv", "".join(rows))
    images(folder / "images")


def retinanet_csv(folder: Path) -> None:
    rows = [f"images/{stem}.jpg,{c[0]},{c[1]},{c[2]},{c[3]},{label}\n" for stem in STEMS for label, c in BOXES[stem]]
    write(folder / "annotations.csv", "".join([*rows, "images/img3.jpg,,,,,\n"]))
    images(folder / "images")


def kaggle_csv(folder: Path) -> None:
    """As in the wheat competition: x, y, width and height in one column, and names without a suffix."""
    rows = [
        f'{stem},{WIDTH},{HEIGHT},"[{c[0]}.0, {c[1]}.0, {c[2] - c[0]}.0, {c[3] - c[1]}.0]",{label}\n'
        for stem in STEMS
        for label, c in BOXES[stem]
    ]
    write(folder / "train.csv", "".join(["image_id,width,height,bbox,class\n", *rows]))
    images(folder / "images")


def sides_csv(folder: Path) -> None:
    rows = [
        f"{stem}.jpg,{label},{c[0]},{c[1]},{c[2] - c[0]},{c[3] - c[1]}\n" for stem in STEMS for label, c in BOXES[stem]
    ]
    write(folder / "boxes.csv", "".join(["image_name,label,x,y,w,h\n", *rows]))
    images(folder / "images")


def via_regions(stem: str) -> list[dict[str, Any]]:
    return [
        {"shape_attributes": {"name": "rect", **sides(corners)}, "region_attributes": {"class": label}}
        for label, corners in BOXES[stem]
    ]


def via_json(folder: Path) -> None:
    data = {
        f"{s}.jpg-1": {"filename": f"{s}.jpg", "size": -1, "regions": via_regions(s), "file_attributes": {}}
        for s in STEMS
    }
    write(folder / "via_region_data.json", data)
    images(folder)


def via_project(folder: Path) -> None:
    """A saved project, with regions keyed by number as in VIA 1."""
    data = {
        f"{s}.jpg-1": {"filename": f"{s}.jpg", "regions": {str(n): region for n, region in enumerate(via_regions(s))}}
        for s in STEMS
    }
    write(folder / "via_project.json", {"_via_settings": {"ui": {}}, "_via_img_metadata": data, "_via_attributes": {}})
    images(folder / "images")


def via_csv(folder: Path) -> None:
    head = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"
    rows = []
    for stem in STEMS:
        regions = via_regions(stem)
        for n, region in enumerate(regions or [{"shape_attributes": {}, "region_attributes": {}}]):
            quoted = (json.dumps(region[key]).replace('"', '""') for key in ("shape_attributes", "region_attributes"))
            rows.append(f'{stem}.jpg,1,"{{}}",{len(regions)},{n},' + ",".join(f'"{text}"' for text in quoted) + "\n")
    write(folder / "via_region_data.csv", "".join([head, *rows]))
    images(folder)


def voc_xml(folder: Path, shape: Callable[[Corners], str]) -> None:
    for stem in STEMS:
        objects = "".join(f"<object><name>{label}</name>{shape(c)}</object>" for label, c in BOXES[stem])
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        write(
            folder / "xml" / f"{stem}.xml", f"<annotation><filename>{stem}.jpg</filename>{size}{objects}</annotation>"
        )
    images(folder / "images")


def ro_label_img(folder: Path) -> None:
    """Rotated by half a turn, so that the frame equals the box."""
    voc_xml(
        folder,
        lambda c: (
            f"<type>robndbox</type><robndbox><cx>{(c[0] + c[2]) / 2}</cx><cy>{(c[1] + c[3]) / 2}</cy>"
            f"<w>{c[2] - c[0]}</w><h>{c[3] - c[1]}</h><angle>{math.pi}</angle></robndbox>"
        ),
    )


def labelbox_voc(folder: Path) -> None:
    voc_xml(
        folder,
        lambda c: (
            "<polygon>"
            + "".join(
                f"<x{n}>{x}</x{n}><y{n}>{y}</y{n}>"
                for n, (x, y) in enumerate([(c[0], c[1]), (c[2], c[1]), (c[2], c[3]), (c[0], c[3])], start=1)
            )
            + "</polygon>"
        ),
    )


def labelme_web(folder: Path) -> None:
    voc_xml(
        folder,
        lambda c: (
            "<deleted>0</deleted><verified>0</verified><polygon><username>me</username>"
            + "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in [(c[0], c[1]), (c[2], c[1]), (c[2], c[3])])
            + "</polygon>"
        ),
    )


def lvis(folder: Path) -> None:
    data = coco(lambda stem: "")
    for record, stem in zip(data["images"], STEMS, strict=True):
        del record["file_name"]
        record["coco_url"] = f"http://images.cocodataset.org/train2017/{stem}.jpg"
    write(folder / "lvis_v1_train.json", data)
    images(folder / "train2017")


def labelme_alone(folder: Path) -> None:
    """Only LabelMe files, with embedded images."""
    for stem in STEMS:
        shapes = [
            {"label": label, "points": [[c[0], c[1]], [c[2], c[3]]], "shape_type": "rectangle", "group_id": None}
            for label, c in BOXES[stem]
        ]
        data = {
            "version": "5.4.1",
            "shapes": shapes,
            "imagePath": f"{stem}.jpg",
            "imageHeight": HEIGHT,
            "imageWidth": WIDTH,
        }
        write(folder / f"{stem}.json", {**data, "imageData": base64.b64encode(image(stem)).decode()})


def supervisely(folder: Path) -> None:
    write(
        folder / "meta.json",
        {"classes": [{"title": name, "shape": "any", "color": "#0f0"} for name in NAMES], "tags": []},
    )
    images(folder / "ds0" / "img")
    for stem in STEMS:
        objects = [
            {"classTitle": label, "geometryType": kind, "tags": [], **shape}
            for number, (label, c) in enumerate(BOXES[stem])
            for kind, shape in [supervisely_shape(c, number)]
        ]
        data = {"description": "", "tags": [], "size": {"height": HEIGHT, "width": WIDTH}, "objects": objects}
        write(folder / "ds0" / "ann" / f"{stem}.jpg.json", data)


def supervisely_shape(c: Corners, number: int) -> tuple[str, dict[str, Any]]:
    if number == 0:
        return "rectangle", {"points": {"exterior": [[c[0], c[1]], [c[2], c[3]]], "interior": []}}
    mask = np.full((int(c[3] - c[1]), int(c[2] - c[0]), 4), 255, np.uint8)
    data = io.BytesIO()
    Image.fromarray(mask).save(data, "PNG")
    packed = base64.b64encode(zlib.compress(data.getvalue())).decode()
    return "bitmap", {"bitmap": {"data": packed, "origin": [c[0], c[1]]}}


def vott(folder: Path) -> None:
    assets = {}
    for number, stem in enumerate(STEMS):
        regions = [
            {
                "id": f"r{n}",
                "type": "RECTANGLE",
                "tags": [label],
                "boundingBox": {"left": c[0], "top": c[1], "width": c[2] - c[0], "height": c[3] - c[1]},
                "points": [{"x": c[0], "y": c[1]}, {"x": c[2], "y": c[3]}],
            }
            for n, (label, c) in enumerate(BOXES[stem])
        ]
        asset = {
            "format": "jpg",
            "id": f"{number:032x}",
            "name": f"{stem}.jpg",
            "path": f"file:C:/shots/{stem}.jpg",
            "size": {"width": WIDTH, "height": HEIGHT},
            "state": 2 if regions else 1,
        }
        assets[asset["id"]] = {"asset": asset, "regions": regions, "version": "2.2.0"}
    tags = [{"name": name, "color": "#0f0"} for name in NAMES]
    write(folder / "vott-json-export" / "boards-export.json", {"name": "boards", "tags": tags, "assets": assets})
    for asset in assets.values():
        write(folder / f"{asset['asset']['id']}-asset.json", asset)
    images(folder / "vott-json-export")


def datumaro(folder: Path) -> None:
    for subset, stems in (("train", STEMS[:2]), ("val", STEMS[2:])):
        items = [
            {
                "id": stem,
                "annotations": [
                    {
                        "id": n,
                        "type": "bbox",
                        "label_id": NAMES.index(label),
                        "group": 0,
                        "z_order": 0,
                        "bbox": list(sides(c).values()),
                    }
                    for n, (label, c) in enumerate(BOXES[stem])
                ],
                "attr": {"frame": 0},
                "image": {"path": f"{stem}.jpg", "size": [HEIGHT, WIDTH]},
            }
            for stem in stems
        ]
        labels = [{"name": name, "parent": "", "attributes": []} for name in NAMES]
        write(
            folder / "annotations" / f"{subset}.json",
            {"info": {}, "categories": {"label": {"labels": labels}}, "items": items},
        )
        for stem in stems:
            (folder / "images" / subset).mkdir(parents=True, exist_ok=True)
            (folder / "images" / subset / f"{stem}.jpg").write_bytes(image(stem))


def labelbox(folder: Path) -> None:
    lines = []
    for stem in STEMS:
        objects = [
            {
                "feature_id": "f",
                "name": label,
                "value": label,
                "annotation_kind": "ImageBoundingBox",
                "bounding_box": {"top": c[1], "left": c[0], "height": c[3] - c[1], "width": c[2] - c[0]},
            }
            for label, c in BOXES[stem]
        ]
        label = {
            "label_kind": "Default",
            "version": "1.0.0",
            "annotations": {"objects": objects, "classifications": []},
        }
        row = {
            "data_row": {"id": "cl1", "external_id": f"{stem}.jpg", "row_data": f"https://bucket/{stem}.jpg?X-Goog=1"},
            "media_attributes": {"height": HEIGHT, "width": WIDTH, "mime_type": "image/jpeg"},
            "projects": {"cl0": {"name": "boards", "labels": [label]}},
        }
        lines.append(json.dumps(row))
    write(folder / "export.ndjson", "\n".join(lines) + "\n")
    images(folder / "images")


def ultralytics(folder: Path) -> None:
    names = {str(n): name for n, name in enumerate(NAMES)}
    lines = [json.dumps({"type": "dataset", "task": "detect", "name": "boards", "class_names": names})]
    for stem in STEMS:
        boxes = [list(map(float, line.split())) for line in yolo_lines(stem).splitlines()]
        record = {
            "type": "image",
            "file": f"{stem}.jpg",
            "url": f"https://x/{stem}.jpg",
            "width": WIDTH,
            "height": HEIGHT,
        }
        lines.append(
            json.dumps({**record, "split": "train" if stem < "img2" else "val", "annotations": {"boxes": boxes}})
        )
    write(folder / "boards.ndjson", "\n".join(lines))
    images(folder)


def dota(folder: Path) -> None:
    images(folder / "images", lambda stem: f"{stem}.png")
    for stem in STEMS:
        rows = [
            f"{c[0]}.0 {c[1]}.0 {c[2]}.0 {c[1]}.0 {c[2]}.0 {c[3]}.0 {c[0]}.0 {c[3]}.0 {label} 0\n"
            for label, c in BOXES[stem]
        ]
        write(folder / "labelTxt" / f"{stem}.txt", "".join(["imagesource:GoogleEarth\n", "gsd:0.146\n", *rows]))


def hugging_face(folder: Path) -> None:
    lines = [
        json.dumps(
            {
                "file_name": f"{s}.jpg",
                "objects": {
                    "bbox": [list(sides(c).values()) for _, c in BOXES[s]],
                    "categories": [la for la, _ in BOXES[s]],
                },
            }
        )
        for s in STEMS
    ]
    write(folder / "train" / "metadata.jsonl", "\n".join(lines))
    images(folder / "train")


TOOLS: dict[str, tuple[Callable[[Path], None], str]] = {
    "Label Studio JSON": (label_studio, "labelstudio"),
    "Label Studio JSON-MIN": (label_studio_min, "labelstudio"),
    "Label Studio JSON, labels apart": (label_studio_apart, "labelstudio"),
    "Label Studio JSON-MIN, labels apart": (label_studio_apart_min, "labelstudio"),
    "Label Studio COCO": (label_studio_coco, "coco"),
    "Label Studio YOLO": (label_studio_yolo, "yolo"),
    "CVAT for video": (cvat_video, "cvat"),
    "CVAT for video of a job": (cvat_job, "cvat"),
    "CVAT for images of a video": (cvat_images, "cvat"),
    "CVAT YOLO 1.1": (cvat_yolo, "yolo"),
    "Darknet": (darknet, "yolo"),
    "Roboflow Darknet": (roboflow_darknet, "yolo"),
    "Roboflow YOLO": (roboflow_yolo, "yolo"),
    "LabelImg YOLO": (label_img, "yolo"),
    "voc_label.py": (voc_label, "yolo"),
    "MakeSense CSV": (make_sense_csv, "csv"),
    "keras-retinanet CSV": (retinanet_csv, "csv"),
    "Kaggle CSV": (kaggle_csv, "csv"),
    "CSV of sides": (sides_csv, "csv"),
    "VIA JSON": (via_json, "via"),
    "VIA project": (via_project, "via"),
    "VIA CSV": (via_csv, "via"),
    "roLabelImg": (ro_label_img, "voc"),
    "Labelbox VOC": (labelbox_voc, "voc"),
    "LabelMe web": (labelme_web, "voc"),
    "LVIS": (lvis, "coco"),
    "LabelMe with embedded images": (labelme_alone, "labelme"),
    "Supervisely": (supervisely, "supervisely"),
    "VoTT": (vott, "vott"),
    "Datumaro": (datumaro, "datumaro"),
    "Labelbox": (labelbox, "labelbox"),
    "Ultralytics NDJSON": (ultralytics, "ultralytics"),
    "DOTA": (dota, "dota"),
    "Hugging Face": (hugging_face, "huggingface"),
}
# These do not record that img3 was looked at.
SAY_NOTHING = {"MakeSense CSV", "Kaggle CSV", "CSV of sides"}
GIVEN = {
    "Darknet": (2, 2),
    "Roboflow Darknet": (2, 2),
    "Roboflow YOLO": (2, 2),
    "Datumaro": (2, 2),
    "Ultralytics NDJSON": (2, 2),
}


def do(source: Path, run: Run, **settings: Any) -> dict[str, Any]:
    config = Config.model_validate({"convert": {"source": source, "near_duplicates": False, **settings}})
    convert.main(config.convert, run, 0, workers=1)
    receipt: dict[str, Any] = read_json(run.receipt)
    return receipt


@pytest.mark.parametrize("tool", TOOLS)
def test_tool_exports_are_read_unchanged(tool: str, tmp_path: Path) -> None:
    lay, name = TOOLS[tool]
    lay(tmp_path / "source")
    found_name, source = formats.read(tmp_path / "source")
    assert found_name == name
    found = {}
    for item in source.images:
        number = int("".join(filter(str.isdigit, item.image.stem.partition(".rf")[0]))[-1])
        found[f"img{number}"] = sorted((box.label, *box[1:5]) for box in item.boxes)
        assert not [box.damage for box in item.boxes if box.damage]
        assert (item.annotation is None) == (tool in SAY_NOTHING and number == 3)
    assert found.keys() == BOXES.keys()
    for stem, boxes in BOXES.items():
        truth = sorted((label, *corners) for label, corners in boxes)
        assert [one[0] for one in found[stem]] == [one[0] for one in truth]
        # YOLO text has eight decimals here.
        np.testing.assert_allclose([o[1:] for o in found[stem]], [o[1:] for o in truth], atol=1e-4) if truth else None


@pytest.mark.parametrize("tool", TOOLS)
def test_tool_exports_add_up_in_the_receipt(tool: str, tmp_path: Path) -> None:
    TOOLS[tool][0](tmp_path / "source")
    unlabelled = "background" if tool in SAY_NOTHING else "error"
    receipt = do(tmp_path / "source", Run(tmp_path / "runs" / "one"), split=RATIOS, unlabelled=unlabelled)
    assert receipt["images"]["used"] == 4
    assert receipt["boxes"] == {"read": 6, "kept": 6, "clipped": 0, "dropped": 0, "ignored": 0}
    # Darknet's lists name each image once more; an embedded image has no name to match.
    names = {"Darknet": 8, "CVAT YOLO 1.1": 8, "LabelMe with embedded images": 0}.get(tool, 4 - (tool in SAY_NOTHING))
    assert sum(receipt["names_matched"].values()) == names
    assert len(receipt["background_by_setting"]) == (tool in SAY_NOTHING)
    if tool in GIVEN:
        splits = do(tmp_path / "source", Run(tmp_path / "runs" / "two"))["splits"]
        assert (splits["train"]["images"], splits["val"]["images"]) == GIVEN[tool]


def one_of(tool: str, folder: Path) -> Path:
    """The annotation file of a tool."""
    TOOLS[tool][0](folder)
    found = [
        path for path in sorted(folder.rglob("*")) if path.suffix in (".json", ".ndjson", ".jsonl", ".csv", ".xml")
    ]
    others = ("meta.json", "notes.json")
    return next(path for path in found if path.name not in others and not path.name.endswith("-asset.json"))


def replace_once(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def damaged_reason(folder: Path, among: int = 6) -> str:
    """The reason given for the only damaged box among `among`."""
    boxes = [box for item in formats.read(folder)[1].images for box in item.boxes]
    assert len(boxes) == among
    [damaged] = [box for box in boxes if box.damage]
    assert damaged.id
    return damaged.damage


def assert_refused(source: Path, run: Run, said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        do(source, run, split=RATIOS)
    assert "\n" not in str(error.value)


# What is changed in a file -> the result.
DAMAGE: dict[str, tuple[str, str, str, str]] = {
    "Label Studio: no size": ("Label Studio JSON", '"original_width": 320', '"original_width": null', "original_width and original_height are not the size"),
    "Label Studio: no label": ("Label Studio JSON", '"rectanglelabels": ["cat"]', '"rectanglelabels": []', "class is None; name it"),
    "Label Studio: text": ("Label Studio JSON", '"width": 25.0', '"width": "wide"', "lacks one of the numbers x, y, width, height"),
    "VIA: shape": ("VIA JSON", '"name": "rect"', '"name": "blob"', "'blob' is not a supported shape"),
    "VIA: no attribute": ("VIA JSON", '{"class": "cat"}', "{}", "class is None; name it"),
    "VIA CSV: no JSON": ("VIA CSV", '""name"": ""rect""', '""name"": ', "a region that is not JSON"),
    "Supervisely: kind": ("Supervisely", '"geometryType": "rectangle"', '"geometryType": "sphere"', "geometryType 'sphere' is not supported"),
    "Supervisely: bitmap": ("Supervisely", '"origin": [', '"origin": ["x", ', "a bitmap that cannot be read"),
    "VoTT: box": ("VoTT", '"left": 20', '"left": null', "lacks one of the numbers left, top, width, height"),
    "Datumaro: label": ("Datumaro", '"label_id": 0', '"label_id": 7', "class is None; name it"),
    "Labelbox: box": ("Labelbox", '"top": 30', '"top": "up"', "lacks one of the numbers left, top, width, height"),
    "Ultralytics: class": ("Ultralytics NDJSON", "[0.0, ", "[9.0, ", "class 9.0, outside the valid range 0..1"),
    "Hugging Face: three": ("Hugging Face", "[[20, 30, 80, 60]", "[[20, 30, 80]", "is not [x, y, width, height]"),
    "Kaggle: three": ("Kaggle CSV", "[20.0, ", "[", "is not x, y, width, height"),
    "CVAT video": ("CVAT for video", 'xtl="20"', 'xtl="left"', "xtl is 'left', not a number"),
    "roLabelImg": ("roLabelImg", "<angle>", "<angle>x", "angle is 'x3.14"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_one_damaged_annotation_is_a_box_with_the_reason(case: str, tmp_path: Path) -> None:
    tool, old, new, why = DAMAGE[case]
    replace_once(one_of(tool, tmp_path), old, new)
    assert why in damaged_reason(tmp_path)


def test_only_a_limited_number_of_bytes_is_decompressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.formats.supervisely.MOST_BYTES", 50)
    one_of("Supervisely", tmp_path)
    reasons = [box.damage for item in formats.read(tmp_path)[1].images for box in item.boxes if box.damage]
    assert reasons == ["a bitmap that cannot be read; correct it"] * 3


BROKEN: dict[str, tuple[str, str, str, str]] = {
    "Label Studio: no image": ("Label Studio JSON", '{"image": "/data/upload/1/00000001-img0.jpg"}', '{"text": "hello"}', r"task 1 names no image"),
    "VIA: no name": ("VIA JSON", '"filename": "img0.jpg"', '"filename": 7', r"an image has the filename 7"),
    "VoTT: no name": ("VoTT", '"name": "img0.jpg"', '"name": null', r"an asset has the name None"),
    "Datumaro: no names": ("Datumaro", '"labels": [', '"tags": [', r"`categories` has no label with a list of names"),
    "Labelbox: cut": ("Labelbox", '{"data_row"', '{"data_row', r"line 1: not a JSON object|no annotations in a supported format"),
    "Ultralytics: names": ("Ultralytics NDJSON", '{"0": "cat", "1": "dog"}', '{"0": "cat", "1": "cat"}', r"line 1: class_names are"),
    "Hugging Face: lengths": ("Hugging Face", '"categories": ["cat", ', '"categories": [', r"line 1: objects .* are not lists of bbox and category"),
    "CVAT video: frame": ("CVAT for video", 'frame="0"', 'frame="first"', r"track 1, shape 1: frame is 'first', not one of 0 to "),
    "a repeated key": ("VIA JSON", '"filename": "img0.jpg"', '"filename": "img0.jpg", "regions": []', r"the key 'regions' appears twice"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_an_unreadable_file_is_refused_by_name(case: str, tmp_path: Path) -> None:
    tool, old, new, said = BROKEN[case]
    replace_once(one_of(tool, tmp_path), old, new)
    assert_refused(tmp_path, Run(tmp_path.parent / "runs" / "x"), said)


def test_a_track_is_interpolated_linearly_between_key_frames(tmp_path: Path) -> None:
    shapes = "".join(
        f'<box frame="{frame}" keyframe="1" outside="0" occluded="0" xtl="{x}" ytl="10" xbr="{x + 20}" ybr="30"/>'
        for frame, x in ((0, 0), (2, 100))
    )
    write(tmp_path / "a.xml", f'<annotations><track id="0" label="cat">{shapes}</track></annotations>')
    images(tmp_path, lambda stem: f"frame_{STEMS.index(stem):06}.jpg")
    found = {item.image.stem[-1]: [box[1:5] for box in item.boxes] for item in formats.read(tmp_path)[1].images}
    assert found == {"0": [(0, 10, 20, 30)], "1": [(50, 10, 70, 30)], "2": [(100, 10, 120, 30)], "3": []}


def track(*shapes: tuple[int, int], attributes: str = "") -> str:
    """A track of 20 x 20 boxes: frame and left edge of each."""
    boxes = (
        f'<box frame="{frame}" keyframe="1" outside="0" occluded="0" xtl="{x}" ytl="10" xbr="{x + 20}" ybr="30"/>'
        for frame, x in shapes
    )
    return f'<track id="0" label="cat"{attributes}>{"".join(boxes)}</track>'


def frames_in(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image(f"frame {number}", "png"))


def lefts(folder: Path) -> dict[str, list[float]]:
    """The left edges of the boxes of each labelled image."""
    source = formats.read(folder)[1]
    return {
        item.image.relative_to(folder).as_posix(): [box.xmin for box in item.boxes]
        for item in source.images
        if item.annotation
    }


# A task of 20 frames, 0, 5, ..., 95.
STEPS = f"<task><size>20</size><start_frame>0</start_frame><stop_frame>95</stop_frame><frame_filter>step=5</frame_filter>{ORIGINAL_SIZE}</task>"


def test_only_the_frames_of_a_step_that_were_not_deleted_have_boxes(tmp_path: Path) -> None:
    """Frames 10 and 25 were deleted: they have neither a shape nor an image. Frames from 20 on are empty."""
    cvat_xml(tmp_path, STEPS, track((0, 0), (5, 50), (15, 150)))
    there = [n for n in range(0, 100, 5) if n not in (10, 25)]
    frames_in(tmp_path, *(f"images/frame_{n:06}.PNG" for n in there))
    shown: dict[int, list[float]] = {0: [0], 5: [50], 15: [150]}
    assert lefts(tmp_path) == {f"images/frame_{n:06}.PNG": shown.get(n, []) for n in there}
    receipt = do(tmp_path, Run(tmp_path.parent / "runs" / "x"), split=RATIOS)
    assert receipt["images"]["used"] == 18 and receipt["boxes"]["read"] == receipt["boxes"]["kept"] == 3


def test_a_track_is_interpolated_only_onto_images(tmp_path: Path) -> None:
    cvat_xml(tmp_path, STEPS, track((0, 0), (20, 200)))
    frames_in(tmp_path, *(f"images/frame_{n:06}.PNG" for n in (0, 5, 7, 15, 20)))
    assert lefts(tmp_path) == {
        f"images/frame_{n:06}.PNG": [10.0 * n] for n in (0, 5, 15, 20)
    }  # 7 is no frame of the task


def test_a_track_without_a_size_of_the_video_makes_no_million_boxes(tmp_path: Path) -> None:
    cvat_xml(tmp_path, "", track((0, 0), (999_999, 100)))
    frames_in(tmp_path, "frame_000000.png", "frame_500000.png")
    [first, between, last] = [(item.image.stem, len(item.boxes)) for item in formats.read(tmp_path)[1].images]
    assert (first, between, last) == (("frame_000000", 1), ("frame_500000", 1), ("frame_999999", 1))


def of_a_project(folder: Path, *subsets: str) -> None:
    """A project with a video of three frames in each subset: numbers begin at 0 in each subset."""
    tasks, tracks = "", ""
    for number, subset in enumerate(subsets):
        numbers = "<size>3</size><start_frame>0</start_frame><stop_frame>2</stop_frame><frame_filter></frame_filter>"
        tasks += f"<task><id>{number}</id>{numbers}<subset>{subset}</subset>{ORIGINAL_SIZE}</task>"
        tracks += track((0, 100 * number), (1, 100 * number + 1), attributes=f' task_id="{number}" subset="{subset}"')
        frames_in(folder, *(f"images/{subset}/frame_{n:06}.PNG" for n in range(3)))
    cvat_xml(folder, f"<project><id>1</id><tasks>{tasks}</tasks>{CVAT_LABELS}</project>", tracks)


def test_the_videos_of_a_cvat_project_stay_apart_and_keep_their_subsets(tmp_path: Path) -> None:
    of_a_project(tmp_path, "Train", "Validation", "lot 3")
    assert lefts(tmp_path) == {
        f"images/{subset}/frame_{n:06}.PNG": [100 * number + n] if n < 2 else []
        for number, subset in enumerate(("Train", "Validation", "lot 3"))
        for n in range(3)
    }
    splits = {item.image.parent.name: item.split for item in formats.read(tmp_path)[1].images}
    assert splits == {"Train": "train", "Validation": "val", "lot 3": None}


def test_a_missing_frame_is_not_taken_from_the_video_of_another_subset(tmp_path: Path) -> None:
    of_a_project(tmp_path, "lot 1", "lot 2")
    (tmp_path / "images" / "lot 1" / "frame_000001.PNG").unlink()
    missing = [item for item in formats.read(tmp_path)[1].images if not item.image.exists()]
    assert [item.image.parent.name for item in missing] == ["lot 1"]


def test_the_second_video_of_a_subset_continues_its_numbers(tmp_path: Path) -> None:
    of_a_project(tmp_path, "Train")
    path = tmp_path / "annotations.xml"
    first = re.findall(r"<task>.*?</task>", path.read_text())[0]
    second = track((3, 7), attributes=' task_id="1" subset="Train"')
    path.write_text(path.read_text().replace(first, 2 * first).replace("</annotations>", f"{second}</annotations>"))
    frames_in(tmp_path, *(f"images/Train/frame_{n:06}.PNG" for n in (3, 4, 5)))
    found = lefts(tmp_path)
    assert found["images/Train/frame_000003.PNG"] == [7] and found["images/Train/frame_000005.PNG"] == []
    replace_once(path, 'frame="3"', 'frame="6"')
    assert_refused(tmp_path, Run(tmp_path.parent / "runs" / "x"), r"track 2, shape 1: frame is '6', not one of 0 to 5;")


@pytest.mark.parametrize("degrees", [0, 30, 90, 200])
def test_a_rotated_label_studio_box_is_framed(degrees: float, tmp_path: Path) -> None:
    """It rotates about its upper left corner; the oracle rotates each corner as a complex number."""
    value = {"x": 50, "y": 50, "width": 10, "height": 20, "rotation": degrees, "rectanglelabels": ["cat"]}
    result = {"type": "rectanglelabels", "original_width": 200, "original_height": 100, "value": value}
    write(tmp_path / "a.json", [{"id": 1, "data": {"image": "img0.jpg"}, "annotations": [{"result": [result]}]}])
    images(tmp_path)
    [box] = [box for item in formats.read(tmp_path)[1].images for box in item.boxes]
    turn = complex(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    corners = [complex(100, 50) + complex(x, y) * turn for x in (0, 20) for y in (0, 20)]
    expected = [
        min(c.real for c in corners),
        min(c.imag for c in corners),
        max(c.real for c in corners),
        max(c.imag for c in corners),
    ]
    np.testing.assert_allclose(box[1:5], expected, atol=1e-9)


# --- Shapes without a box ---------------------------------------------------------------------------------

# What is changed in all objects of the first image -> why it is set aside.
NO_BOX: dict[str, tuple[str, str, str, int, str]] = {
    "brush": ("Label Studio JSON", '"rectanglelabels"', '"brushlabels"', 4, "a brush mask: draw rectangles"),
    "bitmask": ("Label Studio JSON-MIN", '"rectanglelabels"', '"bitmasklabels"', 2, "a mask: draw rectangles"),
    "unknown": ("Label Studio JSON", '"rectanglelabels"', '"cuboidlabels"', 4, "a 'cuboid': it is not supported"),
    "mask": ("Labelbox", '"bounding_box"', '"mask"', 2, "a mask, not a box"),
    "points": ("CVAT for images of a video", "<box ", "<points ", 2, "points: they enclose nothing"),
    "via": ("VIA JSON", '"name": "rect"', '"name": "point"', 2, "a point: it has no area"),
    "skeleton": ("Datumaro", '"type": "bbox"', '"type": "skeleton"', 2, "a skeleton, not a box"),
    "crowd": ("Label Studio COCO", '"image_id": 0,', '"image_id": 0, "iscrowd": 1,', 2, "a region of many objects"),
}


def without_boxes(case: str, folder: Path) -> str:
    """A source whose first image has only shapes without a box; return the reason for them."""
    tool, old, new, count, why = NO_BOX[case]
    path = one_of(tool, folder)
    assert path.read_text().count(old) >= count
    path.write_text(path.read_text().replace(old, new, count))
    return why


@pytest.mark.parametrize("case", NO_BOX)
def test_an_image_with_only_shapes_without_a_box_is_no_background(case: str, tmp_path: Path) -> None:
    why = without_boxes(case, tmp_path / "source")
    receipt = do(tmp_path / "source", Run(tmp_path / "runs" / "x"), split=RATIOS)
    [(name, reason)] = receipt["images"]["set_aside"].items()
    assert re.search(r"img0|frame_000000", name) and reason.startswith("it has no box, but ") and why in reason
    assert receipt["images"]["used"] == 3 and receipt["boxes"]["ignored"] == 2
    assert sum(split["background_images"] for split in receipt["splits"].values()) == 1


def test_shapes_of_a_class_that_the_config_leaves_out_do_not_matter(tmp_path: Path) -> None:
    without_boxes("via", tmp_path / "source")
    path = tmp_path / "source" / "via_region_data.json"
    path.write_text(re.sub(r'("name": "point".*?"class": ")(?:cat|dog)', r"\1edge", path.read_text()))
    classes = {"cat": "cat", "dog": "dog", "edge": None}
    receipt = do(tmp_path / "source", Run(tmp_path / "runs" / "x"), split=RATIOS, classes=classes)
    assert receipt["images"]["set_aside"] == {} and receipt["images"]["used"] == 4


def test_without_any_usable_image_the_reason_is_named(tmp_path: Path) -> None:
    path = one_of("Label Studio JSON", tmp_path)
    path.write_text(path.read_text().replace('"rectanglelabels"', '"brushlabels"'))
    said = r"; of 4 images, 3 are not used, such as upload/img0\.jpg: it has no box, but task 1, result 1 \(cat\): "
    assert_refused(tmp_path, Run(tmp_path.parent / "runs" / "x"), said + "a brush mask: draw rectangles or polygons")


def test_masks_of_cvat_are_objects_although_it_marks_them_as_crowds(tmp_path: Path) -> None:
    data = coco("{}.jpg".format)
    rle = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}
    for record in data["annotations"]:
        record |= {"segmentation": rle, "iscrowd": 1, "attributes": {"occluded": False}}
    write(tmp_path / "cvat" / "a.json", data)
    images(tmp_path / "cvat")
    source = formats.read(tmp_path / "cvat")[1]
    assert [box[:5] for item in source.images for box in item.boxes] == [
        (label, *corners) for stem in STEMS for label, corners in BOXES[stem]
    ]
    assert not [box for item in source.images for box in item.boxes if box.ignore]
    assert source.notes == ("a.json: each mask counts as one object, although CVAT wrote iscrowd 1",)
    del data["annotations"][3]["attributes"]  # not CVAT's: then iscrowd means what it says
    write(tmp_path / "cvat" / "a.json", data)
    assert all(box.ignore for item in formats.read(tmp_path / "cvat")[1].images for box in item.boxes)


@pytest.mark.parametrize("degrees", [0, 30, 90, 200.5])
@pytest.mark.parametrize("tool", ["coco", "datumaro", "voc"])
def test_a_rectangle_that_cvat_rotated_is_framed(tool: str, degrees: float, tmp_path: Path) -> None:
    """It rotates about its centre; the oracle rotates each corner as a complex number."""
    box = {"bbox": [100, 50, 20, 40], "attributes": {"occluded": False, "rotation": degrees}}
    record = {"id": 1, "image_id": 0, "category_id": 0, "segmentation": [], **box}
    item = {"id": "img0", "annotations": [{"type": "bbox", "label_id": 0, **box}]}
    datumaro_file = {"categories": {"label": {"labels": [{"name": "cat"}]}}, "items": [item]}
    xml = (
        "<annotation><filename>img0.jpg</filename><object><name>cat</name><bndbox><xmin>100</xmin><ymin>50</ymin>"
        "<xmax>120</xmax><ymax>90</ymax></bndbox><attributes><attribute><name>rotation</name>"
        f"<value>{degrees}</value></attribute></attributes></object></annotation>"
    )
    coco_file = {**coco("{}.jpg".format), "annotations": [record]}
    content = {"coco": coco_file, "datumaro": datumaro_file, "voc": xml}[tool]
    write(tmp_path / ("img0.xml" if tool == "voc" else "img0.json"), content)
    images(tmp_path)
    [found] = [box for item in formats.read(tmp_path)[1].images for box in item.boxes]
    turn = complex(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    corners = [complex(110, 70) + complex(x, y) * turn for x in (-10, 10) for y in (-20, 20)]
    frame = [min(c.real for c in corners), min(c.imag for c in corners)]
    frame += [max(c.real for c in corners), max(c.imag for c in corners)]
    np.testing.assert_allclose(found[1:5], frame, atol=1e-9)


# --- Details of one tool ----------------------------------------------------------------------------------


def test_an_image_inside_a_file_with_a_suffix_in_capitals_is_taken_out(tmp_path: Path) -> None:
    labelme_alone(tmp_path / "source")
    (tmp_path / "source" / "img0.json").rename(tmp_path / "source" / "img0.JSON")
    receipt = do(tmp_path / "source", Run(tmp_path / "runs" / "x"), split=RATIOS)
    assert receipt["images"]["used"] == 4 and set(receipt["rewritten"].values()) == {"taken out of its JSON"}


@pytest.mark.parametrize(
    "change",
    [lambda text: f"\ufeff{text}", lambda text: text.replace("{", '{"flags": NaN, ', 1)],
    ids=["byte-order mark", "NaN"],
)
def test_an_image_inside_a_file_that_only_pythons_parser_reads_is_taken_out(
    change: Callable[[str], str], tmp_path: Path
) -> None:
    labelme_alone(tmp_path / "source")
    path = tmp_path / "source" / "img0.json"
    path.write_text(change(path.read_text()), encoding="utf-8")
    receipt = do(tmp_path / "source", Run(tmp_path / "runs" / "x"), split=RATIOS)
    assert receipt["images"]["used"] == 4 and receipt["boxes"]["kept"] == 6


def test_deleted_polygons_of_labelme_are_ignored_and_listed(tmp_path: Path) -> None:
    labelme_web(tmp_path / "source")
    path = tmp_path / "source" / "xml" / "img1.xml"
    path.write_text(path.read_text().replace("<deleted>0", "<deleted>1"))
    receipt = do(tmp_path / "source", Run(tmp_path / "runs" / "x"), split=RATIOS)
    assert receipt["boxes"] == {"read": 6, "kept": 4, "clipped": 0, "dropped": 0, "ignored": 2}
    reasons = [(problem["id"], problem["class"], problem["reason"]) for problem in receipt["problems"]]
    why = "deleted in LabelMe, which leaves deleted shapes in the file"
    assert reasons == [("object 1", "dog", why), ("object 2", "cat", why)]
    assert receipt["images"]["used"] == 4  # without them, it is a background image


def test_skipped_labels_of_labelbox_do_not_count(tmp_path: Path) -> None:
    path = one_of("Labelbox", tmp_path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        [project] = row["projects"].values()
        skipped = {
            "label_kind": "Default",
            "performance_details": {"seconds_to_create": 4, "skipped": True},
            "annotations": {"objects": [], "classifications": []},
        }
        kept = [
            {**label, "performance_details": {"seconds_to_create": 40, "skipped": False}} for label in project["labels"]
        ]
        project["labels"] = [skipped] if "img3" in row["data_row"]["external_id"] else [skipped, *kept]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = {
        item.image.stem: (item.annotation is not None, [(box.label, *box[1:5]) for box in item.boxes])
        for item in formats.read(tmp_path)[1].images
    }
    assert found == {stem: (stem != "img3", [(label, *corners) for label, corners in BOXES[stem]]) for stem in STEMS}
    assert not [box for item in formats.read(tmp_path)[1].images for box in item.boxes if box.ignore]


@pytest.mark.parametrize("tool", ["Label Studio JSON", "Labelbox"])
def test_objects_that_only_a_second_annotator_drew_count(tool: str, tmp_path: Path) -> None:
    path = one_of(tool, tmp_path)
    text = path.read_text()
    if tool == "Labelbox":
        empty = '{"label_kind": "Default", "annotations": {"objects": [], "classifications": []}}, '
        path.write_text(text.replace('"labels": [', f'"labels": [{empty}'))
    else:
        image_level = {
            "id": "c",
            "type": "choices",
            "from_name": "blur",
            "to_name": "image",
            "value": {"choices": ["no"]},
        }
        tasks = json.loads(text)
        for task in tasks:
            task["annotations"].insert(0, {"id": 90, "result": [image_level], "was_cancelled": False})
        path.write_text(json.dumps(tasks))
    items = {item.image.stem: item for item in formats.read(tmp_path)[1].images}
    assert {stem: [(box.label, box[1:5], box.ignore) for box in item.boxes] for stem, item in items.items()} == {
        stem: [(label, pytest.approx(corners), "") for label, corners in BOXES[stem]] for stem in STEMS
    }
    if tool != "Labelbox":
        path.write_text(path.read_text().replace('"id": 90,', '"id": 90, "ground_truth": true,'))
        assert all(box.ignore for item in formats.read(tmp_path)[1].images for box in item.boxes)


def test_a_label_studio_region_with_two_labels_gives_two_boxes(tmp_path: Path) -> None:
    replace_once(
        one_of("Label Studio JSON", tmp_path), '"rectanglelabels": ["cat"]', '"rectanglelabels": ["cat", "pet"]'
    )
    first, second, *_ = [box for item in formats.read(tmp_path)[1].images for box in item.boxes]
    assert (first.label, second.label) == ("cat", "pet") and first[1:] == second[1:]


AREA = {"x": 10, "y": 10, "width": 20, "height": 30, "rotation": 0}
OTHER = {"x": 50, "y": 20, "width": 10, "height": 10, "rotation": 0}
POLYGON = {"points": [[10, 10], [30, 10], [30, 40]], "closed": True}
ELLIPSE = {"x": 20, "y": 25, "radiusX": 10, "radiusY": 15, "rotation": 0}
FRAMED = (32, 24, 96, 96)  # AREA, and the frames of the other two


def of_json_min(folder: Path, **lists: list[dict[str, Any]]) -> list[Any]:
    row = {"image": "img0.jpg", "id": 1, "annotator": 1}
    write(folder / "min.json", [{**row, **{name: [{**one, **SIZE} for one in found] for name, found in lists.items()}}])
    images(folder)
    return [box for item in formats.read(folder)[1].images for box in item.boxes]


@pytest.mark.parametrize("shape", [AREA, POLYGON, ELLIPSE], ids=["rectangle", "polygon", "ellipse"])
def test_shapes_of_label_studio_find_their_labels_by_their_coordinates(shape: dict[str, Any], tmp_path: Path) -> None:
    [box] = of_json_min(tmp_path, shape=[shape], label=[{**shape, "labels": ["cat"]}])
    assert (box.label, box.damage) == ("cat", "") and box[1:5] == pytest.approx(FRAMED)


def test_a_rating_of_a_label_studio_region_is_no_box(tmp_path: Path) -> None:
    labels = [{**AREA, "rectanglelabels": ["cat"]}, {**OTHER, "rectanglelabels": ["dog"]}]
    boxes = of_json_min(tmp_path, label=labels, quality=[{**AREA, "rating": 3}], count=[{**OTHER, "number": 7}])
    assert [(box.label, box.damage) for box in boxes] == [("cat", ""), ("dog", "")]


def test_two_label_studio_regions_with_the_same_coordinates_stay_two(tmp_path: Path) -> None:
    boxes = of_json_min(tmp_path, bbox=[AREA, AREA], label=[{**AREA, "labels": ["cat"]}, {**AREA, "labels": ["dog"]}])
    assert [box.label for box in boxes] == ["cat", "dog"] and boxes[0][1:5] == boxes[1][1:5]


def test_a_label_studio_region_without_a_label_is_damaged(tmp_path: Path) -> None:
    boxes = of_json_min(tmp_path, bbox=[AREA, OTHER], label=[{**OTHER, "labels": ["cat"]}])
    assert [(box.label, box.damage) for box in boxes] == [("", "class is None; name it"), ("cat", "")]


def test_coordinates_nested_absurdly_deep_are_damaged(tmp_path: Path) -> None:
    deep = json.dumps(
        [{"image": "img0.jpg", "annotator": 1, "label": [{**SIZE, "points": 0, "polygonlabels": ["cat"]}]}]
    )
    write(tmp_path / "min.json", deep.replace('"points": 0', f'"points": {"[" * 990}{"]" * 990}'))
    images(tmp_path)
    assert "are not 3 or more pairs of numbers" in damaged_reason(tmp_path, among=1)


def of_two_images(folder: Path, *elements: str) -> None:
    """A project with `<Image name="left" value="$left"/>` and the same for `right`; each element has a box."""
    results = [
        {"id": f"r{n}", "type": "rectanglelabels", "from_name": "label", "to_name": element, **SIZE,
         "value": {**AREA, "rectanglelabels": ["cat"]}}
        for n, element in enumerate(elements)
    ]  # fmt: skip
    data = {"left": "/data/upload/1/img0.jpg", "right": "/data/upload/1/img1.jpg"}
    write(folder / "project.json", [{"id": 1, "data": data, "annotations": [{"result": results}]}])
    images(folder)


def test_label_studio_tasks_with_shapes_on_two_images_are_refused(tmp_path: Path) -> None:
    of_two_images(tmp_path, "left", "right")
    said = r"project\.json: a task has several images, with shapes on 'left' and on 'right' \(task 1\); make one task"
    assert_refused(tmp_path, Run(tmp_path.parent / "runs" / "x"), said)


@pytest.mark.parametrize(("element", "stem"), [("left", "img0"), ("right", "img1")])
def test_the_element_of_a_label_studio_result_tells_the_image(element: str, stem: str, tmp_path: Path) -> None:
    of_two_images(tmp_path, element)
    assert [item.image.stem for item in formats.read(tmp_path)[1].images if item.annotation] == [stem]


def test_json_min_of_two_images_is_refused(tmp_path: Path) -> None:
    label = [{**AREA, **SIZE, "rectanglelabels": ["cat"]}]
    row = {"left": "/data/upload/1/img0.jpg", "right": "/data/upload/1/img1.jpg", "annotator": 1, "label": label}
    write(tmp_path / "min.json", [row])
    images(tmp_path)
    said = (
        r"task 1 names '/data/upload/1/img0\.jpg' and '.*img1\.jpg', and JSON-MIN does not say which .*; export JSON$"
    )
    assert_refused(tmp_path, Run(tmp_path.parent / "runs" / "x"), said)
    write(tmp_path / "min.json", [{**row, "right": "s3://bucket/img0.jpg"}])  # the same image again
    assert [item.image.stem for item in formats.read(tmp_path)[1].images if item.annotation] == ["img0"]


@pytest.mark.parametrize("name", ["shots%5C{}.jpg", "shots%2F{}.jpg", "a%2Fshots%5c{}.jpg"])
def test_a_label_studio_path_with_encoded_slashes_is_found(name: str, tmp_path: Path) -> None:
    path = one_of("Label Studio JSON-MIN", tmp_path)
    path.write_text(re.sub(r"\?d=shots/(img\d)\.jpg", lambda match: "?d=" + name.format(match[1]), path.read_text()))
    images(tmp_path / "other")  # so that the folder decides
    assert {item.image.parent.name for item in formats.read(tmp_path)[1].images if item.annotation} == {"shots"}


def via_of(folder: Path, shape: dict[str, Any], attributes: dict[str, Any]) -> Any:
    region = {"shape_attributes": shape, "region_attributes": attributes}
    write(folder / "via.json", {"a": {"filename": "img0.jpg", "regions": [region]}})
    images(folder)
    [box] = [box for item in formats.read(folder)[1].images for box in item.boxes]
    return box


def test_a_turned_via_ellipse_is_framed(tmp_path: Path) -> None:
    ellipse = {"name": "ellipse", "cx": 100, "cy": 80, "rx": 50, "ry": 10, "theta": math.pi / 2}
    assert via_of(tmp_path, ellipse, {"class": "cat"})[1:5] == pytest.approx((90, 30, 110, 130))


RECT = {"name": "rect", "x": 1, "y": 2, "width": 30, "height": 40}


@pytest.mark.parametrize(
    ("attributes", "label", "damage"),
    [
        ({"quality": "good", "name": "x", "Class": "cat"}, "cat", ""),
        ({"quality": "good", "type": "cat"}, "cat", ""),
        ({"quality": "good", "animal": "cat"}, "", "class could be 'quality, animal'; name the attribute `class`"),
        ({"class": {"cat": True, "dog": True}}, "", "2 classes are ticked; keep one"),
    ],
)
def test_the_attribute_of_a_via_region_that_holds_the_class(
    attributes: dict[str, Any], label: str, damage: str, tmp_path: Path
) -> None:
    box = via_of(tmp_path, RECT, attributes)
    assert (box.label, box.damage) == (label, damage)


def without_attributes(tool: str, folder: Path, count: int = 0) -> list[Any]:
    """Read an export of VIA without attributes, or without the first `count` of them."""
    path = one_of(tool, folder)
    path.write_text(re.sub(r'\{"+class"+: "+\w+"+\}', "{}", path.read_text(), count=count))
    return [box for item in formats.read(folder)[1].images for box in item.boxes]


@pytest.mark.parametrize("tool", ["VIA JSON", "VIA project", "VIA CSV"])
def test_via_regions_without_any_attribute_are_objects(tool: str, tmp_path: Path) -> None:
    boxes = without_attributes(tool, tmp_path / "source")
    assert sorted(box[1:5] for box in boxes) == sorted(c for found in BOXES.values() for _, c in found)
    receipt = do(tmp_path / "source", Run(tmp_path / "runs" / "x"), split=RATIOS)
    assert receipt["classes"] == ["object"] and receipt["boxes"]["kept"] == 6
    assert receipt["notes"] == ["no region has an attribute for its class, so every box gets the class 'object'"]
    # Beside regions with a class, those without one need a name.
    boxes = without_attributes(tool, tmp_path / "mixed", count=2)
    assert [(box.label, box.damage) for box in boxes].count(("", "class is None; name it")) == 2


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ({"obb": [[1, 0.25, 0.25, 0.5, 0.25, 0.5, 0.5, 0.25, 0.5]]}, [("dog", 80, 60, 160, 120)]),
        ({"pose": [[0, 0.5, 0.5, 0.25, 0.5, 0.1, 0.2, 2.0, 0.3, 0.4, 2.0]]}, [("cat", 120, 60, 200, 180)]),
        ({"boxes": [[0, 0.5, 0.5, 0.25, 0.5]], "segments": [[1, [0.1, 0.1, 0.2, 0.1, 0.2, 0.2]]]}, [("cat", 120, 60, 200, 180)]),
    ],
    ids=["obb", "pose", "two forms"],
)  # fmt: skip
def test_every_task_of_ultralytics_ndjson_is_read(
    annotations: dict[str, Any], expected: list[Any], tmp_path: Path
) -> None:
    head = {"type": "dataset", "class_names": {"0": "cat", "1": "dog"}}
    record = {"type": "image", "file": "img0.jpg", "width": WIDTH, "height": HEIGHT, "annotations": annotations}
    write(tmp_path / "a.ndjson", f"{json.dumps(head)}\n{json.dumps(record)}\n")
    images(tmp_path)
    boxes = [box for item in formats.read(tmp_path)[1].images for box in item.boxes]
    assert [box[:5] for box in boxes if not box.ignore] == expected
    assert len(boxes) == sum(map(len, annotations.values()))  # what does not count is ignored, not lost


@pytest.mark.parametrize(
    ("head", "row", "label"),
    [
        ("label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height", "cat,20,30,80,60,img0.jpg,320,240", "cat"),
        ("filename,xmin,ymin,xmax,ymax", "img0.jpg,20,30,100,90", "object"),
        ("filename,x,y,w,h", "img0.jpg,20,30,80,60", "object"),
        (",image_id,width,height,bbox,source", '0,img0,320,240,"[20, 30, 80, 60]",usask', "object"),
        ("filename,class_id,xmin,ymin,xmax,ymax", "img0.jpg,2,20,30,100,90", "2"),
        ("image_id,category_id,x,y,width,height", "img0,0,20,30,80,60", "0"),
        ("image,labels,xmin,ymin,xmax,ymax", "img0.jpg,cat,20,30,100,90", "cat"),
        ("image,object,xmin,ymin,xmax,ymax", "img0.jpg,cat,20,30,100,90", "cat"),
        ("ClassId,species,image,x1,y1,x2,y2", "3,cat,img0.jpg,20,30,100,90", "cat"),
    ],
    ids=["MakeSense", "corners without a class", "sides without a class", "wheat", "class_id", "category_id", "labels", "object", "a name and an id"],
)  # fmt: skip
def test_tables_of_other_columns_are_read(head: str, row: str, label: str, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", f"{head}\n{row}\n")
    images(tmp_path)
    name, source = formats.read(tmp_path)
    assert name == "csv" and [box[:5] for item in source.images for box in item.boxes] == [(label, 20, 30, 100, 90)]
    note = ("a.csv: no column for a class, so every box gets the class 'object'",)
    assert source.notes == (note if label == "object" else ())


@pytest.mark.parametrize("head", ["filename,xmin,ymin,xmax,ymax,defect", "id,Defect Kind,image,x,y,w,h"])
def test_a_column_that_may_hold_the_class_is_not_passed_over(head: str, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", f"{head}\n{','.join('1' for _ in head.split(','))}\n")
    images(tmp_path)
    with pytest.raises(
        DataError, match=r"a\.csv: no column is called class; rename .* \('[Dd]efect.*'\) to class, or add"
    ):
        formats.read(tmp_path)


def test_a_frame_beyond_the_end_of_the_video_is_refused(tmp_path: Path) -> None:
    replace_once(one_of("CVAT for video", tmp_path), 'frame="3"', 'frame="999999999"')
    assert_refused(
        tmp_path, Run(tmp_path.parent / "runs" / "x"), r"frame is '999999999', not one of 0 to 3; correct it"
    )


def test_a_project_of_via_3_is_recognised_as_such(tmp_path: Path) -> None:
    project = {"project": {"pid": "__ID__", "pname": "x", "data_format_version": "3.1.1"}, "config": {}, "metadata": {}}
    write(tmp_path / "via.json", project)
    images(tmp_path)
    assert_refused(
        tmp_path, Run(tmp_path.parent / "runs" / "x"), r"via\.json is of VIA 3, which is not read: export it as"
    )


def test_a_number_is_no_class_of_dota(tmp_path: Path) -> None:
    dota(tmp_path)
    replace_once(tmp_path / "labelTxt" / "img1.txt", " dog 0", " 1e5 0")
    assert damaged_reason(tmp_path) == "class is 1e5, a number"

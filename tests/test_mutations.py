"""Damaged annotation files of every format are refused by name or accounted for, never anything else.

Each case takes a valid source, corrupts one annotation file by a seeded choice among a dozen kinds of damage, and
converts it. The counters below count independently what the corrupted file still holds, so that a reader cannot
lose annotations while the receipt agrees with itself.
"""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import as_voc, as_yolo, read_coco
from hang import no_hang

from pipeline import convert
from pipeline.config.data import Convert
from pipeline.errors import PipelineError
from pipeline.files import read_json
from pipeline.run import Run

SEEDS = range(30)  # for each of nine formats
PATIENCE = 30  # seconds for a conversion that takes 0.1 s: beyond that, it hangs
RATIOS = {"train": 0.5, "val": 0.25, "test": 0.25}


@dataclass(frozen=True)
class LabelledImage:
    name: str
    width: int
    height: int
    boxes: list[tuple[str, float, float, float, float]]  # class, xmin, ymin, xmax, ymax


def images_in(tiles: Path) -> list[LabelledImage]:
    found = []
    for split in ("train", "val", "test"):
        data = read_coco(tiles, split)
        names = {category["id"]: category["name"] for category in data["categories"]}
        for image in data["images"]:
            boxes = [
                (
                    names[a["category_id"]],
                    a["bbox"][0],
                    a["bbox"][1],
                    a["bbox"][0] + a["bbox"][2],
                    a["bbox"][1] + a["bbox"][3],
                )
                for a in data["annotations"]
                if a["image_id"] == image["id"]
            ]
            found.append(LabelledImage(image["file_name"], image["width"], image["height"], boxes))
    return found


# --- Valid sources, and the number of annotations in their files ---------------------------------------


def images_to(tiles: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((tiles / "images").iterdir()):
        shutil.copy(path, folder)


def write_coco(tiles: Path, target: Path) -> Path:
    shutil.copytree(tiles, target)
    return target / "annotations" / "train.json"


def write_voc(tiles: Path, target: Path) -> Path:
    return as_voc(tiles, target) / "Annotations" / "train_0001.xml"


def write_yolo(tiles: Path, target: Path) -> Path:
    return as_yolo(tiles, target) / "labels" / "train" / "train_0001.txt"


def write_labelme(tiles: Path, target: Path) -> Path:
    images_to(tiles, target)
    for image in images_in(tiles):
        shapes = [
            {"label": label, "points": [[x1, y1], [x2, y2]], "shape_type": "rectangle", "group_id": None, "flags": {}}
            for label, x1, y1, x2, y2 in image.boxes
        ]
        data = {
            "version": "5.4.1",
            "flags": {},
            "shapes": shapes,
            "imagePath": image.name,
            "imageData": None,
            "imageHeight": image.height,
            "imageWidth": image.width,
        }
        (target / image.name).with_suffix(".json").write_text(json.dumps(data))
    return target / "train_0001.json"


def write_createml(tiles: Path, target: Path) -> Path:
    images_to(tiles, target)
    data = [
        {
            "image": image.name,
            "annotations": [
                {
                    "label": label,
                    "coordinates": {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "width": x2 - x1, "height": y2 - y1},
                }
                for label, x1, y1, x2, y2 in image.boxes
            ],
        }
        for image in images_in(tiles)
    ]
    (target / "annotations.json").write_text(json.dumps(data))
    return target / "annotations.json"


def write_cvat(tiles: Path, target: Path) -> Path:
    images_to(tiles, target / "images")
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    for number, labelled in enumerate(images_in(tiles)):
        image = ElementTree.SubElement(
            root, "image", id=str(number), name=labelled.name, width=str(labelled.width), height=str(labelled.height)
        )
        for label, x1, y1, x2, y2 in labelled.boxes:
            ElementTree.SubElement(
                image, "box", label=label, xtl=str(x1), ytl=str(y1), xbr=str(x2), ybr=str(y2), occluded="0", z_order="0"
            )
    ElementTree.ElementTree(root).write(target / "annotations.xml", encoding="utf-8", xml_declaration=True)
    return target / "annotations.xml"


def write_kitti(tiles: Path, target: Path) -> Path:
    images_to(tiles, target / "image_2")
    (target / "label_2").mkdir()
    for image in images_in(tiles):
        lines = [
            f"{label.replace(' ', '_')} 0.00 0 0.00 {x1} {y1} {x2} {y2} 0.00 0.00 0.00 0.00 0.00 0.00 0.00"
            for label, x1, y1, x2, y2 in image.boxes
        ]
        (target / "label_2" / image.name).with_suffix(".txt").write_text("\n".join(lines) + "\n")
    return target / "label_2" / "train_0001.txt"


def write_openimages(tiles: Path, target: Path) -> Path:
    images_to(tiles, target / "images")
    with (target / "annotations-bbox.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(
            [
                "ImageID",
                "Source",
                "LabelName",
                "Confidence",
                "XMin",
                "XMax",
                "YMin",
                "YMax",
                "IsOccluded",
                "IsTruncated",
                "IsGroupOf",
                "IsDepiction",
                "IsInside",
            ]
        )
        for image in images_in(tiles):
            w, h = image.width, image.height
            for label, x1, y1, x2, y2 in image.boxes:
                table.writerow(
                    [Path(image.name).stem, "xclick", label, 1, x1 / w, x2 / w, y1 / h, y2 / h, 0, 0, 0, 0, 0]
                )
    return target / "annotations-bbox.csv"


def write_csv(tiles: Path, target: Path) -> Path:
    images_to(tiles, target / "images")
    with (target / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"])
        for image in images_in(tiles):
            for label, *corners in image.boxes:
                table.writerow([image.name, image.width, image.height, label, *corners])
    return target / "labels.csv"


def lines_of(path: Path) -> int:
    return sum(bool(line.strip()) for line in path.read_text().splitlines())


WRITERS: dict[str, tuple[Callable[[Path, Path], Path], Callable[[Path], int]]] = {
    "coco": (write_coco, lambda path: len(json.loads(path.read_text())["annotations"])),
    "labelme": (write_labelme, lambda path: len(json.loads(path.read_text())["shapes"])),
    "createml": (write_createml, lambda path: sum(len(entry["annotations"]) for entry in json.loads(path.read_text()))),
    "voc": (write_voc, lambda path: len(ElementTree.parse(path).getroot().findall("object"))),
    "cvat": (write_cvat, lambda path: sum(len(image) for image in ElementTree.parse(path).getroot().findall("image"))),
    "yolo": (write_yolo, lines_of),
    "kitti": (write_kitti, lines_of),
    "openimages": (write_openimages, lambda path: lines_of(path) - 1),
    "csv": (write_csv, lambda path: lines_of(path) - 1),
}
# A line cut in the middle may still look whole: 0.25 from 0.2512. These formats are cut by columns.
LINES = ("yolo", "kitti", "openimages", "csv")

# --- Damage ---------------------------------------------------------------------------------------------

ODD = [
    None,
    "",
    "x",
    "NaN",
    -1,
    0,
    1e308,
    float("nan"),
    float("inf"),
    10**400,
    [],
    {},
    [[]],
    True,
    "../../../etc/passwd",
    "/etc/passwd",
    "\0",
    "é" * 300,
]


def truncate(rng: random.Random, path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(1, len(data) - 1)])


def garble(rng: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.randrange(1, 20)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(bytes(data))


def encode(rng: random.Random, path: Path) -> None:
    text = path.read_text()
    path.write_bytes(
        text.encode(rng.choice(["utf-16", "utf-32", "utf-7"]))
        if rng.random() < 0.7
        else text.encode() + b"\xff\xfe\x80"
    )


def empty(rng: random.Random, path: Path) -> None:
    path.write_bytes(rng.choice([b"\0" * 100, b" ", b"\n\n", b"{}", b"[]", b"<a/>", b"null"]))


def nest(rng: random.Random, path: Path) -> None:
    deep = 1_000_000
    path.write_bytes(
        b"<a>" * deep if path.suffix == ".xml" else rng.choice([b"[" * deep, b'{"a":' * deep, b'"' * deep, b"," * deep])
    )


def swap_for_something_odd(rng: random.Random, path: Path) -> None:
    """Replace one value, anywhere."""
    if path.suffix == ".json":
        data = json.loads(path.read_text())
        holder, key = rng.choice(list(nodes(data)))
        holder[key] = rng.choice(ODD)
        path.write_text(json.dumps(data))
    elif path.suffix == ".xml":
        root = ElementTree.parse(path).getroot()
        element = rng.choice(list(root.iter()))
        value = str(rng.choice(ODD[1:])).replace("\0", "")
        if element.attrib and rng.random() < 0.8:
            element.attrib[rng.choice(sorted(element.attrib))] = value
        else:
            element.text = value
        ElementTree.ElementTree(root).write(path)
    else:
        rows = path.read_text().splitlines()
        row = rng.randrange(len(rows))
        words = re.split(r"([ ,])", rows[row])
        words[2 * rng.randrange((len(words) + 1) // 2)] = re.sub(r"\s", "", str(rng.choice(ODD[2:])))
        rows[row] = "".join(words)
        path.write_text("\n".join(rows))


def remove_something(rng: random.Random, path: Path) -> None:
    """Remove one key, element or column."""
    if path.suffix == ".json":
        data = json.loads(path.read_text())
        holder, key = rng.choice(list(nodes(data)))
        del holder[key]
        path.write_text(json.dumps(data))
    elif path.suffix == ".xml":
        root = ElementTree.parse(path).getroot()
        parent = rng.choice([element for element in root.iter() if len(element) or element.attrib])
        if parent.attrib:
            del parent.attrib[rng.choice(sorted(parent.attrib))]
        else:
            parent.remove(rng.choice(list(parent)))
        ElementTree.ElementTree(root).write(path)
    else:
        rows = path.read_text().splitlines()
        row = rng.randrange(len(rows))
        words = re.split(r"[ ,]", rows[row])
        del words[rng.randrange(len(words)) :]
        rows[row] = (" " if path.suffix == ".txt" else ",").join(words)
        path.write_text("\n".join(rows))


def repeat_something(rng: random.Random, path: Path) -> None:
    """Repeat one list item, element or row: ids are no longer unique, boxes are duplicated."""
    if path.suffix == ".json":
        data = json.loads(path.read_text())
        lists = [holder for holder, _ in nodes(data) if isinstance(holder, list)]
        chosen = rng.choice(lists)
        chosen.append(rng.choice(chosen))
        path.write_text(json.dumps(data))
    elif path.suffix == ".xml":
        root = ElementTree.parse(path).getroot()
        parent = rng.choice([element for element in root.iter() if len(element)])
        parent.append(rng.choice(list(parent)))
        ElementTree.ElementTree(root).write(path)
    else:
        rows = path.read_text().splitlines()
        path.write_text("\n".join([*rows, rng.choice(rows)]))


def bomb(rng: random.Random, path: Path) -> None:
    """Insert a billion laughs; for a format without entities, a file of another kind."""
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    path.write_text(
        f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "ha">{entities}]><annotation><object><name>&a9;</name></object></annotation>'
    )


def lead_outside(rng: random.Random, path: Path) -> None:
    """Turn every file name into a path outside the source."""
    text = path.read_text()
    where = rng.choice(["../../", "/etc/", "..\\\\..\\\\", "//server/share/", "\\u0000"])
    path.write_text(re.sub(r"((?:train|val|test)_\d{4})", lambda found: where + found[1], text))


def nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every position in a JSON value, as its container and key."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in pairs:
        yield value, key
        yield from nodes(child)


DAMAGE = [
    truncate,
    garble,
    encode,
    empty,
    nest,
    swap_for_something_odd,
    remove_something,
    repeat_something,
    bomb,
    lead_outside,
]
WEIGHTS = [2, 2, 1, 1, 1, 6, 4, 3, 1, 1]


# --- The test -------------------------------------------------------------------------------------------


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def sound(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """By format: the folder of a valid source, and the annotation file to corrupt."""
    root = tmp_path_factory.mktemp("sound")
    return {name: (root / name, write(tiles, root / name)) for name, (write, _) in WRITERS.items()}


@pytest.mark.parametrize("name", WRITERS)
def test_the_valid_source_converts(sound: dict[str, tuple[Path, Path]], tiles: Path, run: Run, name: str) -> None:
    """Otherwise the cases below would be refused for the wrong reason."""
    folder, spoilt = sound[name]
    convert.main(Convert.model_validate({"source": folder, "split": RATIOS}), run, 0)
    receipt = read_json(run.receipt)
    assert receipt["format"] == name
    assert receipt["boxes"]["kept"] == sum(len(image.boxes) for image in images_in(tiles))
    assert receipt["files"][str(spoilt.relative_to(folder))]["read"] == WRITERS[name][1](spoilt)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_file_is_refused_by_name_or_accounted_for(
    sound: dict[str, tuple[Path, Path]], tmp_path: Path, name: str, seed: int
) -> None:
    rng = random.Random(f"{name} {seed}")
    folder, spoilt = sound[name]
    source = Path(shutil.copytree(folder, tmp_path / "source", copy_function=shutil.copy))
    path = source / spoilt.relative_to(folder)
    [damage] = rng.choices(DAMAGE, WEIGHTS)
    damage(rng, path)
    before = listing(tmp_path)
    run = Run(tmp_path / "elsewhere" / "runs" / "spoilt")
    settings = {
        "source": source,
        "split": RATIOS,
        "format": name,
        "on_problem": rng.choice(["fix", "drop"]),
        "unlabelled": rng.choice(["error", "background"]),
    }
    try:
        with no_hang(PATIENCE):
            convert.main(Convert.model_validate(settings), run, 0)
    except PipelineError as error:
        said = str(error)
        assert "\n" not in said and len(said) < 1000, said
        # Names the corrupted file, the image that lost its annotation, or the whole source.
        assert str(source) in said, said
        assert not run.dataset.exists()
    else:
        receipt = read_json(run.receipt)
        for counts in (receipt["boxes"], *receipt["files"].values()):
            assert counts["read"] == counts["kept"] + counts["clipped"] + counts["dropped"] + counts["ignored"]
        not_kept = sum(receipt["boxes"][action] for action in ("clipped", "dropped", "ignored"))
        assert len(receipt["problems"]) == not_kept and all(problem["reason"] for problem in receipt["problems"])
        assert receipt["files"].get(str(path.relative_to(source)), {"read": 0})["read"] == WRITERS[name][1](path)
    after = {key: value for key, value in listing(tmp_path).items() if not key.startswith(str(tmp_path / "elsewhere"))}
    assert after == before  # nothing written or changed outside the run and data/splits beside it
    written = {
        str(path.relative_to(tmp_path / "elsewhere")) for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()
    }
    assert all(name.startswith(("runs/spoilt/", "data/splits/")) for name in written)

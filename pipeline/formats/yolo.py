"""YOLO: a text file an image, with class names in `data.yaml`, or in darknet's `classes.txt` or `obj.names`.

`data.yaml` names the folders or list files of each split; labels lie in `labels/` where images lie in `images/`,
or beside their images. Where it names none, every image below the source is read, and folders give the splits.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from pipeline.boxes import Box, Labelled, from_yolo_line, write_data_yaml, write_labels
from pipeline.errors import DataError
from pipeline.formats.pairing import Images, ends
from pipeline.formats.paths import inside
from pipeline.formats.source import Source, Tree, damaged, folder_split, head, read_text, show
from pipeline.formats.text import upright_size
from pipeline.formats.values import class_name
from pipeline.run import SPLITS

DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml")
NAME_FILES = ("classes.txt", "obj.names")
_NAMES_KEY = re.compile(r"^names\s*:", re.MULTILINE)


def recognises(folder: Path) -> bool:
    tree = Tree(folder)
    if _description(tree):
        return True
    if not _name_files(tree):
        return False
    texts = set(tree.files({".txt"}))
    own = (_label_file(image, folder, texts) for image in tree.images())
    return any(text and _looks_like_labels(text) for text in own)


def read(folder: Path) -> Source:
    tree = Tree(folder)
    images = Images(tree)
    description = _description(tree)
    data = _load(description) if description else {}
    names = {folder: _names(description, data)} if description else _names_by_folder(tree)
    splits: dict[Path, str | None] = {}
    if description and any(data.get(key) for key in (*SPLITS, "valid")):
        for split, image in _described(folder, description, data, images):
            if splits.setdefault(image, split) != split:
                raise DataError(f"{description}: {image.name} is in {splits[image]} and in {split}; keep it in one")
    else:
        splits = {image: folder_split(folder, image) for image in images.all}

    texts = _pair(folder, tree, images, splits)
    point_numbers = _point_numbers(data)
    labelled = []
    for image, text in sorted(texts.items()):
        boxes = _boxes(text, image, _names_for(text, names), point_numbers) if text else ()
        labelled.append(Labelled(image, boxes, text, None, splits.get(image)))
    classes = dict.fromkeys(name for found in names.values() for name in found)
    return Source(tuple(labelled), tuple(classes), has_splits=any(splits.values()))


# --- What the description says ------------------------------------------------------------------------


def _description(tree: Tree) -> Path | None:
    """`data.yaml` in the source itself, or the only YAML there that has `names:`."""
    found = {path.name: path for path in tree.files({".yaml", ".yml"}) if path.parent == tree.folder}
    if usual := [found[name] for name in DESCRIPTIONS if name in found]:
        return usual[0]
    named = [path for path in found.values() if _NAMES_KEY.search(head(path))]
    return named[0] if len(named) == 1 else None


def _load(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not YAML ({' '.join(str(error).split())[:200]}); write it again") from None
    if not isinstance(data, dict):
        raise DataError(f"{path}: no keys in it; it needs `names:`, `train:` and `val:`")
    return data


def _names(path: Path, data: dict[str, Any]) -> tuple[str, ...]:
    names = data.get("names")
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names or not all(map(class_name, names)):
        raise DataError(
            f"{path}: `names:` is not a list of class names, or counts with gaps; quote names such as 'yes'"
        )
    names = [class_name(name) for name in names]
    if len(set(names)) < len(names):
        raise DataError(f"{path}: a class name twice in `names:`; rename one")
    if "nc" in data and data["nc"] != len(names):
        raise DataError(
            f"{path}: `nc:` says {show(data['nc'])} classes, `names:` has {len(names)}; correct one of them"
        )
    return tuple(names)


def _name_files(tree: Tree) -> list[Path]:
    return [path for path in tree.files({".txt", ".names"}) if path.name in NAME_FILES]


def _names_by_folder(tree: Tree) -> dict[Path, tuple[str, ...]]:
    """Darknet's lists, a name a line. Each tells of the label files in its folder and below, by its own numbers."""
    found: dict[Path, tuple[str, ...]] = {}
    for path in _name_files(tree):
        names = tuple(map(str.strip, read_text(path).rstrip().splitlines()))
        if not all(names) or len(set(names)) < len(names):
            raise DataError(f"{path}: an empty line, or a class name twice; write one name a line")
        if found.setdefault(path.parent, names) != names:
            raise DataError(f"{path}: other class names than in the list beside it; keep one of them")
    if not found:
        raise DataError(
            f"{tree.folder}: no data.yaml in it, and no classes.txt beside the labels; "
            "write a data.yaml with `names:`, `train:` and `val:`"
        )
    return found


def _names_for(text: Path, by_folder: Mapping[Path, tuple[str, ...]]) -> tuple[str, ...]:
    found = [by_folder[folder] for folder in text.parents if folder in by_folder]
    if not found and len(by_folder) > 1:
        raise DataError(f"{text}: no classes.txt in its folder or above it; put one there, or write a data.yaml")
    return found[0] if found else next(iter(by_folder.values()))


def _point_numbers(data: dict[str, Any]) -> int:
    """How many numbers of keypoints follow each box, by Ultralytics' `kpt_shape: [points, 2 or 3]`."""
    match data.get("kpt_shape"):
        case [int(points), int(numbers)]:
            return points * numbers
    return 0


def _described(folder: Path, path: Path, data: dict[str, Any], images: Images) -> Iterator[tuple[str, Path]]:
    known = set(images.all)
    for split in SPLITS:
        entries = data.get(split if split != "val" or "val" in data else "valid")
        for entry in entries if isinstance(entries, list) else [entries] if entries else []:
            if not isinstance(entry, str):
                raise DataError(f"{path}: {show(entry)} instead of a folder or a list file; name one")
            place = _place(folder, path, data.get("path"), entry)
            if place.is_dir():
                below = f"{place}{os.sep}"
                yield from ((split, image) for image in images.all if str(image).startswith(below))
                continue
            for line in read_text(place).splitlines():
                if name := line.strip():
                    yield split, _listed(folder, place, name, images, known)


def _place(folder: Path, path: Path, root: Any, entry: str) -> Path:
    # `path:` is often another machine's, and downloads often say `../train` from the root itself:
    # what lies in the source wins.
    candidates = [entry, entry.removeprefix("../"), *ends(entry)]
    if isinstance(root, str):
        candidates.insert(0, os.path.join(root, entry))
    for candidate in candidates:
        with suppress(DataError, OSError):  # OSError: too long in all
            place = inside(folder, candidate, folder, path)
            if place.is_dir() or place.is_file():
                return place
    inside(folder, entry, folder, path)
    raise DataError(f"{path}: {show(entry)} is not in the source; correct the path")


def _listed(folder: Path, place: Path, name: str, images: Images, known: Collection[Path]) -> Path:
    """The image of a line in a list file, which counts from the list or from the source."""
    for home in (place.parent, folder):
        with suppress(DataError):
            if (image := inside(folder, name, home, place)) in known:
                return image
    return images.of_path(name) or inside(folder, name, place.parent if name.startswith(".") else folder, place)


# --- Labels -------------------------------------------------------------------------------------------


def _pair(folder: Path, tree: Tree, images: Images, splits: dict[Path, str | None]) -> dict[Path, Path | None]:
    """The label file of every image that has a split or a label file.

    A label file whose image is missing gets the path where that ought to be, and the split of its neighbours.
    """
    texts = set(tree.files({".txt"}))
    paired = {image: _label_file(image, folder, texts) for image in splits}
    for image in images.all:
        if image not in paired and (text := _label_file(image, folder, texts)):
            paired[image] = text

    image_of: dict[Path, Path] = {}
    for image, text in paired.items():
        if text and image_of.setdefault(text, image) != image:
            raise DataError(f"{text}: could be of {image_of[text].name} or of {image.name}; rename one image")

    split_beside = {image.parent: split for image, split in splits.items()}
    for text in sorted(texts - image_of.keys()):
        parts = text.relative_to(folder).parts
        if text.name not in NAME_FILES and ("labels" in parts[:-1] or _looks_like_labels(text)):
            image = folder.joinpath(*_swapped(parts, "labels", "images")).with_suffix(".jpg")
            paired[image] = text
            splits[image] = split_beside.get(image.parent)
    return paired


def _label_file(image: Path, folder: Path, texts: Collection[Path]) -> Path | None:
    swapped = _swapped(image.relative_to(folder).parts, "images", "labels")
    candidates = (folder.joinpath(*swapped).with_suffix(".txt"), image.with_suffix(".txt"))
    return next((path for path in candidates if path in texts), None)


def _swapped(parts: Sequence[str], old: str, new: str) -> list[str]:
    """The parts of a path with the last folder `old` renamed, as Ultralytics does."""
    found = [index for index, part in enumerate(parts[:-1]) if part == old]
    return [new if found and index == found[-1] else part for index, part in enumerate(parts)]


def _looks_like_labels(text: Path) -> bool:
    words = next((line.split() for line in head(text).splitlines() if line.strip()), [])
    try:
        return len([float(word) for word in words]) >= 5
    except ValueError:
        return False


def _boxes(text: Path, image: Path, names: Sequence[str], point_numbers: int) -> tuple[Box, ...]:
    lines = [(number, line) for number, line in enumerate(read_text(text).splitlines(), start=1) if line.strip()]
    size = upright_size(image) if lines else None
    boxes = []
    for number, line in lines:
        identity, words = f"line {number}", line.split()
        if point_numbers and len(words) == 5 + point_numbers:
            line = " ".join(words[:5])
        try:
            box = from_yolo_line(line, names, *(size or (1, 1)), id=identity)
        except ValueError as error:
            box = damaged(str(error), id=identity)
        if size is None and not box.damage:
            box = damaged("image cannot be read", box.label, identity)
        boxes.append(box)
    return tuple(boxes)


def write(folder: Path, items: Iterable[tuple[str, tuple[int, int], Sequence[Box]]], names: Sequence[str]) -> None:
    """Write `labels/STEM.txt` for each (image file name, (width, height), boxes), and `data.yaml`.

    Folders in a file name are kept: `val/a.jpg` has its labels in `labels/val/`, its image belongs into
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

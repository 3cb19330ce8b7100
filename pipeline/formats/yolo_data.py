"""Read the class names of a YOLO source, from `data.yaml` or from lists as Darknet has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import DataError
from pipeline.formats.text import read_text, show
from pipeline.formats.tree import Tree
from pipeline.formats.values import class_name

DESCRIPTIONS = ("data.yaml", "data.yml", "dataset.yaml")
NAME_FILES = ("classes.txt", "obj.names", "predefined_classes.txt", "labels.txt", "names.txt", "_darknet.labels")
_NAMES_KEY = re.compile(r"^names\s*:", re.MULTILINE)


def description_of(tree: Tree) -> Path | None:
    """Return the YAML file that describes a source; None if there is none, or the choice is unclear.

    It is `data.yaml` in the source itself, else the only YAML there with `names:`, else the only `data.yaml` below.
    """
    everywhere = tree.files({".yaml", ".yml"})
    at_top = {path.name: path for path in everywhere if path.parent == tree.folder}
    if usual := [at_top[name] for name in DESCRIPTIONS if name in at_top]:
        return usual[0]
    named = [path for path in at_top.values() if _NAMES_KEY.search(tree.head(path))]
    deeper = [path for path in everywhere if path.name in DESCRIPTIONS and _NAMES_KEY.search(tree.head(path))]
    return named[0] if len(named) == 1 else deeper[0] if not named and len(deeper) == 1 else None


class _Loader(yaml.SafeLoader):
    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse merge keys: with aliases, they copy keys, and a few lines can make billions of copies."""
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("a merge key, <<, which no description needs")


def load(path: Path) -> dict[str, Any]:
    try:
        data = yaml.load(read_text(path), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not YAML ({' '.join(str(error).split())[:200]}); export it again") from None
    if not isinstance(data, dict):
        raise DataError(f"{path}: no keys; write names:, train: and val:")
    return data


def names_of(path: Path, data: dict[str, Any]) -> tuple[str, ...]:
    names = data.get("names")
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names or not all(map(class_name, names)):
        raise DataError(
            f"{path}: `names:` must be a list of texts, or numbers 0, 1, 2, ... with a text each; "
            "put names such as yes or 1 in quotes"
        )
    names = [class_name(name) for name in names]
    if len(set(names)) < len(names):
        raise DataError(f"{path}: a class name appears twice in `names:`; rename one")
    if "nc" in data and data["nc"] != len(names):
        raise DataError(
            f"{path}: `nc:` says {show(data['nc'])} classes, `names:` has {len(names)}; correct one of them"
        )
    return tuple(names)


def looks_like_labels(head: str) -> bool:
    words = next((line.split() for line in head.splitlines() if line.strip()), [])
    try:
        return len([float(word) for word in words]) >= 5
    except ValueError:
        return False


def _may_be_labels(head: str) -> bool:
    return not head.strip() or looks_like_labels(head)


def name_files(tree: Tree) -> list[Path]:
    """Return the files with lists of class names, one per line, by the file names that tools use.

    The labels of an image that is called `classes.jpg` are none.
    """
    everywhere = tree.files({".txt", ".names", ".labels"})
    listed = [path for path in everywhere if path.name in NAME_FILES or path.suffix == ".names"]
    stems = {image.stem for image in tree.images()} if listed else set()
    return [path for path in listed if not (path.stem in stems and _may_be_labels(tree.head(path)))]


def read_names(path: Path) -> tuple[str, ...]:
    """Read a list of class names, one per line. Raises DataError for an empty line or a repeated name."""
    names = tuple(map(str.strip, read_text(path).rstrip().splitlines()))
    if not all(names) or len(set(names)) < len(names):
        raise DataError(f"{path}: an empty line or a repeated class name; write one name per line")
    return names


def names_by_folder(tree: Tree) -> dict[Path, tuple[str, ...]]:
    """Return the class names of Darknet's lists by folder; each applies to the label files in its folder and below."""
    names_of_folder: dict[Path, tuple[str, ...]] = {}
    for path in name_files(tree):
        names = read_names(path)
        if names_of_folder.setdefault(path.parent, names) != names:
            raise DataError(f"{path}: its class names differ from another list in the same folder; delete one")
    if not names_of_folder:
        raise DataError(
            f"{tree.folder}: no data.yaml in it, and no classes.txt beside the labels; "
            "write a data.yaml with `names:`, `train:` and `val:`, or a classes.txt with one name per line"
        )
    return names_of_folder


def names_for(text: Path, by_folder: Mapping[Path, tuple[str, ...]]) -> tuple[str, ...]:
    lists = [by_folder[folder] for folder in text.parents if folder in by_folder]
    if not lists and len(by_folder) > 1:
        raise DataError(f"{text}: no classes.txt in its folder or above it; put one there, or write a data.yaml")
    return lists[0] if lists else next(iter(by_folder.values()))


def point_numbers(data: dict[str, Any]) -> int:
    """Return how many keypoint numbers follow each box, by Ultralytics' `kpt_shape: [points, 2 or 3]`."""
    match data.get("kpt_shape"):
        case [int(points), int(numbers)]:
            return points * numbers
    return 0

"""Read the class names and splits of a YOLO source, from `data.yaml` or from Darknet's `obj.data` and lists."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import DataError
from pipeline.formats.matching import Wanted, find, has_image_suffix
from pipeline.formats.pairing import ends
from pipeline.formats.paths import inside
from pipeline.formats.splits import SPLIT_WORDS, folder_split, split_of_folders
from pipeline.formats.text import read_text, show
from pipeline.formats.tree import Tree
from pipeline.formats.values import class_name
from pipeline.run import SPLITS

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


# --- Splits -------------------------------------------------------------------------------------------


def splits_of(tree: Tree, path: Path, data: Mapping[str, Any], given: bool) -> dict[Path, str | None]:
    """Return the split of each image that a description names, by folders and by lists.

    Raises DataError if a folder or list is missing although the source has its split, and if `given` splits share an
    image. But a test split with the same images as val is left out.
    """
    images_of: dict[str, dict[Path, None]] = {split: {} for split in SPLITS}
    for split, image in _described(tree, path, data):
        images_of[split][image] = None
    if images_of["val"] and images_of["val"] == images_of["test"]:
        images_of["test"] = {}
        name = path.relative_to(tree.folder).as_posix()
        tree.notes.append(f"{name}: test has the same images as val, so it is no split of its own")
    splits: dict[Path, str | None] = {}
    for split, image in [(split, image) for split, images in images_of.items() for image in images]:
        if splits.setdefault(image, split) != split and given:
            raise DataError(
                f"{path}: {image.name} is in {splits[image]} and in {split}; keep it in one, "
                "or let ratios in convert.split draw the splits"
            )
    return splits


def darknet(tree: Tree) -> tuple[Path, dict[str, str]] | None:
    """Return `obj.data` and the lists that it names, by split; else lists in one folder that are named after splits.

    None if there are no lists. For `train.txt` and the like, the path is that of the first.
    """
    for path in tree.files({".data"}):
        pairs = (line.partition("=") for line in read_text(path).splitlines())
        values = {key.strip().lower(): value.strip() for key, _, value in pairs if value.strip()}
        lists = {SPLIT_WORDS[key]: value for key, value in values.items() if key in SPLIT_WORDS}
        existing = {split: value for split, value in lists.items() if _place(tree, path, None, value)}
        if existing:
            tree.notes.extend(
                f"{path.relative_to(tree.folder).as_posix()}: {show(value)} is missing, so there is no {split} split"
                for split, value in lists.items()
                if split not in existing
            )
            return path, existing
    named = [path for path in tree.files({".txt"}) if path.stem.lower() in SPLIT_WORDS and _is_list(tree.head(path))]
    list_of = {SPLIT_WORDS[path.stem.lower()]: path.name for path in named}
    is_clear = len({path.parent for path in named}) == 1 and len(list_of) == len(named)
    return (named[0], list_of) if is_clear else None


def _is_list(head: str) -> bool:
    """Return whether a text lists images, by its first line: the label file of `train.jpg` does not."""
    return has_image_suffix(head.partition("\n")[0].strip())


def _described(tree: Tree, path: Path, data: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    images = tree.images()
    for split in SPLITS:
        entries = data.get(split if split != "val" or "val" in data else "valid")
        for entry in entries if isinstance(entries, list) else [entries] if entries else []:
            if not isinstance(entry, str):
                raise DataError(
                    f"{path}: `{split}:` is {show(entry)}; write a folder or a list file, such as {split}/images"
                )
            place = _place(tree, path, data.get("path"), entry) or _by_end(tree, path, split, entry)
            if place is None:
                _refuse_absent(tree, path, split, entry, images)
            elif place.is_dir():
                below = f"{place}{os.sep}"
                yield from ((split, image) for image in images if str(image).startswith(below))
            else:
                tree.taken.add(place)
                yield from ((split, image) for image in _listed(tree, place))


def _place(tree: Tree, path: Path, root: Any, entry: str) -> Path | None:
    # `path:` is often another machine's, and downloads often say `../train` from the root itself, so a path that
    # exists in the source wins.
    folder, entry = tree.folder, entry.replace("\\", "/")
    candidates = [entry, entry.removeprefix("../"), *ends(entry)]
    if isinstance(root, str):
        candidates.insert(0, posixpath.join(root.replace("\\", "/"), entry))
    parts = entry.split("/")
    candidates += ["/".join(parts[start:]) for start in range(1, len(parts))] if path.suffix == ".data" else []
    for candidate in candidates:
        for home in dict.fromkeys((path.parent, folder)):
            with suppress(DataError, OSError):  # OSError: the path is too long
                place = inside(folder, candidate, home, path)
                is_itself = place == folder and candidate not in (".", "./")  # from `..` or an empty end
                if not is_itself and (place.is_dir() or place.is_file()):
                    return place
    return None


def _by_end(tree: Tree, path: Path, split: str, entry: str) -> Path | None:
    """Return the only place in the source that ends in the last parts of a path, at least two; note that it was taken.

    None if there is none, or if it is in a folder of another split.
    """
    parts = [part for part in entry.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    places = (tree.ending_in("/".join(parts[start:])) for start in range(len(parts) - 1))
    found = next(filter(None, places), [])
    if len(found) != 1 or split_of_folders(found[0]) not in (split, None):
        return None
    tree.notes.append(f"{path.relative_to(tree.folder).as_posix()}: {show(entry)} was read as {found[0]}")
    return tree.folder / found[0]


def _refuse_absent(tree: Tree, path: Path, split: str, entry: str, images: Sequence[Path]) -> None:
    """Raise DataError for a missing folder of train, or of a split that has images; note it for any other split."""
    if split == "train" or any(folder_split(tree.folder, image) == split for image in images):
        inside(tree.folder, entry, tree.folder, path)
        raise DataError(
            f"{path}: {show(entry)}: no such folder or list file in {tree.folder}; "
            f"write it relative to {path.name}, for example {split}/images"
        )
    name = path.relative_to(tree.folder).as_posix()
    tree.notes.append(f"{name}: {show(entry)} is missing, so there is no {split} split")


def _listed(tree: Tree, place: Path) -> list[Path]:
    """Return the images of a list file, whose paths are relative to the list or to the source."""
    home = place.parent.relative_to(tree.folder).as_posix()
    lines = dict.fromkeys(line for text in read_text(place).splitlines() if (line := text.strip()))
    return find(tree, [Wanted(line, [home, "."] if line[0] == "." else [".", home], None, place) for line in lines])

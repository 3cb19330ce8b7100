"""Read the splits of a YOLO source, from the folders and lists of `data.yaml`, or from Darknet's lists."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from pipeline.formats.matching import Wanted, find, has_image_suffix
from pipeline.formats.pairing import ends
from pipeline.formats.paths import inside
from pipeline.formats.splits import SPLIT_WORDS, folder_split, split_of_folders
from pipeline.formats.text import read_text, show
from pipeline.formats.tree import Tree
from pipeline.run import SPLITS


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

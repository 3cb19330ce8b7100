"""YOLO: a `data.yaml` that names folders or list files, `labels/` beside `images/`, a text file an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from pipeline.boxes import Labelled, read_labels
from pipeline.errors import DataError
from pipeline.formats.source import Source, images_under, inside, read_text
from pipeline.run import SPLITS


def recognises(folder: Path) -> bool:
    return _description(folder) is not None


def read(folder: Path) -> Source:
    path = _description(folder)
    if path is None:
        raise DataError(f"{folder}: no data.yaml in it; write one with `names:` and `train:` and `val:`")
    data = _load(path)
    names = _names(path, data.get("names"))
    given = {split: data.get(split if split != "val" or "val" in data else "valid") for split in SPLITS}
    if not any(given.values()):
        given = {"": "."}  # no split named: all images below
    labelled, split_of_image = [], dict[Path, str]()
    for split, entries in given.items():
        for image in _images(folder, path, data.get("path"), entries):
            if split_of_image.setdefault(image, split) != split:
                raise DataError(f"{path}: {image.name} is in {split_of_image[image]} and in {split}; keep it in one")
            labelled.append(_read_image(image, names, split or None))
    labelled.sort(key=lambda item: item.image)
    return Source(tuple(labelled), names, has_splits=any(split for split in split_of_image.values()))


def _description(folder: Path) -> Path | None:
    for name in ("data.yaml", "data.yml", "dataset.yaml"):
        if (folder / name).is_file():
            return folder / name
    found = sorted(folder.glob("*.yaml"))
    return found[0] if len(found) == 1 else None


def _load(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not YAML ({str(error).splitlines()[0]}); write it again") from None
    if not isinstance(data, dict):
        raise DataError(f"{path}: no keys in it; it needs `names:`, `train:` and `val:`")
    return data


def _names(path: Path, names: Any) -> tuple[str, ...]:
    if isinstance(names, dict) and sorted(names, key=str) == sorted(range(len(names)), key=str):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(
            f"{path}: `names:` is not a list of class names, or counts with gaps; quote names such as 'yes'"
        )
    if len(set(names)) < len(names):
        raise DataError(f"{path}: a class name twice in `names:`; rename one")
    return tuple(names)


def _images(folder: Path, path: Path, root: Any, entries: Any) -> list[Path]:
    found: list[Path] = []
    for entry in entries if isinstance(entries, list) else [entries] if entries else []:
        if not isinstance(entry, str):
            raise DataError(f"{path}: {entry!r} instead of a folder or a list file; name one")
        place = _place(folder, path, root, entry)
        if place.is_dir():
            found += images_under(place)
            continue
        for line in read_text(place).splitlines():
            if line.strip():
                image = inside(folder, line.strip(), place.parent, place)
                if not image.is_file():
                    image = inside(folder, line.strip(), folder, place)
                if not image.is_file():
                    raise DataError(f"{place}: lists {line.strip()!r}, which is not there; take the line out")
                found.append(image)
    return found


def _place(folder: Path, path: Path, root: Any, entry: str) -> Path:
    # `path:` is often another machine's, and downloads often say `../train` from the root itself:
    # what lies in the source wins.
    candidates = [folder / entry, folder / entry.removeprefix("../")]
    if isinstance(root, str):
        candidates.insert(0, folder / root / entry)
    for candidate in candidates:
        resolved = candidate.resolve()
        if resolved.is_relative_to(folder) and resolved.exists():
            return resolved
    inside(folder, entry, folder, path)
    raise DataError(f"{path}: {entry!r} is not in the source; correct the path")


def _read_image(image: Path, names: tuple[str, ...], split: str | None) -> Labelled:
    folders = list(image.parts)
    if "images" in folders:  # the last one, as Ultralytics does
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    labels = Path(*folders).with_suffix(".txt")
    if not labels.is_file():
        return Labelled(image, (), None, None, split)
    try:
        with Image.open(image) as opened:
            size = opened.size if opened.getexif().get(0x0112, 1) < 5 else opened.size[::-1]
    except Exception:  # see `convert`: damage takes many forms
        raise DataError(f"{image}: not an image that can be read; replace or remove it") from None
    return Labelled(image, read_labels(labels, names, *size), labels, None, split)

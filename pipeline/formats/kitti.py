"""KITTI: `label_2/STEM.txt` beside `image_2/STEM.png` (or `labels/` and `images/`), a line an object.

Columns: type, truncated, occluded, alpha, left, top, right, bottom, height, width, length, x, y, z, rotation_y, and a
score in results; only type and the four corners, pixels from 0, matter here. From KITTI's object development kit.
Splits come from `ImageSets/{train,val,test}.txt`, else from folders such as `training/`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pipeline.boxes import Box, Labelled
from pipeline.errors import DataError
from pipeline.formats.pairing import Images, split_lists
from pipeline.formats.source import Source, Tree, damaged, folder_split, head, read_text
from pipeline.formats.text import numbers

COLUMNS = (15, 16)  # 16 with a score
CORNERS = ("left", "top", "right", "bottom")
DONT_CARE = "DontCare: a region that KITTI does not label"
LOOKED_INTO = 20  # lines of a folder; the first ones may be broken
_NUMBERED = re.compile(r"_0*(\d+)$")


def recognises(folder: Path) -> bool:
    by_folder: defaultdict[Path, list[Path]] = defaultdict(list)
    for text in _label_files(Tree(folder)):
        by_folder[text.parent].append(text)
    return any(any(map(_looks_like_labels, _first_lines(texts))) for texts in by_folder.values())


def read(folder: Path) -> Source:
    tree = Tree(folder)
    images = Images(tree)
    texts = _label_files(tree)
    cameras = {_camera(text.parent) for text in texts}
    image_of = {text: _image_of(text, images) for text in texts}
    text_of: dict[Path, Path] = {}
    for text, image in image_of.items():
        if text_of.setdefault(image, text) != text:
            raise DataError(f"{text}: describes {image.name}, and so does {text_of[image]}; keep one of them")

    split_by_stem = split_lists(tree, ("ImageSets",), {path.stem for path in [*images.all, *texts]}, "label file")

    def split(path: Path) -> str | None:
        return split_by_stem.get(path.stem) if split_by_stem else folder_split(folder, path)

    labelled = [Labelled(image, _boxes(text), text, None, split(text)) for text, image in image_of.items()]
    for image in images.all:
        camera = _camera(image.parent)
        # The right camera's pictures are no data of the left one's labels.
        if image not in text_of and (camera is None or camera in cameras):
            labelled.append(Labelled(image, (), None, None, split(image)))
    labelled.sort(key=lambda item: item.image)
    return Source(tuple(labelled), None, has_splits=any(item.split for item in labelled))


def _label_files(tree: Tree) -> list[Path]:
    return [
        text
        for text in tree.files({".txt"})
        if text.parent != tree.folder and text.parent.name.lower().startswith("label")
    ]


def _first_lines(texts: list[Path]) -> Iterator[str]:
    lines = (line for text in texts for line in head(text).splitlines() if line.strip())
    return islice(lines, LOOKED_INTO)


def _looks_like_labels(line: str) -> bool:
    return not line.split()[0].isdigit() and not _box(line, "").damage


def _camera(folder: Path) -> str | None:
    """The number of `label_2`, `image_2`, `image_02`."""
    found = _NUMBERED.search(folder.name)
    return found[1] if found else None


def _image_of(text: Path, images: Images) -> Path:
    camera = _camera(text.parent)

    def fits(image: Path) -> bool:
        return camera is None or _camera(image.parent) in (camera, None)

    if image := images.of_stem(text.stem, text, folder_split(images.source, text), fits):
        return image
    home = "images" if camera is None else f"image_{camera}"
    return text.parent.with_name(home) / f"{text.stem}.png"


def _boxes(text: Path) -> tuple[Box, ...]:
    lines = enumerate(read_text(text).splitlines(), start=1)
    return tuple(_box(line, f"line {number}") for number, line in lines if line.strip())


def _box(line: str, identity: str) -> Box:
    words = line.split()
    label = words[0]
    if len(words) not in COLUMNS:
        return damaged(f"{len(words)} columns; KITTI has 15, or 16 with a score", label[:80], identity)
    try:
        xmin, ymin, xmax, ymax = numbers(dict(zip(CORNERS, words[4:8], strict=True)))
    except ValueError as error:
        return damaged(str(error), label, identity)
    return Box(label, xmin, ymin, xmax, ymax, identity, ignore=DONT_CARE if label == "DontCare" else "")

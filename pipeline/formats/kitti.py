"""KITTI: `label_2/STEM.txt` beside `image_2/STEM.png` (or `labels/` and `images/`), one line per object.

Columns: type, truncated, occluded, alpha, left, top, right, bottom, height, width, length, x, y, z, rotation_y, and a
score in results. Only the type and the corners, in pixels from 0, are used. Source: KITTI's object development kit.
Splits come from `ImageSets/{train,val,test}.txt`, else from folders such as `training/`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pipeline.boxes import Box, Labelled
from pipeline.errors import counted
from pipeline.formats.pairing import Images, by_image, by_name, split_lists
from pipeline.formats.source import Source, damaged, source_of
from pipeline.formats.splits import folder_split
from pipeline.formats.text import is_about, numbered_lines, numbers
from pipeline.formats.tree import Tree

COLUMNS = (15, 16)  # 16 with a score
CORNERS = ("left", "top", "right", "bottom")
DONT_CARE = "DontCare: a region that KITTI does not label"
LOOKED_INTO = 20  # lines per folder, because the first ones may be damaged
_NUMBERED = re.compile(r"_0*(\d+)$")


def recognises(tree: Tree) -> bool:
    by_folder: defaultdict[Path, list[Path]] = defaultdict(list)
    for text in _label_files(tree):
        by_folder[text.parent].append(text)
    return any(any(map(_looks_like_labels, _first_lines(tree, texts))) for texts in by_folder.values())


def read(folder: Path, orphans: bool = False) -> Source:
    """Read every image; with `orphans`, lines of the lists of splits that fit no image are left out with a note."""
    tree = Tree(folder)
    images = Images(tree)
    texts = _label_files(tree)
    cameras = {_camera(text.parent) for text in texts}
    image_of = {text: image for text in texts if (image := _image_of(text, images))}
    image_of = by_name(tree, texts, image_of, lambda text: [text.stem])
    image_of = {text: image_of.get(text) or _missing(text) for text in texts}
    text_of = by_image(image_of)
    split_by_stem = split_lists(
        tree, ("ImageSets",), {path.stem for path in [*images.all, *texts]}, "label file", orphans
    )

    def split(path: Path) -> str | None:
        return split_by_stem.get(path.stem) if split_by_stem else folder_split(folder, path)

    labelled = [Labelled(image, _boxes(text), text, None, split(text)) for text, image in image_of.items()]
    for image in images.all:
        camera = _camera(image.parent)
        # Images of the right camera do not belong to labels of the left one.
        if image not in text_of and (camera is None or camera in cameras):
            labelled.append(Labelled(image, (), None, None, split(image)))
    labelled.sort(key=lambda item: item.image)
    return source_of(tree, labelled, None)


def _label_files(tree: Tree) -> list[Path]:
    return [
        text
        for text in tree.files({".txt"})
        if text.parent != tree.folder and text.parent.name.lower().startswith("label") and not is_about(text)
    ]


def _first_lines(tree: Tree, texts: list[Path]) -> Iterator[str]:
    lines = (line for text in texts for line in tree.head(text).splitlines() if line.strip())
    return islice(lines, LOOKED_INTO)


def _is_word(text: str) -> bool:
    return not any(char.isdigit() for char in text)


def _looks_like_labels(line: str) -> bool:
    return not line.split()[0].isdigit() and not _box(line, "").damage


def _camera(folder: Path) -> str | None:
    """Return the number in `label_2`, `image_2` or `image_02`."""
    match = _NUMBERED.search(folder.name)
    return match[1] if match else None


def _image_of(text: Path, images: Images) -> Path | None:
    camera = _camera(text.parent)

    def fits(image: Path) -> bool:
        return camera is None or _camera(image.parent) in (camera, None)

    return images.of_stem(text.stem, text, folder_split(images.source, text), fits)


def _missing(text: Path) -> Path:
    camera = _camera(text.parent)
    home = "images" if camera is None else f"image_{camera}"
    return text.parent.with_name(home) / f"{text.stem}.png"


def _boxes(text: Path) -> tuple[Box, ...]:
    return tuple(_box(line, f"line {number}") for number, line in numbered_lines(text))


def _box(line: str, identity: str) -> Box:
    words = line.split()
    label = words[0]
    if len(words) not in COLUMNS:
        return damaged(f"{counted(len(words), 'column')}; KITTI has 15, or 16 with a score", label[:80], identity)
    try:
        xmin, ymin, xmax, ymax = numbers(dict(zip(CORNERS, words[4:8], strict=True)))
        truncated, occluded, alpha = numbers(dict(zip(("truncated", "occluded", "alpha"), words[1:4], strict=True)))
        numbers({f"column {number}": word for number, word in enumerate(words[8:], start=9)})
    except ValueError as error:
        return damaged(
            f"{error}; does the class have two words?" if _is_word(words[1]) else str(error), label, identity
        )
    if (
        not (-1 <= truncated <= 1 or truncated in (2.0, 3.0))
        or occluded not in (-1, 0, 1, 2, 3)
        or not abs(alpha) <= 10
    ):
        return damaged(
            f"truncated, occluded and alpha are {' '.join(words[1:4])}: the columns are shifted", label, identity
        )
    return Box(label, xmin, ymin, xmax, ymax, identity, ignore=DONT_CARE if label == "DontCare" else "")

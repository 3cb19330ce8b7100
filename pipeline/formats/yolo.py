"""YOLO: one text file per image, with class names in `data.yaml`, or in Darknet's `classes.txt` or `obj.names`.

`data.yaml` names the folders or list files of each split; labels are in `labels/` if the images are in `images/`, else
beside the images. If it names no split, lists such as `train.txt` do; without any, every image below the source is
read, and folders give the splits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.boxes import Box, Labelled, from_yolo_line
from pipeline.errors import DataError, counted
from pipeline.formats import yolo_data, yolo_splits
from pipeline.formats.pairing import by_name
from pipeline.formats.source import Source, damaged, source_of
from pipeline.formats.splits import folder_split
from pipeline.formats.text import is_about, numbered_lines, upright_size
from pipeline.formats.tree import Tree
from pipeline.run import SPLITS

# Names of image folders that tools replace by `labels`, in the order to try.
IMAGE_FOLDERS = ("images", "jpegimages", "image", "imgs", "img")


def recognises(tree: Tree) -> bool:
    if yolo_data.description_of(tree):
        return True
    lists = set(yolo_data.name_files(tree))
    return bool(lists) and any(_is_label(text, tree, lists) for text in tree.files({".txt"}))


def read(folder: Path, given: bool = True, description: Path | None = None) -> Source:
    """Read every image. Unless splits are to be `given`, the splits of the source may share images.

    `description` is the YAML file in `folder` that names classes and splits; None looks for it.
    """
    tree, is_asked_for = Tree(folder), description is not None
    description = description or yolo_data.description_of(tree)
    data = yolo_data.load(description) if description else {}
    names = {folder: yolo_data.names_of(description, data)} if description else yolo_data.names_by_folder(tree)
    by: Path | None = None  # the file that gives the splits
    if description and any(data.get(key) for key in (*SPLITS, "valid")):
        by, splits = description, yolo_splits.splits_of(tree, description, data, given)
    elif darknet_lists := yolo_splits.darknet(tree):
        by, splits = darknet_lists[0], yolo_splits.splits_of(tree, *darknet_lists, given)
    else:
        splits = {image: folder_split(folder, image) for image in tree.images()}

    texts = _pair(tree, splits)
    if by:
        nowhere = dict.fromkeys(image for image in tree.images() if image not in texts)
        texts |= nowhere
        tree.set_aside |= dict.fromkeys(nowhere, f"no label file, and {by.name} names it in no split")
    if not is_asked_for:  # a file that a person names counts, whatever lies beside it
        _refuse_contradiction(tree, filter(None, texts.values()), names, description)
    point_numbers = yolo_data.point_numbers(data)
    labelled = []
    numbers_of_points: set[int] = set()
    for image, text in sorted(texts.items()):
        lines = list(numbered_lines(text)) if text else []
        numbers_of_points.update(_points(line.split()) for _, line in lines)
        boxes = _boxes(lines, image, yolo_data.names_for(text, names), point_numbers) if text else ()
        labelled.append(Labelled(image, boxes, text, None, splits.get(image)))
    if not point_numbers and len(numbers_of_points) == 1 and (number := numbers_of_points.pop()):
        way_out = "add it" if description else "write a data.yaml with `names:` and this"
        raise DataError(
            f"{description or folder}: no `kpt_shape: [{number}, 3]`, but each row has a box and "
            f"{counted(number, 'point')} with their visibility; {way_out}"
        )
    return source_of(tree, labelled, tuple(dict.fromkeys(name for listed in names.values() for name in listed)))


def _refuse_contradiction(
    tree: Tree, texts: Iterable[Path], names: Mapping[Path, tuple[str, ...]], description: Path | None
) -> None:
    """Raise DataError if a list of class names nearer to a label file than the one in use, or beside it, differs."""
    others, homes = _other_names(tree, description), {description.parent} if description else names.keys()
    for folder, text in {text.parent: text for text in texts}.items() if others else ():
        for above in (folder, *folder.parents):
            for path, listed in others.get(above, {}).items():
                in_use = yolo_data.names_for(text, names)
                # A longer list is no contradiction: labelImg adds classes at the end.
                if any(one.lower() != other.lower() for one, other in zip(in_use, listed, strict=False)):
                    used = description.relative_to(tree.folder) if description else "the classes.txt in use"
                    raise DataError(f"{path}: other names than {used} for the same class ids; delete the wrong one")
            if above in others or above in homes:
                break


def _other_names(tree: Tree, description: Path | None) -> dict[Path, dict[Path, tuple[str, ...]]]:
    """Return the readable lists of class names that are not in use, by folder and file."""
    found: dict[Path, dict[Path, tuple[str, ...]]] = {}
    others = [path for path in tree.files({".yaml", ".yml"}) if path.name in yolo_data.DESCRIPTIONS]
    for path in [*others, *(yolo_data.name_files(tree) if description else ())]:
        if path != description:
            with suppress(DataError):
                names = yolo_data.names_of(path, yolo_data.load(path)) if path in others else yolo_data.read_names(path)
                found.setdefault(path.parent, {})[path] = names
    return found


def _is_label(text: Path, tree: Tree, lists: Iterable[Path]) -> bool:
    return text not in lists and yolo_data.looks_like_labels(tree.head(text))


def _pair(tree: Tree, splits: dict[Path, str | None]) -> dict[Path, Path | None]:
    """Return the label file of every image that has a split or a label file.

    For a label file without an image it returns the expected path, and the split of its neighbours.
    """
    lists = yolo_data.name_files(tree)
    tree.taken.update(lists)
    label_files = [text for text in tree.files({".txt"}) if text not in tree.taken]
    names = {text.relative_to(tree.folder).as_posix(): text for text in label_files}
    texts = {name.lower(): text for name, text in names.items()} | names  # the exact name wins
    paired = {image: _label_file(image, tree, texts) for image in splits}
    for image in tree.images():
        if image not in paired and (text := _label_file(image, tree, texts)):
            paired[image] = text

    image_of: dict[Path, Path] = {}
    for image, text in paired.items():
        if text and image_of.setdefault(text, image) != image:
            raise DataError(f"{text}: matches both {image_of[text].name} and {image.name}; rename one image")

    unpaired = [
        text
        for text in label_files
        if text not in image_of and ((_in_labels(tree, text) and not is_about(text)) or _is_label(text, tree, lists))
    ]
    split_beside = {image.parent: split for image, split in splits.items()}
    image_of = by_name(tree, [*image_of, *unpaired], image_of, lambda text: [text.stem])
    for text in unpaired:
        image = image_of.get(text) or _missing(tree, text)
        if other := paired.get(image):
            raise DataError(f"{text}: {image.name} has labels in {other} already; keep one of the two files")
        paired[image] = text
        splits.setdefault(image, split_beside.get(image.parent))
    return paired


def _in_labels(tree: Tree, text: Path) -> bool:
    return "labels" in text.relative_to(tree.folder).parts[:-1]


def _label_file(image: Path, tree: Tree, texts: Mapping[str, Path]) -> Path | None:
    """Return the label file of an image, by its exact folder and name, then ignoring case."""
    place = image.relative_to(tree.folder)
    candidates = [Path(*_swapped(place.parts, name, "labels")).with_suffix(".txt") for name in IMAGE_FOLDERS]
    for wanted in (candidates[0], place.with_suffix(".txt"), *candidates[1:]):
        if found := texts.get(wanted.as_posix()) or texts.get(wanted.as_posix().lower()):
            return found
    return None


def _missing(tree: Tree, text: Path) -> Path:
    parts = _swapped(text.relative_to(tree.folder).parts, "labels", "images")
    return tree.folder.joinpath(*parts).with_suffix(".jpg")


def _swapped(parts: Sequence[str], old: str, new: str) -> list[str]:
    """Return the parts of a path with the last folder `old` renamed, as Ultralytics does, ignoring case."""
    matches = [index for index, part in enumerate(parts[:-1]) if part.lower() == old]
    return [new if matches and index == matches[-1] else part for index, part in enumerate(parts)]


def _points(words: Sequence[str]) -> int:
    """Return how many points with a visibility of 0, 1 or 2 follow the box of a row; 0 for a polygon or a box alone."""
    count, rest = divmod(len(words) - 5, 3)
    with suppress(ValueError):
        if count > 0 and not rest and all(float(word) in (0, 1, 2) for word in words[7::3]):
            return count
    return 0


def _boxes(lines: Sequence[tuple[int, str]], image: Path, names: Sequence[str], point_numbers: int) -> tuple[Box, ...]:
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

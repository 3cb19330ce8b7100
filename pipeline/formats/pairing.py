"""Find the image of an annotation file that gives no path: by stem, by folder, by lists of stems."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from pipeline.boxes import Box, Labelled
from pipeline.errors import DataError, and_more
from pipeline.formats.matching import Wanted, guess
from pipeline.formats.paths import is_one_file
from pipeline.formats.source import Source, source_of, with_the_rest
from pipeline.formats.splits import SPLIT_WORDS, folder_split
from pipeline.formats.text import read_text, show
from pipeline.formats.tree import Tree
from pipeline.run import SPLITS

_FLAG = re.compile(r"\s+-?[01]$")


class Images:
    """The images of a source by their stems."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.source = tree.folder
        self.all = tree.images()
        self._by_stem: dict[str, list[Path]] = {}
        for path in self.all:
            self._by_stem.setdefault(path.stem, []).append(path)

    def of_stem(
        self, stem: str, annotation: Path, split: str | None, fits: Callable[[Path], bool] = bool, prefer: str = ""
    ) -> Path | None:
        """Return the image that has the stem of an annotation file and `fits`; None if there is none.

        Among several, the file name `prefer` wins, then the folders most similar to those of the annotation. An image
        in the folder of another split never counts. Raises DataError if two remain.
        """
        candidates = [image for image in self._by_stem.get(stem, ()) if fits(image)]
        if split:
            candidates = [image for image in candidates if folder_split(self.source, image) in (split, None)]
        if len(candidates) > 1:
            candidates = [image for image in candidates if image.name == prefer] or candidates
            folders = set(annotation.parent.parts)
            shared = [len(folders.intersection(image.parent.parts)) for image in candidates]
            candidates = [image for image, number in zip(candidates, shared, strict=True) if number == max(shared)]
        if len(candidates) > 1 and not is_one_file(candidates):
            raise DataError(
                f"{annotation}: {show(stem)} matches both {candidates[0]} and {candidates[1]}; rename one of them"
            )
        return candidates[0] if candidates else None


def by_name(
    tree: Tree, annotations: Collection[Path], found: Mapping[Path, Path], names: Callable[[Path], Sequence[str]]
) -> dict[Path, Path]:
    """Return `found` plus the images found by name, in the steps of `matching`, for the other annotation files.

    `names` gives the names that a file may have for its image, the likeliest first.
    """
    found = dict(found)
    tree.matched["exact"] += len(found)
    longest = max((len(names(path)) for path in annotations if path not in found), default=0)
    for number in range(longest):
        pending = [path for path in annotations if path not in found and any(names(path)[number : number + 1])]
        taken = {image.relative_to(tree.folder).as_posix() for image in found.values()}
        places = guess(tree, [_wanted(tree, path, names(path)[number]) for path in pending], taken)
        found |= {path: tree.path(place) for path, place in zip(pending, places, strict=True) if place}
    return found


def _wanted(tree: Tree, annotation: Path, name: str) -> Wanted:
    home = annotation.parent.relative_to(tree.folder).as_posix()
    homes = [home, home.replace("labels", "images"), home.replace("Annotations", "JPEGImages")]
    return Wanted(name, homes, folder_split(tree.folder, annotation), annotation, is_stem=True)


def by_image(found: Mapping[Path, Path]) -> dict[Path, Path]:
    """Return the annotation file of each image, given the image of each file. Raises DataError if two share one."""
    annotation_of: dict[Path, Path] = {}
    for annotation, image in found.items():
        earlier = annotation_of.setdefault(image, annotation)
        if earlier != annotation:
            raise DataError(f"{annotation}: describes {image.name}, and so does {earlier}; keep one of them")
    return annotation_of


def read_one_each(
    folder: Path,
    is_label: Callable[[Tree, Path], bool],
    boxes: Callable[[Path], tuple[Box, ...]],
    suffix: str,
) -> Source:
    """Read a source with one label file (.txt) per image, paired by stem.

    A missing image is expected in `images` beside the labels' folder, with this suffix. Raises DataError if
    two files label one image.
    """
    tree = Tree(folder)
    texts = [text for text in tree.files({".txt"}) if is_label(tree, text)]
    images = Images(tree)
    image_by_text: dict[Path, Path] = {}
    for text in texts:
        if image := images.of_stem(text.stem, text, folder_split(tree.folder, text)):
            image_by_text[text] = image
    image_by_text = by_name(tree, texts, image_by_text, lambda text: [text.stem])
    expected = {text: text.parent.with_name("images") / f"{text.stem}{suffix}" for text in texts}
    text_of = by_image({**expected, **image_by_text})

    def split(path: Path) -> str | None:
        return folder_split(tree.folder, path)

    described = [
        Labelled(image, boxes(text), text, None, split(text) or split(image)) for image, text in text_of.items()
    ]
    return source_of(tree, with_the_rest(tree, described), None)


def ends(name: str) -> list[str]:
    """Return the ends of an absolute path, longest first, one of which may lie below the source.

    Empty for a relative path.
    """
    if not PurePosixPath(name).is_absolute() and not PureWindowsPath(name).is_absolute():
        return []
    parts = name.replace("\\", "/").split("/")
    return ["/".join(parts[start:]) for start in range(1, len(parts))]


def split_lists(
    tree: Tree, home: Sequence[str], known: Collection[str], annotation: str, orphans: bool = False
) -> dict[str, str]:
    """Return the split of each stem by lists that are named after splits, as `val.txt` or `Valid.txt`; empty without.

    `home` has the parts of the path to the folder of the lists, of which the first suffices if no list is there;
    `annotation` is what the format calls its files. Raises DataError if a list names a stem that is in a list of
    another split too, or that is not `known`, unless `orphans` allows it with a note.
    """
    texts = tree.files({".txt"})
    tree.taken.update(path for path in texts if home[0] in path.parent.parts)
    split_of = _lists(texts, tuple(home)) or _lists(texts, tuple(home[:1]))
    list_of: dict[str, Path] = {}
    for path in sorted(split_of, key=lambda path: SPLITS.index(split_of[path])):
        unknown = []
        for line in filter(None, map(str.strip, read_text(path).splitlines())):
            # Some tools write the whole file name; lists for one class put 1 or -1 after the stem.
            plain = _FLAG.sub("", line)
            stem = next(
                (stem for stem in (line, PurePath(line).stem, plain, PurePath(plain).stem) if stem in known), None
            )
            if stem is None:
                unknown.append(f"lists {show(line)}, which has neither image nor {annotation}")
                continue
            earlier = list_of.setdefault(stem, path)
            if split_of[earlier] != split_of[path]:
                raise DataError(f"{path}: {stem!r} is also in {earlier.name}; remove it from one of them")
        if unknown and not orphans:
            raise DataError(f"{path}: {unknown[0]}; remove the line{and_more(unknown)}")
        if unknown:
            tree.notes.append(f"{path.relative_to(tree.folder).as_posix()}: {unknown[0]}{and_more(unknown)}")
    return {stem: split_of[path] for stem, path in list_of.items()}


def _lists(texts: Sequence[Path], home: tuple[str, ...]) -> dict[Path, str]:
    """Return the split of each list in a folder; `trainval.txt` is a list of train if no other one there is."""
    there = [path for path in texts if path.parent.parts[-len(home) :] == home]
    lists = {path: split for path in there if (split := SPLIT_WORDS.get(path.stem.lower()))}
    with_train = {path.parent for path, split in lists.items() if split == "train"}
    both = [path for path in there if path.stem.lower() == "trainval" and path.parent not in with_train]
    return lists | dict.fromkeys(both, "train")

"""Which image an annotation file means where it gives no path: by stem, by folder, by lists of stems."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from pipeline.boxes import IMAGE_SUFFIXES
from pipeline.errors import DataError
from pipeline.formats.paths import inside, is_one_file
from pipeline.formats.source import Tree, folder_split, read_text, show
from pipeline.run import SPLITS


class Images:
    """The images of a source by their stems, and by the ends of their paths."""

    def __init__(self, tree: Tree) -> None:
        self.source = tree.folder
        self.all = tree.images()
        self._by_stem: dict[str, list[Path]] = {}
        self._by_path: dict[str, Path] = {}
        for path in self.all:
            self._by_stem.setdefault(path.stem, []).append(path)
            self._by_path[os.path.relpath(path, self.source).replace(os.sep, "/")] = path

    def of_stem(
        self, stem: str, annotation: Path, split: str | None, fits: Callable[[Path], bool] = bool, prefer: str = ""
    ) -> Path | None:
        """The image that shares a stem with an annotation file and `fits`, None where there is none.

        Of several the one with the file name `prefer`, then the one whose folders are most like the annotation's;
        none in a folder of a split that is not its own. Raises DataError where that leaves two.
        """
        found = [image for image in self._by_stem.get(stem, ()) if fits(image)]
        if split:
            found = [image for image in found if folder_split(self.source, image) in (split, None)]
        if len(found) > 1:
            found = [image for image in found if image.name == prefer] or found
            folders = set(annotation.parent.parts)
            alike = [len(folders.intersection(image.parent.parts)) for image in found]
            found = [image for image, number in zip(found, alike, strict=True) if number == max(alike)]
        if len(found) > 1 and not is_one_file(found):
            raise DataError(f"{annotation}: {show(stem)} could be {found[0]} or {found[1]}; rename one of them")
        return found[0] if found else None

    def called(self, name: str, annotation: Path, split: str | None) -> Path:
        """The image of a file name with or without its suffix, or the path where it was looked for first."""
        whole = name if has_image_suffix(name) else f"{name}.jpg"
        image = self.of_stem(whole.rpartition(".")[0], annotation, split, prefer=name)
        return image or inside(self.source, whole, annotation.parent, annotation)

    def of_path(self, name: str) -> Path | None:
        """The image at the longest end of an absolute path, which another machine wrote: `/home/x/set/images/a.jpg`."""
        return next((self._by_path[end] for end in ends(name) if end in self._by_path), None)


def ends(name: str) -> list[str]:
    """What may lie below the source of an absolute path, longest first; nothing of a relative one."""
    if not PurePosixPath(name).is_absolute() and not PureWindowsPath(name).is_absolute():
        return []
    parts = name.replace("\\", "/").split("/")
    return ["/".join(parts[start:]) for start in range(1, len(parts))]


def has_image_suffix(name: str) -> bool:
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES


def split_lists(tree: Tree, home: Sequence[str], known: Collection[str], annotation: str) -> dict[str, str]:
    """The split of each stem by the lists `train.txt`, `val.txt` and `test.txt`, empty where there are none.

    `home` is the folders that such lists lie in, wherever those are; `annotation` is what the format calls its
    files. Raises DataError where a list names a stem that is not `known`, or that another split has.
    """
    split_by_stem: dict[str, str] = {}
    found = [path for path in tree.files({".txt"}) if path.parent.parts[-len(home) :] == tuple(home)]
    for path in [path for split in SPLITS for path in found if path.stem == split]:
        for line in read_text(path).splitlines():
            if not line.strip():
                continue
            # Lists of one class put 1 or -1 behind the stem; some tools write the whole file name.
            words = (line.strip(), line.split()[0], PurePath(line.strip()).stem)
            stem = next((word for word in words if word in known), None)
            if stem is None:
                raise DataError(
                    f"{path}: lists {show(words[0])}, which has neither image nor {annotation}; take the line out"
                )
            earlier = split_by_stem.setdefault(stem, path.stem)
            if earlier != path.stem:
                raise DataError(f"{path}: {stem!r} is also in {earlier}.txt; take it out of one of them")
    return split_by_stem

"""Say what would make a folder readable that cannot be read as labelled images."""

from __future__ import annotations

from pathlib import Path

from pipeline import formats
from pipeline.errors import DataError, counted, did_you_mean
from pipeline.formats import nearest
from pipeline.formats.reading import candidates
from pipeline.formats.source import Source
from pipeline.formats.tree import Tree
from pipeline.walk import walk

LAYOUTS = "data/README.md has the layouts"
SUBFOLDERS = 50  # the most to look at


def read(folder: Path, format_name: str) -> tuple[str, Source]:
    """Read a folder as `formats.read` does. Raises DataError, with what to do about the folder's content."""
    if not folder.is_dir():
        raise DataError(f"{folder}: {_no_folder(folder)}")
    if format_name != "auto":
        return formats.read(folder, format_name)
    tree = Tree(folder)
    fitting = candidates(tree)
    if len(fitting) > 1:
        raise DataError(
            f"{folder}: looks like {' and '.join(fitting)}; choose: make new SOURCE={folder} FORMAT={fitting[0]}"
        )
    if not fitting and (advice := _advice(tree)):
        raise DataError(f"{folder}: {advice}")
    return formats.read(folder)


def _no_folder(path: Path) -> str:
    if path.is_file():
        if command := _unpack(path):
            return command
        return f"is a file; name the folder that holds it: make new SOURCE={path.parent}"
    beside = [str(folder) for folder in path.parent.glob("*") if folder.is_dir()] if path.parent.is_dir() else []
    return f"no such folder{did_you_mean(str(path), beside) or '; put the images and their labels there'}"


def _unpack(path: Path) -> str:
    """Return how to unpack an archive; empty for any other file."""
    command = nearest.ARCHIVES.get(path.suffix.lower())
    if not command:
        return ""
    stem = path.name.removesuffix(path.suffix).removesuffix(".tar")
    folder = Path("data/raw") / stem
    unpacked = command.format(file=_quoted(path), folder=_quoted(folder))
    return f"is an archive; unpack it: mkdir -p {_quoted(folder)} && {unpacked}, then make new SOURCE={_quoted(folder)}"


def _quoted(path: Path) -> str:
    return f"'{path}'" if " " in str(path) else str(path)


def _advice(tree: Tree) -> str:
    """Return what is missing in a folder without a known format; empty if a reader's own error says it better."""
    folder = tree.folder
    near, images = nearest.look(tree), tree.images()
    files = [name for name, entry, _ in walk(folder) if entry]
    if not files:
        return "holds no file; put images and their labels there"
    for path in sorted(path for path in folder.iterdir() if path.is_dir())[:SUBFOLDERS]:
        if names_of_formats := candidates(Tree(path)):
            return (
                f"not a data set itself, but its folder {path.name}/ is one ({names_of_formats[0]}): "
                f"make new SOURCE={_quoted(path)}"
            )
    first = near.files[0].relative_to(folder) if near.files else Path()
    if near.kind == "packed":
        return f"{first} {_unpack(near.files[0])}"
    if near.kind == "film":
        return f"{first} is a video; take images from it (ffmpeg -i FILE -vf fps=1 frame_%05d.jpg) and label them"
    if near.kind == "not read":
        kind = nearest.NOT_READ[first.suffix.lower()]
        return f"holds {kind} files, which are not read; export the data set as COCO or YOLO"
    if not images:
        return f"{counted(len(files), 'file')} but no image; put the images beside their labels"
    if near.kind == "nameless":
        return (
            f"{counted(len(near.files), 'label file')} in YOLO's format but no class names; write classes.txt there, "
            "one name per line in the order of the numbers"
        )
    if near.kind == "images" or all(path.suffix == ".txt" for path in near.files):
        return (
            f"{counted(len(images), 'image')} but no labels; draw boxes in a tool such as CVAT, Label Studio or "
            f"LabelMe, and put its export beside the images ({LAYOUTS})"
        )
    return ""

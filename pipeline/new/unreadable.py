"""Folders that cannot be read as labelled images, and what would make them readable."""

from __future__ import annotations

from pathlib import Path

from pipeline import formats
from pipeline.boxes import IMAGE_SUFFIXES
from pipeline.errors import DataError, did_you_mean
from pipeline.formats.reading import candidates
from pipeline.formats.source import Source
from pipeline.formats.text import head
from pipeline.formats.tree import Tree
from pipeline.formats.yolo_data import looks_like_labels
from pipeline.walk import walk

ARCHIVES = {
    ".zip": "python3 -m zipfile -e {file} {folder}",
    ".tar": "tar -xf {file} -C {folder}",
    ".gz": "tar -xzf {file} -C {folder}",
    ".tgz": "tar -xzf {file} -C {folder}",
    ".xz": "tar -xJf {file} -C {folder}",
    ".bz2": "tar -xjf {file} -C {folder}",
    ".7z": "7z x {file} -o{folder}",
    ".rar": "unrar x {file} {folder}",
}
FILMS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
OTHER_FORMATS = {
    ".tfrecord": "TFRecord",
    ".record": "TFRecord",
    ".parquet": "Parquet",
    ".arrow": "Arrow",
    ".mat": "MATLAB",
    ".pkl": "pickled",
    ".ndjson": "NDJSON",
}
LAYOUTS = "data/README.md has the layouts"
SUBFOLDERS = 50  # looked at, at most


def read(folder: Path, format_name: str) -> tuple[str, Source]:
    """Read a folder as `formats.read` does. Raises DataError with a way out that fits what lies there."""
    if not folder.is_dir():
        raise DataError(f"{folder}: {_no_folder(folder)}")
    if format_name != "auto":
        return formats.read(folder, format_name)
    fitting = candidates(Tree(folder.absolute()))
    if len(fitting) > 1:
        raise DataError(
            f"{folder}: looks like {' and '.join(fitting)}; choose: make new SOURCE={folder} FORMAT={fitting[0]}"
        )
    if not fitting and (advice := _advice(folder)):
        raise DataError(f"{folder}: {advice}")
    return formats.read(folder)


def _no_folder(path: Path) -> str:
    if path.is_file():
        if command := _unpack(path):
            return command
        return f"is a file; name the folder that holds it: make new SOURCE={path.parent}"
    beside = [str(other) for other in path.parent.glob("*") if other.is_dir()] if path.parent.is_dir() else []
    return f"no such folder{did_you_mean(str(path), beside) or '; put the images and their labels there'}"


def _unpack(path: Path) -> str:
    """Say how to unpack an archive; empty for any other file."""
    command = ARCHIVES.get(path.suffix.lower())
    if not command:
        return ""
    stem = path.name.removesuffix(path.suffix).removesuffix(".tar")
    folder = Path("data/raw") / stem
    unpacked = command.format(file=_quoted(path), folder=_quoted(folder))
    return f"is an archive; unpack it: mkdir -p {_quoted(folder)} && {unpacked}, then make new SOURCE={_quoted(folder)}"


def _quoted(path: Path) -> str:
    return f"'{path}'" if " " in str(path) else str(path)


def _advice(folder: Path) -> str:
    """Say what is missing in a folder of no known format; empty where a reader knows better."""
    names = [name for name, entry, _ in walk(folder) if entry]
    if not names:
        return "holds no file; put images and their labels there"
    for path in sorted(path for path in folder.iterdir() if path.is_dir())[:SUBFOLDERS]:
        if names_of_formats := candidates(Tree(path.absolute())):
            return (
                f"not a data set itself, but {path.name}/ in it is one ({names_of_formats[0]}): "
                f"make new SOURCE={_quoted(path)}"
            )
    kinds = {Path(name).suffix.lower() for name in names}
    pictures = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if archives := [name for name in names if Path(name).suffix.lower() in ARCHIVES]:
        return f"{archives[0]} {_unpack(folder / archives[0])}"
    if films := [name for name in names if name.lower().endswith(FILMS)]:
        return f"{films[0]} is a video; take images from it (ffmpeg -i FILE -vf fps=1 frame_%05d.jpg) and label them"
    for suffix in kinds & OTHER_FORMATS.keys():
        return f"holds {OTHER_FORMATS[suffix]} files, which are not read; export the data set as COCO or YOLO"
    if not pictures:
        return f"{_number(names, 'file')} and no image; put the images beside their labels"
    if texts := [name for name in names if name.endswith(".txt") and looks_like_labels(head(folder / name))]:
        return (
            f"{_number(texts, 'label file')} in YOLO's format and no class names; write classes.txt there, "
            "one name per line in the order of the numbers"
        )
    if kinds <= IMAGE_SUFFIXES | {".txt", ".md"}:
        return (
            f"{_number(pictures, 'image')} and no labels; draw boxes in a tool such as CVAT, Label Studio or LabelMe, "
            f"and put its export beside the images ({LAYOUTS})"
        )
    return ""


def _number(names: list[str], one: str) -> str:
    return f"{len(names)} {one}{'s' if len(names) > 1 else ''}"

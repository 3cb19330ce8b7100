"""Say what would make a folder readable that cannot be read as labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote

from pipeline import formats
from pipeline.errors import DataError, counted, did_you_mean
from pipeline.formats import nearest
from pipeline.formats.reading import candidates, readable
from pipeline.formats.source import Source
from pipeline.formats.tree import Tree
from pipeline.walk import walk

LAYOUTS = "data/README.md has the layouts"
SUBFOLDERS = 50  # the most to look at
COMMANDS = 3  # the most in one message


def read(folder: Path, format_name: str) -> tuple[str, Source]:
    """Read a folder as `formats.read` does, but leave out splits that share images.

    Annotations of images that a file does not list belong to a missing image. Raises DataError, with what to do about
    the folder's content.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: {_no_folder(folder)}")
    if format_name == "auto":
        with readable(folder):
            format_name = _recognise(folder)
    try:
        return _read(folder, format_name)
    except DataError as error:
        if packed := still_packed(folder):
            raise DataError(f"{error}; {packed}") from None
        raise


def _read(folder: Path, format_name: str) -> tuple[str, Source]:
    try:
        # What else `orphans` leaves out, lines of split lists, cannot become `to do`, so it is refused as by convert.
        return formats.read(folder, format_name, orphans=format_name == "coco")
    except DataError as error:
        if format_name != "yolo":
            raise
        # Raises the same error, unless splits that share images are the reason.
        name, source = formats.read(folder, format_name, given=False)
        images = tuple(item._replace(split=None) for item in source.images)
        notes = (*source.notes, f"its splits were not used: {error}")
        return name, replace(source, images=images, has_splits=False, notes=notes)


def _recognise(folder: Path) -> str:
    """Return the only format of a folder; `auto` if the error of `formats.read` says best why there is none."""
    tree = Tree(folder)
    fitting = candidates(tree)
    if len(fitting) > 1:
        choice = f"make new SOURCE={quote(str(folder))} FORMAT={fitting[0]}"
        raise DataError(f"{folder}: looks like {' and '.join(fitting)}; choose: {choice}")
    if not fitting and (advice := _advice(tree)):
        raise DataError(f"{folder}: {advice}")
    return fitting[0] if fitting else "auto"


def _no_folder(path: Path) -> str:
    if path.is_file():
        if path.suffix.lower() in nearest.ARCHIVES:
            return f"is an archive; {_unpack(path)}"
        return f"is a file; name the folder that holds it: make new SOURCE={quote(str(path.parent))}"
    beside = [str(folder) for folder in path.parent.glob("*") if folder.is_dir()] if path.parent.is_dir() else []
    return f"no such folder{did_you_mean(str(path), beside) or '; create it and put the images and their labels there'}"


def _unpack(archive: Path) -> str:
    """Return how to unpack the archive of a whole dataset into a folder of its own."""
    folder = Path("data/raw") / archive.name.removesuffix(archive.suffix).removesuffix(".tar")
    made = quote(str(folder))
    return f"unpack it: mkdir -p {made} && {_command(archive, folder)}, then make new SOURCE={made}"


def _unpack_there(archives: Sequence[Path], folder: Path) -> str:
    """Return how to unpack archives beside the other files of a dataset."""
    more = f" and {len(archives) - 1} more are archives" if len(archives) > 1 else " is an archive"
    commands = [_command(archive, archive.parent) for archive in archives[:COMMANDS]]
    commands += ["..."] if len(archives) > COMMANDS else []
    them = "them" if len(archives) > 1 else "it"
    name = archives[0].relative_to(folder)
    return f"{name}{more}; unpack {them}: {' && '.join(commands)}, then make new SOURCE={quote(str(folder))}"


def _command(archive: Path, folder: Path) -> str:
    is_tar = archive.stem.lower().endswith(".tar")
    commands = nearest.ARCHIVES if is_tar else nearest.ARCHIVES | nearest.COMPRESSED
    paths = {"file": archive, "folder": folder, "target": folder / archive.stem}
    return commands[archive.suffix.lower()].format(**{name: quote(str(path)) for name, path in paths.items()})


def still_packed(folder: Path) -> str:
    """Return how to unpack the archives in a folder without images; empty if there are none."""
    tree = Tree(folder)
    archives = tree.files(nearest.ARCHIVES)
    return _unpack_there(archives, folder) if archives and not tree.images() else ""


def _advice(tree: Tree) -> str:
    """Return what is missing in a folder without a known format; empty if a reader's own error says it better."""
    folder = tree.folder
    near, images = nearest.look(tree), tree.images()
    files = [name for name, entry, _ in walk(folder) if entry]
    if not files:
        return "holds no file; put images and their labels there"
    below = sorted(path for path in folder.iterdir() if path.is_dir())[:SUBFOLDERS]
    if datasets := [(path, fitting[0]) for path in below if (fitting := candidates(Tree(path)))]:
        (dataset, name), *others = datasets
        more = f"; so {'is' if len(others) == 1 else 'are'} " if others else ""
        more += " and ".join(f"{path.name}/ ({of})" for path, of in others)
        return (
            f"not a dataset itself, but its folder {dataset.name}/ is one ({name}): "
            f"make new SOURCE={quote(str(dataset))}{more}"
        )
    first = near.files[0].relative_to(folder) if near.files else Path()
    if near.kind == "packed":
        is_whole = len(near.files) == 1 and not images and not tree.files(nearest.OTHER_LABELS)
        return f"{first} is an archive; {_unpack(near.files[0])}" if is_whole else _unpack_there(near.files, folder)
    if near.kind == "film":
        return f"{first} is a video; take images from it (ffmpeg -i FILE -vf fps=1 frame_%05d.jpg) and label them"
    if near.kind == "not read":
        kind = nearest.NOT_READ[first.suffix.lower()]
        return f"holds {kind} files, which are not read; export the dataset as COCO or YOLO"
    if not images:
        return f"{counted(len(files), 'file')} but no image; put the images beside their labels"
    if near.kind == "nameless":
        return (
            f"{counted(len(near.files), 'label file')} in YOLO's format but no class names; write classes.txt there, "
            "one name per line in the order of the numbers"
        )
    stems = {path.stem for path in images}
    texts = [path for path in near.files if path.suffix == ".txt"]
    if labels := [path for path in texts if path.stem in stems or nearest.names_image_and_numbers(tree.head(path))]:
        label = labels[0].relative_to(folder).as_posix()
        return f"labels such as {label} are in no supported layout; export the dataset as COCO or YOLO"
    if near.kind == "images" or all(path.suffix == ".txt" for path in near.files):
        return (
            f"{counted(len(images), 'image')} but no labels; draw boxes in a tool such as CVAT, Label Studio or "
            f"LabelMe, and put its export beside the images ({LAYOUTS})"
        )
    return ""

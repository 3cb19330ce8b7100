"""Write the batch for a labelling tool to `runs/NAME/label/TOOL/`, and read its labels back."""

from __future__ import annotations

from pathlib import Path

from pipeline import files, formats
from pipeline.boxes import Labelled
from pipeline.errors import DataError
from pipeline.label import layouts, saving
from pipeline.label.saving import Returned
from pipeline.records import label as record
from pipeline.records.base import read_record, write_record
from pipeline.records.label import Next
from pipeline.run import Run


def lay_out(run: Run, tool: str) -> str:
    """Write images and boxes in the tool's layout; return a line that says where.

    Raises DataError if the folder exists already, because it may hold a person's work.
    """
    batch, folder = record.read(run), run.label / tool
    if folder.exists():
        raise DataError(
            f"{folder}: already exists, perhaps with corrected labels; save them with `label --save --as {tool}`, "
            "then delete the folder"
        )
    _refuse_twins(batch, tool)
    with files.new_folder(folder) as new:
        for candidate in batch["images"]:
            target = new / "images" / _inside(candidate["path"], batch)
            target.parent.mkdir(parents=True, exist_ok=True)
            # A copy, because some tools write into the images that they open.
            files.copy(Path(candidate["path"]), target)
        items = [(_inside(candidate["path"], batch), candidate) for candidate in batch["images"]]
        layouts.LAYOUTS[tool](new, items, batch)
        write_record(_batch_of(run, tool), Next, batch)
    boxes = sum(len(candidate["boxes"]) for candidate in batch["images"])
    return f"{len(batch['images'])} images with {boxes} boxes for {tool} -> {folder}"


def _refuse_twins(batch: Next, tool: str) -> None:
    """Raise DataError for images that differ only in their suffix, if the tool has one label file for both."""
    stems: dict[Path, Path] = {}
    for candidate in batch["images"] if tool in layouts.ONE_FILE_EACH else ():
        name = _inside(candidate["path"], batch)
        other = stems.setdefault(name.with_suffix(""), name)
        if other != name:
            raise DataError(
                f"{candidate['path']}: {tool} has one label file for it and for {other.name}; rename one of them, "
                "or use --as coco"
            )


def save(run: Run, tool: str, every: bool = False) -> str:
    """Read what the tool left in its folder, and write `data/labels/NAME.json`.

    Raises DataError for a missing folder, or for annotations that give no boxes.
    """
    folder = run.label / tool
    if not folder.is_dir() or not _batch_of(run, tool).is_file():
        raise DataError(f"{folder}: does not exist; run `label --as {tool}` to lay the batch out for {tool}")
    batch = read_record(_batch_of(run, tool), Next, f"run `label --as {tool}` again")
    _, source = formats.read(folder, layouts.FORMATS[tool], given=False)
    paths = [candidate["path"] for candidate in batch["images"]]
    path_of = {folder.absolute() / "images" / _inside(path, batch): path for path in paths}
    size_of = {candidate["path"]: (candidate["width"], candidate["height"]) for candidate in batch["images"]}
    returned: dict[str, Returned] = {}
    others = 0
    for item in source.images:
        if item.annotation is None:
            continue  # nobody has labelled it
        if item.image not in path_of:
            raise DataError(f"{item.annotation}: labels {item.image.name}, which is not part of this batch; remove it")
        path = path_of[item.image]
        _check(item, size_of[path])
        others += sum(bool(box.ignore) for box in item.boxes)
        boxes = [box._replace(id="") for box in item.boxes if not box.ignore]
        returned[path] = Returned(boxes, done=tool == layouts.LABELSTUDIO)  # there, only submitted tasks have labels
    summary = saving.save(run, batch, saving.images(batch, returned, every, run))
    return f"{summary}; left out {others} shapes that are not boxes" if others else summary


def _check(item: Labelled, size: tuple[int, int]) -> None:
    """Raise DataError for damaged boxes, and for labels of an image of another size."""
    if item.declared_size not in (None, size):
        declared, actual = ("x".join(map(str, pair)) for pair in (item.declared_size or (), size))
        raise DataError(f"{item.annotation}: says that {item.image.name} is {declared}, but it is {actual}; correct it")
    for box in item.boxes:
        if box.damage and not box.ignore:
            raise DataError(f"{item.annotation}: {item.image.name}: {box.id}: {box.damage}")


def _inside(path: str, batch: Next) -> Path:
    """Return the path of an image below the pool."""
    return Path(path).relative_to(batch["pool"])


def _batch_of(run: Run, tool: str) -> Path:
    """Return the file of the batch that was laid out. It is beside the folder, whose files the tool reads."""
    return run.label / f"{tool}.json"

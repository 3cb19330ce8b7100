"""Write the batch for a labelling tool to `runs/NAME/label/TOOL/`, and read its labels back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pipeline import files, formats
from pipeline.boxes import Labelled
from pipeline.errors import DataError, counted
from pipeline.label import layouts, saving, showing
from pipeline.label.saving import Returned
from pipeline.records import label as record
from pipeline.records.base import read_record, write_record
from pipeline.records.label import Next
from pipeline.run import Run

REASONS = 3  # to name for shapes without a box


def check_free(run: Run, tool: str) -> None:
    """Raise DataError if the folder exists already, because it may hold a person's work."""
    if (folder := run.label / tool).exists():
        raise DataError(
            f"{folder}: already exists, perhaps with corrected labels; save them with `label --save --as {tool}`, "
            "then delete the folder"
        )


def lay_out(run: Run, tool: str) -> str:
    """Write images and boxes in the tool's layout; return a line that says where. Raises DataError."""
    batch, folder = record.read(run), run.label / tool
    check_free(run, tool)
    _refuse_twins(batch, tool)
    names = names_of(batch, tool)
    for candidate in batch["images"]:
        if not (path := showing.path_of(candidate)).is_file():
            raise DataError(f"{path}: no longer exists; restore it, or run `make label` again")
    with files.new_folder(folder) as new:
        for candidate in batch["images"]:
            target = new / "images" / names[candidate["path"]]
            target.parent.mkdir(parents=True, exist_ok=True)
            # A copy, because some tools write into the images that they open.
            files.copy(showing.path_of(candidate), target)
        layouts.LAYOUTS[tool](new, [(names[candidate["path"]], candidate) for candidate in batch["images"]], batch)
        write_record(_batch_of(run, tool), Next, batch)
    boxes = sum(len(candidate["boxes"]) for candidate in batch["images"])
    return f"{len(batch['images'])} images with {boxes} boxes for {tool} -> {folder}"


def names_of(batch: Next, tool: str) -> dict[str, Path]:
    """Return the path of each image below `images`, by its path in the pool.

    For YOLO all are in one folder, because LabelImg puts all labels into one; and for any tool if the pool has a folder
    `images` itself, because `images/a.jpg` could then mean two images. Images of equal stems get their folders as a
    prefix, and so does `classes.jpg`, whose labels would be where LabelImg wants the class names.
    """
    inside = {
        image["path"]: Path(image["path"]).relative_to(batch["pool"]).with_suffix(showing.path_of(image).suffix)
        for image in batch["images"]
    }
    if tool != layouts.YOLO and not any(name.parts[0].lower() == "images" for name in inside.values()):
        return inside
    stems = Counter(["classes", *(name.stem.lower() for name in inside.values())])
    return {
        path: Path(name.name if stems[name.stem.lower()] == 1 else "-".join(name.parts))
        for path, name in inside.items()
    }


def _refuse_twins(batch: Next, tool: str) -> None:
    """Raise DataError for images of one name; or of nearly one, but for suffix or case, if the tool confuses them."""
    taken = {"classes": "its list of class names, classes.txt"} if tool == layouts.YOLO else {}
    for path, name in names_of(batch, tool).items():
        key = str(name.with_suffix("")).lower() if tool in layouts.BY_STEM else str(name)
        other = taken.setdefault(key, path)
        if other != path:
            raise DataError(f"{path}: {tool} may confuse it with {other}; rename one of them, or use --as coco")


def save(run: Run, tool: str, every: bool = False) -> str:
    """Read what the tool left in its folder, and write `data/labels/NAME.json`.

    Raises DataError for a missing folder, or for annotations that give no boxes.
    """
    folder = run.label / tool
    if not folder.is_dir() or not _batch_of(run, tool).is_file():
        raise DataError(f"{folder}: does not exist; run `label --as {tool}` to lay the batch out for {tool}")
    batch = read_record(_batch_of(run, tool), Next, f"run `label --as {tool}` again")
    _, source = formats.read(folder, layouts.FORMATS[tool], given=False)
    path_of = {folder.absolute() / "images" / name: path for path, name in names_of(batch, tool).items()}
    size_of = {candidate["path"]: (candidate["width"], candidate["height"]) for candidate in batch["images"]}
    returned: dict[str, Returned] = {}
    others: Counter[str] = Counter()
    for item in source.images:
        if item.annotation is None:
            continue  # nobody has labelled it
        if item.image not in path_of:
            raise DataError(
                f"{item.annotation}: labels {item.image.name}, which is not an image of this batch; move a label file "
                "to where the batch had it, or leave the image out of the export"
            )
        path = path_of[item.image]
        _check(item, size_of[path])
        others.update(str(box.ignore) for box in item.boxes if box.ignore)
        boxes = [box._replace(id="") for box in item.boxes if not box.ignore]
        # An image with other shapes shows objects, so it is not to become background by itself.
        complete = tool in layouts.IN_PLACE and len(boxes) == len(item.boxes)
        # In Label Studio, only submitted tasks have labels.
        returned[path] = Returned(boxes, tool == layouts.LABELSTUDIO, complete)
    absent = "not submitted yet" if tool == layouts.LABELSTUDIO else "not among the labels"
    summary = saving.save(run, batch, saving.judge(batch, returned, every, run), "unchanged", absent)
    return f"{summary}; left out {_in_words(others)}" if others else summary


def _in_words(others: Counter[str]) -> str:
    """Return how many shapes have no box, with the commonest reasons."""
    named = others.most_common(REASONS)
    parts = [f"{counted(number, 'shape')} ({why})" for why, number in named]
    if rest := others.total() - sum(number for _, number in named):
        parts.append(f"{counted(rest, 'other')}")
    return ", ".join(parts)


def _check(item: Labelled, size: tuple[int, int]) -> None:
    """Raise DataError for damaged boxes, and for labels of an image of another size."""
    if item.declared_size not in (None, size):
        declared, actual = ("x".join(map(str, pair)) for pair in (item.declared_size or (), size))
        raise DataError(f"{item.annotation}: says that {item.image.name} is {declared}, but it is {actual}; correct it")
    for box in item.boxes:
        if box.damage and not box.ignore:
            raise DataError(f"{item.annotation}: {item.image.name}: {box.id}: {box.damage}")


def _batch_of(run: Run, tool: str) -> Path:
    """Return the file of the batch that was laid out. It is beside the folder, whose files the tool reads."""
    return run.label / f"{tool}.json"

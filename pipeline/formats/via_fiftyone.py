"""Any other format that FiftyOne can import: `convert.format: fiftyone:TYPE`, with a TYPE from `fiftyone.types`.

FiftyOne's importer decides what it reads and what it skips; every box that it returns counts. Folders named train, val
and test that each hold a dataset of the type give the splits, else the importer's own splits or tags.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import isclass, signature
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline import database
from pipeline.boxes import Box, Labelled, check_sides
from pipeline.errors import DataError, did_you_mean
from pipeline.formats.paths import inside
from pipeline.formats.source import NAN, NoBox, Source, damaged
from pipeline.formats.splits import SPLIT_WORDS, split_of
from pipeline.formats.text import upright_size
from pipeline.formats.tree import Tree
from pipeline.run import SPLITS

# Attributes by which FiftyOne's importers mark a region of many objects.
CROWDS = ("iscrowd", "IsGroupOf")
SHAPES = ("Keypoint", "Segmentation")  # labels that show objects without a box


def read(folder: Path, type_name: str) -> Source:
    """Return every image of a FiftyOne dataset type, with the boxes of its detections and those around its polygons.

    Raises DataError if FiftyOne has no such type, cannot import it, or imports something other than boxes;
    PipelineError if FiftyOne has no database.
    """
    with database.fiftyone() as fo, _without_linked_folders(folder) as plain:
        kind = getattr(fo.types, type_name, None)
        if not isclass(kind) or not issubclass(kind, fo.types.Dataset):
            known = [name for name, value in vars(fo.types).items() if isclass(value)]
            raise DataError(f"convert.format: FiftyOne has no type {type_name!r}{did_you_mean(type_name, known)}")
        dataset = fo.Dataset()  # unnamed and temporary
        try:
            _import(dataset, kind, folder, plain)
            fields = _fields(dataset, folder)
            labelled = [_labelled(sample, fields, folder, plain) for sample in dataset]
        finally:
            dataset.delete()
    labelled.sort(key=lambda item: item.image)
    return Source(tuple(labelled), None, has_splits=any(item.split for item in labelled))


@contextmanager
def _without_linked_folders(folder: Path) -> Iterator[Path]:
    """Yield a folder with the same files in real folders, because some of FiftyOne's importers fail on linked ones."""
    with TemporaryDirectory() as temporary:
        plain = Path(temporary).resolve() / folder.name
        plain.mkdir()
        for path in Tree(folder).files({""}):
            link = plain / path.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        yield plain


def _import(dataset: Any, kind: type[Any], folder: Path, plain: Path) -> None:
    try:
        accepted = signature(kind().get_dataset_importer_cls()).parameters
        options: dict[str, Any] = {"dataset_type": kind}
        if "include_all_data" in accepted:
            options["include_all_data"] = True  # images without labels, too
        if "label_types" in accepted:
            options["label_types"] = ["detections"]  # not the same objects again as masks
        folders = [child for child in sorted(plain.iterdir()) if child.is_dir() and child.name.lower() in SPLIT_WORDS]
        if "split" in accepted:
            _import_splits(dataset, plain, options)
        elif folders:
            for child in folders:
                dataset.add_dir(dataset_dir=str(child), tags=split_of(child.name), **options)
        else:
            dataset.add_dir(dataset_dir=str(plain), **options)
    except Exception as error:  # importers raise many types on malformed files
        first = " ".join(str(error).replace(str(plain), str(folder)).split())[:200] or type(error).__name__
        raise DataError(
            f"{folder}: FiftyOne cannot import it as {kind.__name__} ({first}); correct the files or the type"
        ) from None


def _import_splits(dataset: Any, folder: Path, options: dict[str, Any]) -> None:
    """Import each split with an importer that reads one at a time."""
    absent = []
    for split in SPLITS:
        try:
            dataset.add_dir(dataset_dir=str(folder), split=split, tags=split, **options)
        except ValueError as error:
            if f"does not contain split '{split}'" not in str(error):
                raise
            absent.append(error)
    if len(absent) == len(SPLITS):
        raise absent[0]


def _fields(dataset: Any, folder: Path) -> list[str]:
    """Return the fields that hold labels. Raises DataError if several hold detections."""
    import fiftyone as fo

    if dataset.media_type not in ("image", None):  # None: no sample at all
        raise DataError(
            f"{folder}: FiftyOne reads {dataset.media_type}s in it; only image datasets are supported: "
            "export images with boxes"
        )
    kinds = {
        name: field.document_type
        for name, field in dataset.get_field_schema(ftype=fo.EmbeddedDocumentField, embedded_doc_type=fo.Label).items()
    }
    boxes = [name for name, kind in kinds.items() if issubclass(kind, (fo.Detections, fo.Detection))]
    polygons = [name for name, kind in kinds.items() if issubclass(kind, (fo.Polylines, fo.Polyline))]
    if kinds and not boxes and not polygons:
        listed = ", ".join(f"{kind.__name__} {name!r}" for name, kind in kinds.items())
        raise DataError(f"{folder}: FiftyOne reads {listed} in it, but no boxes; choose a source that has some")
    if len(boxes) > 1:
        raise DataError(
            f"{folder}: FiftyOne reads boxes in {' and '.join(map(repr, boxes))}; export only the field to train on"
        )
    return list(kinds)


def _labelled(sample: Any, fields: list[str], folder: Path, plain: Path) -> Labelled:
    name = sample.filepath.removeprefix(f"{plain}{os.sep}")  # other absolute paths stay as they are
    image = inside(folder, name, folder, folder)
    values = [sample[name] for name in fields if sample[name] is not None]
    # An importer that reads corners in pixels divides them by the size that it records here.
    metadata = sample.metadata
    declared = (metadata.width, metadata.height) if metadata and metadata.width and metadata.height else None
    sides = declared or upright_size(image)
    labels = enumerate((label for value in values for label in _single(value)), start=1)
    boxes = tuple(_box(label, sides, f"label {number}") for number, label in labels)
    splits = {split for tag in sample.tags if (split := split_of(tag))}
    split = splits.pop() if len(splits) == 1 else None
    return Labelled(image, boxes, image if values else None, declared, split)


def _single(value: Any) -> Iterator[Any]:
    """Yield the labels in one value of a field: those of a list such as `Detections`, or the value itself."""
    for name in ("detections", "polylines", "keypoints", "classifications"):
        if value.has_field(name):
            yield from value[name]
            return
    yield value


def _box(label: Any, sides: tuple[int, int] | None, identity: str) -> Box:
    name = (label.label if label.has_field("label") else "") or ""
    kind, ignore = type(label).__name__, ""
    try:
        if kind == "Detection":
            xmin, ymin, width, height = map(float, label.bounding_box)
            check_sides(width, height)
            xmax, ymax = xmin + width, ymin + height
            crowds = [crowd for crowd in CROWDS if _is_true(label, crowd)]
            ignore = NoBox(f"{crowds[0]}: many objects in one box") if crowds else ""
        elif kind == "Polyline":
            xs, ys = zip(*[(float(x), float(y)) for shape in label.points for x, y in shape], strict=True)
            # With a NaN among the numbers, min and max depend on their order.
            xmin, ymin, xmax, ymax = (NAN,) * 4 if any(map(isnan, xs + ys)) else (min(xs), min(ys), max(xs), max(ys))
            ignore = "" if label.closed or label.filled else NoBox("an open line: it encloses nothing")
        else:
            ignore = NoBox(f"a {kind}, not a box") if kind in SHAPES else f"a {kind}, not a box"
            return Box(name, NAN, NAN, NAN, NAN, identity, ignore)
    except (TypeError, ValueError):  # importers do not check what they read
        return damaged(f"a {kind} without corners", name, identity)
    if not name:
        return damaged("no label", id=identity)
    if sides is None:
        return damaged("image cannot be read", name, identity, ignore)
    return Box(name, xmin * sides[0], ymin * sides[1], xmax * sides[0], ymax * sides[1], identity, ignore)


def _is_true(label: Any, attribute: str) -> bool:
    return label.has_field(attribute) and label[attribute] in (True, 1)

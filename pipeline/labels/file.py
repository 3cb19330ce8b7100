"""Read and write labels that a person made or corrected: `data/labels/NAME.json`, COCO JSON that suits git and people.

`label --save` writes it, and the next `convert` adds it to the training set. Files in the folder `data/labels/NAME/`
count as well, for example one per person. Each record is one line, sorted by image and position, so that a diff shows
what changed. In addition to COCO's keys,

    an image has the `sha256` of its file; `file_name` is relative to where `make` runs
    an annotation has its `origin`: kept, moved or relabelled, all drawn by a model beforehand, or added by hand;
        `model`, the beginning of that model's SHA-256; and `score`, that of the box as the model drew it
    `deleted` holds the boxes that the model drew and the person removed

Boxes are `[x, y, width, height]` in pixels of the upright image. Ids are digests of what they identify, so the files of
two people have the same ids for the same images, and a new image changes no other line.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline import files
from pipeline.errors import ConfigError, DataError, in_a_line
from pipeline.labels.content import Image, Label, Labels, Origin, boxes_of, rounded
from pipeline.run import Run
from pipeline.walk import is_text

DESCRIPTION = "Labels made with `make label`; review the changes, then commit them"
CONFLICT = re.compile(r"^<{7}", re.MULTILINE)  # the first line of a conflict that git left in a file

Line = dict[str, float | str | list[float] | None]  # a record of the file


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False, strict=True)


class _Info(_Strict):
    models: dict[str, str] = {}


class _Category(_Strict):
    id: int
    name: str = Field(min_length=1)


class _Image(_Strict):
    id: int
    file_name: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    sha256: str = ""


class _Annotation(_Strict):
    image_id: int
    category_id: int
    bbox: list[float] = Field(min_length=4, max_length=4)
    origin: Origin = "added"
    score: float | None = None
    model: str = ""


class _File(_Strict):
    info: _Info = _Info()
    categories: list[_Category]
    images: list[_Image]
    annotations: list[_Annotation]
    deleted: list[_Annotation] = []


def file_of(run: Run) -> Path:
    """Return the path that `label --save` writes: beside the data and in git, because labels outlive the run."""
    return run.project / "data" / "labels" / f"{run.name}.json"


def files_of(run: Run) -> list[Path]:
    """Return all existing label files of this config, but no hidden ones. Raises ConfigError for a folder in theirs."""
    main_file = file_of(run)
    found = sorted(main_file.with_suffix("").glob("[!.]*"))
    if folder := next(filter(Path.is_dir, found), None):
        raise ConfigError(f"{folder}: is not read; move its label files to {folder.parent}, and delete it")
    return [path for path in (main_file, *found) if path.suffix.lower() == ".json" and path.is_file()]


def load(path: Path) -> Labels:
    """Read a label file; a missing file holds no labels. Raises ConfigError with the first error."""
    text = files.read_edited(path)
    if text is None:
        return Labels()
    if CONFLICT.search(text):
        way_out = f"resolve it, or keep each person's file in {path.with_suffix('')}/"
        raise ConfigError(f"{path}: contains an unresolved git conflict; {way_out}")
    return _parsed(path, text)


def _parsed(path: Path, text: str) -> Labels:
    try:
        content = _File.model_validate(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {_in_words(error)}; correct it, or restore it from git") from None
    try:
        return _checked(content)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _checked(content: _File) -> Labels:
    """Return the content of a parsed file. Raises ValueError with what is wrong and what to do."""
    names = {category.id: category.name for category in content.categories}
    if len(names) < len(content.categories) or len(set(names.values())) < len(names):
        raise ValueError("a category appears twice; keep one")
    images: dict[int, _Image] = {}
    files_seen: set[str] = set()
    for image in content.images:
        if image.id in images or image.file_name in files_seen:
            raise ValueError(f"{image.file_name[:80]!r} or its id {image.id} appears twice; keep one")
        if not _is_plain(image.file_name):
            raise ValueError(f"{image.file_name[:80]!r} is not the path of an image; correct it")
        images[image.id] = image
        files_seen.add(image.file_name)
    made: dict[int, list[Label]] = {number: [] for number in images}
    deleted: dict[int, list[Label]] = {number: [] for number in images}
    for target, records in ((made, content.annotations), (deleted, content.deleted)):
        for record in records:
            if record.image_id not in images:
                raise ValueError(
                    f"the box {record.bbox} belongs to image {record.image_id}, which is not in `images`; correct it"
                )
            box_name = f"{images[record.image_id].file_name}: the box {record.bbox}"
            if record.category_id not in names:
                raise ValueError(
                    f"{box_name} has category {record.category_id}, which is not in `categories`; correct it"
                )
            x, y, width, height = record.bbox
            if width <= 0 or height <= 0:
                raise ValueError(f"{box_name} has a side of 0 or less; correct it")
            label = Label((x, y, width, height), names[record.category_id], record.origin, record.score, record.model)
            target[record.image_id].append(label)
    done = tuple(
        Image(image.file_name, (image.width, image.height), image.sha256, tuple(made[n]), tuple(deleted[n]))
        for n, image in images.items()
    )
    return Labels(tuple(names.values()), done, dict(content.info.models))


def _is_plain(name: str) -> bool:
    """Return whether a path only leads down, and is text as `convert` requires of all names."""
    path = PurePosixPath(name)
    return bool(path.name) and ".." not in path.parts and is_text(name)


def _in_words(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg'].lower()}, got {str(first['input'])[:60]!r}"
    return f"not JSON ({in_a_line(error)})"


def save(path: Path, labels: Labels) -> None:
    """Write the file: sorted, one record per line, and the same bytes for the same labels.

    Raises ConfigError, and writes nothing, for labels that `load` would refuse.
    """
    number = {name: index for index, name in enumerate(labels.classes, start=1)}
    images, annotations, deleted = list[Line](), list[Line](), list[Line]()
    taken: set[int] = set()
    for image in sorted(labels.images, key=lambda image: image.file):
        width, height = image.size
        image_id = _id(taken, image.file)
        images.append(
            {"id": image_id, "file_name": image.file, "width": width, "height": height, "sha256": image.sha256}
        )
        for target, boxes in ((annotations, image.labels), (deleted, image.deleted)):
            for box in sorted(map(rounded, boxes), key=lambda box: (box.bbox[1], box.bbox[0], box)):
                made: Line = {
                    "id": _id(taken, image.file, box.label, str(box.bbox)),
                    "image_id": image_id,
                    "image": image.file,  # for people, to whom the ids mean nothing
                    "category_id": number[box.label],
                    "bbox": list(box.bbox),
                    "area": round(box.bbox[2] * box.bbox[3], 2),
                    "iscrowd": 0,
                    "origin": box.origin,
                    "score": box.score,
                    "model": box.model,
                }
                if target is deleted:
                    del made["id"], made["area"], made["iscrowd"], made["origin"]
                target.append({key: value for key, value in made.items() if value not in (None, "")})
    used = {box.model for image in labels.images for box in (*image.labels, *image.deleted)}
    models = {key: name for key, name in labels.models.items() if key in used}
    categories: list[Line] = [{"id": index, "name": name} for name, index in number.items()]
    parts = [
        f'"info": {_line({"description": DESCRIPTION, "models": dict(sorted(models.items()))})}',
        *(
            f'"{key}": [{"".join(f"{chr(10)}{_line(record)}," for record in records)[:-1]}\n]'
            for key, records in (
                ("categories", categories),
                ("images", images),
                ("annotations", annotations),
                ("deleted", deleted),
            )
        ),
    ]
    text = "{\n" + ",\n".join(parts) + "\n}\n"
    _parsed(path, text)
    files.write_text(path, text)


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _id(taken: set[int], *words: str) -> int:
    """Return a 52-bit number, which JavaScript can represent, that no other record of the file has."""
    number = int(hashlib.sha256("\0".join(words).encode(errors="surrogatepass")).hexdigest()[:13], 16)
    while number in taken:
        number += 1
    taken.add(number)
    return number


def together(paths: Iterable[Path]) -> list[tuple[Path, Image]]:
    """Return each image of all files with the file that labels it, sorted by the name of the image.

    Raises ConfigError for a bad file, DataError if an image has two different labels: under one path in two files, or
    under two paths.
    """
    by_image: dict[str, tuple[Path, Image]] = {}
    by_content: dict[str, tuple[Path, Image]] = {}
    for path in paths:
        for image in load(path).images:
            for known, key in ((by_image, image.file), (by_content, image.sha256)):
                first, earlier = known.setdefault(key, (path, image)) if key else (path, image)
                if boxes_of(earlier) != boxes_of(image):
                    what = image.file if key == image.file else f"{earlier.file} and {image.file}, one image,"
                    counts = f"{len(earlier.labels)} and {len(image.labels)} boxes"
                    raise DataError(
                        f"{first} and {path} label {what} differently ({counts}); remove the image from one of them"
                    )
    return [by_image[name] for name in sorted(by_image)]

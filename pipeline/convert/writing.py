"""Write the dataset: images and labels under names that Ultralytics finds, and a check that it finds them all."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline import files, logs
from pipeline.boxes import IMAGE_SUFFIXES, write_labels
from pipeline.convert.judge import Judged
from pipeline.errors import DataError
from pipeline.image_files import reading
from pipeline.run import SPLITS

LONGEST_STEM = 200  # bytes of 255, because `augment` and temporary files add to it


def file_names(used: Sequence[Judged]) -> dict[str, str]:
    """Return the file name of each image in the dataset.

    Images of equal stems get their folders as a prefix and, if that does not suffice, a number.
    """
    stems = Counter(_stem(image.name).lower() for image in used)
    targets: dict[str, str] = {}
    taken: set[str] = set()  # two images with the same stem would overwrite each other's labels
    for image in used:
        name = image.name.rpartition("/")[2]
        target = name if stems[_stem(name).lower()] == 1 else image.name.replace("/", "-")
        plain = _shortened(_stem(target).lstrip(".") or "image")
        numbered = (f"{plain}-{number}" for number in itertools.count(2))
        stem = next(stem for stem in itertools.chain([plain], numbered) if stem.lower() not in taken)
        taken.add(stem.lower())
        targets[image.name] = stem + image.checked.suffix
    return targets


def _shortened(stem: str) -> str:
    """Shorten a stem so that other stages can append to it; a digest replaces what was cut."""
    whole = stem.encode()
    if len(whole) <= LONGEST_STEM:
        return stem
    return f"{whole[: LONGEST_STEM - 9].decode(errors='ignore')}-{hashlib.sha256(whole).hexdigest()[:8]}"


def _stem(name: str) -> str:
    last = name.rpartition("/")[2]
    return last.rpartition(".")[0] or last


def write(
    folder: Path,
    judged: Sequence[Judged],
    split_of: Mapping[str, str],
    targets: Mapping[str, str],
    names: Sequence[str],
    bits: int | None,
) -> None:
    """Write images and labels. `bits` is the number of bits in use in the 16-bit images, the same for all."""
    for split in SPLITS:
        if split in split_of.values():
            for kind in ("images", "labels"):
                (folder / kind / split).mkdir(parents=True)
    used = [image for image in judged if not image.unused]
    for image in logs.progress(used, "convert: writing"):
        split, target, checked = split_of[image.name], targets[image.name], image.checked
        if checked.rewrite == reading.OUT_OF_JSON:
            (folder / "images" / split / target).write_bytes(reading.read(image.item.image))
        elif checked.rewrite == reading.NO_JPEG_END:
            (folder / "images" / split / target).write_bytes(reading.read(image.item.image) + reading.END_OF_IMAGE)
        elif checked.rewrite:
            pixels = reading.upright(image.item.image, checked.orientation, bits if checked.peak else None)
            (folder / "images" / split / target).write_bytes(pixels)
        else:
            files.link_or_copy(image.item.image, folder / "images" / split / target)
        write_labels(f"{folder}/labels/{split}/{_stem(target)}.txt", image.boxes, names, checked.size)
    _check_written(folder, split_of, targets)


def _check_written(folder: Path, split_of: Mapping[str, str], targets: Mapping[str, str]) -> None:
    """Raise DataError unless Ultralytics finds, by its rules, all images that the receipt counts, with their labels."""
    for split in set(split_of.values()):
        counted = {target for name, target in targets.items() if split_of[name] == split}
        present = {
            path.name for path in (folder / "images" / split).glob("*.*") if path.suffix.lower() in IMAGE_SUFFIXES
        }
        labels = {path.stem for path in (folder / "labels" / split).iterdir()}
        unseen = sorted(name for name in counted if name not in present or name[0] == "." or _stem(name) not in labels)
        if unseen or len(present) != len(counted):
            raise DataError(
                f"{folder / 'images' / split / (unseen or sorted(present - counted))[0]}: training would not see it; "
                "rename the image"
            )

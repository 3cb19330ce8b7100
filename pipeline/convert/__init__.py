"""Annotations in, an Ultralytics data set out, with a receipt that accounts for every box."""

from __future__ import annotations

import hashlib
import io
import math
import random
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from tqdm import tqdm

from pipeline import files, formats
from pipeline.boxes import Box, Labelled, write_data_yaml, write_labels
from pipeline.config import Convert, Ratios
from pipeline.errors import DataError, did_you_mean
from pipeline.formats.source import Source
from pipeline.run import SPLITS, Run

EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Pixels:
    """What a whole decode of an image tells. Sizes are of the upright image."""

    size: tuple[int, int]
    sha256: str
    rewrite: str | None  # why the file must be written anew, None where a link will do


def main(config: Convert, run: Run, seed: int) -> str:
    """Write `run.dataset` and say in one line what became of the source.

    Raises DataError, before anything is written, where the source cannot be used as it is.
    """
    format_name, source = formats.read(config.source, config.format)
    _refuse_same_stems(source.images)
    _refuse_unlabelled(source.images, config)
    images = _assign_splits(source, config, seed)
    names = _class_names(source, config)
    pixels = _decode_all([item.image for split in images.values() for item in split])

    problems: list[dict[str, str]] = []
    kept: dict[str, list[tuple[Labelled, tuple[Box, ...]]]] = {}
    counts: Counter[str] = Counter()
    for split, items in images.items():
        kept[split] = []
        for item in items:
            size = pixels[item.image].size
            _check_declared_size(item, size)
            boxes = []
            for box in item.boxes:
                counts["read"] += 1
                result, problem = _check_box(box, item, size, names)
                if problem:
                    action, reason = problem
                    counts[action] += 1
                    file = str((item.annotation or item.image).relative_to(config.source.resolve()))
                    problems.append(
                        {"file": file, "id": box.id, "class": box.label, "action": action, "reason": reason}
                    )
                if result:
                    counts["kept"] += 1
                    boxes.append(result)
            kept[split].append((item, tuple(boxes)))
    assert counts["read"] == counts["kept"] + counts["dropped"] + counts["ignored"]
    if not any(boxes for _, boxes in kept["train"]):
        raise DataError(f"{config.source}: not one usable box in the training split; nothing can be learnt from it")

    leaks = _exact_leaks({split: [item.image for item, _ in items] for split, items in kept.items()}, pixels)
    receipt = {
        "source": str(config.source),
        "format": format_name,
        "classes": list(names),
        "images": {
            "read": len(source.images),
            "used": sum(map(len, kept.values())),
            "in_no_split": _unsplit(source, images),
        },
        "boxes": {key: counts[key] for key in ("read", "kept", "clipped", "dropped", "ignored")},
        "splits": {split: _summary(items, names) for split, items in kept.items()},
        "problems": problems,
        "rewritten": {
            item.image.name: why for items in kept.values() for item, _ in items if (why := pixels[item.image].rewrite)
        },
        "leaks": {"exact": leaks},
    }
    _write(run, kept, names, pixels, receipt)
    return _last_line(receipt, run)


def _refuse_same_stems(images: tuple[Labelled, ...]) -> None:
    """Two images of one stem would overwrite each other's labels."""
    first: dict[str, Path] = {}
    for item in images:
        earlier = first.setdefault(item.image.stem.lower(), item.image)
        if earlier != item.image:
            raise DataError(f"{item.image}: has the stem of {earlier}; rename one image and its annotation")


def _refuse_unlabelled(images: tuple[Labelled, ...], config: Convert) -> None:
    if config.unlabelled == "background":
        return
    for item in images:
        if item.annotation is None:
            raise DataError(
                f"{item.image}: no annotation; label it, or set `convert.unlabelled: background` "
                "if images without one truly show nothing"
            )


def _assign_splits(source: Source, config: Convert, seed: int) -> dict[str, list[Labelled]]:
    images: dict[str, list[Labelled]] = {split: [] for split in SPLITS}
    if isinstance(config.split, Ratios):
        shuffled = list(source.images)
        random.Random(seed).shuffle(shuffled)
        # At least one image for every split that is asked for; what rounding leaves goes to train.
        for split in ("val", "test"):
            ratio = getattr(config.split, split)
            number = max(1, round(ratio * len(source.images))) if ratio else 0
            images[split], shuffled = shuffled[:number], shuffled[number:]
        images["train"] = shuffled
        images = {split: sorted(items, key=lambda item: item.image) for split, items in images.items()}
    elif source.has_splits:
        for item in source.images:
            if item.split:
                images[item.split].append(item)
    else:
        raise DataError(
            f"{config.source}: assigns no image to train, val or test; let us do it: "
            "`convert.split: {train: 0.7, val: 0.15, test: 0.15}`"
        )
    for split in ("train", "val"):
        if not images[split]:
            raise DataError(f"{config.source}: no image in the {split} split; give ratios in convert.split instead")
    return {split: items for split, items in images.items() if items}


def _unsplit(source: Source, images: dict[str, list[Labelled]]) -> list[str]:
    used = {item.image for items in images.values() for item in items}
    return sorted(item.image.name for item in source.images if item.image not in used)


def _class_names(source: Source, config: Convert) -> tuple[str, ...]:
    if config.classes:
        return tuple(config.classes)
    if source.classes:
        return source.classes
    return tuple(sorted({box.label for item in source.images for box in item.boxes}))


def _decode_all(paths: list[Path]) -> dict[Path, Pixels]:
    # Threads, as Pillow lets go of the interpreter while it decodes.
    with ThreadPoolExecutor() as pool:
        results = tqdm(
            pool.map(_decode, paths), "convert: reading", len(paths), unit="image", leave=False, delay=1, disable=None
        )
        return dict(zip(paths, results, strict=True))


def _decode(path: Path) -> Pixels:
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as image:
            orientation, width, height = image.getexif().get(EXIF_ORIENTATION, 1), *image.size
            is_jpeg = image.format == "JPEG"
            image.load()  # all of it: the header of a truncated file is whole
    except Exception as error:  # damage reaches Pillow's decoders in a dozen ways, struct.error to zlib.error
        raise DataError(
            f"{path}: not an image that can be read ({error}); replace it, or remove it and its annotation"
        ) from None
    rewrite = None
    if orientation != 1:
        rewrite = f"EXIF orientation {orientation}: turned upright"
        if orientation >= 5:
            width, height = height, width
    elif is_jpeg and not data.rstrip(b"\x00").endswith(b"\xff\xd9"):
        # Ultralytics mends such a file in place, and through a link that would be the source itself.
        rewrite = "JPEG without an end marker: written anew"
    return Pixels((width, height), hashlib.sha256(data).hexdigest(), rewrite)


def _check_declared_size(item: Labelled, size: tuple[int, int]) -> None:
    if item.declared_size and item.declared_size != size:
        says, shows = ("x".join(map(str, pair)) for pair in (item.declared_size, size))
        raise DataError(
            f"{item.annotation}: says {item.image.name} is {says}, but it is {shows}: "
            "its boxes may be of another image or scale; correct the size or the boxes"
        )


def _check_box(
    box: Box, item: Labelled, size: tuple[int, int], names: tuple[str, ...]
) -> tuple[Box | None, tuple[str, str] | None]:
    """The box to keep, if any, and what was done to it with the reason, if anything was.

    Raises DataError for what no rule can mend: a person has to look.
    """
    where = f"{item.annotation}: {box.id} ({box.label})"
    if box.label not in names:
        raise DataError(
            f"{where}: class is not in convert.classes{did_you_mean(box.label, names)}; add it or correct the label"
        )
    if not box.is_finite:
        raise DataError(f"{where}: coordinates are not finite numbers; correct them")
    if box.ignore:
        return None, ("ignored", box.ignore)
    width, height = size
    corners = f"[{box.xmin:g}, {box.ymin:g}, {box.xmax:g}, {box.ymax:g}]"
    if box.xmax < box.xmin or box.ymax < box.ymin:
        raise DataError(f"{where}: corners {corners} are swapped; correct them")
    if not box.width or not box.height:
        return None, ("dropped", f"zero area: {corners}")
    if box.xmin >= width or box.ymin >= height or box.xmax <= 0 or box.ymax <= 0:
        raise DataError(f"{where}: {corners} is outside the image, which is {width}x{height}; correct or remove it")
    # A label file has six decimals: what they cannot tell from the edge is not outside.
    tolerance = max(size) * 1e-6
    clipped = box.clipped(width, height)
    overhang = max(abs(getattr(box, side) - getattr(clipped, side)) for side in ("xmin", "ymin", "xmax", "ymax"))
    if overhang > tolerance:
        return clipped, ("clipped", f"{corners} reaches {math.ceil(overhang)} px beyond the image, {width}x{height}")
    return clipped, None


def _exact_leaks(images: dict[str, list[Path]], pixels: dict[Path, Pixels]) -> list[list[str]]:
    """Groups of byte-identical images that lie in more than one split, as `split/name`."""
    groups: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for split, paths in images.items():
        for path in paths:
            groups[pixels[path].sha256].append((split, path))
    return sorted(
        sorted(f"{split}/{path.name}" for split, path in group)
        for group in groups.values()
        if len({split for split, _ in group}) > 1
    )


def _summary(items: list[tuple[Labelled, tuple[Box, ...]]], names: tuple[str, ...]) -> dict[str, Any]:
    per_class = Counter(box.label for _, boxes in items for box in boxes)
    return {
        "images": len(items),
        "background_images": sum(not boxes for _, boxes in items),
        "boxes": per_class.total(),
        "boxes_per_class": {name: per_class[name] for name in names},
    }


def _write(
    run: Run,
    kept: dict[str, list[tuple[Labelled, tuple[Box, ...]]]],
    names: tuple[str, ...],
    pixels: dict[Path, Pixels],
    receipt: dict[str, Any],
) -> None:
    with files.new_folder(run.dataset) as folder:
        for split, items in kept.items():
            for kind in ("images", "labels"):
                (folder / kind / split).mkdir(parents=True)
            for item, boxes in tqdm(
                items, f"convert: writing {split}", unit="image", leave=False, delay=1, disable=None
            ):
                target = folder / "images" / split / item.image.name
                if pixels[item.image].rewrite:
                    target.write_bytes(_upright(item.image))
                else:
                    files.link_or_copy(item.image, target)
                labels = folder / "labels" / split / f"{item.image.stem}.txt"
                write_labels(labels, boxes, names, pixels[item.image].size)
        files.write_json(folder / "receipt.json", receipt)
        write_data_yaml(folder / "data.yaml", {split: f"images/{split}" for split in kept}, names)


def _upright(path: Path) -> bytes:
    """The image in its own format, turned as EXIF says. In memory: Pillow does not notice a full disk."""
    encoded = io.BytesIO()
    with Image.open(path) as image:
        ImageOps.exif_transpose(image).save(encoded, image.format, quality=95, subsampling=0)
    return encoded.getvalue()


def _last_line(receipt: dict[str, Any], run: Run) -> str:
    boxes, per_split = receipt["boxes"], receipt["splits"]
    splits = ", ".join(f"{split} {summary['images']}" for split, summary in per_split.items())
    line = f"{receipt['images']['used']} images ({splits}), {boxes['kept']} boxes -> {run.dataset}"
    notes = [f"{boxes[key]} {key}" for key in ("clipped", "dropped", "ignored") if boxes[key]]
    if receipt["images"]["in_no_split"]:
        notes.append(f"{len(receipt['images']['in_no_split'])} images in no split")
    if receipt["leaks"]["exact"]:
        notes.append(f"{len(receipt['leaks']['exact'])} images are in two splits")
    return f"{line} ({', '.join(notes)}: see receipt.json)" if notes else line

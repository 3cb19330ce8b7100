"""Look at what a folder holds, by the rules of `convert`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline import formats, parallel
from pipeline.boxes import Box
from pipeline.config.data import Convert
from pipeline.convert import background, judge, placing, plausible, receipt, stage
from pipeline.convert.judge import Judged, Verdict
from pipeline.errors import DataError, counted
from pipeline.formats.source import NOT_LISTED, Source
from pipeline.image_files import reading
from pipeline.new import unreadable
from pipeline.records.receipt import Leaks
from pipeline.run import SPLITS, Run

NOWHERE = Run(Path("runs/none"))  # given splits are checked without reading a run


@dataclass(frozen=True)
class Seen:
    """A folder of labelled images. `source` is its path for the config; `judged` has every image and box."""

    source: Path
    folder: Path  # absolute
    format: str
    read: Source
    judged: tuple[Judged, ...]

    @cached_property
    def usable(self) -> list[Judged]:
        """Return the images that convert would use, taking those without a label as background."""
        return [image for image in self.judged if not image.unused]

    @cached_property
    def unlabelled(self) -> list[Judged]:
        """Return the images that no annotation mentions and that convert would use."""
        return [image for image in self.judged if image.item.annotation is None and image.unused in ("", "dropped")]

    @cached_property
    def boxes_per_class(self) -> dict[str, int]:
        """Return the number of usable boxes of each class, in the source's own order, 0 included."""
        count = Counter(box.label for image in self.usable for box in image.boxes)
        order = self.read.classes or ()
        return {name: count[name] for name in dict.fromkeys([*order, *sorted({*count, *self.labels})])}

    @cached_property
    def labels(self) -> set[str]:
        """Return the classes with a box that nobody left out on purpose, even if no such box is usable."""
        verdicts = (verdict for image in self.judged for verdict in image.verdicts)
        return {verdict.box.label for verdict in verdicts if verdict.box.label and verdict.action != "ignored"}

    @cached_property
    def filled(self) -> list[str]:
        """Return the images with a box as large as the image."""
        return [image.name for image in self.usable if any(_fills(box, image.checked.size) for box in image.boxes)]

    @cached_property
    def images_per_split(self) -> dict[str, int]:
        """Return the number of usable images in each split that the source gives."""
        count = Counter(image.item.split for image in self.usable)
        return {split: count[split] for split in SPLITS if count[split]}

    @cached_property
    def relative_sides(self) -> list[float]:
        """Return the root of each usable box's area relative to the longer side of its image, in ascending order."""
        return sorted(
            (box.width * box.height) ** 0.5 / max(image.checked.size) for image in self.usable for box in image.boxes
        )

    @cached_property
    def set_aside(self) -> list[Judged]:
        """Return the images that may show objects without a box, and masks."""
        return [image for image in self.judged if image.unused == "set_aside"]

    @cached_property
    def refused(self) -> list[str]:
        """Return what convert leaves to a person, with file and reason."""
        lines = []
        for image in self.judged:
            if image.unused == "dropped" and image.item.image.name.startswith(NOT_LISTED):
                lines += [self._line(image, verdict) for verdict in image.verdicts]
            elif image.unused == "dropped":
                lines.append(f"{image.name}: {image.why}")
            elif not image.unused:
                lines += [self._line(image, verdict) for verdict in image.verdicts if verdict.needs_person]
        return lines

    @cached_property
    def changed(self) -> dict[str, list[str]]:
        """Return what convert does to boxes on its own: the cases of each action, with file and reason."""
        cases: dict[str, list[str]] = {}
        for image in self.usable:
            for verdict in image.verdicts:
                if verdict.action != "kept" and not verdict.needs_person:
                    cases.setdefault(verdict.action, []).append(self._line(image, verdict))
        return cases

    def _line(self, image: Judged, verdict: Verdict) -> str:
        file = receipt.relative(image.item.annotation or image.item.image, self.folder)
        label = f" ({verdict.box.label})" if verdict.box.label else ""
        return f"{file}: {verdict.box.id}{label}: {verdict.reason}"

    @cached_property
    def leaks(self) -> Leaks:
        """Return images that show the same in two given splits, by the kinds of leaks of `Placed`."""
        placed = [image for image in self.usable if image.item.split]
        return placing.place(placed, Convert(source=self.source, split="given"), NOWHERE, 0).leaks


def look(folder: Path, format_name: str) -> Seen:
    """Read and judge everything below a folder. Raises DataError, with what to do, if convert could not use it."""
    name, source = unreadable.read(folder, format_name)
    plain = Convert(source=folder, format=name, unlabelled="background")
    # A folder without a config has no fixes yet; with `background`, no error names their file.
    background.refuse(source.to_use, source.to_use, source, plain, Path("data/fixes"))
    paths = [item.image for item in source.to_use]
    checked = dict(zip(paths, parallel.ordered(reading.check, paths, None, "new: reading"), strict=True))
    classes = stage.class_map(source, plain)
    with formats.without_collection():
        judged = stage.judge_all(source, checked, judge.frames(source.images, checked), classes, plain)
        plausible.refuse(judged, plain)
        judged = stage.set_aside(judged, "set_aside", background.without_boxes(judged, classes))
    seen = Seen(_short(folder), folder.absolute(), name, source, tuple(judged))
    if not seen.relative_sides:
        packed = f"; {command}" if (command := unreadable.still_packed(folder)) else ""
        raise DataError(f"{folder}: {counted(len(judged), 'image')} in {name} format, {receipt.no_box(judged)}{packed}")
    if len(seen.usable) < 2:
        raise DataError(f"{folder}: only one usable image; training needs one and validation another: add images")
    return seen


def _fills(box: Box, size: tuple[int, int]) -> bool:
    return box.width >= 0.99 * size[0] and box.height >= 0.99 * size[1]


def _short(folder: Path) -> Path:
    """Return a path below the current folder as a relative one, so that the config works on other machines."""
    current = Path.cwd()
    return folder.absolute().relative_to(current) if folder.absolute().is_relative_to(current) else folder

"""Detect implausible boxes, which show that a whole file uses another convention than the reader assumed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pipeline.boxes import Box
from pipeline.config.data import Convert
from pipeline.convert.judge import Judged
from pipeline.errors import DataError

FEWEST, FEWEST_WRONG = 4, 3  # boxes; fewer show no pattern
# Shares of boxes that must be wrong, because people draw a few beyond the edge: if another reading fits, and if not.
SHARE, MOST = 0.25, 0.5
BEYOND = 0.01  # of the longer side, and at least 2 px; less is imprecise drawing
FITTING = 0.95  # share of the boxes that another reading must fit
MANY = 20  # boxes; fewer in one image may all be drawn beyond its edge, and a reading that moves them fits by chance

PER_CENT, PER_CENT_WORD = 100, "per cent"

Corners = tuple[float, float, float, float]


class _Placed(NamedTuple):
    box: Box
    width: int
    height: int
    image: Path

    @property
    def overhang(self) -> float:
        box = self.box
        return max(-box.xmin, -box.ymin, box.xmax - self.width, box.ymax - self.height)

    @property
    def is_far(self) -> bool:
        return self.overhang > max(2, BEYOND * max(self.width, self.height))

    @property
    def is_swapped(self) -> bool:
        return self.box.xmax < self.box.xmin or self.box.ymax < self.box.ymin


# How the box was written, and what its corners then are, from the corners as read and the image's width and height.
GUESSES: dict[str, Callable[[Corners, int, int], Corners]] = {
    "x1, y1, x2, y2 instead of x, y, width, height": lambda c, w, h: (c[0], c[1], c[2] - c[0], c[3] - c[1]),
    "x, y, width, height instead of x1, y1, x2, y2": lambda c, w, h: (c[0], c[1], c[0] + c[2], c[1] + c[3]),
    "the upper left corner instead of the centre": lambda c, w, h: _moved(c, 0.5),
    "the centre instead of the upper left corner": lambda c, w, h: _moved(c, -0.5),
    "shares of the image instead of pixels": lambda c, w, h: (c[0] * w, c[1] * h, c[2] * w, c[3] * h),
    "per cent of the image instead of pixels": lambda c, w, h: (
        c[0] * w / 100,
        c[1] * h / 100,
        c[2] * w / 100,
        c[3] * h / 100,
    ),
    "pixels instead of shares of the image": lambda c, w, h: (c[0] / w, c[1] / h, c[2] / w, c[3] / h),
    "y before x instead of x before y": lambda c, w, h: (c[1], c[0], c[3], c[2]),
}


def refuse(judged: Sequence[Judged], config: Convert) -> None:
    """Raise DataError, with the reading that would fit, if boxes are not as people draw them.

    It does so whatever `on_problem` says, because nobody can tell which of the boxes are right.
    """
    by_file: dict[Path, list[_Placed]] = defaultdict(list)
    for image in judged:
        if image.checked.problem is None and image.checked.sha256 and image.item.annotation:
            width, height = image.checked.size
            by_file[image.item.annotation] += [
                _Placed(box, width, height, image.item.image)
                for box, verdict in zip(image.item.boxes, image.verdicts, strict=True)
                if not box.damage and verdict.action != "ignored" and box.is_finite
            ]
    for file, placed in by_file.items():
        is_pattern = len(by_file) == 1 or len(placed) >= MANY or len({item.image for item in placed}) > 1
        _refuse(str(file), placed, [item for item in placed if item.is_far and is_pattern])
    if len(by_file) > 1:
        everything = [item for placed in by_file.values() for item in placed]
        _refuse(str(config.source), everything, [item for item in everything if item.is_far])


def _refuse(where: str, placed: list[_Placed], far: list[_Placed]) -> None:
    if len(placed) < FEWEST:
        return
    if all(max(map(abs, item.box[1:5])) <= 1 for item in placed):
        raise DataError(
            f"{where}: all {len(placed)} boxes lie within one pixel, such as {_example(placed[0])}: the numbers look "
            "relative to the image size, but must be pixels; multiply them by its width and height"
        )
    enough = max(FEWEST_WRONG, SHARE * len(placed))
    swapped = [item for item in placed if item.is_swapped]
    guess = _guess(placed) if max(len(far), len(swapped)) >= enough else ""
    if len(far) >= (enough if guess else max(FEWEST_WRONG, MOST * len(placed))):
        most = max(far, key=lambda item: item.overhang)
        way_out = guess or "check the order and unit of the numbers"
        raise DataError(
            f"{where}: {len(far)} of {len(placed)} boxes reach up to {most.overhang:.3g} px beyond their image, "
            f"such as {_example(most)}, too many for drawing errors; {way_out}"
        )
    if guess and len(swapped) >= enough:
        raise DataError(
            f"{where}: {len(swapped)} of {len(placed)} boxes have swapped corners, "
            f"such as {_example(swapped[0])}; {guess}"
        )


def _guess(placed: Sequence[_Placed]) -> str:
    # In a small image, pixels and percentages look alike.
    is_large = all(min(item.width, item.height) > 2 * PER_CENT for item in placed)
    for words, read in GUESSES.items():
        corners = [(read(item.box[1:5], item.width, item.height), item.width, item.height) for item in placed]
        if (is_large or PER_CENT_WORD not in words) and sum(_fits(*item) for item in corners) >= FITTING * len(placed):
            return f"they fit as {words}: convert them"
    return ""


def _fits(corners: Corners, width: int, height: int) -> bool:
    xmin, ymin, xmax, ymax = corners
    return -1 <= xmin < xmax - 1 and xmax <= width + 1 and -1 <= ymin < ymax - 1 and ymax <= height + 1


def _moved(corners: Corners, by: float) -> Corners:
    xmin, ymin, xmax, ymax = corners
    across, down = by * (xmax - xmin), by * (ymax - ymin)
    return xmin + across, ymin + down, xmax + across, ymax + down


def _example(item: _Placed) -> str:
    box = item.box
    return f"{box.id} of {item.image.name} [{box.xmin:g}, {box.ymin:g}, {box.xmax:g}, {box.ymax:g}]"

"""Save corrected labels from FiftyOne or another tool into `data/labels/NAME.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.boxes import Box
from pipeline.errors import DataError
from pipeline.label.changes import compare
from pipeline.labels import file as labels
from pipeline.labels.content import ORIGINS, Image, Label, Labels, with_new
from pipeline.records.label import Candidate, Next
from pipeline.run import Run

NAME_LENGTH = 12  # characters of a model's SHA-256: unique enough, and readable


@dataclass(frozen=True, slots=True)
class Returned:
    """The boxes of an image as they came back; `done` if a person marked them as right."""

    boxes: Sequence[Box]
    done: bool = False
    ids: Mapping[str, int] | None = None


def drawn(candidate: Candidate, model: str) -> tuple[Label, ...]:
    """Return the boxes as the model drew them."""
    return tuple(
        Label(
            (box["bbox"][0], box["bbox"][1], box["bbox"][2], box["bbox"][3]), box["label"], "kept", box["score"], model
        )
        for box in candidate["boxes"]
    )


def images(batch: Next, returned: Mapping[str, Returned], every: bool, run: Run) -> list[Image]:
    """Return the labelled images of a batch: those that a person changed or marked as done, or all with `every`.

    Raises DataError for a class that the data set lacks.
    """
    model = batch["model"]["sha256"][:NAME_LENGTH]
    labelled = []
    for candidate in batch["images"]:
        back = returned.get(candidate["path"])
        if back is None:
            continue
        size = candidate["width"], candidate["height"]
        boxes = [box for box in (_inside(box, size) for box in back.boxes) if box.width and box.height]
        for box in boxes:
            if box.label not in batch["classes"]:
                wrong = f"a box of class {box.label!r}" if box.label else "a box without a class"
                raise DataError(
                    f"{candidate['path']}: has {wrong} at {box.xmin:.0f}, {box.ymin:.0f}; "
                    f"choose one of {', '.join(batch['classes'])}, then save again"
                )
        made, deleted = compare(drawn(candidate, model), boxes, back.ids)
        if every or back.done or deleted or any(label.origin != "kept" for label in made):
            labelled.append(Image(_relative(candidate["path"], run), size, candidate["sha256"], made, deleted))
    return labelled


def _inside(box: Box, size: tuple[int, int]) -> Box:
    """Sort the corners and cut the box at the border, because tools let people draw beyond it, and backwards."""
    xs, ys = sorted((box.xmin, box.xmax)), sorted((box.ymin, box.ymax))
    return box._replace(xmin=xs[0], ymin=ys[0], xmax=xs[1], ymax=ys[1]).clipped(*size)


def _relative(path: str, run: Run) -> str:
    """Return the path relative to where `make` runs, if it is below, so that it is valid in a clone elsewhere too."""
    root = run.root.parent.parent.absolute()
    file = Path(path)
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.as_posix()


def save(run: Run, batch: Next, labelled: Sequence[Image]) -> str:
    """Add the images to `data/labels/NAME.json`, in place of their earlier labels; return a line about the result."""
    path = labels.file_of(run)
    waiting = len(batch["images"]) - len(labelled)
    rest = ""
    if waiting:
        subject, stay = ("1 image is", "stays") if waiting == 1 else (f"{waiting} images are", "stay")
        rest = f"; {subject} neither changed nor tagged `done` and {stay} in the batch (`--all` takes all as they are)"
    if not labelled:
        return f"nothing to save{rest}"
    name = {batch["model"]["sha256"][:NAME_LENGTH]: batch["model"]["file"]}
    new = Labels(tuple(batch["classes"]), tuple(labelled), name)
    try:
        labels.save(path, with_new(labels.load(path), new))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    counts = Counter(label.origin for image in labelled for label in image.labels)
    done = [f"{counts[origin]} {origin}" for origin in ORIGINS if counts[origin]]
    if gone := sum(len(image.deleted) for image in labelled):
        done.append(f"{gone} deleted")
    boxes = f" ({', '.join(done)})" if done else ""
    number = "1 image" if len(labelled) == 1 else f"{len(labelled)} images"
    return f"{number}{boxes} -> {path}; review it, then run `make` to train with it{rest}"

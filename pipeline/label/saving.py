"""Save corrected labels from FiftyOne or another tool into `data/labels/NAME.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import files
from pipeline.boxes import Box
from pipeline.errors import DataError, and_more, counted
from pipeline.label import progress
from pipeline.label.changes import compare
from pipeline.label.pool import name_of
from pipeline.labels import file as labels
from pipeline.labels.content import ORIGINS, Image, Label, Labels, with_new
from pipeline.records.label import Candidate, Next
from pipeline.run import Run

NAME_LENGTH = 12  # characters of a model's SHA-256: unique enough, and readable


@dataclass(frozen=True, slots=True)
class Returned:
    """The boxes of an image as they came back; `done` if a person marked them as right.

    `complete` says that all boxes came back: there was no export that may have left some out. `again` says that the
    image was saved before and has changed since, perhaps back to what the model drew. `ids` gives the number of each
    pre-drawn box by its id; None for a tool without ids.
    """

    boxes: Sequence[Box]
    done: bool = False
    complete: bool = False
    again: bool = False
    ids: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The images of a batch: labelled ones, and the paths of those without changes, without boxes, and not returned."""

    labelled: list[Image] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)


def drawn(candidate: Candidate, model: str) -> tuple[Label, ...]:
    """Return the boxes as the model drew them."""
    return tuple(
        Label(
            (box["bbox"][0], box["bbox"][1], box["bbox"][2], box["bbox"][3]), box["label"], "kept", box["score"], model
        )
        for box in candidate["boxes"]
    )


def judge(batch: Next, returned: Mapping[str, Returned], every: bool, run: Run) -> Outcome:
    """Sort the images of a batch: a person labelled those that are changed or marked as done, or all with `every`.

    An image that lost all its boxes counts as changed only if it came back complete. Raises DataError for boxes that
    are no boxes of the dataset's classes.
    """
    model = batch["model"]["sha256"][:NAME_LENGTH]
    outcome = Outcome()
    problems: list[str] = []
    for candidate in batch["images"]:
        path = candidate["path"]
        back = returned.get(path)
        if back is None:
            outcome.absent.append(path)
            continue
        size = candidate["width"], candidate["height"]
        problems += [f"{path}: {wrong}" for box in back.boxes if (wrong := _wrong(box, batch["classes"]))]
        # A side that rounds to 0 is a slip of the mouse.
        boxes = [box for box in (_inside(box, size) for box in back.boxes) if min(box.width, box.height) >= 0.01]
        made, deleted = compare(drawn(candidate, model), boxes, back.ids)
        if every or back.done or back.again or ((deleted or _edited(made)) and (made or back.complete)):
            outcome.labelled.append(Image(name_of(path, run), size, candidate["sha256"], made, deleted))
        else:
            (outcome.emptied if deleted else outcome.unchanged).append(path)
    if problems:
        raise DataError(f"{problems[0]}, then save again{and_more(problems)}")
    return outcome


def _edited(made: Sequence[Label]) -> bool:
    return any(label.origin != "kept" for label in made)


def _wrong(box: Box, classes: Sequence[str]) -> str:
    """Return what is wrong with a box and what to do; empty if nothing is."""
    if not box.is_finite:
        return f"a box of class {box.label!r} has coordinates that are not numbers; correct or delete it"
    if box.label in classes:
        return ""
    kind = f"a box of class {box.label!r}" if box.label else "a box without a class"
    return f"has {kind} at {box.xmin:.0f}, {box.ymin:.0f}; choose one of {', '.join(classes)}"


def _inside(box: Box, size: tuple[int, int]) -> Box:
    """Sort the corners and cut the box at the border, because tools let people draw beyond it, and backwards."""
    xs, ys = sorted((box.xmin, box.xmax)), sorted((box.ymin, box.ymax))
    return box._replace(xmin=xs[0], ymin=ys[0], xmax=xs[1], ymax=ys[1]).clipped(*size)


def save(run: Run, batch: Next, outcome: Outcome, untouched: str, absent: str) -> str:
    """Add the images to `data/labels/NAME.json`, in place of their earlier labels; return a line about the result.

    `untouched` and `absent` say what images without changes and images that did not come back are in this tool.
    """
    path, labelled = labels.file_of(run), outcome.labelled
    rest = _rest(outcome, untouched, absent)
    if not labelled:
        return f"nothing to save{rest}"
    name = {batch["model"]["sha256"][:NAME_LENGTH]: batch["model"]["file"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.holding(path.parent):  # two commands that save at once would lose the labels of one
        earlier = labels.load(path)
        labels.save(path, with_new(earlier, Labels(tuple(batch["classes"]), tuple(labelled), name)))
    progress.note(run, batch)
    counts = Counter(label.origin for image in labelled for label in image.labels)
    done = [f"{counts[origin]} {origin}" for origin in ORIGINS if counts[origin]]
    if gone := sum(len(image.deleted) for image in labelled):
        done.append(f"{gone} deleted")
    boxes = f" ({', '.join(done)})" if done else ""
    again = len({image.file for image in earlier.images} & {image.file for image in labelled})
    replaced = f" ({again} {'replaces' if again == 1 else 'replace'} earlier labels)" if again else ""
    number = counted(len(labelled), "image")
    train = f"review it, then run `{run.make('all')}` to train with it"
    return f"{number}{boxes} -> {path}{replaced}; {train}{rest}"


def _rest(outcome: Outcome, untouched: str, absent: str) -> str:
    """Return the end of the line, about the images that were not saved."""
    parts = []
    if number := len(outcome.unchanged):
        verb, stay = ("is", "stays") if number == 1 else ("are", "stay")
        all_ = "takes it as it is" if number == 1 else "takes all as they are"
        parts.append(f"{counted(number, 'image')} {verb} {untouched} and {stay} in the batch (`--all` {all_})")
    if emptied := outcome.emptied:
        parts.append(
            f"{counted(len(emptied), 'image')} came back without any box: {_names(emptied)} (`--all` takes "
            f"{'it' if len(emptied) == 1 else 'them'} as background)"
        )
    if outcome.absent:
        parts.append(f"{counted(len(outcome.absent), 'image')} {absent}: {_names(outcome.absent)}")
    return "".join(f"; {part}" for part in parts)


def _names(paths: Sequence[str]) -> str:
    first = ", ".join(Path(path).name for path in paths[:3])
    return f"{first} and {len(paths) - 3} more" if len(paths) > 3 else first

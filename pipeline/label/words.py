"""Say why images were chosen, and what the batch holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pipeline import logs
from pipeline.errors import counted
from pipeline.label.choose import Pick
from pipeline.label.plan import Work
from pipeline.records.label import Next
from pipeline.run import Run

CHOSEN = {
    "uncertain": "uncertain",
    "different": "different",
    "rare": "with rare classes",
    "random": "drawn at random",
}


def reasons(pick: Pick, work: Work, drawn: int, rare: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return why an image was chosen. `drawn` counts the pre-drawn boxes, `rare` names those of rare classes."""
    if pick.by == "random":
        return ["drawn at random, to show how good the model is on the whole pool"]
    lines = []
    if pick.by == "rare":
        names = ", ".join(f"{count} x {name}" for name, count in sorted(Counter(rare).items()))
        lines.append(f"may show rare classes: {names or 'none clear enough to draw'}")
    if pick.covers > 1:
        lines.append(f"resembles about {pick.covers} images of the pool more than any labelled image does")
    if known:
        boxes = f"about {work.wrong:.1f} of the {drawn} drawn boxes are wrong; " if drawn else ""
        lines.append(f"{boxes}about {work.missed:.1f} objects have no box")
        if work.unlike_mirror >= 1:
            lines.append(f"the model finds about {work.unlike_mirror:.1f} other boxes in its mirrored image")
    return lines or ["unlike the labelled images"]


def summary(record: Next, batch: int, run: Run) -> str:
    """Return a line about the batch, of which `batch` images were wanted."""
    chosen = record["images"]
    if not record["model"]["classes"]:
        logs.say(
            f"label: {record['model']['file']} knows no class of the dataset, so it pre-draws no boxes, and "
            "images are chosen by how different they are"
        )
    drawn = Counter(box["kind"] for image in chosen for box in image["boxes"])
    left_out = "".join(f", {count} {reason}" for reason, count in record["left_out"].items())
    by = Counter[str](image["by"] for image in chosen)
    kinds = ", ".join(f"{by[kind]} {words}" for kind, words in CHOSEN.items() if by[kind])
    fewer = f" ({batch} wanted, no more are left)" if len(chosen) < batch else ""
    return (
        f"{counted(len(chosen), 'image')} to label next{fewer} ({kinds}) of {record['pool_images']}{left_out}; "
        f"{drawn['sure']} sure and {drawn['doubtful']} doubtful pre-drawn boxes, about {record['minutes']:.0f} "
        f"minutes of work ({record['minutes_by_hand']:.0f} by hand) -> {run.label_next}, {run.label / 'sheet.jpg'}; "
        f"`{run.make('label')} OPEN=1` opens it"
    )

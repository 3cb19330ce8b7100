"""Print the results in benchmarks/train.jsonl as tables.

python benchmarks/train_table.py --picture docs/images/train.png > benchmarks/train.md      (seconds; trains nothing)

`--picture` draws accuracy over seconds: one line for our recipes, one for each of the two rivals.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

KNOWN = Path(__file__).with_name("train.jsonl")
# Epochs, and when each row was validated. benchmarks/train.py describes the rows.
ROWS = {
    "stock": ("15", "after each epoch"),
    "equal": ("3 + 12", "after each of the last 12"),
    "ours": ("1 + 4", "after each of the last 4"),
    "quick": ("3", "at the end"),
    "scratch": ("5", "at the end"),
    "full": ("5", "at the end"),
    "backbone": ("5", "at the end"),
    "backbone-cached": ("5", "at the end"),
    "stock-backbone": ("5", "at the end"),
    "all-but-head": ("5", "at the end"),
    "all-but-head-cached": ("5", "at the end"),
    "stock-all-but-head": ("5", "at the end"),
    "coco": ("1 + 4", "at the end"),
}
BESIDE_STOCK = ("equal", "quick")
# Lines of the picture: label, and the rows that are its points.
LINES = {
    "this pipeline (recipe, minutes)": re.compile(r"default|recipe-(quick|thorough)|minutes-[\d.]+"),
    "tuned: Ultralytics, batch 4 (from 3 epochs)": re.compile(r"tuned-\d+"),
    "stock: Ultralytics, defaults (from 3 epochs)": re.compile(r"stock-\d+"),
}
TICKS = (30, 60, 120, 240, 480, 960)  # seconds
COLUMNS = (
    "training",
    "epochs",
    "validated",
    "seeds",
    "cores",
    "seconds",
    "seconds per epoch",
    "ms per step",
    "mAP50-95",
    "mAP50",
    "times faster than stock",
)
INTRODUCTION = """\
Seconds are medians over the seeds for the whole process, from the start of Python to the last file. Accuracies are
means, on test (bccd) and val (facemask). Parentheses give the lowest and highest seed. `stock` is `yolo train` with
all defaults.

`quick` has unfair advantages. It trains 3 epochs instead of 15. It runs on both cores, while all but one run of
`stock` had one core (Ultralytics computes on one of two). It validates once, while `stock` validates after each
epoch and once more at the end, with plots. Its epochs, its frozen layers and its learning rate were chosen on these
same images. `equal` has as many epochs as `stock`."""

RIVALS = """\
`default` is the unchanged config; `recipe-quick` and `minutes-2` add that key. `stock-15` and `tuned-15` are
`yolo train` for 15 epochs on all given cores with `val=False`: `stock-15` with its defaults, `tuned-15` with a
small batch, where every batch is a step (`batch=4 nbs=4 warmup_epochs=0.5`). `tuned-30` trains for 30 epochs.
`default-frozen-first` is the default of version 0.2.0, where two epochs with the whole backbone frozen came first on
bccd and apple. Every row counts one validation, at the end. The better rival is the one with the higher mAP50-95. If
`cores` is 1, other work ran on the machine's other core. The rows of `minutes`, `recipe-quick`, `stock-3`, `stock-5`,
`tuned-3` and `tuned-5` took turns with each other on a later day, beside more other work: their seconds are about a
tenth too many for a comparison with the other rows.

![mAP50-95 over seconds](../docs/images/train.png)"""


def spread(values: list[float], digits: int, middle: Callable[[list[float]], float] = statistics.median) -> str:
    """Format the median, followed by (min to max) if there are several values."""
    ends = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{middle(values):.{digits}f}{ends}"


def line(row: str, found: list[dict[str, Any]], stock: list[dict[str, Any]]) -> str:
    """Return a row of COLUMNS. `found` and `stock` are lines of train.jsonl, in the order of their seeds."""
    epochs, validated = ROWS.get(row, ("", ""))
    columns = [row, epochs, validated, str(len(found)), ", ".join(map(str, sorted({one["cores"] for one in found})))]
    columns.append(spread([one["seconds"] for one in found], 0))
    for key, digits, factor in (("epoch_seconds", 1, 1), ("step_seconds", 0, 1000)):
        lengths = [factor * one[key] for one in found if one.get(key)]
        columns.append(spread(lengths, digits) if lengths else "")
    columns += [spread([one[key] for one in found], 3, statistics.mean) for key in ("map50_95", "map50")]
    pairs = zip(stock, found, strict=False)
    ratios = [theirs["seconds"] / ours["seconds"] for theirs, ours in pairs] if row in BESIDE_STOCK else []
    columns.append(spread(ratios, 1) if ratios else "")
    return f"| {' | '.join(columns)} |"


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return the table of one dataset."""
    header = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    return "\n".join([*header, *(line(row, found, results.get("stock", [])) for row, found in results.items())])


def steps(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return how much faster a step is with features computed once, by frozen layers."""
    said = []
    for row in ("backbone", "all-but-head"):
        plain, cached = (
            statistics.median(one["step_seconds"] for one in results[name]) for name in (row, f"{row}-cached")
        )
        said.append(f"{plain / cached:.2f} times as fast with `{row}` frozen")
    return f"With features computed once, a step is {' and '.join(said)}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw accuracy over seconds into this PNG")
    picture = parser.parse_args().picture
    known = sorted(map(json.loads, KNOWN.read_text().splitlines()), key=lambda one: one["seed"])
    print("# Training, timed\n\nPrinted by `python benchmarks/train_table.py` from train.jsonl, where")
    print("`python benchmarks/train.py` writes one line per training run.\n")
    print(INTRODUCTION)
    for name in dict.fromkeys(one["config"] for one in known):
        of_config = [one for one in known if one["config"] == name and one["share"] == 1 and one["row"] in ROWS]
        results = {row: found for row in ROWS if (found := [one for one in of_config if one["row"] == row])}
        if not of_config:
            continue
        [machine] = {one["machine"] for one in of_config}
        print(f"\n## {name}\n\n{machine}.\n")
        print(table(results))
        if "backbone-cached" in results:
            print(f"\n{steps(results)}")
    print(f"\n## Compared with an experienced user of Ultralytics\n\n{RIVALS}")
    rest = [one for one in known if one["row"] not in ROWS and set(one) >= {"cores"} and not is_start(one["row"])]
    for name, share, machine, cores in sorted({which(one) for one in rest}):
        found = [one for one in rest if which(one) == (name, share, machine, cores)]
        images = "all images" if share == 1 else f"{share:.0%} of the training images"
        print(f"\n### {name}, {images}\n\n{machine}, cores: {cores}.\n")
        print(beside(found))
    if picture:
        draw(rest, picture)


def draw(lines: list[dict[str, Any]], target: Path) -> None:
    """Draw the mean mAP50-95 over the median seconds, in one plot per dataset, share and machine with all lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plots = {}
    for group in sorted({which(one) for one in lines}):
        found = [one for one in lines if which(one) == group]
        curves = {label: points(found, rows) for label, rows in LINES.items()}
        if all(curves.values()) and max(map(len, curves.values())) > 2:
            plots[group] = curves
    figure, row = plt.subplots(1, len(plots), figsize=(5 * len(plots), 3.8), dpi=110, squeeze=False)
    for axes, ((name, share, _, cores), curves) in zip(row[0], plots.items(), strict=True):
        for label, curve in curves.items():
            axes.plot(*zip(*curve, strict=True), "o-", label=label, markersize=4)
        images = "all images" if share == 1 else f"{share:.0%} of the images"
        title = f"{name}, {images}, {cores} {'core' if cores == 1 else 'cores'}"
        axes.set(title=title, xscale="log", xlabel="seconds", ylabel="mAP50-95")
        axes.set_xticks(
            [second for second in TICKS if second < max(seconds for curve in curves.values() for seconds, _ in curve)]
        )
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.legend(*row[0][0].get_legend_handles_labels(), loc="lower center", ncols=len(LINES), fontsize=8)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(target)


def points(found: list[dict[str, Any]], rows: re.Pattern[str]) -> list[tuple[float, float]]:
    """Return (median seconds, mean mAP50-95) of each row of one line, fastest first."""
    by_row = [
        [one for one in found if one["row"] == row]
        for row in {one["row"] for one in found if rows.fullmatch(one["row"])}
    ]
    return sorted(
        (statistics.median(one["seconds"] for one in same), statistics.mean(one["map50_95"] for one in same))
        for same in by_row
    )


def is_start(row: str) -> bool:
    return row.removesuffix("-frozen") in ("random", "starter", "coco")


def which(one: dict[str, Any]) -> tuple[str, float, str, int]:
    return one["config"], one["share"], one["machine"], one["cores"]


def beside(found: list[dict[str, Any]]) -> str:
    """Return our rows and the rivals', fastest first, with their time relative to the best rival's 15 epochs."""
    rows = {row: [one for one in found if one["row"] == row] for row in dict.fromkeys(one["row"] for one in found)}
    fifteen = [rows[row] for row in ("stock-15", "tuned-15") if row in rows]
    best = max(fifteen, key=lambda known: statistics.mean(one["map50_95"] for one in known), default=[])
    lines = ["| training | seeds | seconds | of the better rival's 15 epochs | mAP50-95 | mAP50 |", f"|{'---|' * 6}"]
    for row in sorted(rows, key=lambda row: statistics.median(one["seconds"] for one in rows[row])):
        theirs = {one["seed"]: one["seconds"] for one in best}
        shares = [one["seconds"] / theirs[one["seed"]] for one in rows[row] if one["seed"] in theirs]
        columns = [row, str(len(rows[row])), spread([one["seconds"] for one in rows[row]], 0)]
        columns.append(spread(shares, 2) if shares else "")
        columns += [spread([one[key] for one in rows[row]], 3, statistics.mean) for key in ("map50_95", "map50")]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

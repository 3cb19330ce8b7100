"""Write benchmarks/label.md and its plot from benchmarks/label.jsonl: python benchmarks/label_table.py."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

HERE = Path(__file__).parent
WAYS = ("random", "uncertain", "different", "both")
COLOURS = {"random": "0.4", "uncertain": "tab:orange", "different": "tab:blue", "both": "tab:green"}
RESAMPLES = 2000
SIZES = 5
COLUMNS = 3
TICKS = (10, 30, 100, 300, 1000, 3000)
HEAD = """\
# How many boxes a choice of images saves

    make convert CONFIG=configs/bccd.yaml              # and of each other set
    python benchmarks/label.py SETS && python benchmarks/label_table.py

A simulated annotator has the real labels. All strategies start with the same five random images. The model is small
and is fitted in a tenth of a second (ridge regression on the frozen COCO backbone), so that there are enough seeds to
tell a difference from chance. `benchmarks/label.py` says what this leaves out, and `--model trained` uses the project's
own training. Differences are from `random` with the same seed at the same number of *boxes* (interpolated along the
logarithm of boxes, averaged over the sizes from ten images on), in points of mAP50, with a 95 % interval from
resampling the seeds.

What it shows: on four sets, `both`, which is the default but for a fifth of random images instead of a quarter, is
between 0.2 points below chance and 0.7 above it, always within noise. Doubt alone is never better than chance and
clearly worse on boards. Difference alone is better than chance on face masks. No set shows a saving of a quarter of the
boxes. This small model places boxes badly and finds few objects on boards and face masks, so its drawn boxes save no
time. With the project's own training, on one set and for one seed (last section), `both` is far above chance, and drawn
boxes save a third of the time. One seed proves nothing about the choice.
"""


def curve(lines: list[dict[str, Any]]) -> tuple[Any, Any]:
    lines = sorted(lines, key=lambda line: line["images"])
    return np.array([line["boxes"] for line in lines], float), np.array([line["map50"] or 0 for line in lines])


def differences(way: dict[int, list[Any]], chance: dict[int, list[Any]]) -> list[float]:
    """Return, for each seed, the mean difference in mAP50 (points) at equal boxes, where both curves have values."""
    found = []
    for seed in sorted(way.keys() & chance.keys()):
        boxes, values = curve(way[seed])
        other_boxes, other = curve(chance[seed])
        at = np.array([b for b in boxes[1:] if other_boxes[0] <= b <= other_boxes[-1]])
        if len(at):
            ours = np.interp(np.log(at), np.log(boxes), values)
            theirs = np.interp(np.log(at), np.log(other_boxes), other)
            found.append(float((ours - theirs).mean() * 100))
    return found


def fewer(way: dict[int, list[Any]], chance: dict[int, list[Any]], level: float) -> list[float]:
    """Return, for each seed, the boxes saved (%) on the way to a level of mAP50, if both reach it."""
    found = []
    for seed in sorted(way.keys() & chance.keys()):
        needed = []
        for lines in (way[seed], chance[seed]):
            boxes, values = curve(lines)
            top = np.maximum.accumulate(values)
            needed.append(np.exp(np.interp(level, top, np.log(boxes))) if top[-1] >= level else np.nan)
        if not np.isnan(needed).any():
            found.append((1 - needed[0] / needed[1]) * 100)
    return found


def interval(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:+.1f}" if values else "-"
    draws = np.random.default_rng(0).choice(values, (RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return f"{np.mean(values):+.1f} ({low:+.1f} to {high:+.1f})"


def main() -> None:
    known = [json.loads(line) for line in (HERE / "label.jsonl").read_text(encoding="utf-8").splitlines()]
    groups: dict[tuple[str, str], Any] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    whole = {}
    for line in known:
        if line["way"] == "all":
            whole[line["set"], line["model"]] = line
        else:
            groups[line["set"], line["model"]][line["way"]][line["seed"]].append(line)
    for ways in groups.values():  # only seeds that are complete for every strategy that has complete ones
        complete = {way: {seed for seed, of_seed in ways[way].items() if len(of_seed) == SIZES} for way in WAYS}
        whole_seeds = set.intersection(*filter(None, complete.values()))
        for way in WAYS:
            ways[way] = {seed: ways[way][seed] for seed in sorted(whole_seeds & complete[way])}
    parts = [HEAD]
    rows = -(-len(groups) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(3.9 * COLUMNS, 3.2 * rows), squeeze=False)
    for axis in axes.flat[len(groups) :]:
        axis.remove()
    for axis, ((name, model), ways) in zip(axes.flat, groups.items(), strict=False):
        top = whole.get((name, model))
        seeds = max(len(of_seed) for of_seed in ways.values())
        parts.append(f"## {name}, {model} model, {seeds} seed{'s' * (seeds > 1)}\n")
        sizes = sorted({line["images"] for line in next(iter(ways["random"].values()))})
        parts.append(
            "| way | "
            + " | ".join(f"{size} images" for size in sizes)
            + " | at equal boxes | boxes to 90 % of all labels' |"
        )
        parts.append("|---" * (len(sizes) + 3) + "|")
        for way in WAYS:
            lines = [line for of_seed in ways[way].values() for line in of_seed]
            if not lines:
                continue
            cells = []
            for size in sizes:
                here = [line for line in lines if line["images"] == size]
                cells.append(
                    f"{np.mean([line['map50'] for line in here]):.3f} ({np.mean([line['boxes'] for line in here]):.0f})"
                )
            saved = fewer(ways[way], ways["random"], 0.9 * top["map50"]) if top else []
            others = (
                ["0", "0 %"]
                if way == "random"
                else [
                    interval(differences(ways[way], ways["random"])),
                    f"{interval([-value for value in saved])} %" if saved else "-",
                ]
            )
            parts.append(f"| `{way}` | " + " | ".join([*cells, *others]) + " |")
            axis.plot(
                [np.mean([line["boxes"] for line in lines if line["images"] == size]) for size in sizes],
                [np.mean([line["map50"] for line in lines if line["images"] == size]) for size in sizes],
                "o-",
                color=COLOURS[way],
                label=way,
                markersize=3,
            )
        if top:
            parts.append(
                f"\nAll {top['boxes']} boxes: {top['map50']:.3f}. Parentheses give the number of labelled boxes."
            )
            axis.axhline(top["map50"], color="0.8", linestyle=":")
        parts.append("\n" + corrections(ways["both"] or ways["random"]) + "\n")
        axis.set(title=f"{name} ({model})", xscale="log", xlabel="boxes labelled", ylabel="mAP50")
        axis.set_xticks([tick for tick in TICKS if axis.get_xlim()[0] <= tick <= axis.get_xlim()[1]])
        axis.xaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(HERE / "label.png", dpi=110)
    parts.append("![The curves](label.png)")
    text = "\n".join(parts) + "\n"
    (HERE / "label.md").write_text(text, encoding="utf-8")
    print(text)


def corrections(ways: dict[int, list[Any]]) -> str:
    """Return a sentence about the boxes that the model of 20 images drew beforehand."""
    batches = [line["batch"] for lines in ways.values() for line in lines if line["images"] == 40 and line["batch"]]
    if not batches:
        return ""
    untouched = [100 * one["untouched"] / max(one["drawn"], 1) for one in batches]
    of_objects = [100 * one["untouched"] / max(one["objects"], 1) for one in batches]
    saved = [one["minutes_by_hand"] - one["minutes"] for one in batches]
    by_hand = np.mean([one["minutes_by_hand"] for one in batches])
    return (
        "After 20 images, of the boxes that the model draws beforehand in the next 20, "
        f"{np.mean(untouched):.0f} % "
        f"({min(untouched):.0f} to {max(untouched):.0f}) stay untouched (IoU 0.75, right class). They are "
        f"{np.mean(of_objects):.0f} % of the objects. With the default costs, this saves {np.mean(saved):.1f} "
        f"({min(saved):.1f} to {max(saved):.1f}) of {by_hand:.1f} minutes."
    )


if __name__ == "__main__":
    main()

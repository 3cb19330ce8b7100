"""Draw plots as SVG inside the page: text remains text, and takes the page's colour, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline import history
from pipeline.metrics.precision_recall import Curve
from pipeline.records.benchmark import Speed
from pipeline.records.label_rounds import Round
from pipeline.report import words

# Contrast of at least 3:1 on the page's white and dark backgrounds; dashes for readers who do not see colours.
COLOURS = ("#2f80d0", "#c76a12", "#198f60", "#c2539a", "#8465d8", "#9a7030", "#d8504d", "#2a8fa3")
DASHES = ("", "6 2", "2 2", "8 2 2 2", "10 3", "4 4", "1 2", "8 2 2 2 2 2")
INK = "#010203"  # stands for the page's text colour until the SVG is written
SIZE = (5.0, 3.3)  # inches; shown as wide as half the page or a phone
STYLE: dict[str, str | float] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",  # the same ids every time
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "lines.linewidth": 1.6,
}
Epochs = Sequence[dict[str, float | None]]
FEWEST_POINTS = 3  # of a curve over epochs


def losses(epochs: Epochs, borders: Sequence[float]) -> Markup | None:
    """Plot training losses as solid lines, validation losses as dashed ones; phases end at `borders`."""
    lines = [
        (f"{part}/{loss}_loss", colour, dash, f"{loss}, {part}")
        for loss, colour in zip(("box", "cls"), COLOURS, strict=False)
        for part, dash in (("train", "-"), ("val", "--"))
    ]
    return _over_epochs(epochs, borders, lines, "loss")


def validation(epochs: Epochs, borders: Sequence[float]) -> Markup | None:
    """Plot mAP on val after each epoch, as Ultralytics measured it."""
    lines = [
        ("metrics/mAP50(B)", COLOURS[0], "-", "mAP50"),
        ("metrics/mAP50-95(B)", COLOURS[1], "--", "mAP50-95"),
    ]
    return _over_epochs(epochs, borders, lines, "val mAP", top=1.0)


def _over_epochs(
    epochs: Epochs,
    borders: Sequence[float],
    lines: list[tuple[str, str, str, str]],
    label: str,
    top: float | None = None,
) -> Markup | None:
    measured = [(history.points(epochs, column), *style) for column, *style in lines]
    # Two points are no curve, unless there are no more epochs.
    measured = [line for line in measured if len(line[0]) >= min(FEWEST_POINTS, len(epochs))]
    if not any(points for points, *_ in measured):
        return None

    def draw(axes: Any) -> None:
        for points, colour, dash, name in measured:
            if points:
                marker = "o" if len(points) < 30 else None
                style = {"color": colour, "marker": marker, "markersize": 3, "clip_on": False, "label": name}
                axes.plot(*zip(*points, strict=True), dash, **style)
        for border in borders:
            axes.axvline(border, color=INK, linewidth=0.9, linestyle=":")
        axes.set(xlabel="epoch", ylabel=label, xlim=(0.5, len(epochs) + 0.5), ylim=(0, top))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False, fontsize=9)

    return svg(draw)


def precision_recall(curves: Sequence[Curve]) -> Markup | None:
    if not curves:
        return None

    def draw(axes: Any) -> None:
        for curve, colour, dash in zip(curves, COLOURS, DASHES, strict=False):
            marker = "o" if len(curve.scores) == 1 else None  # a line needs two points
            axes.plot(curve.recall, curve.precision, color=colour, linestyle=linestyle(dash), marker=marker)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))

    return svg(draw)


def f1(curves: Sequence[Curve], thresholds: dict[str, float]) -> Markup | None:
    """Plot F1 over the score of each class, with a dot at its operating threshold."""
    if not curves:
        return None

    def draw(axes: Any) -> None:
        for curve, colour, dash in zip(curves, COLOURS, DASHES, strict=False):
            # Each value holds from its score down to the next lower one.
            style = {"drawstyle": "steps-post", "color": colour, "linestyle": linestyle(dash)}
            axes.plot(curve.scores, curve.f1, **style)
            kept = (curve.scores >= thresholds[curve.name]).nonzero()[0]
            if kept.size:
                axes.plot(thresholds[curve.name], curve.f1[kept[-1]], "o", color=colour, markersize=6)
        axes.set(xlabel="score from which predictions count", ylabel="F1", xlim=(0, 1), ylim=(0, 1.02))

    return svg(draw)


def reliability(bins: Sequence[Mapping[str, float | None]]) -> Markup | None:
    """Plot the share of right predictions against their score, in tenths; on the diagonal the two are equal."""
    # With predictions, no figure is null.
    full = [{key: value or 0.0 for key, value in bin.items()} for bin in bins if bin["predictions"]]
    if not full:
        return None

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], ":", color=INK, linewidth=1)
        # Bars of fewer than ten predictions are paler, because they say little.
        for bin in full:
            axes.bar(
                (bin["from"] + bin["to"]) / 2,
                bin["precision"],
                width=0.09,
                color=COLOURS[0],
                alpha=0.55 if bin["predictions"] >= 10 else 0.2,
            )
        axes.plot(
            [bin["score"] for bin in full], [bin["precision"] for bin in full], "o", color=COLOURS[1], markersize=5
        )
        axes.set(xlabel="score", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))

    return svg(draw)


def labelling(rounds: Sequence[Round]) -> Markup | None:
    """Plot mAP50-95 on val over labelled training images, with intervals, and what the next batch may add."""
    known = [entry for entry in rounds if entry["map50_95"] is not None]
    if len(known) < 2:
        return None

    def draw(axes: Any) -> None:
        last = known[-1]
        images, figures = [entry["images"] for entry in known], [float(entry["map50_95"] or 0) for entry in known]
        for entry in known:
            if entry["interval"]:
                axes.plot([entry["images"]] * 2, entry["interval"], color=COLOURS[0], alpha=0.5)
        axes.plot(images, figures, "o-", color=COLOURS[0], markersize=5)
        if last["gain"] is not None:
            ends = [last["images"], last["images"] + last["batch"]]
            axes.plot(ends, [figures[-1], figures[-1] + last["gain"]], "o:", color=COLOURS[0], markerfacecolor="none")
        axes.set(xlabel="labelled training images", ylabel="val mAP50-95", ylim=(0, None))
        axes.xaxis.get_major_locator().set_params(integer=True)

    return svg(draw)


def artefacts(rows: Sequence[Speed]) -> list[tuple[str, str, str]]:
    """Return file, colour and fill of every artefact that `latency` draws: filled markers first, then hollow ones."""
    files = dict.fromkeys(row["file"] for row in rows if row["map50_95"] is not None)
    return [
        (file, colour := COLOURS[index % len(COLOURS)], colour if index < len(COLOURS) else "none")
        for index, file in enumerate(files)
    ]


def latency(rows: Sequence[Speed]) -> Markup | None:
    """Plot average precision against latency, with one marker shape per number of threads.

    `rows` are those of `make bench-export` in the manifest.
    """
    styles = {file: {"color": colour, "markerfacecolor": fill} for file, colour, fill in artefacts(rows)}
    if not styles:
        return None

    def draw(axes: Any) -> None:
        for marker, threads in zip("osD^", sorted({row["threads"] for row in rows}), strict=False):
            for row in rows:
                if row["threads"] == threads and row["file"] in styles:
                    axes.plot(row["latency_ms"]["p50"], row["map50_95"], marker, **styles[row["file"]])
            axes.plot([], [], marker, color=INK, label=words.counted(threads, "thread"))
        axes.margins(0.1)
        axes.set(xlabel="latency of the network, p50, ms", ylabel="val mAP50-95", xlim=(0, None))
        axes.legend(frameon=False, fontsize=9)

    return svg(draw)


def linestyle(dash: str) -> Any:
    return (0, tuple(float(length) for length in dash.split())) if dash else "-"


def svg(draw: Any) -> Markup:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=SIZE, layout="constrained")
        draw(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(
            file,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    svg = file.getvalue()[file.getvalue().index("<svg") :]
    # HTML needs no namespaces, and the page sets the size. Unused ids would be repeated in every plot.
    svg = re.sub(r'<metadata>.*?</metadata>\s*| xmlns(:xlink)?="[^"]*"| (width|height)="[\d.]+pt"', "", svg, flags=re.S)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", svg)
    return Markup(svg.replace(INK, "currentColor").replace("<svg", '<svg aria-hidden="true"', 1))

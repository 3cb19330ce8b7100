"""Draw the curves of a study as SVG, in the report's style: figure over training images, with bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline.report.plots import COLOURS, DASHES, linestyle, svg
from pipeline.study import statistics
from pipeline.study.curves import Forecast
from pipeline.study.statistics import Table
from pipeline.study.subsets import Size


def style(number: int) -> tuple[str, str]:
    """Return the colour and dash of a row; once all colours are used, they repeat with the next dash."""
    return COLOURS[number % len(COLOURS)], DASHES[(number // len(COLOURS)) % len(DASHES)]


def efficiency(
    table: Table, kind: str, forecasts: Mapping[str, Sequence[Forecast]], only: Sequence[str] | None = None
) -> Markup | None:
    """Draw each row's figure over its training images; a band is the interval, a dotted end the forecast."""
    sizes = [size for size in table.sizes if size[0] == kind]
    shown = [row for row in (only or table.rows) if any(len(table.cell(row, size)[0]) for size in sizes)]
    if not shown or not sizes:
        return None

    def draw(axes: Any) -> None:
        for row in shown:
            _curve(axes, table, row, sizes, forecasts.get(row, ()))
        axes.set_xscale("log")
        ticks = [float(table.images[table.sizes.index(size)]) for size in sizes]
        ticks = [count for count in ticks if count == count]
        axes.set_xticks(ticks, [f"{count:.0f}" for count in ticks])
        axes.minorticks_off()
        axes.set(xlabel="training images", ylabel="test mAP50-95")

    return svg(draw)


def _curve(axes: Any, table: Table, row: str, sizes: Sequence[Size], ahead: Sequence[Forecast]) -> None:
    colour, dash = style(table.rows.index(row))
    line = linestyle(dash)
    levels = statistics.levels(table, row)
    known = [(float(table.images[table.sizes.index(size)]), one) for size in sizes if (one := levels[size])]
    axes.plot(
        [x for x, _ in known], [one.value for _, one in known], linestyle=line, color=colour, marker="o", markersize=4
    )
    banded = [(x, one.low, one.high) for x, one in known if one.low is not None]
    if banded:
        axes.fill_between(*zip(*banded, strict=True), color=colour, alpha=0.15, linewidth=0)
    if ahead and known:
        x, last = [known[-1][0], *(one.images for one in ahead)], known[-1][1].value
        axes.plot(x, [last, *(one.value for one in ahead)], linestyle=":", color=colour)
        low, high = ([last, *(getattr(one, end) for one in ahead)] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=colour, alpha=0.07, linewidth=0)

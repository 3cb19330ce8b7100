"""Write the report of a study: one self-contained page, and its figures as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.config.study import Study
from pipeline.errors import counted
from pipeline.report import template
from pipeline.study import answers, curves, plots, rows, statistics, subsets, words
from pipeline.study.curves import Curve
from pipeline.study.planning import Place
from pipeline.study.results import Line
from pipeline.study.statistics import Estimate, Table

TEMPLATE = Path(__file__).with_name("page.html.jinja")
SUBJECTS = {
    "luck": "Is it luck?",
    "amounts": "Which amounts could not be met?",
    "difference": "Which row is better?",
    "labels": "How many labels is a row worth?",
    "freeze": "What may be frozen?",
    "more": "What would more labels add?",
    "next": "What next?",
}


def path(place: Place) -> Path:
    return place.study / "index.html"


def write(study: Study, lines: Sequence[Line], place: Place) -> None:
    """Write `index.html` and `curves.json` from the lines so far; nothing while only epochs were timed."""
    lines = [line for line in lines if line["row"] in study.rows]
    if not lines and path(place).is_file():
        return
    table = answers.table_of(study, lines)
    sentences = answers.every(study, lines)
    place.study.mkdir(parents=True, exist_ok=True)
    with files.holding(place.study):  # the same study may run twice
        told = {"answers": [sentence for _, sentence in sentences]}
        files.write_json(place.study / "curves.json", figures(table) | told)
        files.write_text(path(place), html(study, table, lines, sentences, place.study.name))


def html(study: Study, table: Table, lines: Sequence[Line], sentences: Sequence[tuple[str, str]], name: str) -> str:
    ahead = {row: answers.forecasts(Curve.of(table, row)) for row in table.rows}
    best = next((sentence for subject, sentence in sentences if subject == "more"), "")
    environment = template.environment(TEMPLATE.parent)
    environment.filters["gap"] = words.gap
    environment.filters["level"] = _level
    return environment.get_template(TEMPLATE.name).render(
        name=name,
        study=study,
        held_equal=rows.in_words(study),
        trials=len(lines),
        planned=len(study.rows) * len(study.sizes) * study.seeds,
        answers=[
            (title, [text.replace("`", "") for kind, text in sentences if kind == subject])
            for subject, title in SUBJECTS.items()
        ],
        sizes=[(words.amount(size), table.images[number]) for number, size in enumerate(table.sizes)],
        levels={row: list(statistics.levels(table, row).values()) for row in table.rows},
        differences={row: list(statistics.compare(table, row, table.rows[0]).values()) for row in table.rows[1:]},
        legend=[(row, *plots.style(number)) for number, row in enumerate(table.rows)],
        efficiency=plots.efficiency(table, "share", {}),
        shots=plots.efficiency(table, "shots", {}),
        forecast=plots.efficiency(table, "share", ahead, [row for row in table.rows if f"`{row}`" in best][:1] or None)
        if best
        else None,
        machines=_counted(f"{line['machine']['node']} ({line['device']})" for line in lines),
        versions=_counted(", ".join(f"{key} {value}" for key, value in line["versions"].items()) for line in lines),
        weights=_counted(f"{line['weights']['name']} {(line['weights']['sha256'] or 'random')[:12]}" for line in lines),
        judged=_counted(line["judged_sha256"][:12] for line in lines),
    )


def _counted(values: Iterable[str]) -> list[tuple[str, int]]:
    return Counter(values).most_common()


def _level(one: Estimate | None) -> str:
    if one is None:
        return "–"
    between = f" ({one.low:.3f} to {one.high:.3f})" if one.low is not None else ""
    return f"{one.value:.3f}{between}, {counted(one.seeds, 'seed')}"


def figures(table: Table) -> dict[str, Any]:
    """Return the figures that the page shows, for other programs."""
    result: dict[str, Any] = {"rows": {}, "level": statistics.LEVEL}
    for row in table.rows:
        curve = Curve.of(table, row)
        checked = curves.held_back(curve)
        result["rows"][row] = {
            "sizes": {
                subsets.label(size): one and {"map50_95": one.value, "interval": one.interval, "seeds": one.seeds}
                for size, one in statistics.levels(table, row).items()
            },
            "against_first": {}
            if row == table.rows[0]
            else {
                subsets.label(size): {
                    "difference": one.estimate and one.estimate.value,
                    "interval": one.estimate and one.estimate.interval,
                    "p": one.p,
                    "verdict": one.verdict,
                }
                for size, one in statistics.compare(table, row, table.rows[0]).items()
            },
            "forecast": [
                {
                    "images": one.images,
                    "map50_95": one.value,
                    "interval": [one.low, one.high],
                    "gain": one.gain,
                    "gain_interval": [one.gain_low, one.gain_high],
                }
                for one in answers.forecasts(curve)
            ],
            "held_back": checked
            and {
                "images": checked.images,
                "forecast": checked.forecast.value,
                "interval": [checked.forecast.low, checked.forecast.high],
                "measured": checked.measured,
                "within": checked.within,
            },
        }
    return result

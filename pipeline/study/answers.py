"""State the results of a study in sentences. Points are hundredths of mAP50-95."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean, stdev

from pipeline.config.study import Study
from pipeline.study import curves, statistics
from pipeline.study.curves import Curve
from pipeline.study.results import Line
from pipeline.study.statistics import Estimate, Table
from pipeline.study.subsets import Size

TWO_TRAININGS = 2.77  # 1.96 * sqrt(2): two draws from one normal distribution are further apart in 5 % of cases
WORTH_IT = 0.5  # points that twice as many labels have to add for labelling to be worth it
LITTLE = 1.0  # points below which a gain is not worth the work
LATE = 3  # the last third of the epochs


def table_of(study: Study, lines: Iterable[Line]) -> Table:
    return Table.of(lines, list(study.rows), study.sizes, study.seeds)


def first(study: Study, lines: Sequence[Line]) -> str:
    """Return the answer to print."""
    answers = every(study, lines)
    return answers[0][1] if answers else "no figures"


def every(study: Study, lines: Sequence[Line]) -> list[tuple[str, str]]:
    """Return all answers as (subject, sentence)."""
    table = table_of(study, lines)
    answers = [("luck", sentence) for sentence in luck(study, table)]
    answers += [
        ("difference", sentence) for row in table.rows[1:] for sentence in difference(table, row, table.rows[0])
    ]
    answers += [("labels", sentence) for sentence in worth(table)]
    answers += [("freeze", sentence) for sentence in freeze(table, lines)]
    answers += [("more", sentence) for sentence in more(table)]
    answers += [("next", following(table, lines))] if lines else []
    return answers


def luck(study: Study, table: Table) -> list[str]:
    """Say how much results differ by the seed alone, for the first row at its largest size."""
    row, size = table.rows[0], table.sizes[-1]
    figure, _ = table.cell(row, size)
    if len(figure) < 2:
        return []
    spread = stdev(figure.tolist())
    extremes = f"{figure.min():.3f} to {figure.max():.3f}"
    sentences = [
        f"`{row}` with {amount(size)} reached {extremes} in {len(figure)} training runs that differ only in the seed, "
        f"a standard deviation of {points(spread)}. Two single training runs must differ by "
        f"{points(TWO_TRAININGS * spread)} before the difference is more than luck."
    ]
    smallest = statistics.smallest_difference(table, study.seeds)
    return [*sentences, pilot(study, smallest)] if len(table.rows) > 1 else sentences


def pilot(study: Study, smallest: float | None) -> str:
    """Say which difference the study can detect; `smallest` is from 0 to 1."""
    if smallest is None:
        return "One seed cannot separate luck from a real difference."
    return f"With {study.seeds} seeds, this study can detect a difference of about {points(smallest)}."


def difference(table: Table, row: str, other: str) -> list[str]:
    """Say at which sizes a row is better or worse than another, after Holm's correction over sizes."""
    compared = statistics.compare(table, row, other)
    sentences = []
    for verdict in ("better", "worse"):
        estimates = [(size, one.estimate) for size, one in compared.items() if one.verdict == verdict]
        if estimates:
            cases = "; ".join(f"with {amount(size)} by {gap(estimate)}" for size, estimate in estimates)
            sentences.append(f"`{row}` is {verdict} than `{other}` {cases}.")
    noise = [amount(size) for size, one in compared.items() if one.verdict == "inside noise"]
    if noise:
        sentences.append(f"`{row}` and `{other}` do not differ measurably with {listed(noise)}.")
    return sentences


def worth(table: Table) -> list[str]:
    """Say how many times as many labels the other rows need as the best row with its smallest share."""
    best = _best(table)
    sentences = []
    for other in table.rows:
        ours, theirs = Curve.of(table, best), Curve.of(table, other)
        if other == best or not len(ours.images) or len(theirs.images) < 2:
            continue
        multiple = curves.multiples(ours, theirs)[0]
        if multiple.value is None:
            sentences.append(
                f"With {multiple.images:.0f} images, `{best}` is better than `{other}` with {multiple.most:.1f} times "
                "as many, the most that were tried."
            )
        else:
            most = f"more than {multiple.most:.1f}" if multiple.high is None else f"{multiple.high:.1f}"
            least = f"more than {multiple.most:.1f}" if multiple.low is None else f"{multiple.low:.1f}"
            sentences.append(
                f"With {multiple.images:.0f} images, `{best}` is as good as `{other}` with {multiple.value:.1f} times "
                f"as many ({least} to {most})."
            )
    return sentences


def more(table: Table) -> list[str]:
    """Say what more labels would add to the best row, and whether such a forecast was right for the largest share."""
    curve = Curve.of(table, _best(table))
    if not (ahead := forecasts(curve)):
        return []
    gains = listed(
        [
            f"{factor:g} times as many {signed(step.gain)} ({signed(step.gain_low)} to {signed(step.gain_high)})"
            for factor, step in zip(curves.FACTORS, ahead, strict=True)
        ]
    )
    sentences = [f"Forecast for `{_best(table)}`, in points over {curve.images[-1]:.0f} images: {gains}."]
    if checked := curves.held_back(curve):
        forecast, place = checked.forecast, "within" if checked.within else "outside"
        sentences.append(
            f"Check: without the largest share, the forecast for it was {forecast.value:.3f} "
            f"({forecast.low:.3f} to {forecast.high:.3f}); the measured figure is {checked.measured:.3f}, "
            f"{place} the interval of the forecast."
        )
    return sentences


def forecasts(curve: Curve) -> list[curves.Forecast]:
    return curves.forecast(curve, [factor * curve.images[-1] for factor in curves.FACTORS]) if len(curve.images) else []


def freeze(table: Table, lines: Sequence[Line]) -> list[str]:
    """Say how deep to freeze: of rows that differ only in depth, the deepest that is not worse than the shallowest."""
    depth = {line["row"]: line["freeze"][-1] for line in lines}
    kinds: dict[str, list[str]] = {}
    for row in table.rows:
        section = next((line["train"] for line in lines if line["row"] == row), None)
        if section and section["phases"]:
            phases = [{**phase, "freeze": None} for phase in section["phases"]]
            kinds.setdefault(repr(sorted({**section, "phases": phases}.items())), []).append(row)
    sentences = []
    for rows in kinds.values():
        rows.sort(key=lambda row: depth[row])
        if len({depth[row] for row in rows}) < 2:
            continue
        compared = {row: statistics.compare(table, row, rows[0]) for row in rows[1:]}
        for size in table.sizes:
            harmless = [row for row in rows[1:] if compared[row][size].verdict in ("inside noise", "better")]
            if any(compared[row][size].verdict == "not known" for row in rows[1:]):
                continue
            if harmless:
                gain, deepest = gap(compared[harmless[-1]][size].estimate), harmless[-1]
                sentences.append(
                    f"Freeze with {amount(size)}: `{deepest}` ({depth[deepest]} layers); the change is {gain}."
                )
            else:
                sentences.append(f"Freeze with {amount(size)}: nothing; each frozen row is worse than `{rows[0]}`.")
    return sentences


def following(table: Table, lines: Sequence[Line]) -> str:
    """Say what to do next: label, train longer, or stop."""
    best = _best(table)
    rising = rise([line for line in lines if line["row"] == best and statistics.size_of(line) == table.sizes[-1]])
    if rising is not None and 100 * rising > LITTLE:
        return f"Next: train longer. In the last third of its epochs val of `{best}` still rose by {points(rising)}."
    twice = next((one for one in forecasts(Curve.of(table, best)) if one.images > 1.9 * table.images[-1]), None)
    if twice is None:
        return "Next: add shares or seeds; these cannot show what more labels would bring."
    if 100 * twice.gain_low > WORTH_IT:
        return f"Next: label more. Twice as many images would bring at least {points(twice.gain_low)}."
    if 100 * twice.gain_high < LITTLE:
        return f"Next: stop. Twice as many images would bring at most {points(twice.gain_high)}."
    least, most = points(twice.gain_low), points(twice.gain_high)
    return (
        f"Next: not clear. Twice as many images would bring between {least} and {most}; "
        "more seeds or a larger test split would decide."
    )


def rise(lines: Sequence[Line]) -> float | None:
    """Return how much val rose over the last third of the validated epochs, averaged over trials; None with too few."""
    gains = [line["val"][-1] - line["val"][-1 - len(line["val"]) // LATE] for line in lines if len(line["val"]) >= LATE]
    return mean(gains) if gains else None


def _best(table: Table) -> str:
    """Return the row with the highest figure at the largest size."""
    levels = {row: statistics.levels(table, row)[table.sizes[-1]] for row in table.rows}
    return max(table.rows, key=lambda row: level.value if (level := levels[row]) else -1.0)


def amount(size: Size) -> str:
    """Return a size in words."""
    if size[0] == "shots":
        return f"{size[1]:g} box{'es' * (size[1] != 1)} per class"
    return "all images" if size[1] == 1 else f"{100 * size[1]:g} % of the images"


def gap(one: Estimate | None) -> str:
    if one is None:
        return "–"
    between = f" ({signed(one.low)} to {signed(one.high)})" if one.low is not None and one.high is not None else ""
    return f"{signed(one.value)} points{between}"


def points(value: float) -> str:
    return f"{100 * value:.1f} points".replace("-", "−")


def signed(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"

"""State the results of a study in sentences. Points are hundredths of mAP50-95."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev

from pipeline.config.study import Minutes, Study
from pipeline.errors import counted
from pipeline.study import curves, statistics
from pipeline.study.curves import Curve, Multiple
from pipeline.study.results import Line
from pipeline.study.rows import merged
from pipeline.study.statistics import Estimate, Table
from pipeline.study.words import amount, apart, gap, listed, points, signed, unmet

WORTH_IT = 0.5  # points that twice as many labels have to add for labelling to be worth it
LITTLE = 1.0  # points below which a gain is not worth the work
HARMLESS = 2.0  # points that frozen layers may cost, by the end of the interval; five seeds rarely exclude less
LATE = 3  # the last third of the epochs
NOTHING = 0.01  # mAP50-95 of a model that has learnt nothing


def table_of(study: Study, lines: Iterable[Line]) -> Table:
    return Table.of(lines, list(study.rows), study.sizes, study.seeds)


def first(study: Study, lines: Sequence[Line]) -> str:
    """Return the answer to print."""
    answers = every(study, lines)
    return answers[0][1] if answers else "no figures"


def every(study: Study, lines: Sequence[Line]) -> list[tuple[str, str]]:
    """Return all answers as (subject, sentence)."""
    table = table_of(study, lines)
    if 0 <= _level(table, _best(table)) < NOTHING:
        return [("next", "Nothing was learnt: no row finds objects. Train longer, or check the labels.")]
    answers = [("luck", sentence) for sentence in luck(study, table)]
    answers += [("amounts", sentence) for sentence in unmet(table.sizes, lines)]
    answers += [
        ("difference", sentence) for row in table.rows[1:] for sentence in difference(table, row, table.rows[0])
    ]
    answers += [("labels", sentence) for sentence in worth(table)]
    answers += [("freeze", sentence) for sentence in freeze(study, table, lines)]
    answers += [("more", sentence) for sentence in more(table)]
    answers += [("next", following(table, lines))] if lines else []
    return answers


def luck(study: Study, table: Table) -> list[str]:
    """Say how much results differ by the seed alone, for the first row at its largest size."""
    row, size = table.rows[0], table.sizes[-1]
    figure, _ = table.cell(row, size)
    if len(figure) < 2:
        return pilot(study, table) if study.seeds == 1 and len(figure) else []
    spread = stdev(figure.tolist())
    extremes = f"{figure.min():.3f} to {figure.max():.3f}"
    sentences = [
        f"`{row}` with {amount(size)} reached {extremes} in {len(figure)} training runs that differ only in the seed, "
        f"a standard deviation of {points(spread)}. Two single training runs must differ by about "
        f"{points(statistics.beyond_luck(figure))} before the difference is more than luck."
    ]
    return [*sentences, *pilot(study, table)] if len(table.rows) > 1 else sentences


def pilot(study: Study, table: Table) -> list[str]:
    """Say which difference the study can detect; nothing until a seed has trials of the first two rows."""
    if study.seeds == 1:
        return ["One seed cannot separate luck from a real difference."]
    if (smallest := statistics.smallest_difference(table, study.seeds)) is None:
        return []
    return [
        f"With {study.seeds} seeds, this study detects a difference of about {points(smallest)} in half of all cases, "
        "and twice that nearly always."
    ]


def difference(table: Table, row: str, other: str) -> list[str]:
    """Say at which sizes a row is better or worse than another, after Holm's correction over sizes."""
    compared = statistics.compare(table, row, other)
    sentences = []
    for verdict in ("better", "worse"):
        estimates = [(size, one.estimate) for size, one in compared.items() if one.verdict == verdict]
        if estimates:
            cases = "; ".join(f"with {amount(size)} by {apart(estimate)}" for size, estimate in estimates)
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
        sentences.append(_worth(best, other, curves.multiples(ours, theirs)[0]))
    return sentences


def _worth(best: str, other: str, multiple: Multiple) -> str:
    def times(value: float | None) -> str:
        if value is None:
            return f"more than {multiple.most:.1f}"
        return f"{value:.1f}" if value else f"at most {multiple.least:.1f}"

    begin, most = f"With {multiple.images:.0f} images, `{best}`", f"{multiple.most:.1f} times as many"
    interval = f"{times(multiple.low)} to {times(multiple.high)}"
    if multiple.low is None:
        return f"{begin} is better than `{other}` with {most}."
    if multiple.value is None:
        enough = f"{multiple.low:.1f} times as many suffice" if multiple.low else "as many suffice"
        return f"{begin} looks better than `{other}` with {most}; within noise, {enough}."
    if not multiple.value:
        return f"{begin} is not better than `{other}` with as many."
    return f"{begin} is as good as `{other}` with {multiple.value:.1f} times as many ({interval})."


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
        off = Estimate(checked.measured - checked.forecast.value, 0, checked.low, checked.high)
        verdict = "so the forecast was right" if checked.within else "so the forecast was wrong"
        sentences.append(
            f"Check: without the largest share, the forecast for it was {checked.forecast.value:.3f}. The measured "
            f"figure is {checked.measured:.3f}, a difference of {gap(off)}, {verdict}."
        )
    return sentences


def forecasts(curve: Curve) -> list[curves.Forecast]:
    return curves.forecast(curve, [factor * curve.images[-1] for factor in curves.FACTORS]) if len(curve.images) else []


def freeze(study: Study, table: Table, lines: Sequence[Line]) -> list[str]:
    """Say how deep to freeze, from rows that differ only in depth: see `_depth`."""
    depth = {line["row"]: line["freeze"][-1] for line in lines}
    free = {"freeze": None, **({"epochs": None} if isinstance(study.budget, Minutes) else {})}
    kinds: dict[str, list[str]] = {}
    for row in table.rows:
        section = next((line["train"] for line in lines if line["row"] == row), None)
        if section and section["phases"]:
            phases = [{**phase, **free} for phase in section["phases"]]
            augment = merged(study.every, study.rows.get(row, {})).get("augment")
            kinds.setdefault(repr([sorted({**section, "phases": phases}.items()), augment]), []).append(row)
    sentences = []
    for rows in kinds.values():
        rows.sort(key=lambda row: depth[row])
        if len({depth[row] for row in rows}) > 1:
            compared = {row: statistics.compare(table, row, rows[0]) for row in rows[1:]}
            for size in table.sizes:
                at_size = {row: one[size].estimate for row, one in compared.items()}
                sentences += _depth(amount(size), rows[0], at_size, depth)
    return sentences


def _depth(words: str, first: str, compared: Mapping[str, Estimate | None], depth: Mapping[str, int]) -> list[str]:
    """Name the deepest row that costs less than HARMLESS, as all shallower ones do, by the end of its interval."""
    harmless = ""
    for row, estimate in compared.items():
        if estimate is None or estimate.low is None or estimate.high is None:
            return []
        if 100 * estimate.low < -HARMLESS:
            if harmless:
                break
            if estimate.high < 0:
                most = f"at most {counted(depth[first], 'layer')} (`{first}`)" if depth[first] else "nothing"
                return [f"Freeze with {words}: {most}; `{row}` costs {apart(estimate)}."]
            return [f"Freeze with {words}: not clear; `{row}` may cost up to {points(-estimate.low)}."]
        harmless = row
    gain = gap(compared[harmless])
    return [f"With {words}, {depth[harmless]} layers can be frozen (`{harmless}`): {gain} against `{first}`."]


def following(table: Table, lines: Sequence[Line]) -> str:
    """Say what to do next: label, train longer, or stop."""
    best = _best(table)
    rising = rise([line for line in lines if line["row"] == best and statistics.size_of(line) == table.sizes[-1]])
    if rising is not None and 100 * rising > LITTLE:
        return f"Next: train longer. In the last third of its epochs val of `{best}` still rose by {points(rising)}."
    curve = Curve.of(table, best)
    twice = dict(zip(curves.FACTORS, forecasts(curve), strict=False)).get(2.0)
    if twice is None:
        return "Next: add shares or seeds. The present ones cannot show what more labels would bring."
    begin = f"Twice as many images as {curve.images[-1]:.0f} would bring"
    if 100 * twice.gain_low > WORTH_IT:
        return f"Next: label more. {begin} at least {points(twice.gain_low)}."
    if 100 * twice.gain_high < LITTLE:
        return f"Next: stop. {begin} at most {points(max(0.0, twice.gain_high))}."
    return (
        f"Next: not clear. {begin} between {points(twice.gain_low)} and {points(twice.gain_high)}; "
        "more seeds or a larger test split would decide."
    )


def rise(lines: Sequence[Line]) -> float | None:
    """Return how much val rose over the last third of the last phase, averaged over trials.

    Only trials that validated after each epoch count. None without any, or with too few epochs.
    """
    gains = []
    for line in lines:
        last = line["val"][-line["epochs"][-1] :]
        if len(line["val"]) == sum(line["epochs"]) and len(last) >= LATE:
            gains.append(last[-1] - last[-1 - len(last) // LATE])
    return mean(gains) if gains else None


def _best(table: Table) -> str:
    """Return the row with the highest figure at the largest size."""
    return max(table.rows, key=lambda row: _level(table, row))


def _level(table: Table, row: str) -> float:
    """Return the row's figure at the largest size, -1 without one."""
    level = statistics.levels(table, row)[table.sizes[-1]]
    return level.value if level else -1.0

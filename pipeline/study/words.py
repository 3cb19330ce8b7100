"""Put sizes and differences of a study into words. Points are hundredths of mAP50-95."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from pipeline.study.results import Line
from pipeline.study.statistics import Estimate, size_of
from pipeline.study.subsets import Size

ROOMY = 1.25  # times as many images as a share asks for; less is rounding


def amount(size: Size) -> str:
    """Return a size in words."""
    if size[0] == "shots":
        return f"{size[1]:g} box{'es' * (size[1] != 1)} per class"
    return "all images" if size[1] == 1 else f"{100 * size[1]:g} % of the images"


def unmet(sizes: Sequence[Size], lines: Sequence[Line]) -> list[str]:
    """Say which sizes the data could not meet: groups that are too large, and classes with too few boxes."""
    sentences = []
    at = {size: [line for line in lines if size_of(line) == size] for size in sizes}
    largest = max((size for size in sizes if size[0] == "share" and at[size]), default=None)
    for size, trials in at.items():
        absent = sorted({name for line in trials for name, count in line["boxes"].items() if not count})
        if size[0] == "shots":
            few = {name: count for line in trials for name, count in line["boxes"].items() if 0 < count < size[1]}
            if few:
                cases = listed([f"{name} has {count}" for name, count in sorted(few.items())])
                sentences.append(f"With {amount(size)}, {cases}: there are no more.")
        elif trials and largest:
            images = mean(line["images"] for line in trials)
            wanted = size[1] / largest[1] * mean(line["images"] for line in at[largest])
            if images > ROOMY * wanted + 1:
                sentences.append(
                    f"With {amount(size)}, trials have {images:.0f} images instead of {wanted:.0f}, because images of "
                    "one group stay together."
                )
        if absent:
            sentences.append(f"With {amount(size)}, some seeds have no object of {listed(absent)}.")
    return sentences


def gap(one: Estimate | None) -> str:
    if one is None:
        return "–"
    between = f" ({signed(one.low)} to {signed(one.high)})" if one.low is not None and one.high is not None else ""
    return f"{signed(one.value)} points{between}"


def apart(one: Estimate | None) -> str:
    """Return the size of a difference, with the interval in its direction."""
    assert one and one.low is not None and one.high is not None
    low, high = (one.low, one.high) if one.value > 0 else (-one.high, -one.low)
    return f"{points(abs(one.value))} ({100 * low:.1f} to {100 * high:.1f})".replace("-", "−")


def points(value: float) -> str:
    return f"{100 * value:.1f} points".replace("-", "−")


def signed(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"

"""How often each training image is shown, so that rare classes are seen more often."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Set

MAX_REPEAT = 10.0  # beyond, a class of one image would be learnt by heart


def repeat_factors(images: Iterable[Set[str]]) -> dict[str, float]:
    """How often the images of each class are repeated; an image holds the classes of its set.

    Repeat-factor sampling of LVIS (Gupta, Dollar and Girshick, CVPR 2019, section 4): r = max(1, sqrt(t / f)),
    where f is the share of the images that hold the class. Their t = 0.001 is for 1,203 classes with a long
    tail. With a handful of classes that would repeat nothing, so t is the share of the most frequent class:
    nothing to tune, and every other class is repeated in the measure in which it is rarer. Background images
    count in neither share.
    """
    holding = Counter(name for classes in images for name in classes)
    most = max(holding.values(), default=0)
    return {name: min(math.sqrt(most / count), MAX_REPEAT) for name, count in holding.items()}


def copies(classes: Set[str], factors: dict[str, float], each: int, seed: int) -> int:
    """The number of copies of an image beside itself, where an image of no rare class gets `each`.

    The image is shown r * (1 + each) times in all, r being the largest factor of its classes; the fraction is
    rounded up or down by chance, so that it is right on average.
    """
    repeat = max((factors[name] for name in classes), default=1.0)
    shown = repeat * (1 + each)
    return math.floor(shown + random.Random(seed).random()) - 1

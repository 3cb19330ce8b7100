"""Decide how often each training image is shown, so that rare classes are seen more often."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Set

MAX_REPEAT = 10.0  # with more, the model would memorise a class with a single image


def repeat_factors(images: Iterable[Set[str]]) -> dict[str, float]:
    """Return the repeat factor of each class; `images` holds the set of classes in each image.

    This is the repeat-factor sampling of LVIS (Gupta, Dollar and Girshick, CVPR 2019, section 4):
    r = max(1, sqrt(t / f)), where f is the share of images with the class. Their t = 0.001 is for 1,203 classes with a
    long tail; with a handful of classes it would repeat nothing. Here t is the share of the most frequent class, which
    needs no tuning and repeats every other class by how much rarer it is. Background images count in neither share.
    """
    count_of = Counter(name for classes in images for name in classes)
    most = max(count_of.values(), default=0)
    return {name: min(math.sqrt(most / count), MAX_REPEAT) for name, count in count_of.items()}


def copies(classes: Set[str], factors: dict[str, float], each: int, seed: int) -> int:
    """Return the number of copies of an image besides itself; an image without rare classes gets `each`.

    The image is shown r * (1 + each) times in all, where r is the largest factor of its classes. The fraction is
    rounded up or down at random, so that the average is right.
    """
    repeat = max((factors[name] for name in classes), default=1.0)
    shown = repeat * (1 + each)
    return math.floor(shown + random.Random(seed).random()) - 1

"""Find images that show the same scene: resized, recompressed, mirrored, rotated or slightly brighter.

The same image in two splits makes a model look better than it is. Three steps find near-duplicates:

1. `fingerprint` shrinks an image to 32x32 and keeps the 16x16 lowest frequencies of its cosine transform. Mirroring
   changes signs in that table and a quarter turn transposes it, so one fingerprint covers all eight orientations.
2. Sorting finds candidates. The signs of the 63 lowest frequencies form a bit string, as in a perceptual hash. A sorted
   list puts strings with the same prefix together. With several lists, each of which permutes the bits differently,
   two strings that differ in a few bits are neighbours at least once (Charikar 2002; Manku, Jain, Das Sarma 2007). Each
   string is compared with a fixed number of neighbours, so the work grows with n log n.
3. Correlation decides. Amplitudes of photographs fall with 1/f (Field 1987), so each frequency is weighted by f.
   Shading and background, which all images of one camera share, then count no more than what sets the images apart.

Images without texture never pair: two blank sheets of one scanner say nothing about each other, and one cluster of all
of them would leave no split to draw. Identical files are found by their bytes, blank or not.

Crops of more than about 3 %, partly overlapping views and rotations other than by 90 degrees are not found. Use
`group_by` to keep such images together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Fingerprint = bytes  # 16x16 weighted frequencies as float16, as a unit vector; all 0 without texture

THUMBNAIL = 32
FREQUENCIES = 16
HASHED = 8  # frequencies per side that give the bits
SAME = 0.9  # correlation. With 364 smears and 848 photos, changed copies reach at least 0.92, other images at most 0.88
CONTRAST = 2.0  # grey levels of standard deviation; with less, JPEG noise outweighs the content
SPREAD = 4.0  # effective number of frequencies: shading alone has 1 to 3.6, photographs and drawings 10 or more
ORDERS = 16  # with 8 neighbours, this finds 99.9 % of changed copies among 50,000 images, and all among 1,000
NEIGHBOURS = 8
BITS_APART = 16  # of 63, twice what a correlation of 0.9 changes on average
CHUNK = 20_000  # pairs correlated at once, in 60 MB

_WEIGHT = np.hypot(*np.mgrid[:FREQUENCIES, :FREQUENCIES]).astype(np.float32)


def fingerprint(gray: NDArray[np.uint8]) -> Fingerprint:
    """Return the fingerprint of an upright grey image of any size, 512 bytes.

    An image decoded at reduced scale will do if both sides keep 64 pixels.
    """
    thumbnail = cv2.resize(gray.astype(np.float32), (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    table = cv2.dct(thumbnail)[:FREQUENCIES, :FREQUENCIES]
    table[0, 0] = 0  # the mean: brightness
    contrast = np.linalg.norm(table) / THUMBNAIL
    table = table * _WEIGHT
    power = table**2
    if contrast < CONTRAST or power.sum() ** 2 < SPREAD * (power**2).sum():
        return bytes(np.float16().itemsize * table.size)
    packed: Fingerprint = (table / np.linalg.norm(table)).astype(np.float16).tobytes()
    return packed


def near_duplicates(fingerprints: Sequence[Fingerprint]) -> list[tuple[int, int]]:
    """Return sorted pairs (i, j), i < j, of images that show the same scene.

    They connect every cluster, but do not list all pairs of one with more than a few images: 50,000 frames of a static
    scene have a billion.
    """
    tables = np.frombuffer(b"".join(fingerprints), np.float16).reshape(-1, FREQUENCIES, FREQUENCIES)
    textured = np.flatnonzero(tables.any(axis=(1, 2)))
    tables, count = tables[textured], len(textured)
    if count < 2:
        return []
    low = tables[:, :HASHED, :HASHED]
    bits = np.concatenate([_turned(low, turn) > 0 for turn in range(8)]).reshape(8 * count, HASHED**2)[:, 1:]
    words = _packed(bits)
    random = np.random.default_rng(0)
    pairs: set[tuple[int, int]] = set()
    labels = np.arange(count)
    for _ in range(ORDERS):
        first, second, turn = _neighbours(_packed(np.take(bits, random.permutation(bits.shape[1]), axis=1)), count)
        apart = (words[first] ^ words[turn * count + second]).view(np.uint8).reshape(-1, 8)
        is_near = np.unpackbits(apart, axis=1).sum(axis=1) <= BITS_APART
        first, second, turn = first[is_near], second[is_near], turn[is_near]
        is_new = (labels[first] != labels[second]) | (np.bincount(labels)[labels[first]] <= NEIGHBOURS)
        first, second, turn = first[is_new], second[is_new], turn[is_new]
        is_same = _correlation(tables, first, second, turn) >= SAME
        first, second = first[is_same], second[is_same]
        pairs.update(zip(np.minimum(first, second).tolist(), np.maximum(first, second).tolist(), strict=True))
        joined = clusters(count, zip(labels[first].tolist(), labels[second].tolist(), strict=True))
        labels = np.array(joined)[labels]
    return sorted((int(textured[i]), int(textured[j])) for i, j in pairs)


def alike(one: Fingerprint, others: Sequence[Fingerprint]) -> NDArray[np.bool_]:
    """Return which of the others show the same scene as one image. `near_duplicates` finds where to look."""
    table = np.frombuffer(one, np.float16).reshape(1, FREQUENCIES, FREQUENCIES).astype(np.float32)
    turned = np.concatenate([_turned(table, turn) for turn in range(8)]).reshape(8, -1)
    tables = np.frombuffer(b"".join(others), np.float16).reshape(len(others), -1).astype(np.float32)
    is_same: NDArray[np.bool_] = (tables @ turned.T).max(axis=1) >= SAME
    return is_same


def _turned(tables: NDArray[Any], turn: int) -> NDArray[Any]:
    """Return the frequencies of the images in one of eight orientations; 0 leaves them unchanged."""
    signs = (-1.0) ** np.arange(tables.shape[1], dtype=tables.dtype)
    if turn & 1:
        tables = tables * signs
    if turn & 2:
        tables = tables * signs[:, None]
    return tables.transpose(0, 2, 1) if turn & 4 else tables


def _packed(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Return rows of 63 bits as numbers that sort as the rows do."""
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def _neighbours(words: NDArray[np.uint64], count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return neighbours in the sorted list of bit strings: image, other image, and the orientation of the other.

    `words` are the strings of all images unchanged, then of all in the next of the eight orientations, and so on.
    """
    order = np.argsort(words, kind="stable")
    steps = range(1, NEIGHBOURS + 1)
    left = np.concatenate([order[:-step] for step in steps])
    right = np.concatenate([order[step:] for step in steps])
    # A pair in which both are turned also occurs with one of them upright.
    is_upright = np.minimum(left, right) < count
    left, right = left[is_upright], right[is_upright]
    first, (turn, second) = np.minimum(left, right), np.divmod(np.maximum(left, right), count)
    is_pair = first != second
    return first[is_pair], second[is_pair], turn[is_pair]


def _correlation(
    tables: NDArray[np.float16], first: NDArray[np.intp], second: NDArray[np.intp], turn: NDArray[np.intp]
) -> NDArray[np.float32]:
    result = np.empty(len(first), np.float32)
    for way in range(8):
        chosen = np.flatnonzero(turn == way)
        for start in range(0, len(chosen), CHUNK):
            part = chosen[start : start + CHUNK]
            a, b = (tables[images[part]].astype(np.float32) for images in (first, second))
            result[part] = np.einsum("nij,nij->n", a, _turned(b, way))
    return result


def same(keys: Sequence[str | None]) -> list[tuple[int, int]]:
    """Return pairs that link each image to the last one with the same key (a checksum, a group); None links nothing."""
    last: dict[str, int] = {}
    pairs = []
    for index, key in enumerate(keys):
        if key is not None:
            if key in last:
                pairs.append((last[key], index))
            last[key] = index
    return pairs


def clusters(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Return a number for each of `count` images, the same for all that pairs connect, directly or through others."""
    # A union-find of our own, because importing scipy's takes longer than this does for 1,000 images.
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for first, second in pairs:
        parent[root(second)] = root(first)
    return [root(index) for index in range(count)]

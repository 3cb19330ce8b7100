"""Images that show the same picture: resized, compressed again, mirrored, turned, a little brighter.

One picture in two splits makes a model look better than it is. Three steps find them:

1. `fingerprint` shrinks an image to 32x32 and keeps the 16x16 lowest frequencies of its cosine transform.
   Mirroring changes signs in that table and a quarter turn transposes it, so that one fingerprint tells
   of all eight ways to lay the image down.
2. Sorting finds candidates. The signs of the 63 lowest frequencies are a string of bits, as in a perceptual
   hash. In a sorted list equal beginnings stand together, and in several lists, each with the bits in another
   order, two strings that differ in a few bits are neighbours at least once (Charikar 2002; Manku, Jain,
   Das Sarma 2007). Everybody meets a fixed number of neighbours: the work grows with n log n.
3. Correlation decides. Amplitudes of photographs fall with 1/f (Field 1987), so that each frequency is weighted
   by f: shading and soil, which all images of one camera share, count no more than what sets them apart.

Images without texture never pair: two blank sheets of one scanner say nothing about each other, and tying
all of them together would leave no split to make. Identical files are found by their bytes, blank or not.

Not found: crops of more than some 3 %, views that overlap in part, turns other than by 90 degrees. That
images belong together for such reasons has to be said with `group_by`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Fingerprint = bytes  # 16x16 weighted frequencies as float16, together of length 1; all 0 where there is no texture

THUMBNAIL = 32
FREQUENCIES = 16
HASHED = 8  # frequencies a side that give the bits
SAME = 0.9  # correlation. Of 364 smears and 848 photos, changed copies reach 0.92 and more, other pictures 0.88
CONTRAST = 2.0  # grey levels of standard deviation; with less, JPEG leaves more noise than picture
SPREAD = 4.0  # over how many frequencies: shading alone has 1 to 3.6, photographs and drawings from 10
ORDERS = 16  # with 8 neighbours: of changed copies among 50,000 images, 99.9 % are found, among 1,000 all
NEIGHBOURS = 8
BITS_APART = 16  # of 63, twice what a correlation of 0.9 changes on average
LARGE = 1 << 26  # pixels
CHUNK = 20_000  # pairs correlated at once, in 60 MB

_WEIGHT = np.hypot(*np.mgrid[:FREQUENCIES, :FREQUENCIES]).astype(np.float32)


def fingerprint(gray: NDArray[np.uint8]) -> Fingerprint:
    """Return the fingerprint of an upright grey image of any size, 512 bytes.

    An image decoded at reduced scale will do if both sides keep 64 pixels.
    """
    height, width = gray.shape
    if gray.size > LARGE:  # four bytes per pixel would be a lot of memory
        gray = cv2.resize(gray, (width // 8, max(1, height // 8)), interpolation=cv2.INTER_AREA)
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
    """Pairs (i, j), i < j, of images that show the same picture, sorted.

    They connect every cluster, but do not list all pairs of one with more than a few images: 50,000 frames
    of a camera that sees nothing move have a billion.
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
    found: set[tuple[int, int]] = set()
    labels = np.arange(count)
    for _ in range(ORDERS):
        one, other, turn = _neighbours(_packed(np.take(bits, random.permutation(bits.shape[1]), axis=1)), count)
        apart = (words[one] ^ words[turn * count + other]).view(np.uint8).reshape(-1, 8)
        is_near = np.unpackbits(apart, axis=1).sum(axis=1) <= BITS_APART
        one, other, turn = one[is_near], other[is_near], turn[is_near]
        is_news = (labels[one] != labels[other]) | (np.bincount(labels)[labels[one]] <= NEIGHBOURS)
        one, other, turn = one[is_news], other[is_news], turn[is_news]
        is_same = _correlation(tables, one, other, turn) >= SAME
        one, other = one[is_same], other[is_same]
        found.update(zip(np.minimum(one, other).tolist(), np.maximum(one, other).tolist(), strict=True))
        joined = clusters(count, zip(labels[one].tolist(), labels[other].tolist(), strict=True))
        labels = np.array(joined)[labels]
    return sorted((int(textured[i]), int(textured[j])) for i, j in found)


def _turned(tables: NDArray[Any], turn: int) -> NDArray[Any]:
    """Frequencies of the same images laid down in one of eight ways; 0 is as they are."""
    signs = (-1.0) ** np.arange(tables.shape[1], dtype=tables.dtype)
    if turn & 1:
        tables = tables * signs
    if turn & 2:
        tables = tables * signs[:, None]
    return tables.transpose(0, 2, 1) if turn & 4 else tables


def _packed(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Rows of 63 bits as numbers that sort as the rows do."""
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def _neighbours(words: NDArray[np.uint64], count: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Image, other image, and the turn of the other: what stands close together once the bit strings are sorted.

    `words` are the strings of all images as they are, of all in the next of the eight ways, and so on.
    """
    order = np.argsort(words, kind="stable")
    steps = range(1, NEIGHBOURS + 1)
    left = np.concatenate([order[:-step] for step in steps])
    right = np.concatenate([order[step:] for step in steps])
    # Where both are turned, both turned back are a pair just as much.
    is_upright = np.minimum(left, right) < count
    left, right = left[is_upright], right[is_upright]
    one, (turn, other) = np.minimum(left, right), np.divmod(np.maximum(left, right), count)
    is_pair = one != other
    return one[is_pair], other[is_pair], turn[is_pair]


def _correlation(
    tables: NDArray[np.float16], one: NDArray[np.intp], other: NDArray[np.intp], turn: NDArray[np.intp]
) -> NDArray[np.float32]:
    result = np.empty(len(one), np.float32)
    for way in range(8):
        chosen = np.flatnonzero(turn == way)
        for start in range(0, len(chosen), CHUNK):
            part = chosen[start : start + CHUNK]
            a, b = (tables[images[part]].astype(np.float32) for images in (one, other))
            result[part] = np.einsum("nij,nij->n", a, _turned(b, way))
    return result


def same(keys: Sequence[str | None]) -> list[tuple[int, int]]:
    """Pairs that connect all images of equal key (a checksum, a group), each with the one before; None ties nobody."""
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
    # A union-find of our own: importing the one of scipy takes longer than all of this does for 1,000 images.
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for one, other in pairs:
        parent[root(other)] = root(one)
    return [root(index) for index in range(count)]

"""Near-duplicates: planted copies are found, merely similar images are not."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import ROOT
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.extras.sample import dataset as sample
from pipeline.image_files import duplicates
from pipeline.image_files.duplicates import clusters, fingerprint, near_duplicates, same

GreyImage = NDArray[np.uint8]
Change = Callable[[GreyImage], GreyImage]
RAW = ROOT / "data" / "raw"

# Pairs present in the two sets, each checked by eye: the same photograph whole, slightly cropped or with a
# watermark, or the same view an instant later; one smear field, refocused.
SAME_PICTURE = {
    "bccd": {("BloodImage_00037", "BloodImage_00038")},
    "facemask": {
        (f"maksssksksss{a}", f"maksssksksss{b}")
        for a, b in [
            ("156", "545"), ("514", "680"), ("451", "61"), ("662", "839"), ("665", "704"), ("435", "554"),
            ("354", "74"), ("287", "478"), ("369", "491"), ("327", "699"), ("468", "608"),
        ]
    },
}  # fmt: skip


def scaled(factor: float) -> Change:
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return lambda image: cv2.resize(image, None, fx=factor, fy=factor, interpolation=how).astype(np.uint8)


def stretched(width: int, height: int) -> Change:
    return lambda image: cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)


def jpeg(quality: int) -> Change:
    def change(image: GreyImage) -> GreyImage:
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE).astype(np.uint8)

    return change


def levels(contrast: float, brightness: float) -> Change:
    """Change levels around mid-grey, clipped at black and white as cameras and editors do."""
    return lambda image: np.clip((image - 128.0) * contrast + 128 + brightness, 0, 255).astype(np.uint8)


def turned(quarters: int, mirror: bool) -> Change:
    return lambda image: np.ascontiguousarray(np.rot90(image[:, ::-1] if mirror else image, quarters))


def chain(*changes: Change) -> Change:
    def change(image: GreyImage) -> GreyImage:
        for each in changes:
            image = each(image)
        return image

    return change


CHANGES: dict[str, Change] = {
    "a quarter the size": scaled(0.25),
    "half the size": scaled(0.5),
    "twice the size": scaled(2),
    "four times the size": scaled(4),
    "square": stretched(416, 416),
    "JPEG quality 30": jpeg(30),
    "mirrored": turned(0, True),
    "upside down": turned(2, True),
    "rotated left": turned(1, False),
    "rotated by 180 degrees": turned(2, False),
    "rotated right": turned(3, False),
    "transposed": turned(1, True),
    "transposed the other way": turned(3, True),
    "brighter": levels(1, 30),
    "darker": levels(1, -30),
    "more contrast": levels(1.3, 0),
    "less contrast": levels(0.7, 0),
    "small and compressed": chain(scaled(0.25), jpeg(30)),
    "small, rotated, mirrored, brighter, compressed": chain(scaled(0.25), turned(1, True), levels(1.15, 20), jpeg(30)),
    "half, rotated, darker, compressed": chain(scaled(0.5), turned(3, False), levels(0.8, -20), jpeg(30)),
}


@cache
def grey_images(name: str) -> dict[str, GreyImage]:
    """A set's grey images by name; tiles are drawn, the real sets may be absent."""
    if name == "tiles":
        drawn = [sample.draw_tile(np.random.default_rng([5, index]))[0] for index in range(40)]
        return {f"{index}": cv2.cvtColor(tile, cv2.COLOR_BGR2GRAY).astype(np.uint8) for index, tile in enumerate(drawn)}
    folder = {"bccd": RAW / "bccd" / "JPEGImages", "facemask": RAW / "facemask"}[name]
    paths = sorted(folder.glob("**/*.jpg"))
    if not paths:
        pytest.skip(f"{folder}: does not exist; data/README.md says where it comes from")
    return {path.stem.split("_png")[0]: np.asarray(Image.open(path).convert("L")) for path in paths}


@cache
def fingerprints(name: str) -> list[bytes]:
    return [fingerprint(image) for image in grey_images(name).values()]


def all_pairs(prints: list[bytes]) -> set[tuple[int, int]]:
    return set(near_duplicates(prints))


# --- Found ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["tiles", "bccd", "facemask"])
def test_changed_copies_are_found(name: str, change: str) -> None:
    originals, prints = list(grey_images(name).values()), fingerprints(name)
    chosen = range(0, len(originals), 1 if name == "tiles" else 9)  # enough of the large sets
    pairs = all_pairs(prints + [fingerprint(CHANGES[change](originals[index])) for index in chosen])
    missed = [index for place, index in enumerate(chosen) if (index, len(originals) + place) not in pairs]
    assert missed == []


@pytest.mark.parametrize("name", ["tiles", "bccd", "facemask"])
def test_decoding_at_reduced_scale_gives_the_same_pairs(name: str, tmp_path: Path) -> None:
    whole = fingerprints(name)[:40]
    reduced = []
    for array in list(grey_images(name).values())[:40]:
        path = tmp_path / "picture.jpg"
        Image.fromarray(array).save(path, quality=95)
        with Image.open(path) as image:
            image.draft("L", (64, 64))
            assert image.size < array.shape[::-1] and min(image.size) >= 64
            reduced.append(fingerprint(np.asarray(image)))
    assert {(index, 40 + index) for index in range(40)} <= all_pairs(whole + reduced)


def test_copies_are_found_among_many_images() -> None:
    """8,000 pieces of drawn tiles, 40 tiles, and the hardest copy of each."""
    tiles, random = list(grey_images("tiles").values()), np.random.default_rng(0)
    pieces = []
    for _ in range(8_000):
        side = int(random.integers(100, 220))
        y, x = random.integers(0, 320 - side, 2)
        pieces.append(fingerprint(tiles[int(random.integers(40))][y : y + side, x : x + side]))
    hardest = CHANGES["small, rotated, mirrored, brighter, compressed"]
    prints = [*fingerprints("tiles"), *(fingerprint(hardest(tile)) for tile in tiles), *pieces]
    missed = {(index, 40 + index) for index in range(40)} - all_pairs(prints)
    assert not missed


# --- Not found --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bccd", "facemask"])
def test_merely_similar_images_are_not_pairs(name: str) -> None:
    """Blood smears on one background and selfies of a few people: no pair that is not the same image."""
    names = list(grey_images(name))
    found = {tuple(sorted((names[i], names[j]))) for i, j in near_duplicates(fingerprints(name))}
    assert found == SAME_PICTURE[name]


def test_tiles_of_one_design_are_not_pairs() -> None:
    assert near_duplicates(fingerprints("tiles")) == []


def blank_sheets() -> dict[str, GreyImage]:
    y, x = np.mgrid[:480, :640].astype(np.float32)
    random = np.random.default_rng(0)
    shading = 200 / (1 + ((x - 320) ** 2 + (y - 240) ** 2) / 400**2) ** 2  # a lens's cos^4 falloff
    aside = 200 / (1 + ((x - 250) ** 2 + (y - 300) ** 2) / 400**2) ** 2
    sheets = {
        "black": np.zeros_like(x),
        "white": np.full_like(x, 255),
        "grey and noise": 128 + random.normal(0, 10, x.shape),
        "shaded": shading,
        "shaded and noise": shading + random.normal(0, 5, x.shape),
        "shaded from a side": aside,
        "gradient": x / 4,
        "gradient aslant": (x + y) / 5,
    }
    return {name: np.clip(sheet, 0, 255).astype(np.uint8) for name, sheet in sheets.items()}


def test_blank_sheets_are_never_pairs() -> None:
    sheets = blank_sheets()
    twice = [fingerprint(change(sheet)) for sheet in sheets.values() for change in (jpeg(95), jpeg(30))]
    assert near_duplicates(twice) == []
    # They do not hide the other images, whose indices stay right.
    tile = fingerprints("tiles")[0]
    assert near_duplicates([*twice, tile, *twice, tile]) == [(len(twice), 2 * len(twice) + 1)]


def test_sheets_with_a_mark_in_the_same_place_are_a_pair() -> None:
    sheet = blank_sheets()["shaded"]
    prints = []
    for corner in ((100, 100), (300, 250), (300, 250)):
        image = sheet.copy()
        cv2.rectangle(image, corner, (corner[0] + 60, corner[1] + 40), 20, -1)
        prints.append(fingerprint(image))
    assert near_duplicates(prints) == [(1, 2)]


# --- A fingerprint ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (7, 3), (31, 33), (480, 640), (2000, 64)])
def test_every_image_has_a_512_byte_fingerprint(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    print_ = fingerprint(image)
    assert isinstance(print_, bytes) and len(print_) == 512
    assert pickle.loads(pickle.dumps(print_)) == print_ == fingerprint(np.asfortranarray(image))


def test_two_equal_images_are_a_pair_and_fewer_are_none() -> None:
    tile = fingerprints("tiles")[0]
    assert near_duplicates([]) == near_duplicates([tile]) == near_duplicates([bytes(512)] * 3) == []
    assert near_duplicates([tile, tile]) == [(0, 1)]


def test_a_symmetric_image_is_not_paired_with_itself() -> None:
    tile = next(iter(grey_images("tiles").values()))
    symmetric = np.hstack([tile, tile[:, ::-1]])
    assert near_duplicates([fingerprint(symmetric), fingerprint(tile)]) == []
    assert near_duplicates([fingerprint(symmetric), fingerprint(tile), fingerprint(symmetric[::-1])]) == [(0, 2)]


def test_the_search_among_few_images_misses_nothing() -> None:
    """The oracle compares every pair, rotating pixels. The tolerance of 0.001 covers float16 and summation order."""
    originals = [*list(grey_images("tiles").values())[:20]]
    random = np.random.default_rng(0)
    for index in range(40):  # copies near the limit, on both sides of it
        noise = cv2.resize(random.normal(0, 1, (20, 20)), (320, 320)) * (3 + index / 2)
        originals.append(
            turned(index % 4, index % 3 == 0)(np.clip(originals[index % 20] + noise, 0, 255).astype(np.uint8))
        )

    def vector(image: GreyImage) -> NDArray[Any]:
        return np.frombuffer(fingerprint(image), np.float16).astype(float)

    plain = np.stack([vector(image) for image in originals])
    best = np.max(
        [
            plain @ np.stack([vector(turned(quarters, mirror)(image)) for image in originals]).T
            for quarters in range(4)
            for mirror in (False, True)
        ],
        axis=0,
    )
    found = all_pairs([fingerprint(image) for image in originals])
    expected = {
        (i, j) for i in range(len(plain)) for j in range(i + 1, len(plain)) if best[i, j] > duplicates.SAME + 0.001
    }
    allowed = {
        (i, j) for i in range(len(plain)) for j in range(i + 1, len(plain)) if best[i, j] > duplicates.SAME - 0.001
    }
    assert 20 < len(expected) < 500
    assert expected <= found <= allowed


# --- Many images ------------------------------------------------------------------------------------


def crowd(kind: str, count: int) -> list[bytes]:
    """Fingerprints typical of one kind of set, without drawing its images."""
    random = np.random.default_rng(0)
    own = random.normal(size=(count, 16, 16))
    shared = random.normal(size=(16, 16))
    share = {"all different": 0, "alike": 2, "frames of one scene": 5}[kind]  # correlations 0, 0.8, 0.96
    tables = share * shared + own
    tables[:, 0, 0] = 0
    tables /= np.linalg.norm(tables, axis=(1, 2), keepdims=True)
    return [table.astype(np.float16).tobytes() for table in tables]


@pytest.mark.parametrize("kind", ["all different", "alike", "frames of one scene"])
def test_the_work_grows_with_images_not_with_pairs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    neighbours = duplicates._neighbours
    candidates = 0

    def counted(*arguments: Any) -> Any:
        nonlocal candidates
        found = neighbours(*arguments)
        candidates += len(found[0])
        return found

    monkeypatch.setattr(duplicates, "_neighbours", counted)
    for count in (1000, 4000):
        candidates = 0
        pairs = near_duplicates(crowd(kind, count))
        assert len(set(clusters(count, pairs))) == (1 if kind == "frames of one scene" else count)
        # In each list an image meets 8 on either side, however many there are. All pairs would be 500 and 2,000 per image.
        assert 0 < candidates <= 2 * duplicates.NEIGHBOURS * duplicates.ORDERS * count
        # Members of larger clusters are already connected well enough.
        assert len(pairs) <= 2 * duplicates.NEIGHBOURS * count


def test_frames_of_a_camera_turned_over_and_back_are_one_cluster() -> None:
    """Frames of one scene that drifts until first and last differ, each rotated or mirrored differently."""
    random = np.random.default_rng(0)
    first, last = (cv2.resize(random.normal(size=(12, 12)), (96, 96), interpolation=cv2.INTER_CUBIC) for _ in range(2))
    frames = []
    for index in range(1500):
        angle = np.pi / 2 * index / 1500
        scene = 128 + 40 * (np.cos(angle) * first + np.sin(angle) * last) + random.normal(0, 3, (96, 96))
        frames.append(
            turned(int(random.integers(4)), bool(random.integers(2)))(np.clip(scene, 0, 255).astype(np.uint8))
        )
    prints = [fingerprint(frame) for frame in frames]
    assert near_duplicates([prints[0], prints[-1]]) == []
    assert len(set(clusters(1500, near_duplicates(prints)))) == 1


# --- Clusters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_connected_components(seed: int) -> None:
    random = np.random.default_rng(seed)
    pairs = random.integers(0, 300, (int(random.integers(0, 400)), 2))
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(300, 300))
    theirs = connected_components(graph, directed=False)[1]
    ours = clusters(300, [(int(i), int(j)) for i, j in pairs])
    assert len(set(zip(ours, theirs, strict=True))) == len(set(ours)) == len(set(theirs))


def test_a_long_chain_is_one_cluster() -> None:
    assert len(set(clusters(50_000, [(index + 1, index) for index in range(49_999)]))) == 1


def test_equal_keys_connect_and_none_connects_nothing() -> None:
    keys = ["a", None, "b", "a", None, "b", "a", "c"]
    labels = clusters(len(keys), same(keys))
    assert len(set(labels)) == 5
    assert labels[0] == labels[3] == labels[6] and labels[2] == labels[5]

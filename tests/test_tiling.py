"""Tiles for training: no object is lost, no label is a partial object, and the accounting adds up."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import yaml
from conftest import IMGSZ, checkout, make_environment, settings
from PIL import Image

from pipeline import augment, files, pixels
from pipeline.boxes import Box, YoloDataset, read_labels, write_data_yaml, write_labels
from pipeline.config.data import Augment
from pipeline.config.loading import load
from pipeline.config.tiles import Tiles
from pipeline.errors import ConfigError, DataError
from pipeline.records import base, tile_account, tiles
from pipeline.run import Run
from pipeline.tiling import choice, grid, windows
from pipeline.tiling.cutting import GREY, hide

LAYOUTS = 2_000
NAMES = ["dot", "dash"]
Corners = tuple[float, float, float, float]


def random_boxes(rng: np.random.Generator, width: int, height: int, number: int) -> list[Corners]:
    """Boxes of any size up to the image's, some at its edges, with whole and fractional corners."""
    found = []
    for _ in range(number):
        w, h = (min(float(side), math.exp(rng.uniform(0, math.log(side + 1)))) for side in (width, height))
        x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
        if rng.random() < 0.2:
            x, y = rng.choice([0, width - w]), rng.choice([0, height - h])
        corners = [x, y, x + w, y + h]
        if rng.random() < 0.5:
            corners = [math.floor(corners[0]), math.floor(corners[1]), math.ceil(corners[2]), math.ceil(corners[3])]
        found.append((corners[0], corners[1], min(corners[2], width), min(corners[3], height)))
    return found


def side(rng: np.random.Generator, most: float = 1500) -> int:
    return int(math.exp(rng.uniform(0, math.log(most))))


@pytest.mark.parametrize("part", range(4))
def test_random_layouts_match_brute_force(part: int) -> None:
    """Against independent loops over boxes and tiles."""
    for layout in range(part, LAYOUTS, 4):
        rng = np.random.default_rng([1, layout])
        width, height = side(rng, 700), side(rng, 700)
        size = max(32, max(width, height) // 8, side(rng))
        overlap = float(rng.choice([0, 0.1, 0.2, 0.5, rng.random() * 0.7]))
        boxes = random_boxes(rng, width, height, int(rng.integers(0, 12)))
        placed = grid.place((width, height), np.array(boxes, float).reshape(-1, 4), size, overlap, layout)
        wide, high = min(size, width), min(size, height)
        for tile in placed:
            x, y = tile.x, tile.y
            assert (tile.width, tile.height) == (wide, high)
            assert 0 <= x <= width - wide and 0 <= y <= height - high
            inside = [b for b in range(len(boxes)) if x <= boxes[b][0] and boxes[b][2] <= x + wide]
            inside = [b for b in inside if y <= boxes[b][1] and boxes[b][3] <= y + high]
            touched = [b for b in range(len(boxes)) if boxes[b][0] < x + wide and boxes[b][2] > x]
            touched = [b for b in touched if boxes[b][1] < y + high and boxes[b][3] > y]
            assert list(tile.whole) == inside
            assert list(tile.cut) == [b for b in touched if b not in inside]
        seen = np.zeros((height, width), bool)
        for tile in placed:
            seen[tile.y : tile.y + high, tile.x : tile.x + wide] = True
        assert seen.all()
        shown = {b for tile in placed for b in tile.whole}
        for b, (left, top, right, bottom) in enumerate(boxes):
            fits = math.ceil(right) - math.floor(left) <= wide and math.ceil(bottom) - math.floor(top) <= high
            assert (b in shown) == fits


@pytest.mark.parametrize("part", range(4))
def test_objects_up_to_the_overlap_are_whole_in_some_tile(part: int) -> None:
    for layout in range(part, LAYOUTS, 4):
        rng = np.random.default_rng([2, layout])
        length, size = side(rng, 5000), max(32, side(rng, 900))
        overlap = float(rng.choice([0.01, 0.1, 0.2, 0.5, rng.random() * 0.99]))
        begins = grid.starts(length, size, overlap, int(rng.integers(0, size)))
        begins_of_device = grid.starts(length, size, overlap)
        longest = min(round(size * overlap), length)
        for low in rng.uniform(0, length - longest, 20):
            for each in (begins, begins_of_device):
                assert any(begin <= low and low + longest <= begin + size for begin in each)


def test_the_grid_shifts_to_where_it_cuts_least() -> None:
    """Rows of objects that lie across the seams of a plain grid, and between those of a shifted one."""
    boxes = np.array([(x, y, x + 40, y + 40) for x in range(80, 900, 80) for y in range(80, 900, 80)], float)
    plain = [(x, y) for x in grid.starts(1000, 100, 0.2) for y in grid.starts(1000, 100, 0.2)]
    cut_by_plain = sum(
        bool(b[0] < x + 100 and b[2] > x and b[1] < y + 100 and b[3] > y)
        and not (b[0] >= x and b[2] <= x + 100 and b[1] >= y and b[3] <= y + 100)
        for x, y in plain
        for b in boxes
    )
    placed = grid.place((1000, 1000), boxes, 100, 0.2, seed=0)
    assert sum(len(tile.cut) for tile in placed) < 0.8 * cut_by_plain


@pytest.mark.parametrize("part", range(4))
def test_random_images_hide_only_cut_objects(part: int) -> None:
    """Hidden areas are grey; whole boxes and everything outside cut boxes are unchanged."""
    for number in range(part, LAYOUTS, 4):
        rng = np.random.default_rng([3, number])
        width, height, size = max(2, side(rng, 120)), max(2, side(rng, 120)), int(rng.integers(32, 64))
        image = rng.integers(0, 100, (height, width, 3), dtype=np.uint8)  # no pixel is GREY
        boxes = random_boxes(rng, width, height, int(rng.integers(0, 9)))
        for tile in grid.place((width, height), np.array(boxes, float).reshape(-1, 4), size, 0.2, number):
            here = (slice(tile.y, tile.y + tile.height), slice(tile.x, tile.x + tile.width))
            cut, whole = np.zeros((2, height, width), bool)
            for mask, indices in ((cut, tile.cut), (whole, tile.whole)):
                for b in indices:
                    left, top, right, bottom = boxes[b]
                    mask[math.floor(top) : math.ceil(bottom), math.floor(left) : math.ceil(right)] = True
            moved = [
                Box("dot", left - tile.x, top - tile.y, right - tile.x, bottom - tile.y)
                for left, top, right, bottom in boxes
            ]
            seen = image[here].copy()
            hide(seen, [moved[b] for b in tile.cut], [moved[b] for b in tile.whole])
            grey = (cut & ~whole)[here]
            assert (seen[grey] == GREY).all()
            assert (seen[~grey] == image[here][~grey]).all()


# --- On disk --------------------------------------------------------------------------------------


def written(run: Run, rng: np.random.Generator, sizes: list[tuple[int, int]], suffix: str = ".png") -> None:
    """A dataset as convert writes it, of noise with random boxes."""
    for split in ("train", "val", "test"):
        for kind in ("images", "labels"):
            (run.dataset / kind / split).mkdir(parents=True)
        for index, (width, height) in enumerate(sizes):
            image = rng.integers(0, 100, (height, width, 3), dtype=np.uint8)
            boxes = [
                Box(NAMES[int(rng.integers(2))], *corners)
                for corners in random_boxes(rng, width, height, 0 if index == 1 else int(rng.integers(1, 30)))
            ]
            cv2.imwrite(str(run.dataset / "images" / split / f"i{index}{suffix}"), image)
            write_labels(run.dataset / "labels" / split / f"i{index}.txt", boxes, NAMES, (width, height))
    write_data_yaml(run.dataset / "data.yaml", {split: f"images/{split}" for split in ("train", "val", "test")}, NAMES)


SIZES = [(500, 400), (300, 300), (90, 700), (60, 50), (128, 128), (1000, 12), (129, 128)]


def check_split(run: Run, split: str, config: Tiles, imgsz: int) -> None:
    """Check that a split's files agree with its account, and both with the whole images."""
    whole = YoloDataset.read(run.dataset / "data.yaml")
    tiled = YoloDataset.read(run.augmented / "data.yaml")
    account = base.read_record(run.augmented / "tile_account.json", tile_account.TileAccount, "")["splits"][split]
    tiling = tiles.read(run)
    assert tiling is not None
    named: set[str] = set()
    labels = 0
    for image, path in zip(account["images"], whole.files(split), strict=True):
        assert image["file"] == path.name
        original = pixels.read(path)
        height, width = original.shape[:2]
        boxes = read_labels(whole.label_file(path), NAMES, width, height)
        assert image["boxes"] == len(boxes)
        shown: set[int] = set()
        for tile in image["tiles"]:
            x, y, w, h = tile["window"]
            seen = pixels.read(tiled.images[split] / tile["file"])
            assert seen.shape == (h, w, 3)
            got = read_labels(tiled.label_file(tiled.images[split] / tile["file"]), NAMES, w, h)
            wanted = [boxes[line - 1] for line in tile["boxes"]]
            # Six decimals of the side each way: a thousandth of a pixel at this image size.
            assert np.allclose(
                [(b.xmin, b.ymin, b.xmax, b.ymax) for b in got],
                [(b.xmin - x, b.ymin - y, b.xmax - x, b.ymax - y) for b in wanted],
                atol=2e-3,
            )
            assert [b.label for b in got] == [b.label for b in wanted]
            changed = (seen != original[y : y + h, x : x + w]).any(axis=2)
            assert (seen[changed] == GREY).all()
            assert changed.any() <= bool(tile["hidden"])
            shown |= set(tile["boxes"])
            labels += len(got)
            named.add(tile["file"])
        if image["whole"]:
            seen = pixels.read(tiled.images[split] / image["whole"])
            assert max(seen.shape[:2]) == imgsz or min(seen.shape[:2]) == 10
            assert abs(seen.shape[1] / seen.shape[0] / (width / height) - 1) < 0.06  # sides are rounded to whole pixels
            got = read_labels(tiled.label_file(tiled.images[split] / image["whole"]), NAMES, width, height)
            assert got == boxes
            labels += len(got)
            named.add(image["whole"])
        assert {*shown, *image["only_whole"], *image["lost"]} == set(range(1, len(boxes) + 1))
        assert len(shown) + len(image["only_whole"]) + len(image["lost"]) == len(boxes)
        for line in (*image["only_whole"], *image["lost"]):
            box = boxes[line - 1]
            assert (
                max(math.ceil(box.xmax) - math.floor(box.xmin), math.ceil(box.ymax) - math.floor(box.ymin))
                > tiling["size"]
            )
        assert not image["lost"] or not config.whole
    assert named == {path.name for path in tiled.files(split)}
    counts, found = account["boxes"], account["tiles"]
    assert counts["read"] == counts["in_tiles"] + counts["only_whole"] + counts["lost"]
    assert counts["labels"] == labels
    kept = found["with_objects"] + found["empty_kept"]
    assert found["placed"] == kept + found["empty_left_out"] + found["parts_left_out"]
    assert kept + found["whole_images"] == len(named)


@pytest.mark.parametrize("seed", range(12))
def test_every_box_is_accounted_for_on_disk(run: Run, seed: int) -> None:
    rng = np.random.default_rng([4, seed])
    written(run, rng, SIZES)
    config = Tiles(
        size=int(rng.choice([96, 128, 200])),
        overlap=float(rng.choice([0.01, 0.2, 0.5])),
        whole=bool(seed % 3),
        empty=float(rng.choice([0, 0.1, 0.5, 1])),
    )
    augment.main(Augment(), run, seed, 0, config, 64)
    for split in ("train", "val"):
        check_split(run, split, config, 64)
    # Test images are only used whole.
    data = yaml.safe_load((run.augmented / "data.yaml").read_text())
    assert (data["train"], data["val"], data["test"]) == ("images/train", "images/val", "../dataset/images/test")


def test_tiles_depend_on_the_seed_and_not_on_the_number_of_workers(tmp_path: Path) -> None:
    digests = []
    for number, (seed, workers) in enumerate(((0, 0), (0, 2), (7, 0))):
        run = Run(tmp_path / f"{number}" / "runs" / "tiny")
        written(run, np.random.default_rng(5), SIZES * 2)
        augment.main(Augment(), run, seed, workers, Tiles(size=96, empty=0.5), 64)
        found = sorted(path for kind in ("images", "labels") for path in (run.augmented / kind).rglob("*.*"))
        digests.append([(path.name, files.sha256(path)) for path in found])
    assert digests[0] == digests[1] != digests[2]


def test_augmentation_copies_tiles(run: Run) -> None:
    written(run, np.random.default_rng(6), [(300, 200)])
    config = Augment(copies=1, transforms=({"HorizontalFlip": {"p": 1.0}},))
    said = augment.main(config, run, 0, 0, Tiles(size=128), 64)
    record = files.read_json(run.augmented / "augment.json")
    originals = (
        len(
            base.read_record(run.augmented / "tile_account.json", tile_account.TileAccount, "")["splits"]["train"][
                "images"
            ][0]["tiles"]
        )
        + 1
    )
    assert record["originals"] == record["copies"] == originals > 2
    assert len(YoloDataset.read(run.augmented / "data.yaml").files("train")) == 2 * originals
    assert f"{originals} training images + {originals} copies" in said
    assert (run.augmented / "preview.jpg").is_file()


def test_without_the_section_nothing_is_cut(run: Run) -> None:
    written(run, np.random.default_rng(6), [(300, 200)])
    augment.main(Augment(), run, 0, 0, Tiles(size=128), 64)
    augment.main(Augment(), run, 0, 0)
    assert tiles.read(run) is None
    assert [path.name for path in (run.augmented / "images").iterdir()] == ["train"]
    assert len(YoloDataset.read(run.augmented / "data.yaml").files("train")) == 1


def test_a_share_of_the_empty_tiles_is_kept(run: Run) -> None:
    written(run, np.random.default_rng(7), [(400, 400), (3000, 3000)])  # the second has no box
    kept = {}
    for share in (0.0, 0.1, 1.0):
        augment.main(Augment(), run, 0, 0, Tiles(size=100, overlap=0.01, empty=share, whole=False), 64)
        account = base.read_record(run.augmented / "tile_account.json", tile_account.TileAccount, "")
        counts = account["splits"]["train"]["tiles"]
        empty = counts["empty_kept"] + counts["empty_left_out"]
        assert empty >= 900
        assert counts["empty_kept"] == round(share * empty)
        kept[share] = {tile["file"] for tile in account["splits"]["train"]["images"][1]["tiles"]}
    assert kept[0.0] == set() < kept[0.1] < kept[1.0]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp"])
def test_images_of_every_format_are_tiled(run: Run, suffix: str) -> None:
    written(run, np.random.default_rng(8), [(300, 200)], suffix)
    augment.main(Augment(), run, 0, 0, Tiles(size=128), 64)
    found = YoloDataset.read(run.augmented / "data.yaml").files("train")
    assert {path.suffix for path in found} == {".jpg" if suffix in (".jpg", ".webp") else ".png"}
    source = pixels.read(run.dataset / "images" / "train" / f"i0{suffix}")
    account = base.read_record(run.augmented / "tile_account.json", tile_account.TileAccount, "")
    for tile in account["splits"]["train"]["images"][0]["tiles"]:
        x, y, w, h = tile["window"]
        seen = pixels.read(found[0].parent / tile["file"]).astype(int)
        difference = np.abs(seen - source[y : y + h, x : x + w])[(seen != GREY).any(axis=2)]
        if difference.size and suffix not in (".jpg", ".webp"):
            assert difference.max() == 0


# --- Large TIFFs ----------------------------------------------------------------------------------

TIFFS: dict[str, dict[str, Any]] = {
    "plain": {},
    "strips": {"rowsperstrip": 16},
    "tiles": {"tile": (128, 64)},
    "deflate": {"compression": "zlib", "rowsperstrip": 7},
    "deflate and predictor": {"compression": "zlib", "tile": (64, 64), "predictor": True},
    "big endian": {"byteorder": ">", "rowsperstrip": 5},
    "BigTIFF": {"bigtiff": True, "tile": (32, 32)},
}


@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
@pytest.mark.parametrize("kind", TIFFS)
def test_windows_of_a_tiff_equal_what_opencv_reads(tmp_path: Path, kind: str, grey: bool) -> None:
    rng = np.random.default_rng(9)
    array = cv2.resize(rng.integers(0, 255, (50, 60, 3), dtype=np.uint8), (1003, 777), interpolation=cv2.INTER_CUBIC)
    path = tmp_path / "a.tif"
    colours = "minisblack" if grey else "rgb"
    tifffile.imwrite(path, array[..., 0] if grey else array, photometric=colours, **TIFFS[kind])
    wanted = pixels.read(path)
    with windows.open_image(path) as image:
        assert isinstance(image, windows.TiffWindows)
        assert (image.width, image.height) == (1003, 777)
        for _ in range(20):
            x, y = int(rng.integers(0, 1000)), int(rng.integers(0, 770))
            w, h = int(rng.integers(1, 1003 - x + 1)), int(rng.integers(1, 777 - y + 1))
            seen = image.read(x, y, w, h)
            assert (seen == wanted[y : y + h, x : x + w]).all()
            seen[:] = GREY  # it is a copy
            assert (image.read(x, y, w, h) == wanted[y : y + h, x : x + w]).all()
        # OpenCV blends in steps of 1/2048, we in single precision: at most one of 255 apart.
        fitted = cv2.resize(wanted, (320, 248), interpolation=cv2.INTER_LINEAR)
        assert np.abs(image.fitted((320, 248)).astype(int) - fitted).max() <= 1


def test_a_part_that_was_never_written_is_black(tmp_path: Path) -> None:
    wanted = np.full((128, 128, 3), 200, np.uint8)
    wanted[:64, 64:] = 0
    parts = [None if number == 1 else wanted[64:, :64] for number in range(4)]
    options: Any = {"shape": wanted.shape, "dtype": np.uint8, "photometric": "rgb", "compression": "zlib"}
    tifffile.imwrite(tmp_path / "a.tif", iter(parts), tile=(64, 64), **options)
    with windows.open_image(tmp_path / "a.tif") as image:
        assert isinstance(image, windows.TiffWindows) and (image.read(0, 0, 128, 128) == wanted).all()


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "packbits"])
def test_other_tiffs_are_decoded_whole(tmp_path: Path, compression: str) -> None:
    noise = np.random.default_rng(9).integers(0, 255, (60, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.tif", compression=compression)
    with windows.open_image(tmp_path / "a.tif") as image:
        assert not isinstance(image, windows.TiffWindows)
        assert (image.read(3, 4, 20, 30) == pixels.read(tmp_path / "a.tif")[4:34, 3:23]).all()


def test_a_damaged_tiff_is_reported_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    noise = np.random.default_rng(9).integers(0, 255, (600, 500, 3), dtype=np.uint8)
    tifffile.imwrite(path, noise, photometric="rgb", compression="zlib", rowsperstrip=16)
    whole = path.read_bytes()
    path.write_bytes(whole[:4000] + bytes(2000) + whole[6000:])
    with windows.open_image(path) as image, pytest.raises(DataError, match=r"a.tif: damaged \(.*\); replace it"):
        image.read(0, 0, 500, 600)
    path.write_bytes(b"II*\0" + bytes(300))  # neither tifffile nor OpenCV can read it
    unread = pytest.raises(DataError, match="OpenCV cannot decode it")
    with pytest.warns(match="read as a whole"), unread, windows.open_image(path):
        pass


# --- Choices and invalid input --------------------------------------------------------------------


def test_auto_enlarges_small_objects() -> None:
    sides = [(20.0, 20.0)] * 80 + [(60.0, 30.0)] * 20
    decided = choice.decide(Tiles(size="auto", overlap="auto"), 320, sides, longest=4000)
    assert decided["size"] == 384  # 20 px become 16.7 of 320 there, and 15.4 in the next size of 416
    assert decided["overlap"] == 0.2  # 60 / 384 is 0.156
    assert decided["reason"] == (
        "size: one object in ten is under 20 px, which imgsz 320 shows as 17 px in a tile, and as 2 px in an image of "
        "4000; overlap: nine objects in ten are no longer than 60 px"
    )


@pytest.mark.parametrize(
    ("object_side", "size", "overlap"),
    [(3.0, 320, 0.1), (16.0, 640, 0.1), (64.0, 2560, 0.1), (400.0, 16000, 0.1)],
)
def test_auto_limits_the_enlargement_and_overlaps_at_most_half(object_side: float, size: int, overlap: float) -> None:
    decided = choice.decide(Tiles(overlap="auto"), 640, [(object_side, object_side)], longest=5000)
    assert (decided["size"], decided["overlap"]) == (size, overlap)
    assert ("no image needs more than one tile" in decided["reason"]) == (size >= 5000)
    assert choice.decide(Tiles(size=32, overlap="auto"), 640, [(99, 99)], longest=5000)["overlap"] == 0.5


@pytest.mark.parametrize(
    ("tiling", "line"),
    [
        ("{size: 640, overlap: 1}", "tiles.overlap: input should be less than 1, got 1"),
        ("{size: 640, overlap: -0.1}", "tiles.overlap: input should be greater than 0, got -0.1"),
        *(
            (
                f"{{size: 64, overlap: {overlap}}}",
                f"tiles: with `overlap: {overlap}`, an object on the edge of two tiles would be found several times; "
                "write 0.1 or more",
            )
            for overlap in ("0", "0.007")
        ),
        ("{size: 16}", "tiles.size: input should be greater than or equal to 32, got 16"),
        ("{size: atuo}", "tiles.size: input should be 'auto', got 'atuo'; did you mean 'auto'?"),
        (
            "{size: 640.5}",
            "tiles.size: input should be a valid integer, got a number with a fractional part, got 640.5",
        ),
        ("{sise: 640}", "tiles.sise: unknown key; did you mean 'size'?"),
        ("{empty: 2}", "tiles.empty: input should be less than or equal to 1, got 2"),
        ("640", "tiles: write {key: value} here (keys are size, overlap, whole, ...), not 640"),
    ],
)
def test_a_config_error_is_reported_in_one_line(tmp_path: Path, tiling: str, line: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"convert: {{source: x}}\ntiles: {tiling}")
    with pytest.raises(ConfigError) as error:
        load(path)
    assert str(error.value) == f"{path}: {line}"


def test_millions_of_tiles_are_refused_before_any_is_cut(run: Run) -> None:
    written(run, np.random.default_rng(1), [(900, 900)])
    with pytest.raises(ConfigError, match=r"tiles: size 64 and overlap 0.99 make 700,569 tiles of an image of 900x900"):
        augment.main(Augment(), run, 0, 0, Tiles(size=64, overlap=0.99), 64)
    assert not run.augmented.exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_tiles_too_small_for_any_object_are_refused(run: Run, split: str) -> None:
    written(run, np.random.default_rng(1), [(300, 200)])
    write_labels(run.dataset / "labels" / split / "i0.txt", [Box("dot", 0, 0, 300, 200)], NAMES, (300, 200))
    with pytest.raises(
        DataError, match=f"no object of the {split} split fits into a tile of 64 px; take a larger size"
    ):
        augment.main(Augment(), run, 0, 0, Tiles(size=64, whole=False), 64)
    assert not run.augmented.exists()
    said = augment.main(Augment(), run, 0, 0, Tiles(size=64), 64)
    assert split == "val" or "0 of 1 boxes whole in a tile, 1 in the whole image only" in said


def test_a_box_as_large_as_a_tile_is_whole_in_one(run: Run) -> None:
    """Six decimals of a label put its corners a little beside whole pixels."""
    written(run, np.random.default_rng(1), [(701, 499)])
    for split in ("train", "val"):
        label = run.dataset / "labels" / split / "i0.txt"
        write_labels(label, [Box("dot", 123, 77, 187, 141)], NAMES, (701, 499))
    augment.main(Augment(), run, 0, 0, Tiles(size=64, whole=False), 64)
    account = base.read_record(run.augmented / "tile_account.json", tile_account.TileAccount, "")
    [image] = account["splits"]["train"]["images"]
    assert not image["lost"] and [123, 77, 64, 64] in [tile["window"] for tile in image["tiles"] if tile["boxes"]]


def test_two_images_that_would_share_a_tile_name_are_refused(run: Run) -> None:
    written(run, np.random.default_rng(1), [(300, 200), (30, 20)])
    for kind, suffix in (("images", "png"), ("labels", "txt")):
        folder = run.dataset / kind / "train"
        (folder / f"i1.{suffix}").rename(folder / f"i0-whole.{suffix}")
    with pytest.raises(DataError, match="one of its tiles would be called i0-whole, as another image is; rename one"):
        augment.main(Augment(), run, 0, 0, Tiles(size=64), 64)


def test_a_damaged_record_is_refused_with_a_fix(run: Run) -> None:
    run.tiles.parent.mkdir(parents=True)
    run.tiles.write_text('{"size": 640, "overlap": 1.5, "whole": true, "reason": ""}')
    with pytest.raises(DataError, match=r"tiles.json: damaged \(overlap: .*; delete .* and run `make augment CONFIG="):
        tiles.read(run)


# --- A training -----------------------------------------------------------------------------------


def test_make_trains_on_tiles(tiles: Path, start: Path, tmp_path: Path) -> None:  # the fixture: drawn boards
    checkout(tmp_path)
    given = settings(tiles, start, augment={"copies": 0, "transforms": []}, tiles={"size": 128, "overlap": 0.5})
    given["train"] |= {"phases": None, "recipe": "auto", "args": {"plots": False}, "cache_features": True}
    given["train"]["phases"] = [{"epochs": 2, "freeze": "backbone"}]
    (tmp_path / "configs" / "mine.yaml").write_text(yaml.safe_dump(given))
    command = ["make", "train", "CONFIG=configs/mine.yaml", f"PIPELINE={sys.executable} -m pipeline"]
    done = subprocess.run(command, cwd=tmp_path, env=make_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    run = Run(tmp_path / "runs" / "mine")
    check_split_of_jpegs = YoloDataset.read(run.augmented / "data.yaml").files("train")
    record = files.read_json(run.train_record)
    assert record["phases"][0]["features"]["train"]["cached"]
    assert re.fullmatch(
        rf"from {len(check_split_of_jpegs)} tiles with \d+ objects: 4 below .*", record["recipe"]["batch"]["reason"]
    )
    assert run.model.is_file() and record["imgsz"] == IMGSZ

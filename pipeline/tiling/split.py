"""Cut the train and val images of a dataset."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline import parallel
from pipeline.boxes import Box, YoloDataset
from pipeline.config.tiles import Tiles
from pipeline.errors import DataError
from pipeline.records.base import write_record
from pipeline.records.tile_account import TileAccount, TileCounts, TiledBoxes, TiledImage, TiledSplit
from pipeline.records.tiles import Tiling
from pipeline.tiling import choice, grid
from pipeline.tiling.cutting import Cutter, Plan, account
from pipeline.tiling.grid import Tile

SPLITS = ("train", "val")  # test images always stay whole
EACH = 16  # ordinary images that take as long as cutting a part of one
NOISE = 1e-6  # shares of the image's side, to which labels are rounded; a box as large as a tile would not fit into it


@dataclass(frozen=True, slots=True)
class Cutting:
    """The dataset of tiles, and a summary of the training images in words."""

    dataset: YoloDataset
    words: str


@dataclass(frozen=True, slots=True)
class Labelled:
    """An image of the dataset with its size and its boxes, which are clipped to it because labels are rounded."""

    path: Path
    size: tuple[int, int]
    boxes: tuple[Box, ...]

    @classmethod
    def read(cls, path: Path, dataset: YoloDataset) -> Labelled:
        size, boxes = dataset.labelled(path)
        return cls(path, size, tuple(_whole_pixels(box.clipped(*size), *size) for box in boxes))

    def place(self, tiling: Tiling, seed: int) -> list[Tile]:
        corners = np.array([(box.xmin, box.ymin, box.xmax, box.ymax) for box in self.boxes], float).reshape(-1, 4)
        return grid.place(self.size, corners, tiling["size"], tiling["overlap"], _seed(seed, self.path.stem))


def cut(config: Tiles, dataset: YoloDataset, imgsz: int, seed: int, folder: Path, workers: int | None) -> Cutting:
    """Cut train and val into `folder/images/SPLIT` and `folder/labels/SPLIT`; write tiling and account into `folder`.

    All tiles of an image stay in its split. Raises DataError for images that cannot be cut, ConfigError for impossible
    tiles.
    """
    images = {split: [Labelled.read(path, dataset) for path in dataset.files(split)] for split in SPLITS}
    images = {split: labelled for split, labelled in images.items() if labelled}
    sides = [(box.width, box.height) for image in images["train"] for box in image.boxes]
    tiling = choice.decide(config, imgsz, sides, max(max(image.size) for image in images["train"]))
    plans, accounts = {}, {}
    for split, labelled in images.items():
        plans[split], accounts[split] = _plan(labelled, tiling, config.empty, seed)
    for split_plans in plans.values():
        _refuse_twins(split_plans)
    for split, labelled in images.items():
        if not tiling["whole"] and not accounts[split]["with_objects"] and any(image.boxes for image in labelled):
            raise DataError(
                f"tiles: no object of the {split} split fits into a tile of {tiling['size']} px; "
                "take a larger size, or whole: true"
            )
    parts = {split: [part for plan in split_plans for part in plan.parts()] for split, split_plans in plans.items()}
    if sum(map(len, parts.values())) * EACH >= parallel.FEWEST_ITEMS and workers not in (0, 1):
        parallel.start(preload=["pipeline.tiling.cutting"])
    splits: dict[str, TiledSplit] = {}
    for split, split_plans in plans.items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        cutter = Cutter(dataset.names, imgsz, folder, split)
        list(parallel.ordered(cutter, parts[split], workers, f"augment: {split} tiles", each=EACH))
        records = [account(plan) for plan in split_plans]
        splits[split] = {"boxes": _boxes(records), "tiles": accounts[split], "images": records}
    write_record(folder / "tile_account.json", TileAccount, {"splits": splits})
    write_record(folder / "tiles.json", Tiling, tiling)
    tiles = YoloDataset(dataset.names, {split: folder / "images" / split for split in splits})
    return Cutting(tiles, _in_words(tiling, splits["train"]))


def _whole_pixels(box: Box, width: int, height: int) -> Box:
    """Return the box with whole pixels in place of corners that differ from them by no more than labels are rounded."""
    xmin, xmax = (round(x) if abs(x - round(x)) <= NOISE * width else x for x in (box.xmin, box.xmax))
    ymin, ymax = (round(y) if abs(y - round(y)) <= NOISE * height else y for y in (box.ymin, box.ymax))
    return box._replace(xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)


def _plan(images: Sequence[Labelled], tiling: Tiling, empty: float, seed: int) -> tuple[list[Plan], TileCounts]:
    """Place the tiles of a split and choose which to keep. An image no larger than a tile stays in any case."""
    plans = [
        Plan(image.path, image.size, image.boxes, tuple(image.place(tiling, seed)), tiling["whole"]) for image in images
    ]
    tiles = [(plan, tile) for plan in plans for tile in plan.tiles]
    empties = [(plan, tile) for plan, tile in tiles if not (tile.whole or tile.cut or plan.is_one)]
    # In a seeded order, so that a larger share keeps the tiles of a smaller one.
    empties.sort(key=lambda pair: _seed(seed, f"{pair[0].image.stem} {pair[1].x} {pair[1].y}"))
    wanted = {(plan.image, tile) for plan, tile in tiles if tile.whole or plan.is_one}
    empty_count = max(round(empty * len(empties)), 0 if wanted or tiling["whole"] else 1)  # a split needs an image
    wanted |= {(plan.image, tile) for plan, tile in empties[:empty_count]}
    counts: TileCounts = {
        "placed": len(tiles),
        "with_objects": sum(bool(tile.whole) for _, tile in tiles),
        "empty_kept": sum(not tile.whole for _, tile in wanted),
        "empty_left_out": len(empties[empty_count:]),
        "parts_left_out": sum(bool(tile.cut) and not tile.whole for _, tile in tiles),
        "whole_images": sum(plan.whole and not plan.is_one for plan in plans),
    }
    kept = [tuple(tile for tile in plan.tiles if (plan.image, tile) in wanted) for plan in plans]
    return [replace(plan, tiles=tiles) for plan, tiles in zip(plans, kept, strict=True)], counts


def _seed(seed: int, name: str) -> int:
    """Return a seed for one image or tile, which does not depend on the order or on other images."""
    return int.from_bytes(hashlib.sha256(f"{seed}/tiles/{name}".encode()).digest()[:4], "big")


def _refuse_twins(plans: Sequence[Plan]) -> None:
    names = Counter(name for plan in plans for name in plan.names())
    for plan in plans:
        if twice := [name for name in plan.names() if names[name] > 1]:
            raise DataError(
                f"{plan.image}: one of its tiles would be called {twice[0]}, as another image is; rename one"
            )


def _boxes(images: Sequence[TiledImage]) -> TiledBoxes:
    shown = [{line for tile in image["tiles"] for line in tile["boxes"]} for image in images]
    return {
        "read": sum(image["boxes"] for image in images),
        "in_tiles": sum(map(len, shown)),
        "only_whole": sum(len(image["only_whole"]) for image in images),
        "lost": sum(len(image["lost"]) for image in images),
        "labels": sum(
            sum(len(tile["boxes"]) for tile in image["tiles"]) + (image["boxes"] if image["whole"] else 0)
            for image in images
        ),
    }


def _in_words(tiling: Tiling, train: TiledSplit) -> str:
    tiles, boxes = train["tiles"], train["boxes"]
    cut = tiles["with_objects"] + tiles["empty_kept"]
    reason = "" if tiling["reason"] == choice.GIVEN else f" ({tiling['reason']})"
    line = (
        f"tiles of {tiling['size']} px that overlap by {tiling['overlap']:g}{reason}: {cut} of {tiles['placed']} kept"
    )
    line += f" and {tiles['whole_images']} whole images" if tiles["whole_images"] else ""
    line += f", {boxes['in_tiles']} of {boxes['read']} boxes whole in a tile"
    line += f", {boxes['only_whole']} in the whole image only" if boxes["only_whole"] else ""
    line += f", {boxes['lost']} in none, too large for a tile (tile_account.json lists them)" if boxes["lost"] else ""
    return f"{line}; "

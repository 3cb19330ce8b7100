"""VoTT 2 JSON: an export, which has regions under `assets`, or else the `-asset.json` files of a project.

An asset that was never opened counts as unlabelled. Source: VoTT's code, src/models/applicationState.ts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.boxes import Box
from pipeline.errors import DataError
from pipeline.formats.matching import Described, Wanted, complete
from pipeline.formats.outlines import Corners
from pipeline.formats.shapes import around_points, box_of, from_sides
from pipeline.formats.source import Source, damaged
from pipeline.formats.text import show
from pipeline.formats.tree import Tree
from pipeline.formats.values import class_name, declared_size, mapping, read_json

SIGNS = re.compile(r'"assets"\s*:\s*\{|"asset"\s*:\s*\{')
NOT_VISITED = 0  # AssetState


def recognises(tree: Tree) -> bool:
    return tree.holds_json("{", SIGNS)


def read(folder: Path) -> Source:
    tree = Tree(folder)
    exports: list[tuple[Path, Any]] = []
    single: list[tuple[Path, Any]] = []
    classes: dict[str, None] = {}
    for path in tree.files({".json"}):
        data = read_json(path)
        if not isinstance(data, dict) or not ("assets" in data or {"asset", "regions"} <= data.keys()):
            continue
        tree.taken.add(path)
        tags = data.get("tags")
        names = (
            class_name(tag.get("name")) for tag in (tags if isinstance(tags, list) else ()) if isinstance(tag, dict)
        )
        classes.update(dict.fromkeys(filter(None, names)))
        if "assets" in data:
            if not isinstance(data["assets"], dict):
                raise DataError(f"{path}: `assets` is not an object, so this is not VoTT; export it again")
            exports += [(path, asset) for asset in data["assets"].values()]
        else:
            single.append((path, data))
    described = [image for path, asset in exports or single if (image := _image(tree, path, asset))]
    used = sorted({box.label for image in described for box in image.boxes if box.label})
    return complete(tree, described, tuple(dict.fromkeys([*classes, *used])))


def _image(tree: Tree, path: Path, value: Any) -> Described | None:
    asset = value.get("asset") if isinstance(value, Mapping) else None
    name = asset.get("name") if isinstance(asset, Mapping) else None
    if not isinstance(asset, Mapping) or not isinstance(name, str) or not name:
        raise DataError(f"{path}: an asset has the name {show(name)}; give its file name")
    regions = value.get("regions")
    if not isinstance(regions, list):
        raise DataError(f"{path}: the regions of {show(name)} are not a list, so this is not VoTT; export it again")
    if not regions and asset.get("state") == NOT_VISITED:
        return None
    boxes = [
        box for number, region in enumerate(regions, start=1) for box in _boxes(region, f"{name}, region {number}")
    ]
    size = mapping(asset.get("size"))
    split = tree.split_by(path)
    declared = declared_size(size.get("width"), size.get("height"))
    return Described(Wanted(name, tree.homes(path), split, path), boxes, declared)


def _boxes(region: Any, identity: str) -> list[Box]:
    """Return a box for each tag of a region."""
    if not isinstance(region, Mapping):
        return [damaged(f"{show(region)} instead of a region; correct it", id=identity)]
    tags = region.get("tags")
    return [
        box_of(tag, partial(_corners, region), identity)
        for tag in (tags if isinstance(tags, list) and tags else [None])
    ]


def _corners(region: Mapping[str, Any]) -> Corners:
    if region.get("boundingBox") is None:
        return around_points(region.get("points"))
    return from_sides(region["boundingBox"], "left", "top", "width", "height")

"""Large images in tiles: which views there are, and how their detections are merged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import handmade
import numpy as np
import pytest

from pipeline.device.runner import Detections, Model, RunnerError, Workers, merge, read_image, views
from pipeline.device.runner import workers as workers_module
from pipeline.device.runner.base import Tiles as Plan
from pipeline.device.runner.selftest import compare
from pipeline.device.runner.tiles import View, overlap
from pipeline.export import bundle as packed
from pipeline.metrics.iou import from_corners, pairwise_iou
from pipeline.metrics.matching import greedy

Array = np.ndarray[Any, Any]


def drawn(random: np.random.Generator) -> tuple[Plan, tuple[int, int], Array, Array]:
    """A plan, an image (height, width), and objects in it, some overlapping: corners and classes."""
    size = int(random.integers(32, 200))
    plan: Plan = {"size": size, "overlap": float(random.uniform(0.1, 0.6)), "whole": bool(random.integers(2))}
    height, width = (int(side) for side in random.integers(1, 5 * size, 2))
    largest = max(height, width) if plan["whole"] else overlap(plan)
    corners, classes = np.zeros((100, 4)), random.integers(2, size=100)
    sides = np.minimum(np.exp(random.uniform(np.log(4), np.log(max(largest, 5)), (100, 2))), [width, height])
    corners[:, :2] = random.uniform(0, 1, (100, 2)) * ([width, height] - sides)
    corners[:, 2:] = corners[:, :2] + sides
    alike = (iou(corners, corners) > 0.4) & (classes[:, None] == classes)
    kept: list[int] = []
    for index in range(int(random.integers(1, 100))):  # no two that a model could not distinguish
        if not alike[index, kept].any():
            kept.append(index)
    return plan, (height, width), corners[kept], classes[kept]


def iou(a: Array, b: Array) -> Array:
    """The IoU of every pair."""
    return pairwise_iou(from_corners(a), from_corners(b))


def ideal(random: np.random.Generator, view: View, corners: Array, classes: Array, jitter: float = 0.0) -> Detections:
    """The detections of a perfect detector, with edges off by a share of the box's sides."""
    edges = np.array([*view[:2], *view[:2]]), np.array([*view[2:], *view[2:]])
    seen = np.clip(corners, *edges)
    sides = np.tile(seen[:, 2:] - seen[:, :2], 2)
    there = sides[:, 0] * sides[:, 1] >= 0.1 * np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    seen = np.clip(seen + random.normal(0, jitter, seen.shape) * sides, *edges)
    return Detections(seen[there] - edges[0], -np.sort(-random.uniform(0.3, 1, there.sum())), classes[there])


def through(plan: Plan, shape: tuple[int, int], random: np.random.Generator, *objects: Any) -> Detections:
    looked = views(shape, plan)
    return merge([ideal(random, view, *objects) for view in looked], looked, plan)


def matched_objects(found: Detections, corners: Array, classes: Array) -> Array:
    """For each detected box its object or -1, matched as COCO does, from an IoU of 0.5."""
    taken: Array = greedy(iou(found.corners, corners) * (found.classes[:, None] == classes), np.array([0.5]))[0]
    return taken


def survey(layouts: int, jitter: float) -> Counter[str]:
    """Over random layouts, count all objects, those cut by an inner edge, and those lost or found twice."""
    counts: Counter[str] = Counter()
    for seed in range(layouts):
        random = np.random.default_rng(seed)
        plan, shape, corners, classes = drawn(random)
        found = through(plan, shape, random, corners, classes, jitter)
        which = matched_objects(found, corners, classes)
        assert (np.diff(found.scores) <= 0).all()
        missed = ~np.isin(np.arange(len(corners)), which)
        inner = np.array([sum(_touches(view, corners, shape) for view in views(shape, plan))]).reshape(-1) > 0
        counts["objects"] += len(corners)
        counts["on seams"] += int(inner.sum())
        counts["lost"] += int(missed.sum())
        counts["lost on seams"] += int((missed & inner).sum())
        counts["found twice"] += int((which < 0).sum())
    return counts


@pytest.mark.parametrize("jitter", [0.0, 0.03])
def test_every_object_is_found_once(jitter: float) -> None:
    counts = survey(60, jitter)
    assert counts["objects"] > 1500 and 0.3 * counts["objects"] < counts["on seams"] < 0.9 * counts["objects"]
    # One in a thousand: part of one object can coincide with another object.
    assert counts["lost"] <= 0.001 * counts["objects"]
    assert counts["lost on seams"] <= 0.001 * counts["on seams"] + 1
    assert counts["found twice"] <= (0.005 if jitter else 0.001) * counts["objects"]


def _touches(view: View, corners: Array, shape: tuple[int, int]) -> Array:
    """Which objects an inner edge of a view cuts."""
    cut = np.zeros(len(corners), int)
    for axis in (0, 1):
        for edge in (view[axis], view[axis + 2]):
            if 0 < edge < shape[1 - axis]:
                cut |= (corners[:, axis] < edge) & (edge < corners[:, axis + 2])
    return cut


@pytest.mark.parametrize("seed", range(200))
def test_views_cover_the_image_and_contain_whatever_fits_the_overlap(seed: int) -> None:
    random = np.random.default_rng(seed)
    plan: Plan = {"size": int(random.integers(2, 50)), "overlap": float(random.uniform(0, 0.95)), "whole": False}
    height, width = (int(side) for side in random.integers(1, 150, 2))
    looked = np.array(views((height, width, 3), plan))
    assert (looked[:, :2] >= 0).all() and (looked[:, 2:] <= [width, height]).all()
    assert ((looked[:, 2:] - looked[:, :2]) == np.minimum(plan["size"], [width, height])).all()
    assert len({tuple(view) for view in looked.tolist()}) == len(looked)
    side = np.minimum(max(overlap(plan), 1), [width, height])
    for y in range(height - side[1] + 1):
        x = np.arange(width - side[0] + 1)[:, None]
        whole = (
            (looked[:, 0] <= x) & (x + side[0] <= looked[:, 2]) & (looked[:, 1] <= y) & (y + side[1] <= looked[:, 3])
        )
        assert whole.any(axis=1).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (64, 1), (64, 64), (20, 30)])
def test_an_image_that_fits_in_a_tile_is_one_view(shape: tuple[int, int]) -> None:
    plans: list[Plan | None] = [None, {"size": 64, "overlap": 0.2, "whole": True}]
    for plan in plans:
        assert views(shape, plan) == [(0, 0, shape[1], shape[0])]


def test_a_strip_one_pixel_high_is_covered() -> None:
    plan: Plan = {"size": 64, "overlap": 0.25, "whole": True}
    assert views((1, 200), plan) == [(x, 0, x + 64, 1) for x in (0, 48, 96, 136)] + [(0, 0, 200, 1)]


PLAN: Plan = {"size": 100, "overlap": 0.2, "whole": True}  # of 180 x 100: tiles at 0 and 80


def boxes(*rows: tuple[float, ...]) -> Detections:
    """Detections from rows of corners, score, class."""
    table = np.array(rows, float).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(int))


def merged(
    left: Detections, right: Detections, whole: Detections | None = None, plan: Plan = PLAN
) -> list[list[float]]:
    """The merged result of boxes given in image pixels."""
    looked = views((100, 180), plan)
    seen = [left, right, whole or boxes()][: len(looked)]
    moved = [
        Detections(one.corners - np.array([*view[:2], *view[:2]]), one.scores, one.classes)
        for one, view in zip(seen, looked, strict=True)
    ]
    found = merge(moved, looked, plan)
    rows: list[list[float]] = np.column_stack([found.corners, found.scores, found.classes]).tolist()
    return rows


def test_a_cut_box_gives_way_to_the_whole_one_in_the_next_tile() -> None:
    whole, part = (70, 40, 92, 60, 0.5, 0), (80, 40, 92, 60, 0.9, 0)
    assert merged(boxes(whole), boxes(part)) == [list(whole)]
    # But not if the neighbour has another class there, or almost nothing.
    assert len(merged(boxes((*whole[:5], 1)), boxes(part))) == 2
    assert merged(boxes((*whole[:4], 0.22, 0)), boxes(part)) == [list(part)]
    assert merged(boxes(), boxes(part)) == [list(part)]


@pytest.mark.parametrize("small", [(84, 45, 92, 53), (72, 45, 86, 53), (82, 30, 96, 70)])
def test_a_small_object_on_a_large_one_is_kept(small: tuple[float, ...]) -> None:
    large, part = (30, 20, 99, 80, 0.9, 0), (80, 20, 99, 80, 0.9, 0)
    seen = (max(small[0], 80), *small[1:], 0.4, 0)
    found = merged(boxes(large, (*small, 0.5, 0)), boxes(part, seen), boxes(large))
    assert found == [list(large), [*small, 0.5, 0]]
    assert merged(boxes((*small, 0.5, 0)), boxes(part, seen), boxes(large)) == [list(large), [*small, 0.5, 0]]


def test_two_boxes_in_one_view_are_two_objects() -> None:
    near, far = (86, 40, 92, 60, 0.9, 0), (88, 40, 94, 60, 0.8, 0)  # IoU 0.5
    assert merged(boxes(near, far), boxes()) == [list(near), list(far)]
    weaker = [(*box[:4], box[4] - 0.05, box[5]) for box in (near, far)]
    assert merged(boxes(near, far), boxes(*weaker)) == [list(near), list(far)]
    assert merged(boxes(near), boxes(*weaker)) == [list(near), list(weaker[1])]


def test_parts_of_two_objects_in_one_view_are_not_joined() -> None:
    """One box of the right tile matches both on the left; it is joined with the better match only."""
    upper, lower, both = (60, 20, 100, 60, 0.9, 0), (60, 44, 100, 72, 0.8, 0), (80, 24, 120, 70, 0.7, 0)
    found = merged(boxes(upper, lower), boxes(both), plan={**PLAN, "whole": False})
    assert found == [[60, 20, 120, 70, 0.9, 0], list(lower)]


def test_an_object_larger_than_a_tile_comes_from_the_whole_view() -> None:
    large = (10, 10, 170, 90, 0.6, 0)
    parts = boxes((10, 10, 100, 90, 0.9, 0)), boxes((80, 10, 170, 90, 0.8, 0))
    assert merged(*parts, boxes(large)) == [list(large)]
    # Without a whole view, the parts are joined.
    assert merged(*parts, plan={**PLAN, "whole": False}) == [[10, 10, 170, 90, 0.9, 0]]
    # What fits in the overlap is left to the tiles.
    assert merged(boxes(), boxes(), boxes((10, 10, 30, 30, 0.9, 0))) == []
    assert len(merged(boxes(), boxes(), boxes((10, 10, 31, 30, 0.9, 0)))) == 1


def test_no_detections_merge_to_none() -> None:
    assert merged(boxes(), boxes()) == []


CELLS = {(0, 0): 0, (3, 2): 1, (3, 3): 2, (3, 4): 1, (4, 3): 0, (6, 12): 2, (5, 9): 1, (0, 12): 0}  # (row, column)
TILES: Plan = {"size": 64, "overlap": 0.25, "whole": True}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade.bundled(tmp_path_factory.mktemp("handmade"), tiles=TILES)


@pytest.fixture(scope="module")
def large(bundle: Path) -> Path:
    """A 208 x 112 image with an object in each of CELLS, some on seams."""
    path = bundle.parent / "large.png"
    path.write_bytes(cv2.imencode(".png", handmade.image(208, CELLS)[:112])[1].tobytes())
    return path


def run_py(folder: Path, *arguments: str | Path) -> Any:
    command = [sys.executable, str(folder / "run.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)
    return json.loads(done.stdout)


def test_a_bundle_uses_tiles_unless_told_not_to(bundle: Path, large: Path) -> None:
    expected = {(handmade.NAMES[kind], 16.0 * column, 16.0 * row, 16.0, 16.0) for (row, column), kind in CELLS.items()}
    found = run_py(bundle, large, "--threads", "2")
    assert {(one["class"], *one["bbox"]) for one in found["objects"]} == expected
    assert len(found["objects"]) == len(CELLS) and (found["height"], found["width"]) == (112, 208)
    assert run_py(bundle, large, "--tiles", "off")["objects"] == []  # a cell is five pixels then
    assert run_py(bundle, large, "--bench", "1", "--threads", "1")["boxes"] == len(CELLS)


def test_all_threads_work_whatever_the_size_of_an_image(bundle: Path, large: Path, tmp_path: Path) -> None:
    """A small image alone gets all threads, several get one each, and the views of a large one share them."""
    spec = json.loads((bundle / "model.json").read_text())
    small = [tmp_path / f"{number}.png" for number in range(4)]
    for path in small:
        path.write_bytes(cv2.imencode(".png", read_image(large)[:64, :64])[1].tobytes())
    for sources, at_once, size in (
        ([large], {4}, 1),
        (small[:1], {4, 1}, 1),
        (small, {4}, 4),
        ([large, large], {4}, 2),
    ):
        workers = Workers(bundle, spec, [str(path) for path in sources], 4)
        assert len(list(workers.each())) == len(sources)
        assert (set(workers.models), workers.size) == (at_once, size)


@pytest.mark.parametrize(("tiled", "most"), [(True, 2), (False, 5)])
def test_few_images_are_in_memory_at_a_time(
    bundle: Path, large: Path, monkeypatch: pytest.MonkeyPatch, tiled: bool, most: int
) -> None:
    """With tiles, one is read while the model works on another; without, one more than there are threads.

    An image is read no earlier than it is handed to the threads.
    """
    handed: list[Path] = []

    class Pool(ThreadPoolExecutor):
        def submit(self, act: Any, path: Path) -> Any:  # type: ignore[override]
            handed.append(path)
            return super().submit(act, path)

    monkeypatch.setattr(workers_module, "ThreadPoolExecutor", Pool)
    spec = json.loads((bundle / "model.json").read_text())
    spec["tiles"] = TILES if tiled else None
    found = [len(handed) for _ in Workers(bundle, spec, [str(large)] * 12, 4).each()]
    assert found == [min(number + most, 12) for number in range(12)]


def test_the_best_class_and_every_class_come_from_one_pass(bundle: Path, large: Path) -> None:
    model = Model(bundle, json.loads((bundle / "model.json").read_text()), 1, 2)
    calls, forward = [], model.forward
    model.forward = lambda tensor: calls.append(1) or forward(tensor)  # type: ignore[func-returns-value]
    single, every = model.look(read_image(large), 0.5, (False, True))
    assert len(calls) == len(views((112, 208), TILES)) == 9
    assert sorted(single.classes) == sorted(every.classes) == sorted(CELLS.values())


@pytest.mark.parametrize("conf", [0.001, 0.35, 0.6])
def test_a_device_finds_what_validation_measured(conf: float, large: Path, tmp_path: Path) -> None:
    """An uncut box under `conf` replaces no cut one, and no box under `conf` is shown, whatever the thresholds say."""
    folder = handmade.bundled(tmp_path, spread=1.5, tiles=TILES, output={"conf": conf})
    model = Model(folder, json.loads((folder / "model.json").read_text()), 1, 2)
    random = np.random.default_rng(0)
    image = (read_image(large) * random.uniform(0.2, 1, (7, 13, 1)).repeat(16, 0).repeat(16, 1)).astype(np.uint8)
    [measured] = model.look(image, conf, (False,))
    for threshold in (0.01, 0.3, 0.5, 0.8):
        model.thresholds[:] = threshold
        found, expected = model.detect(image), measured.only(measured.scores >= threshold)
        assert len(found) and found.corners.tolist() == expected.corners.tolist()
        assert found.scores.tolist() == expected.scores.tolist()


def test_golden_images_span_two_tiles(bundle: Path, large: Path, tmp_path: Path) -> None:
    model = Model(bundle, json.loads((bundle / "model.json").read_text()), 1)
    upright = tmp_path / "upright.png"
    upright.write_bytes(cv2.imencode(".png", read_image(large).transpose(1, 0, 2)[:, :40])[1].tobytes())
    packed.golden(model, [large, upright], tmp_path / "golden", 0.5)
    assert [read_image(tmp_path / "golden" / f"{number}.png").shape[:2] for number in (1, 2)] == [(64, 112), (112, 40)]
    boxes, images, _, _ = compare(model, tmp_path)
    assert images == 2 and boxes >= 5  # the region with the most objects
    model.tiles = None
    with pytest.raises(RunnerError, match=r"golden/1\.png: 4 of 4 objects not found"):
        compare(model, tmp_path)


def test_golden_images_of_large_tiles_are_strips_across_their_seam(
    bundle: Path, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "GOLDEN_PIXELS", 60)
    model = Model(bundle, json.loads((bundle / "model.json").read_text()), 1)
    packed.golden(model, [large], tmp_path / "golden", 0.3)
    shape = read_image(tmp_path / "golden" / "1.png").shape
    assert shape[:2] == (60 * 60 // 112, 112) and len(views(shape, TILES)) == 3
    assert compare(model, tmp_path)[0] > 0

from __future__ import annotations

from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from pipeline.extras.sample import dataset as sample
from pipeline.extras.sample.defects import DRAW
from pipeline.extras.sample.layout import lay_out


def test_same_seed_gives_same_bytes_and_a_longer_split_extends_a_shorter_one(tmp_path: Path) -> None:
    for name, seed, train in (("a", 0, 2), ("b", 0, 3), ("c", 5, 2)):
        sample.main(seed, tmp_path / name, {"train": train, "val": 1})
    first = {path.name: path.read_bytes() for path in (tmp_path / "a" / "images").iterdir()}
    longer = {path.name: path.read_bytes() for path in (tmp_path / "b" / "images").iterdir()}
    other = {path.name: path.read_bytes() for path in (tmp_path / "c" / "images").iterdir()}
    assert first.items() < longer.items()
    assert all(first[name] != other[name] for name in first)


def test_pycocotools_reads_the_sample_and_boxes_lie_inside_the_image(tiles: Path) -> None:
    for split, count in (("train", 8), ("val", 3), ("test", 3)):
        coco = COCO(str(tiles / "annotations" / f"{split}.json"))
        assert len(coco.imgs) == count
        for annotation in coco.anns.values():
            x, y, width, height = annotation["bbox"]
            assert x >= 0 and y >= 0 and x + width <= sample.SIZE and y + height <= sample.SIZE


def test_every_class_is_drawn_and_some_tiles_are_plain() -> None:
    drawn = [sample.draw_tile(np.random.default_rng([9, 9, index]))[1] for index in range(60)]
    names = [name for tile in drawn for name, _ in tile]
    assert set(names) == set(sample.CLASSES)
    # Drawn in turn; none may be so hard to place that it is rare.
    assert min(names.count(name) for name in sample.CLASSES) >= len(names) / 30
    assert any(not tile for tile in drawn)


def test_each_defect_changes_the_copper_as_its_name_says() -> None:
    adds = {"short", "spur", "spurious copper"}
    for name, draw in DRAW.items():
        placed = 0
        for seed in range(60):
            rng = np.random.default_rng([3, seed])
            layout = lay_out(rng, sample.SIZE * sample.SUPERSAMPLING)
            changed = draw(rng, layout)
            if changed is None:
                continue
            placed += 1
            if name in adds:
                assert not (layout.copper & ~changed).any(), name
            else:
                assert not (changed & ~layout.copper).any(), name
        assert placed >= 10, name


def test_large_boards_have_small_defects_everywhere(tmp_path: Path) -> None:
    said = sample.main(0, tmp_path / "large", {"train": 1, "val": 1}, large=True)
    coco = COCO(str(tmp_path / "large" / "annotations" / "train.json"))
    val = COCO(str(tmp_path / "large" / "annotations" / "val.json"))
    [image] = coco.imgs.values()
    assert (image["width"], image["height"]) == (2400, 1800)
    assert said == f"2 images, {len(coco.anns) + len(val.anns)} defects -> {tmp_path / 'large'}"
    assert len(coco.anns) >= 10
    longer = [max(annotation["bbox"][2:]) for annotation in coco.anns.values()]
    assert min(longer) >= 12 and max(longer) <= 45
    assert len({(a["bbox"][0] // 300, a["bbox"][1] // 300) for a in coco.anns.values()}) > 5

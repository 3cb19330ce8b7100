"""The model's embeddings of images and what is derived from them, against brute force and FiftyOne's measures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import COCO_WEIGHTS, ROOT, needs_database

from pipeline import cosine, pixels
from pipeline.errors import DataError
from pipeline.inspect import embeddings
from pipeline.upstream import checkpoints

BCCD = ROOT / "data" / "raw" / "bccd" / "JPEGImages"


@pytest.fixture
def images(tiles: Path) -> list[Path]:
    return sorted((tiles / "images").iterdir())


def test_an_embedding_is_the_mean_of_the_last_backbone_layer(images: list[Path], start: Path, tmp_path: Path) -> None:
    """Against a forward hook in Ultralytics' own run of the whole model, on the same pixels."""
    found = embeddings.of(images[:3], start, "cpu", tmp_path / "cache.npz")
    import torch

    model, _ = checkpoints.load(start)
    seen = []
    model.model[len(model.yaml["backbone"]) - 1].register_forward_hook(lambda *given: seen.append(given[2]))
    for path in images[:3]:
        small = cv2.resize(pixels.read(path), (embeddings.SIDE, embeddings.SIDE), interpolation=cv2.INTER_AREA)
        with torch.inference_mode():
            model(torch.from_numpy(np.ascontiguousarray(small[None, ..., ::-1].transpose(0, 3, 1, 2))).float() / 255)
    by_hook = torch.cat(seen).mean(dim=(2, 3)).numpy()
    # Batches of three and of one sum in different orders.
    assert found == pytest.approx(by_hook, abs=1e-5)
    assert np.ptp(found, axis=0).max() > 1e-3  # not the same vector three times


def test_an_oblong_image_is_padded_not_stretched(start: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    oblong = rng.integers(0, 255, (40, 160, 3), dtype=np.uint8)
    square = np.full((160, 160, 3), embeddings.GREY, np.uint8)
    square[60:100] = oblong
    for name, image in (("oblong", oblong), ("square", square), ("thin", oblong[:1, :])):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    paths = [tmp_path / "oblong.png", tmp_path / "square.png", tmp_path / "thin.png"]
    found = embeddings.of(paths, start, "cpu", tmp_path / "cache.npz")
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert np.isfinite(found).all()


def test_embeddings_are_kept_until_an_image_or_the_model_changes(
    images: list[Path], start: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache.npz"
    copies = [tmp_path / path.name for path in images[:2]]
    for path, copy in zip(images, copies, strict=False):
        copy.write_bytes(path.read_bytes())
    first = embeddings.of(copies, start, "cpu", cache)
    written = cache.stat().st_mtime_ns
    assert np.array_equal(embeddings.of(copies, start, "cpu", cache), first)
    assert cache.stat().st_mtime_ns == written
    copies[1].write_bytes(images[2].read_bytes())
    second = embeddings.of(copies, start, "cpu", cache)
    assert np.array_equal(second[0], first[0]) and not np.array_equal(second[1], first[1])
    cache.write_bytes(b"damaged")
    assert np.array_equal(embeddings.of(copies, start, "cpu", cache), second)
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_an_unreadable_image_is_reported(start: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.jpg: OpenCV cannot decode it"):
        embeddings.of([tmp_path / "a.jpg"], start, "cpu", tmp_path / "cache.npz")
    assert not (tmp_path / "cache.npz").exists()


def test_neighbours_equal_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "BLOCK", 7)  # so that 40 rows take several blocks, the last one short
    vectors = cosine.standardised(np.random.default_rng(3).normal(size=(40, 8)).astype(np.float32))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(40), abs=1e-6)
    indices, distances = embeddings.neighbours(vectors)
    for row in range(40):
        far = sorted((1 - float(vectors[row] @ vectors[other]), other) for other in range(40) if other != row)
        assert indices[row].tolist() == [other for _, other in far[: embeddings.NEIGHBOURS]]
        assert distances[row] == pytest.approx([apart for apart, _ in far[: embeddings.NEIGHBOURS]], abs=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_very_few_images_are_fully_unique_and_ungrouped(count: int) -> None:
    vectors = cosine.standardised(np.eye(4, dtype=np.float32)[:count])
    indices, distances = embeddings.neighbours(vectors)
    assert embeddings.uniqueness(distances) == [1.0] * count
    assert embeddings.similar_groups(indices, distances, 0.95) == [None] * count


def test_identical_vectors_stay_finite_and_fully_unique() -> None:
    """No variance to standardise by, and nothing to distinguish."""
    vectors = cosine.standardised(np.ones((6, 4), np.float32))
    assert np.isfinite(vectors).all()
    assert embeddings.uniqueness(embeddings.neighbours(vectors)[1]) == [1.0] * 6


def test_groups_are_connected_through_other_images() -> None:
    """Angles in degrees: 0-10-20 form a chain, though 0 and 20 are not similar enough; 100 and 101 are a pair."""
    angles = np.radians([0, 100, 10, 200, 20, 101])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    similarity = float(np.cos(np.radians(10.5)))
    groups = embeddings.similar_groups(*embeddings.neighbours(vectors), similarity)
    assert groups == [1, 2, 1, None, 1, 2]


@needs_database
@pytest.mark.usefixtures("own_database")
def test_uniqueness_equals_fiftyones() -> None:
    """Except for the nearest neighbour, which FiftyOne skips as if it were the image itself."""
    import fiftyone as fo
    import fiftyone.brain as brain

    vectors = np.random.default_rng(5).normal(size=(12, 6)).astype(np.float32)
    vectors -= vectors.mean(axis=0)
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=f"/{number}.jpg") for number in range(12)])
    brain.compute_uniqueness(dataset, embeddings=vectors.copy(), progress=False)
    _, distances = embeddings.neighbours(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    theirs = dataset.values("uniqueness")
    dataset.delete()
    assert embeddings.uniqueness(distances[:, 1:]) == pytest.approx(theirs, abs=1e-5)
    assert embeddings.uniqueness(distances) != pytest.approx(theirs, abs=1e-2)


def test_a_copy_is_not_unique() -> None:
    vectors = np.eye(6, dtype=np.float32)[[0, 1, 2, 3, 4, 5, 5]]
    unique = embeddings.uniqueness(embeddings.neighbours(vectors)[1])
    assert unique[0] == 1.0
    assert unique[5] == unique[6] == pytest.approx(0.4)  # its nearest neighbour, with weight 0.6, is at distance 0


@pytest.mark.skipif(not COCO_WEIGHTS.is_file(), reason=f"{COCO_WEIGHTS} is missing")
@pytest.mark.skipif(not BCCD.is_dir(), reason=f"{BCCD} is missing")
def test_only_copies_of_real_photographs_are_found(tmp_path: Path) -> None:
    """Blood smears are as similar as photographs get; at half the size, or re-saved, they are copies."""
    originals = sorted(BCCD.glob("*.jpg"))[:60]
    copies = []
    for number, path in enumerate(originals[:10]):
        image = pixels.read(path)
        if number % 2:
            image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        copies.append(tmp_path / path.name)
        copies[-1].write_bytes(pixels.jpeg(image, 95 if number % 2 else 70))
    vectors = embeddings.of([*originals, *copies], COCO_WEIGHTS, "cpu", tmp_path / "cache.npz")
    groups = embeddings.similar_groups(*embeddings.neighbours(cosine.standardised(vectors)), 0.95)
    assert None not in groups[:10] and groups[60:] == groups[:10] and len(set(groups[:10])) == 10
    assert groups[10:60] == [None] * 50

"""How convert handles doubtful labels and unusual pixels under each policy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import writers
from conftest import as_voc, read_coco, write_coco
from PIL import Image
from test_convert import assert_refused, do, labels

from pipeline import convert, fixes
from pipeline.boxes import Box, YoloDataset, image_size
from pipeline.config.data import Convert
from pipeline.errors import DataError
from pipeline.files import read_json
from pipeline.orientation import EXIF_ORIENTATION
from pipeline.run import Run

FIRST = "train_0000"


def only_boxes(source: Path, *boxes: list[float], **image: Any) -> None:
    """Give the first training image only these boxes, of its first class."""
    data = read_coco(source, "train")
    record = data["images"][0]
    record.update(image)
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] != record["id"]]
    for number, bbox in enumerate(boxes):
        data["annotations"].append({"id": 900 + number, "image_id": record["id"], "category_id": 1, "bbox": bbox})
    write_coco(source, "train", data)


def corners(run: Run, stem: str = FIRST) -> list[list[float]]:
    return [list(box[1:]) for box in labels(run)[stem]]


# --- Policies ---------------------------------------------------------------------------------------

# What is wrong with a box -> what fix, drop and error do with it. The image is 320x320.
TROUBLE: dict[str, tuple[list[float], str, str]] = {
    "beyond the edge": ([300, 10, 40, 20], "clipped", "dropped"),
    "beyond the edge by rounding": ([300, 10, 20.9, 20], "clipped", "clipped"),
    "a width below 0": ([100, 10, -20, 20], "refused", "dropped"),
    "zero area": ([100, 10, 0, 20], "dropped", "dropped"),
    "one pixel": ([100, 10, 1, 20], "dropped", "dropped"),
    "a sliver inside": ([319.5, 10, 20, 20], "dropped", "dropped"),
    "outside": ([330, 10, 20, 20], "refused", "dropped"),
    "not finite": ([float("nan"), 10, 20, 20], "refused", "dropped"),
    "no box at all": ([1, 2, 3], "refused", "dropped"),
}


@pytest.mark.parametrize("policy", ["fix", "drop", "error"])
@pytest.mark.parametrize("trouble", TROUBLE)
def test_each_policy_handles_each_problem(source: Path, run: Run, policy: str, trouble: str) -> None:
    bbox, fixed, dropped = TROUBLE[trouble]
    only_boxes(source, [10, 10, 30, 30], bbox)
    expected = {"fix": fixed, "drop": dropped, "error": "refused"}[policy]
    if expected == "refused":
        assert_refused(source, run, r"train\.json: .*901", on_problem=policy)
        return
    receipt = do(source, run, on_problem=policy)
    assert [(p["id"], p["action"]) for p in receipt["problems"]] == [("901", expected)]
    assert receipt["boxes"][expected] == 1
    assert len(corners(run)) == (2 if expected == "clipped" else 1)


def test_a_box_beyond_the_edge_is_clipped(source: Path, run: Run) -> None:
    only_boxes(source, [300, 10, 40, 20])
    do(source, run)
    np.testing.assert_allclose(corners(run), [[300, 10, 320, 30]], atol=0.001)


def test_swapped_corners_are_reordered(tmp_path: Path, run: Run) -> None:
    (tmp_path / "mine" / "JPEGImages").mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (320, 240), (number * 60, 90, 30)).save(tmp_path / "mine" / "JPEGImages" / f"{number}.jpg")
    sound, swapped = Box("a", 100, 40, 120, 60), Box("a", 100, 10, 80, 30)
    boxes = [[sound, *([swapped] if number == 0 else [])] for number in range(4)]
    writers.voc(tmp_path / "mine", [(f"{n}.jpg", (320, 240), held) for n, held in enumerate(boxes)], ["a"])
    receipt = do(tmp_path / "mine", run, split={"train": 0.5, "val": 0.5}, near_duplicates=False)
    assert receipt["boxes"] == {"read": 5, "kept": 4, "clipped": 1, "dropped": 0, "ignored": 0}
    np.testing.assert_allclose(corners(run, "0"), [[100, 40, 120, 60], [80, 10, 100, 30]], atol=0.001)


def test_a_duplicate_is_dropped_and_other_classes_stay(source: Path, run: Run) -> None:
    only_boxes(source, [10, 10, 30, 30], [10, 10, 30, 30], [10, 10, 30, 31])
    data = read_coco(source, "train")
    data["annotations"].append({**data["annotations"][-3], "id": 950, "category_id": 2})
    write_coco(source, "train", data)
    receipt = do(source, run)
    assert [(p["id"], p["reason"]) for p in receipt["problems"]] == [("901", "the same box as 900")]
    assert len(corners(run)) == 3


def test_boxes_below_min_side_are_dropped(source: Path, run: Run) -> None:
    only_boxes(source, [10, 10, 4, 30], [50, 10, 5, 30])
    receipt = do(source, run, min_side=4)
    assert [p["reason"] for p in receipt["problems"]] == ["4x30 px: a side of 4 px or less (convert.min_side)"]


def test_all_refused_boxes_are_counted(source: Path, run: Run) -> None:
    only_boxes(source, [330, 10, 20, 20], [400, 10, 20, 20], [1, 2, 3])
    assert_refused(
        source, run, r"900 .*\(and 2 more such; `convert\.on_problem: drop` leaves them out and lists them\)"
    )


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), "not an image that can be read"),
        (lambda path: path.unlink(), "image missing"),
        (lambda path: Image.open(path).resize((100, 100)).save(path), "its annotation says it is 320x320, but it is 100x100"),
        (lambda path: path.write_bytes(b""), "not an image that can be read"),
    ],
    ids=["truncated", "missing", "other size", "empty"],
)  # fmt: skip
def test_a_bad_image_is_refused_or_dropped_with_all_its_boxes(source: Path, run: Run, spoil: Any, why: str) -> None:
    spoil(source / "images" / f"{FIRST}.jpg")
    assert_refused(source, run, rf"{FIRST}\.jpg: {why}")
    receipt = do(source, run, on_problem="drop")
    [(name, said)] = receipt["images"]["dropped"].items()
    assert name.endswith(f"/{FIRST}.jpg") and said.startswith(why)
    boxes = [a for a in read_coco(source, "train")["annotations"] if a["image_id"] == 0]
    assert [p["action"] for p in receipt["problems"] if p["image"] == name] == ["dropped"] * len(boxes)
    assert boxes and FIRST not in labels(run)


def test_an_image_ultralytics_would_skip_is_refused(source: Path, run: Run) -> None:
    Image.new("RGB", (9, 50)).save(source / "images" / f"{FIRST}.jpg")
    only_boxes(source, width=9, height=50)
    assert_refused(source, run, r"9x50 pixels, too small to train on")


# --- Classes ----------------------------------------------------------------------------------------


def test_a_mapping_renames_merges_drops_and_orders(tiles: Path, run: Run) -> None:
    mapping = {
        "spur": "copper",
        "open": "gap",
        "short": "copper",
        "mousebite": "gap",
        "pin hole": None,
        "spurious copper": "copper",
    }
    receipt = do(tiles, run, classes=mapping)
    assert receipt["classes"] == ["copper", "gap"]
    assert YoloDataset.read(run.dataset / "data.yaml").names == ("copper", "gap")
    count: dict[str | None, int] = {}
    for split in ("train", "val", "test"):
        data = read_coco(tiles, split)
        names = {category["id"]: category["name"] for category in data["categories"]}
        for annotation in data["annotations"]:
            ours = mapping[names[annotation["category_id"]]]
            count[ours] = count.get(ours, 0) + 1
    found = {
        name: sum(split["boxes_per_class"][name] for split in receipt["splits"].values()) for name in ("copper", "gap")
    }
    assert found == {"copper": count["copper"], "gap": count["gap"]}
    assert receipt["boxes"]["ignored"] == count[None] == len(receipt["problems"])
    assert {p["reason"] for p in receipt["problems"]} == {"convert.classes leaves this class out"}


def test_an_unknown_class_can_be_dropped(tiles: Path, run: Run) -> None:
    receipt = do(tiles, run, classes=["open"], on_problem="drop")
    assert receipt["boxes"]["kept"] + receipt["boxes"]["dropped"] == receipt["boxes"]["read"]
    assert receipt["boxes"]["dropped"] == len(receipt["problems"]) > 0


# --- Pixels -----------------------------------------------------------------------------------------


def mark() -> tuple[Image.Image, list[float]]:
    """A dark 320x200 image with one bright rectangle, and its box."""
    pixels = np.full((200, 320, 3), 60, np.uint8)
    pixels[20:50, 200:250] = 230
    return Image.fromarray(pixels), [200, 20, 50, 30]


def found_mark(path: Path) -> list[int]:
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert grey is not None
    rows, columns = np.nonzero(grey > 150)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


UNTURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


# Orientations 2 to 4 keep the size, and boxes are taken to be upright unless another image tells.
FRAMES = [(turn, "upright") for turn in UNTURN] + [(turn, "stored") for turn in UNTURN if turn >= 5]


@pytest.mark.parametrize(("orientation", "frame"), FRAMES)
def test_boxes_frame_their_object_for_every_exif_orientation(
    source: Path, run: Run, orientation: int, frame: str
) -> None:
    """Boxes refer to the upright image, unless the annotation declares the size of the image as stored."""
    upright, bbox = mark()
    stored = upright.transpose(UNTURN[orientation])
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    stored.save(source / "images" / f"{FIRST}.jpg", quality=95, exif=exif)
    if frame == "stored":
        xmin, ymin, xmax, ymax = found_mark_in(stored)
        bbox = [xmin, ymin, xmax - xmin, ymax - ymin]
    size = upright.size if frame == "upright" else stored.size
    only_boxes(source, bbox, width=size[0], height=size[1])
    do(source, run)
    written = run.dataset / "images" / "train" / f"{FIRST}.jpg"
    # JPEG blurs an edge by at most a pixel.
    np.testing.assert_allclose(corners(run)[0], found_mark(written), atol=1.01)
    assert image_size(written) == (320, 200) and written.samefile(source / "images" / f"{FIRST}.jpg")


def turned_images(folder: Path, layout: str, frame: str, *orientations: int) -> None:
    """Images 0.jpg and so on, and their boxes as a tool writes them that applies EXIF (`upright`) or not (`stored`)."""
    upright, _ = mark()
    items = []
    for number, orientation in enumerate(orientations):
        stored = upright.transpose(UNTURN[orientation]) if orientation > 1 else upright
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        path = folder / ("images" if layout == "coco" else "JPEGImages") / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        stored.save(path, quality=95, exif=exif)
        seen = stored if frame == "stored" else upright
        items.append((path.name, seen.size, [Box("cat", *found_mark_in(seen))]))
    if layout == "coco":
        writers.coco(folder / "a.json", items, ["cat"])
    else:
        writers.voc(folder, items, ["cat"])


HALVES = {"split": {"train": 0.5, "val": 0.5}, "near_duplicates": False}


@pytest.mark.parametrize("layout", ["coco", "voc"])
@pytest.mark.parametrize("frame", ["upright", "stored"])
def test_an_image_that_swaps_its_sides_tells_the_frame_of_the_others(
    tmp_path: Path, run: Run, layout: str, frame: str
) -> None:
    turned_images(tmp_path / "source", layout, frame, 1, 2, 3, 4, 6, 8)
    receipt = do(tmp_path / "source", run, **HALVES)
    for place in receipt["sources"]:
        found = corners(run, Path(place).stem)[0]
        np.testing.assert_allclose(found, found_mark(run.dataset / "images" / place), atol=1.01)
    assert len(receipt["sources"]) == 6 and receipt["notes"] == []


def test_without_such_an_image_a_note_names_images_that_exif_turns(tmp_path: Path, run: Run) -> None:
    turned_images(tmp_path / "source", "coco", "stored", 1, 3, 2, 1)
    said = "images/1.jpg: EXIF turns it, and nothing tells whether its boxes are those of the turned image, as convert "
    said += "takes them: check it with `make inspect` (and 1 more such)"
    assert do(tmp_path / "source", run, **HALVES)["notes"] == [said]


def found_mark_in(image: Image.Image) -> list[int]:
    rows, columns = np.nonzero(np.asarray(image.convert("L")) > 150)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@pytest.mark.parametrize(("suffix", "bits"), [(".png", 12), (".png", 16), (".tif", 12)])
@pytest.mark.parametrize("colour", [False, True])
def test_16_bits_become_8_without_turning_black(source: Path, run: Run, suffix: str, bits: int, colour: bool) -> None:
    """Twelve bits in sixteen, as microscopes write: OpenCV would divide by 256, leaving at most 15 of 255."""
    ramp = np.linspace(0, 2**bits - 1, 320).astype(np.uint16)
    pixels = np.broadcast_to(ramp, (200, 320))
    if colour:
        pixels = np.stack([pixels, pixels // 2, pixels // 4], axis=2)
    (source / "images" / f"{FIRST}.jpg").unlink()
    assert cv2.imwrite(str(source / "images" / f"{FIRST}{suffix}"), pixels)
    only_boxes(source, [10, 10, 30, 30], file_name=f"{FIRST}{suffix}", width=320, height=200)
    receipt = do(source, run)
    assert receipt["rewritten"] == {f"{FIRST}{suffix}": "16 bits: brought to 8"}
    written = cv2.imread(str(run.dataset / "images" / "train" / f"{FIRST}{suffix}"), cv2.IMREAD_UNCHANGED)
    assert written is not None and written.dtype == np.uint8
    np.testing.assert_array_equal(written, (pixels >> (bits - 8)).astype(np.uint8))


def test_all_16_bit_images_share_one_factor(source: Path, run: Run) -> None:
    """Brightness stays comparable: the dim image stays dim beside the bright one."""
    data = read_coco(source, "train")
    for number, peak in ((0, 500), (1, 4095)):
        name = f"train_000{number}"
        (source / "images" / f"{name}.jpg").unlink()
        cv2.imwrite(str(source / "images" / f"{name}.png"), np.full((320, 320), peak, np.uint16))
        data["images"][number]["file_name"] = f"{name}.png"
    write_coco(source, "train", data)
    do(source, run)
    seen = [
        int(cv2.imread(str(run.dataset / "images" / "train" / f"train_000{n}.png"), cv2.IMREAD_GRAYSCALE)[0, 0])
        for n in (0, 1)
    ]  # type: ignore[index]
    assert seen == [500 >> 4, 4095 >> 4]


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1", "LA"])
def test_every_mode_looks_the_same_to_opencv_after_conversion(source: Path, run: Run, mode: str) -> None:
    """Training and the device read with OpenCV; Pillow is the oracle for what a viewer shows."""
    with Image.open(source / "images" / f"{FIRST}.jpg") as image:
        converted = image.convert("RGB").resize((64, 48)).convert(mode)
    suffix = ".jpg" if mode == "CMYK" else ".png"
    (source / "images" / f"{FIRST}.jpg").unlink()
    path = source / "images" / f"{FIRST}{suffix}"
    converted.save(path, quality=95)
    with Image.open(path) as image:
        assert image.mode == mode
        shown = np.asarray(image.convert("RGB"), float)
    only_boxes(source, [10, 10, 30, 30], file_name=path.name, width=64, height=48)
    receipt = do(source, run)
    assert bool(receipt["rewritten"]) == (mode == "CMYK")
    written = cv2.imread(str(run.dataset / "images" / "train" / path.with_suffix(".png").name))
    assert written is not None and np.array_equal(written[:, :, ::-1], shown)


def test_floating_point_pixels_are_refused(source: Path, run: Run) -> None:
    (source / "images" / f"{FIRST}.jpg").unlink()
    Image.fromarray(np.zeros((320, 320), np.float32)).save(source / "images" / f"{FIRST}.tif")
    only_boxes(source, [10, 10, 30, 30], file_name=f"{FIRST}.tif")
    assert_refused(source, run, r"train_0000\.tif: pixels are floating-point numbers; write it as")


# --- Names ------------------------------------------------------------------------------------------


def test_equal_names_in_different_folders_stay_apart(source: Path, run: Run) -> None:
    """Every video has a frame called 0001.jpg."""
    data = read_coco(source, "train")
    for number, record in enumerate(data["images"]):
        folder = source / "images" / f"video{number % 2}"
        folder.mkdir(exist_ok=True)
        name = f"{folder.name}/{number // 2:04d}.jpg"
        shutil.move(source / "images" / record["file_name"], source / "images" / name)
        record["file_name"] = name
    write_coco(source, "train", data)
    receipt = do(source, run)
    assert receipt["sources"]["train/images-video0-0001.jpg"] == "images/video0/0001.jpg"
    assert receipt["sources"]["val/val_0000.jpg"] == "images/val_0000.jpg"
    assert len(list((run.dataset / "images" / "train").iterdir())) == 8
    per_image = {record["file_name"]: 0 for record in data["images"]}
    for annotation in data["annotations"]:
        per_image[next(r["file_name"] for r in data["images"] if r["id"] == annotation["image_id"])] += 1
    for name, count in per_image.items():
        label = run.dataset / "labels" / "train" / f"images-{name.replace('/', '-')}".replace(".jpg", ".txt")
        assert len(label.read_text().splitlines()) == count


# --- Splits and leaks ---------------------------------------------------------------------------------


def split_of(run: Run) -> dict[str, str]:
    dataset = YoloDataset.read(run.dataset / "data.yaml")
    return {path.stem: split for split in dataset.images for path in dataset.files(split)}


RATIOS = {"train": 0.5, "val": 0.25, "test": 0.25}


def plant(source: Path, split: str, name: str, image: Image.Image, like: int) -> None:
    """Add an image to a split with the boxes of one of its images."""
    image.save(source / "images" / name, quality=60)
    data = read_coco(source, split)
    new = 1 + max(record["id"] for record in data["images"])
    boxes = [a for a in data["annotations"] if a["image_id"] == data["images"][like]["id"]]
    data["images"].append({"id": new, "file_name": name})
    data["annotations"] += [
        {**box, "id": 5000 + 100 * new + n, "image_id": new, "bbox": [5, 5, 20, 20]} for n, box in enumerate(boxes)
    ]
    write_coco(source, split, data)


def test_planted_leaks_in_given_splits_are_reported_moved_or_refused(source: Path, run: Run, tmp_path: Path) -> None:
    with Image.open(source / "images" / f"{FIRST}.jpg") as image:
        plant(source, "val", "half.jpg", image.resize((160, 160)), 0)
        plant(source, "test", "turned.jpg", image.transpose(Image.Transpose.ROTATE_90), 0)
    pair = ["test/images/turned.jpg", f"train/images/{FIRST}.jpg", "val/images/half.jpg"]
    receipt = do(source, run)
    assert (receipt["leaks"]["exact"], receipt["leaks"]["near"]) == ([], [pair])
    assert split_of(run)["half"] == "val"
    assert_refused(
        source, Run(tmp_path / "runs" / "error"), r"turned\.jpg and .*train_0000\.jpg belong together", leaks="error"
    )
    line = convert.main(Convert.model_validate({"source": source, "leaks": "move"}), run, 0)
    moved = {"images/half.jpg": "val -> train", "images/turned.jpg": "test -> train"}
    assert read_json(run.receipt)["leaks"] == {"exact": [], "near": [], "group": [], "moved": moved}
    assert line.endswith("2 images moved to another split: see receipt.json)") and "near-duplicates" not in line
    assert {split_of(run)[stem] for stem in ("half", "turned", FIRST)} == {"train"}
    assert do(source, run, near_duplicates=False)["leaks"]["near"] == []


def test_leaks_of_kept_splits_are_reported_moved_or_refused(source: Path, run: Run) -> None:
    """As if two branches had drawn the splits of an image and of its copy, and git had merged the files."""
    copies = [f"images/{FIRST}.jpg", "images/half.jpg"]
    with Image.open(source / copies[0]) as image:
        plant(source, "val", "half.jpg", image.resize((160, 160)), 0)
    assert do(source, run, split=RATIOS)["leaks"]["near"] == []
    drawing = json.loads(run.splits.read_text())
    drawing["images"] |= dict(zip(copies, ("train", "val"), strict=True))
    run.splits.write_text(json.dumps(drawing))
    pair = [f"train/{copies[0]}", f"val/{copies[1]}"]
    assert do(source, run, split=RATIOS)["leaks"]["near"] == [pair]
    said = rf"{pair[0]} and {pair[1]} belong together but are in different splits; remove one"
    with pytest.raises(DataError, match=said):
        do(source, run, split=RATIOS, leaks="error")
    with Image.open(source / copies[0]) as image:
        plant(source, "val", "third.jpg", image.resize((128, 128)), 0)
    receipt = do(source, run, split=RATIOS)
    assert receipt["leaks"]["near"] == [pair] and list(receipt["images"]["left_out"]) == ["images/third.jpg"]
    leaks = do(source, run, split=RATIOS, leaks="move")["leaks"]
    assert leaks == {"exact": [], "near": [], "group": [], "moved": {copies[1]: "val -> train"}}
    assert json.loads(run.splits.read_text())["images"][copies[1]] == "train"
    receipt = do(source, run, split=RATIOS)
    assert not receipt["leaks"]["near"] and not receipt["images"]["left_out"]  # the third can join them now


def test_moving_leaks_may_not_empty_a_split(source: Path, run: Run) -> None:
    """Each of the three tiles of val and of test is grouped with one of train, where both would move."""
    line = r"`convert\.leaks: move` leaves no image in the test and val split; remove the copies yourself"
    assert_refused(source, run, line, leaks="move", group_by="_000([0-9])")


def test_groups_and_near_duplicates_stay_together_in_drawn_splits(source: Path, tmp_path: Path) -> None:
    with Image.open(source / "images" / f"{FIRST}.jpg") as image:
        plant(source, "val", "half.jpg", image.resize((160, 160)).transpose(Image.Transpose.FLIP_LEFT_RIGHT), 0)
    for seed in range(6):
        run = Run(tmp_path / "runs" / str(seed))
        receipt = do(source, run, seed, split=RATIOS, group_by="_000([0-9])")
        placed = split_of(run)
        assert placed["half"] == placed[FIRST]
        for number in range(3):
            assert len({placed[f"{name}_000{number}"] for name in ("train", "val", "test")}) == 1
        assert not receipt["leaks"]["near"] and not receipt["leaks"]["group"]


def test_adding_images_moves_no_earlier_image(source: Path, run: Run) -> None:
    data = {split: read_coco(source, split) for split in ("train", "val")}
    held_back = data["train"]["images"][3:]
    write_coco(
        source,
        "train",
        {
            **data["train"],
            "images": data["train"]["images"][:3],
            "annotations": [
                a
                for a in data["train"]["annotations"]
                if a["image_id"] in {r["id"] for r in data["train"]["images"][:3]}
            ],
        },
    )
    apart = source.with_name("apart")
    apart.mkdir()
    for record in held_back:
        (source / "images" / record["file_name"]).rename(apart / record["file_name"])
    do(source, run, split=RATIOS)
    before = split_of(run)
    assert json.loads(run.splits.read_text())["images"].keys() == {f"images/{stem}.jpg" for stem in before}
    for record in held_back:
        (apart / record["file_name"]).rename(source / "images" / record["file_name"])
    write_coco(source, "train", data["train"])
    do(source, run, split=RATIOS)
    after = split_of(run)
    assert len(after) == len(before) + len(held_back)
    assert before.items() <= after.items()
    # Other rules draw new splits, recorded in the file.
    do(source, run, 7, split=RATIOS)
    assert json.loads(run.splits.read_text())["seed"] == 7


def test_a_foreign_split_file_is_refused(tiles: Path, run: Run) -> None:
    run.splits.parent.mkdir(parents=True)
    run.splits.write_text('{"images": {"a": "trian"}}')
    assert_refused(tiles, run, r"tiny\.json: damaged; restore it from git, or delete it", split=RATIOS)


def test_a_group_pattern_that_never_matches_is_refused(tiles: Path, run: Run) -> None:
    assert_refused(tiles, run, r"group_by", split=RATIOS, group_by="patient_([0-9]+)")


def test_voc_also_refuses_a_wrong_declared_size(tiles: Path, tmp_path: Path, run: Run) -> None:
    voc = as_voc(tiles, tmp_path / "voc")
    xml = voc / "Annotations" / "train_0001.xml"
    xml.write_text(xml.read_text().replace("<width>320", "<width>640"))
    assert_refused(voc, run, r"train_0001\.jpg: its annotation says it is 640x320, but it is 320x320")


# --- Corrections made by the user -----------------------------------------------------------------------


def write_fixes(run: Run, text: str) -> None:
    path = fixes.file_of(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_fixes_are_applied_and_each_listed_in_the_receipt(source: Path, run: Run) -> None:
    only_boxes(source, [10, 10, 30, 30], [100, 100, 40, 20])
    do(source, run)
    before = labels(run)
    name = before[FIRST][0][0]
    write_fixes(
        run,
        f"""
images: {{train_0001.jpg: drop, images/train_0002.jpg: relabel, gone.jpg: drop}}
boxes:
- {{image: {FIRST}.jpg, action: remove, class: {name}, bbox: [10, 10, 30, 30]}}
- {{image: {FIRST}.jpg, action: add, class: short, bbox: [200, 50.5, 20, 30]}}
- {{image: {FIRST}.jpg, action: remove, class: {name}, bbox: [250, 250, 30, 30]}}
""",
    )
    receipt = do(source, run)
    assert [(line["image"], line["action"], line["applied"]) for line in receipt["fixes"]] == [
        ("gone.jpg", "drop", False),
        (f"images/{FIRST}.jpg", "remove", True),
        (f"images/{FIRST}.jpg", "remove", False),
        (f"images/{FIRST}.jpg", "add", True),
        ("images/train_0001.jpg", "drop", True),
        ("images/train_0002.jpg", "relabel", True),
    ]
    after = labels(run)
    assert "train_0001" not in after and after["train_0002"] == before["train_0002"]
    np.testing.assert_allclose(corners(run), [[100, 100, 140, 120], [200, 50.5, 220, 80.5]], atol=0.001)
    for counts in (receipt["boxes"], *receipt["files"].values()):
        assert counts["read"] == counts["kept"] + counts["clipped"] + counts["dropped"] + counts["ignored"]
    assert receipt["boxes"]["read"] == sum(
        len(read_coco(source, split)["annotations"]) for split in ("train", "val", "test")
    )
    written = sum(len(boxes) for boxes in after.values())
    assert written == receipt["boxes"]["kept"] + 1 == sum(split["boxes"] for split in receipt["splits"].values())


@pytest.mark.parametrize("problem", ["unlabelled", "missing", "truncated", "bad box"])
def test_an_image_that_a_fix_drops_is_not_refused(source: Path, run: Run, problem: str) -> None:
    image = source / "images" / f"{FIRST}.jpg"
    if problem == "unlabelled":
        image = image.with_name("new.jpg")
        shutil.copy(source / "images" / f"{FIRST}.jpg", image)
    elif problem == "missing":
        image.unlink()
    elif problem == "truncated":
        image.write_bytes(image.read_bytes()[:9000])
    else:
        only_boxes(source, [400, 10, 20, 20])
    assert_refused(source, run, "outside the image" if problem == "bad box" else image.name)
    write_fixes(run, f"images: {{{image.name}: drop}}")
    receipt = do(source, run)
    [line] = receipt["fixes"]
    assert line["applied"] and line["reason"] == "marked to be left out" and line["image"].endswith(image.name)
    assert receipt["images"]["dropped"] == {line["image"]: f"{fixes.file_of(run)} drops it"}
    assert image.stem not in labels(run)


def test_a_file_name_in_a_fix_means_the_image_in_use(source: Path, run: Run) -> None:
    """The source may hold another image of that name that is in no split."""
    data = read_coco(source, "train")
    (source / "spare").mkdir()
    shutil.copy(source / "images" / "train_0004.jpg", source / "spare" / f"{FIRST}.jpg")
    shutil.copy(source / "images" / "train_0004.jpg", source / "spare" / "more.jpg")
    records = [
        {**data["images"][0], "id": id, "file_name": f"spare/{name}.jpg"} for id, name in enumerate((FIRST, "more"))
    ]
    boxes = [{**data["annotations"][0], "image_id": 0}]
    write_coco(source, "spare", {**data, "images": records, "annotations": boxes})
    write_fixes(run, f"images: {{{FIRST}.jpg: drop, more.jpg: drop}}")
    receipt = do(source, run)
    assert receipt["fixes"] == [
        {"image": f"images/{FIRST}.jpg", "action": "drop", "reason": "marked to be left out", "applied": True},
        {
            "image": "spare/more.jpg",
            "action": "drop",
            "reason": "the image is not used: the source puts it in no split",
            "applied": False,
        },
    ]
    assert FIRST not in labels(run)


def test_a_file_name_of_two_images_in_use_is_refused(source: Path, run: Run) -> None:
    data = read_coco(source, "train")
    for number, record in enumerate(data["images"][:2]):
        (source / "images" / f"video{number}").mkdir()
        (source / "images" / record["file_name"]).rename(source / "images" / f"video{number}" / "0.jpg")
        record["file_name"] = f"video{number}/0.jpg"
    write_coco(source, "train", data)
    write_fixes(run, "images: {0.jpg: drop}")
    assert_refused(
        source, run, r"tiny\.yaml: '0\.jpg' matches both images/video0/0\.jpg and images/video1/0\.jpg; give its path$"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("boxes: [{image: train_0000.jpg, action: add, class: shrt, bbox: [1, 1, 9, 9]}]", r"'shrt' is not one of .*; correct the class"),
        ("boxes: [{image: train_0000.jpg, action: add, class: short, bbox: [310, 1, 90, 9]}]", r"the added box \(short\) extends beyond the image \(320x320\)"),
    ],
)  # fmt: skip
def test_a_fix_that_cannot_be_applied_is_refused(source: Path, run: Run, text: str, said: str) -> None:
    write_fixes(run, text)
    assert_refused(source, run, said)

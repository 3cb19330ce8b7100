"""Batches for other labelling tools, and what users did there: kept, moved, relabelled, deleted, added."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batches import MODEL, batch
from conftest import settings

from pipeline import convert, formats, lock, options
from pipeline.__main__ import main
from pipeline.boxes import Box
from pipeline.config.experiment import Config
from pipeline.errors import DataError
from pipeline.files import read_json
from pipeline.label import layouts, tools
from pipeline.label.changes import compare
from pipeline.labels import file as labels
from pipeline.labels.content import Image, Label, Labels
from pipeline.records.label import Next
from pipeline.run import Run

DRAWN = (Label((10, 10, 40, 30), "open", "kept", 0.9, "m"), Label((100, 10, 40, 30), "short", "kept", 0.5, "m"))


def boxes(*labels: Label) -> list[Box]:
    return [label.box() for label in labels]


def origins(after: list[Box], ids: dict[str, int] | None = None) -> tuple[list[str], int]:
    made, deleted = compare(DRAWN, after, ids)
    return [label.origin for label in made], len(deleted)


def test_edits_are_recognised_by_overlap() -> None:
    same, other = boxes(*DRAWN)
    assert origins([same, other]) == (["kept", "kept"], 0)
    assert origins([other._replace(xmin=other.xmin + 0.4), same]) == (["kept", "kept"], 0)  # as tools round it
    assert origins([same._replace(xmin=same.xmin + 1), other]) == (["moved", "kept"], 0)
    assert origins([same._replace(label="spur"), other]) == (["relabelled", "kept"], 0)
    assert origins([same]) == (["kept"], 1)
    assert origins([]) == ([], 2)
    assert origins([same, other, same._replace(ymin=200, ymax=230)]) == (["kept", "kept", "added"], 0)
    assert origins([same, same._replace(label="spur"), other]) == (["kept", "added", "kept"], 0)
    assert origins([same._replace(xmin=300, xmax=340), other]) == (["added", "kept"], 1)


def test_a_box_with_a_known_id_can_be_moved_anywhere() -> None:
    same, other = boxes(*DRAWN)
    far = same._replace(xmin=300, xmax=340, id="a")
    assert origins([far, other._replace(id="b")], {"a": 0, "b": 1}) == (["moved", "kept"], 0)
    made, _ = compare(DRAWN, [far], {"a": 0, "b": 1})
    assert (made[0].score, made[0].model, made[0].bbox) == (0.9, "m", (300, 10, 40, 30))


@pytest.fixture
def pool(run: Run) -> Path:
    return run.root.parent.parent / "data" / "raw" / "more"


def saved(run: Run) -> Labels:
    return labels.load(labels.file_of(run))


@pytest.mark.parametrize("tool", layouts.LAYOUTS)
def test_converts_readers_read_the_laid_out_batch(tiles: Path, run: Run, pool: Path, tool: str) -> None:
    record = batch(tiles, run, pool)
    said = tools.lay_out(run, tool)
    assert f"3 images with {sum(len(image['boxes']) for image in record['images'])} boxes for {tool}" in said
    folder = run.label / tool
    if tool == layouts.LABELSTUDIO:
        accept(folder)
    name, source = formats.read(folder, given=False)  # recognised automatically
    assert name == layouts.FORMATS[tool]
    found = {item.image: item.boxes for item in source.images}
    for image in record["images"]:
        path = folder.absolute() / "images" / tools.names_of(record, tool)[image["path"]]
        assert [box.label for box in found[path]] == [box["label"] for box in image["boxes"]]
        for box, drawn in zip(found[path], image["boxes"], strict=True):
            # CVAT's two decimals; YOLO's six of 320 pixels are finer.
            assert (box.xmin, box.ymin, box.width, box.height) == pytest.approx(drawn["bbox"], abs=0.011)


@pytest.mark.parametrize("tool", layouts.LAYOUTS)
def test_untouched_boxes_are_taken_only_on_request(tiles: Path, run: Run, pool: Path, tool: str) -> None:
    record = batch(tiles, run, pool)
    tools.lay_out(run, tool)
    if tool != layouts.LABELSTUDIO:
        said = tools.save(run, tool)
        assert said == "nothing to save; 3 images are unchanged and stay in the batch (`--all` takes all as they are)"
        assert not labels.file_of(run).exists()
    else:
        accept(run.label / tool)  # submitted, unlike predictions nobody looked at
    said = tools.save(run, tool, every=True)
    count = sum(len(image["boxes"]) for image in record["images"])
    assert said.startswith(f"3 images ({count} kept) -> ")
    assert {label.origin for image in saved(run).images for label in image.labels} == {"kept"}
    assert {label.model for image in saved(run).images for label in image.labels} == {MODEL[:12]}
    assert saved(run).models == {MODEL[:12]: "runs/tiny/model.pt"}
    names = sorted(Path(image["path"]).relative_to(pool.parents[2]).as_posix() for image in record["images"])
    assert [image.file for image in saved(run).images] == names


def accept(folder: Path) -> None:
    """Write what Label Studio exports once every prediction is accepted: annotations with the same results."""
    tasks = read_json(folder / "tasks.json")
    exported = [{**task, "annotations": [{"result": task["predictions"][0]["result"]}]} for task in tasks]
    (folder / "export.json").write_text(json.dumps(exported))


def test_a_second_annotation_of_a_task_is_named_as_such(tiles: Path, run: Run, pool: Path) -> None:
    record = batch(tiles, run, pool)
    tools.lay_out(run, layouts.LABELSTUDIO)
    accept(run.label / layouts.LABELSTUDIO)
    path = run.label / layouts.LABELSTUDIO / "export.json"
    tasks = read_json(path)
    tasks[0]["annotations"] *= 2
    path.write_text(json.dumps(tasks))
    said = tools.save(run, layouts.LABELSTUDIO)
    count = len(record["images"][0]["boxes"])
    assert said.startswith("3 images (")
    assert said.endswith(f"; left out {count} shapes (another annotation of the task: one counts)")


def edit_coco(folder: Path, change: Callable[[list[Any]], None]) -> None:
    data = read_json(folder / layouts.COCO_FILE)
    mine = [one for one in data["annotations"] if one["image_id"] == 1]
    change(mine)
    data["annotations"] = mine + [one for one in data["annotations"] if one["image_id"] != 1]
    (folder / layouts.COCO_FILE).write_text(json.dumps(data))


def correct(folder: Path, tool: str) -> None:
    """Move the first box of the first image by 8 pixels, relabel the second, delete the third, add one at 10, 250."""
    if tool == "coco":

        def change(mine: list[Any]) -> None:
            mine[0]["bbox"][0] += 8
            mine[1]["category_id"] = 7 - mine[1]["category_id"]
            new = {**mine[2], "id": 1000, "bbox": [10, 250, 20, 20]}
            mine[2:3] = [new]

        edit_coco(folder, change)
    elif tool == "yolo":
        path = folder / "labels" / "train_0000.txt"
        lines = [line.split() for line in path.read_text().splitlines()]
        lines[0][1] = f"{float(lines[0][1]) + 8 / 320:.6f}"
        lines[1][0] = str(5 - int(lines[1][0]))
        lines[2][1:] = [f"{20 / 320:.6f}", f"{260 / 320:.6f}", f"{20 / 320:.6f}", f"{20 / 320:.6f}"]
        path.write_text("\n".join(map(" ".join, lines)))
    elif tool == "cvat":
        path = folder / "annotations.xml"
        text = path.read_text()
        shapes = re.findall(r"<box .*?/>", text)
        xs = [float(re.search(f'{side}="([^"]*)"', shapes[0])[1]) for side in ("xtl", "xbr")]  # type: ignore[index]
        moved = shapes[0].replace(f'xtl="{xs[0]:.2f}"', f'xtl="{xs[0] + 8:.2f}"')
        moved = moved.replace(f'xbr="{xs[1]:.2f}"', f'xbr="{xs[1] + 8:.2f}"')
        label = re.search(r'label="([^"]*)"', shapes[1])[1]  # type: ignore[index]
        new = '<box label="open" source="manual" occluded="0" xtl="10" ytl="250" xbr="30" ybr="270" z_order="0"/>'
        text = text.replace(shapes[0], moved).replace(shapes[1], shapes[1].replace(label, other(label)))
        path.write_text(text.replace(shapes[2], new))
    elif tool == layouts.LABELSTUDIO:
        accept(folder)
        tasks = read_json(folder / "export.json")
        results = tasks[0]["annotations"][0]["result"]
        results[0]["value"]["x"] += 100 * 8 / 320
        results[1]["value"]["rectanglelabels"] = [other(results[1]["value"]["rectanglelabels"][0])]
        results[2]["value"] |= {"x": 100 * 10 / 320, "y": 100 * 250 / 320, "width": 6.25, "height": 6.25}
        (folder / "export.json").write_text(json.dumps(tasks))
    else:
        path = next((folder / "images").glob("*/*.json"))
        data = read_json(path)
        for point in data["shapes"][0]["points"]:
            point[0] += 8
        data["shapes"][1]["label"] = other(data["shapes"][1]["label"])
        data["shapes"][2]["points"] = [[10, 250], [30, 270]]
        path.write_text(json.dumps(data))


def other(name: str) -> str:
    return "short" if name != "short" else "open"


@pytest.mark.parametrize("tool", layouts.LAYOUTS)
def test_corrections_come_back_and_convert_uses_them(tiles: Path, run: Run, pool: Path, tool: str) -> None:
    record = batch(tiles, run, pool)
    count = len(record["images"][0]["boxes"])
    assert count >= 4
    tools.lay_out(run, tool)
    correct(run.label / tool, tool)
    said = tools.save(run, tool)
    image = next(image for image in saved(run).images if "some é" in image.file)
    assert Counter(label.origin for label in image.labels) == {
        "moved": 1,
        "relabelled": 1,
        "added": 1,
        **({"kept": count - 3} if count > 3 else {}),
    }
    assert len(image.deleted) == 1 and image.deleted[0].bbox == pytest.approx(record["images"][0]["boxes"][2]["bbox"])
    assert "1 moved, 1 relabelled, 1 added, 1 deleted" in said
    # In Label Studio all tasks were submitted; elsewhere two images were not touched.
    assert ("2 images are unchanged" in said) == (tool != layouts.LABELSTUDIO)
    convert.main(Config.model_validate(settings(tiles)).convert, run, 0)
    line = next(line for line in read_json(run.receipt)["labels"] if "some é" in line["image"])
    assert (line["moved"], line["relabelled"], line["added"], line["deleted"]) == (1, 1, 1, 1)


def test_an_existing_folder_may_hold_work_and_is_kept(tiles: Path, run: Run, pool: Path) -> None:
    batch(tiles, run, pool)
    tools.lay_out(run, "labelme")
    with pytest.raises(DataError, match="already exists, perhaps with corrected labels"):
        tools.lay_out(run, "labelme")


def test_the_batch_saved_is_the_one_laid_out(tiles: Path, run: Run, pool: Path) -> None:
    batch(tiles, run, pool)
    tools.lay_out(run, "coco")
    batch(tiles, run, pool, count=1)  # another batch has been chosen meanwhile
    tools.save(run, "coco", every=True)
    assert len(saved(run).images) == 3


def unknown(folder: Path) -> None:
    text = (folder / layouts.COCO_FILE).read_text()
    (folder / layouts.COCO_FILE).write_text(text.replace('"name": "spur"', '"name": "scratch"'))


def another_image(folder: Path) -> None:
    image = next((folder / "images").rglob("*.jpg"))
    shutil.copy(image, folder / "images" / "new.jpg")
    data = read_json(folder / layouts.COCO_FILE)
    data["images"].append({"id": 77, "file_name": "new.jpg", "width": 320, "height": 320})
    (folder / layouts.COCO_FILE).write_text(json.dumps(data))


def another_size(folder: Path) -> None:
    text = (folder / layouts.COCO_FILE).read_text()
    (folder / layouts.COCO_FILE).write_text(text.replace('"width": 320', '"width": 640'))


def no_corners(folder: Path) -> None:
    edit_coco(folder, lambda mine: mine[0].update(bbox=[1, 2, 3]))


def no_number(folder: Path) -> None:
    edit_coco(folder, lambda mine: mine[0].update(bbox=[1, math.nan, 3, 4]))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (unknown, "has a box of class 'scratch'"),
        (another_image, "labels new.jpg, which is not an image of this batch; move a label file to where"),
        (another_size, "is 640x320, but it is 320x320"),
        (no_corners, "is not [x, y, width, height]"),
        (no_number, "has coordinates that are not numbers; correct or delete it"),
    ],
)
def test_invalid_files_are_reported_in_one_line_and_nothing_is_written(
    tiles: Path, run: Run, pool: Path, spoil: Callable[[Path], None], words: str
) -> None:
    batch(tiles, run, pool, count=8)
    tools.lay_out(run, "coco")
    spoil(run.label / "coco")
    with pytest.raises(DataError) as error:
        tools.save(run, "coco", every=True)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert not labels.file_of(run).exists()


def test_images_with_the_same_name_need_a_format_that_distinguishes_them(tiles: Path, run: Run, pool: Path) -> None:
    record = batch(tiles, run, pool, count=2)
    twin = dict(record["images"][1], path=f"{pool}/{Path(record['images'][1]['path']).stem}.png")
    record["images"].append(twin)  # type: ignore[arg-type]
    shutil.copy(record["images"][1]["path"], twin["path"])  # type: ignore[call-overload]
    run.label_next.write_text(json.dumps(record))
    for tool in ("yolo", "labelstudio"):
        with pytest.raises(DataError, match="may confuse it with"):
            tools.lay_out(run, tool)
    tools.lay_out(run, "coco")


def test_boxes_that_an_export_lost_do_not_make_an_image_background(tiles: Path, run: Run, pool: Path) -> None:
    batch(tiles, run, pool)
    tools.lay_out(run, "coco")
    path = run.label / "coco" / layouts.COCO_FILE
    data = read_json(path)
    data["annotations"] = [one for one in data["annotations"] if one["image_id"] == 3][1:]
    data["images"] = data["images"][1:]
    path.write_text(json.dumps(data))
    said = tools.save(run, "coco")
    assert said.startswith("1 image (") and [image.file[-8:] for image in saved(run).images] == ["0002.jpg"]
    assert "; 1 image came back without any box: train_0001.jpg (`--all` takes it as background)" in said
    assert said.endswith("; 1 image not among the labels: train_0000.jpg")
    assert " (1 replaces earlier labels); review it" in tools.save(run, "coco", every=True)
    assert len(saved(run).images) == 2


def empty(folder: Path, tool: str) -> None:
    """Delete all boxes of the first image in place."""
    if tool == "yolo":
        (folder / "labels" / "train_0000.txt").write_text("")
        return
    path = next((folder / "images").glob("*/*.json"))
    path.write_text(json.dumps({**read_json(path), "shapes": []}))


@pytest.mark.parametrize("tool", sorted(layouts.IN_PLACE))
def test_an_image_whose_boxes_were_all_deleted_in_place_is_saved(tiles: Path, run: Run, pool: Path, tool: str) -> None:
    record = batch(tiles, run, pool)
    tools.lay_out(run, tool)
    empty(run.label / tool, tool)
    said = tools.save(run, tool)
    assert said.startswith(f"1 image ({len(record['images'][0]['boxes'])} deleted) -> ") and "2 images are" in said
    [image] = saved(run).images
    assert "some é" in image.file and image.labels == ()


def test_an_image_with_points_in_place_of_its_boxes_is_not_taken_for_background(
    tiles: Path, run: Run, pool: Path
) -> None:
    batch(tiles, run, pool)
    tools.lay_out(run, "labelme")
    path = next((run.label / "labelme" / "images").glob("*/*.json"))
    data = read_json(path)
    data["shapes"] = [{**data["shapes"][0], "shape_type": "point", "points": [[5, 5]]}]
    path.write_text(json.dumps(data))
    said = tools.save(run, "labelme")
    assert said.startswith("nothing to save; ") and "1 image came back without any box: train_0000.jpg" in said
    assert said.endswith("; left out 1 shape (point: it has no area)")


def test_all_wrong_boxes_are_counted(tiles: Path, run: Run, pool: Path) -> None:
    batch(tiles, run, pool)
    tools.lay_out(run, "coco")

    def widen(mine: list[Any]) -> None:
        for one in mine[:3]:
            one["category_id"] = 1

    edit_coco(run.label / "coco", widen)
    text = (run.label / "coco" / layouts.COCO_FILE).read_text()
    (run.label / "coco" / layouts.COCO_FILE).write_text(text.replace('"name": "open"', '"name": "wide"'))
    with pytest.raises(DataError, match=r"has a box of class 'wide' at .*, then save again \(and \d+ more such\)"):
        tools.save(run, "coco")


@pytest.mark.parametrize("tool", layouts.LAYOUTS)
@pytest.mark.parametrize("name", ["images/a b%20c.jpg", "labels/images/x.jpg"])
def test_odd_paths_in_the_pool_come_back(tiles: Path, run: Run, pool: Path, tool: str, name: str) -> None:
    record = batch(tiles, run, pool, count=2)
    odd = pool / name
    odd.parent.mkdir(parents=True)
    shutil.move(record["images"][0]["path"], odd)
    shutil.move(record["images"][1]["path"], pool / odd.name)  # of the same name
    record["images"][0]["path"], record["images"][1]["path"] = str(odd), str(pool / odd.name)
    run.label_next.write_text(json.dumps(record))
    tools.lay_out(run, tool)
    if tool == layouts.LABELSTUDIO:
        accept(run.label / tool)
    tools.save(run, tool, every=True)
    found = {image.file: sorted(label.bbox for label in image.labels) for image in saved(run).images}
    for image in record["images"]:
        boxes = found[Path(image["path"]).relative_to(run.project).as_posix()]
        assert boxes == [pytest.approx(box) for box in sorted(tuple(box["bbox"]) for box in image["boxes"])]


def place(run: Run, record: Next, number: int, path: Path, by: Callable[[Any, Any], Any] = shutil.move) -> None:
    """Put an image of the batch at another path, and say so in `next.json`."""
    path.parent.mkdir(exist_ok=True)
    by(record["images"][number]["path"], path)
    record["images"][number]["path"] = str(path)
    run.label_next.write_text(json.dumps(record))


def test_labelimg_finds_labels_and_classes_in_one_folder(tiles: Path, run: Run, pool: Path) -> None:
    record = batch(tiles, run, pool)
    place(run, record, 2, pool / "other" / "train_0001.jpg", by=shutil.copy)
    tools.lay_out(run, "yolo")
    names = {path.name for path in (run.label / "yolo" / "labels").iterdir()}
    assert names == {"classes.txt", "train_0000.txt", "train_0001.txt", "other-train_0001.txt"}
    assert (run.label / "yolo" / "labels" / "classes.txt").read_text().split("\n")[0] == record["classes"][0]
    tools.save(run, "yolo", every=True)
    assert len(saved(run).images) == 3


def test_labels_of_an_image_called_classes_do_not_meet_the_class_names(tiles: Path, run: Run, pool: Path) -> None:
    record = batch(tiles, run, pool)
    place(run, record, 0, pool / "other" / "classes.jpg")
    tools.lay_out(run, "yolo")
    folder = run.label / "yolo" / "labels"
    assert (folder / "classes.txt").read_text().split() and (folder / "other-classes.txt").is_file()
    tools.save(run, "yolo", every=True)
    assert len(saved(run).images) == 3
    shutil.rmtree(run.label / "yolo")
    place(run, record, 0, pool / "classes.jpg")
    with pytest.raises(
        DataError, match=r"classes\.jpg: yolo may confuse it with its list of class names, classes\.txt; rename"
    ):
        tools.lay_out(run, "yolo")


def test_labels_beside_an_image_do_not_replace_those_in_labels(tiles: Path, run: Run, pool: Path) -> None:
    batch(tiles, run, pool)
    tools.lay_out(run, "yolo")
    folder = run.label / "yolo"
    shutil.copy(folder / "labels" / "train_0001.txt", folder / "images" / "train_0001.txt")
    with pytest.raises(DataError, match=r"has labels in .*labels/train_0001\.txt already; keep one of the two"):
        tools.save(run, "yolo", every=True)


def test_labels_of_a_class_added_later_stay(tiles: Path, run: Run, pool: Path) -> None:
    record = batch(tiles, run, pool)
    tools.lay_out(run, "coco")
    later = Label((1, 1, 9, 9), "scratch")
    image = Image("data/raw/more/new.jpg", (320, 320), "1" * 64, (later,))
    labels.save(labels.file_of(run), Labels((*record["classes"], "scratch"), (image,)))
    tools.save(run, "coco", every=True)
    assert later in [label for image in saved(run).images for label in image.labels]


def test_saving_a_batch_never_laid_out_is_refused(run: Run) -> None:
    with pytest.raises(DataError, match="to lay the batch out for cvat"):
        tools.save(run, "cvat")
    with pytest.raises(DataError, match="does not exist; run `make label`"):
        tools.lay_out(run, "cvat")


def test_the_command_line_takes_relative_paths(
    tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tuple(layouts.LAYOUTS) == options.TOOLS
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(f"convert: {{source: {tiles}}}\n")
    run = Run.of(Path("tiny.yaml"))
    batch(tiles, run, Path("data/raw/more"))
    tools.lay_out(run, "coco")
    correct(run.label / "coco", "coco")
    with lock.of(run):  # labelling need not wait for a long training
        assert main(["label", "--config", "tiny.yaml", "--save", "--as", "coco"]) == 0
    assert "1 deleted) -> data/labels/tiny.json; review it" in capsys.readouterr().out
    assert [image.file for image in saved(run).images] == ["data/raw/more/some é/train_0000.jpg"]
    assert main(["convert", "--config", "tiny.yaml"]) == 0
    assert "1 image labelled with `make label`" in capsys.readouterr().out
    assert main(["label", "--config", "tiny.yaml", "--save", "--as", "yolo"]) == 1
    assert "error: runs/tiny/label/yolo: does not exist; run `label --as yolo` to lay" in capsys.readouterr().err

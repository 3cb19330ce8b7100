"""Public datasets and tools with their own text or JSON files, laid out as documented.

`BOXES` is the ground truth; each writer below knows one layout.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_formats_tools import (
    BOXES,
    HEIGHT,
    NAMES,
    RATIOS,
    STEMS,
    WIDTH,
    Corners,
    assert_refused,
    damaged_reason,
    do,
    images,
    replace_once,
    write,
)

from pipeline import formats
from pipeline.boxes import YoloDataset, read_labels
from pipeline.formats.splits import split_of_folders
from pipeline.run import Run


def sides(corners: Corners) -> str:
    xmin, ymin, xmax, ymax = corners
    return f"{xmin},{ymin},{xmax - xmin},{ymax - ymin}"


def visdrone(folder: Path) -> None:
    """DET: car is 4 and bus 9; every other line ends in a comma, as in the dataset itself."""
    part = folder / "VisDrone2019-DET-train"
    images(part / "images")
    for stem in STEMS:
        rows = [f"{sides(c)},1,{'49'[NAMES.index(la)]},0,{n}{',' * (n % 2)}\n" for n, (la, c) in enumerate(BOXES[stem])]
        write(part / "annotations" / f"{stem}.txt", "".join(rows))


def wider_face(folder: Path) -> None:
    text = ""
    for stem in STEMS:
        rows = [f"{sides(corners).replace(',', ' ')} 0 0 0 0 0 0 \n" for _, corners in BOXES[stem]]
        text += f"0--Parade/{stem}.jpg\n{len(rows)}\n" + "".join(rows or ["0 0 0 0 0 0 0 0 0 0 \n"])
    write(folder / "wider_face_split" / "wider_face_train_bbx_gt.txt", text)
    write(folder / "wider_face_split" / "wider_face_test_filelist.txt", "1--Handshaking/far.jpg\n")
    images(folder / "WIDER_train" / "images" / "0--Parade")


def mot_rows(first: int) -> str:
    rows = []
    for label in NAMES:  # sorted by track, as in the dataset
        for frame, stem in enumerate(STEMS, start=1):
            for track, (name, (xmin, ymin, xmax, ymax)) in enumerate(BOXES[stem]):
                if name == label:
                    number = (1, 3)[NAMES.index(label)] if first else NAMES.index(label) + 1
                    place = f"{xmin + first},{ymin + first},{xmax - xmin},{ymax - ymin}"
                    rows.append(f"{frame},{track + 1},{place},1,{number},0.86\n")
    return "".join(rows)


def mot_challenge(folder: Path) -> None:
    video = folder / "train" / "MOT17-02-FRCNN"
    images(video / "img1", lambda stem: f"{int(stem[-1]) + 1:06}.jpg")
    write(video / "gt" / "gt.txt", mot_rows(first=1))
    write(video / "det" / "det.txt", "1,-1,5,5,50,50,0.9\n")
    size = f"imWidth={WIDTH}\nimHeight={HEIGHT}\nimExt=.jpg\n"
    write(video / "seqinfo.ini", f"[Sequence]\nname=MOT17-02-FRCNN\nimDir=img1\nframeRate=30\n{size}")


def cvat_mot(folder: Path) -> None:
    images(folder / "img1", lambda stem: f"frame_{int(stem[-1]) + 1:06}.jpg")
    write(folder / "gt" / "gt.txt", mot_rows(first=0))
    write(folder / "gt" / "labels.txt", "cat\ndog\n")


def bdd(folder: Path) -> None:
    frames = []
    for stem in STEMS:
        labels = [
            {
                "id": str(n),
                "category": label,
                "attributes": {"occluded": False, "truncated": False, "trafficLightColor": "NA"},
                "manualShape": True,
                "box2d": dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True)),
            }
            for n, (label, corners) in enumerate(BOXES[stem])
        ]
        frames.append({"name": f"{stem}.jpg", "attributes": {"weather": "clear"}, "timestamp": 10000, "labels": labels})
    write(folder / "labels" / "det_20" / "det_train.json", frames)
    images(folder / "images" / "100k" / "train")


def super_annotate(folder: Path) -> None:
    for stem in STEMS:
        instances = []
        for n, (label, (xmin, ymin, xmax, ymax)) in enumerate(BOXES[stem]):
            box = {"type": "bbox", "points": {"x1": xmin, "x2": xmax, "y1": ymin, "y2": ymax}}
            outline = {"type": "polygon", "points": [xmin, ymin, xmax, ymin, xmax, ymax, xmin, ymax], "exclude": []}
            instances.append({**(outline if n else box), "classId": 1, "className": label, "probability": 100})
        size = {"name": f"{stem}.jpg", "width": WIDTH, "height": HEIGHT, "status": "Completed"}
        data = {"metadata": size, "instances": instances, "tags": [], "comments": []}
        write(folder / f"{stem}.jpg___objects.json", data)
    write(folder / "classes" / "classes.json", [{"id": 1, "name": name, "color": "#f00"} for name in NAMES])
    images(folder)


# What each calls cats and dogs, the split of its folder, and how many frames it says nothing about.
LAYOUTS: dict[str, tuple[Callable[[Path], None], str, tuple[str, str], str | None, bool]] = {
    "VisDrone": (visdrone, "visdrone", ("car", "bus"), "train", False),
    "WIDER FACE": (wider_face, "widerface", ("face", "face"), "train", False),
    "MOT Challenge": (mot_challenge, "mot", ("pedestrian", "car"), "train", True),
    "CVAT MOT 1.1": (cvat_mot, "mot", ("cat", "dog"), None, True),
    "BDD100K": (bdd, "bdd", ("cat", "dog"), "train", False),
    "SuperAnnotate": (super_annotate, "superannotate", ("cat", "dog"), None, False),
}


def number_of(layout: str, path: Path) -> int:
    return int(path.stem[-1]) - (layout in ("MOT Challenge", "CVAT MOT 1.1"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_public_layout_is_read_as_published(layout: str, tmp_path: Path) -> None:
    lay, name, called, split, is_silent = LAYOUTS[layout]
    lay(tmp_path / "source")
    found_name, source = formats.read(tmp_path / "source")
    assert found_name == name
    assert len(source.images) == 4
    for item in source.images:
        number = number_of(layout, item.image)
        truth = sorted((called[NAMES.index(label)], *corners) for label, corners in BOXES[f"img{number}"])
        assert sorted((box.label, *box[1:5]) for box in item.boxes) == truth
        assert not any(box.damage or box.ignore for box in item.boxes)
        assert item.split == split
        assert (item.annotation is None) == (is_silent and number == 3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_public_layout_converts_without_losing_a_box(layout: str, tmp_path: Path) -> None:
    lay, _, called, _, is_silent = LAYOUTS[layout]
    lay(tmp_path / "source")
    run = Run(tmp_path / "runs" / "one")
    receipt = do(tmp_path / "source", run, split=RATIOS, unlabelled="background" if is_silent else "error")
    assert receipt["images"]["used"] == 4
    assert receipt["boxes"] == {"read": 6, "kept": 6, "clipped": 0, "dropped": 0, "ignored": 0}
    assert len(receipt["background_by_setting"]) == is_silent
    dataset = YoloDataset.read(run.dataset / "data.yaml")
    for path in (path for split in dataset.images for path in dataset.files(split)):
        written = read_labels(dataset.label_file(path), dataset.names, WIDTH, HEIGHT)
        truth = [(called[NAMES.index(label)], *corners) for label, corners in BOXES[f"img{number_of(layout, path)}"]]
        assert sorted(box.label for box in written) == sorted(one[0] for one in truth)
        if truth:  # label files have six decimals
            found = sorted((box.xmin, *box[1:5]) for box in written)
            np.testing.assert_allclose([one[1:] for one in found], sorted(one[1:] for one in truth), atol=1e-3)


# What is changed in the first file that contains it -> the reason given for the damaged box.
DAMAGE: dict[str, tuple[str, str, str, str]] = {
    "VisDrone: text": ("VisDrone", "20,30,80,60,1,4", "20,30,wide,60,1,4", "width is 'wide', not a number"),
    "VisDrone: columns": ("VisDrone", "20,30,80,60,1,4,0,0", "20,30,80,60,1,4,0,0,7,8", "10 columns"),
    "VisDrone: category": ("VisDrone", "20,30,80,60,1,4", "20,30,80,60,1,12", "category is 12"),
    "VisDrone: half a category": ("VisDrone", "20,30,80,60,1,4", "20,30,80,60,1,4.5", "category is 4.5"),
    "VisDrone: score": ("VisDrone", "20,30,80,60,1,4", "20,30,80,60,0.7,4", "score is 0.7"),
    "VisDrone: negative": ("VisDrone", "20,30,80,60,1,4", "20,30,-80,60,1,4", "-80"),
    "WIDER FACE: columns": ("WIDER FACE", "150 60 140 160 0 0 0 0 0 0", "150 60 140 160", "4 numbers"),
    "WIDER FACE: text": ("WIDER FACE", "150 60 140 160", "150 60 x 160", "width is 'x', not a number"),
    "WIDER FACE: negative": ("WIDER FACE", "150 60 140 160", "150 60 140 -160", "-160"),
    "MOT: text": ("MOT Challenge", ",80,60,1,1,0.86", ",80,tall,1,1,0.86", "height is 'tall', not a number"),
    "MOT: class": ("MOT Challenge", ",80,60,1,1,0.86", ",80,60,1,14,0.86", "class is 14, not one of 1 to 13"),
    "MOT: no class": ("CVAT MOT 1.1", ",80,60,1,1,0.86", ",80,60,1,-1,0.86", "class is -1, not one of 1 to 2"),
    "MOT: columns": ("MOT Challenge", ",80,60,1,1,0.86", ",80", "5 columns"),
    "BDD100K: corner": ("BDD100K", '"x2": 100', '"x2": null', "lacks one of the numbers x1, y1, x2, y2"),
    "BDD100K: class": ("BDD100K", '"category": "cat"', '"category": 7', "class is 7; name it"),
    "BDD100K: no box": ("BDD100K", '"box2d": {"x1": 20', '"box": {"x1": 20', "None lacks one of the numbers"),
    "BDD100K: a word": ("BDD100K", '"labels": [{', '"labels": ["x", {', "'x' instead of a label"),
    "SuperAnnotate: corner": ("SuperAnnotate", '"x2": 100', '"x2": "far"', "lacks one of the numbers x1, y1, x2, y2"),
    "SuperAnnotate: kind": ("SuperAnnotate", '"type": "bbox"', '"type": "blob"', "type 'blob' is not supported"),
    "SuperAnnotate: class": ("SuperAnnotate", '"className": "cat"', '"className": ""', "class is ''; name it"),
}


def changed(layout: str, folder: Path, old: str, new: str) -> None:
    LAYOUTS[layout][0](folder)
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".txt", ".json")]
    replace_once(next(path for path in files if old in path.read_text()), old, new)


@pytest.mark.parametrize("case", DAMAGE)
def test_one_damaged_line_is_a_box_with_the_reason(case: str, tmp_path: Path) -> None:
    layout, old, new, why = DAMAGE[case]
    changed(layout, tmp_path, old, new)
    assert why in damaged_reason(tmp_path, among=6 + new.startswith('"labels": ["x"'))


BROKEN: dict[str, tuple[str, str, str, str]] = {
    "WIDER FACE: a line less": ("WIDER FACE", "150 60 140 160 0 0 0 0 0 0 \n", "", r"line 1: '0--Parade/img0.jpg' is followed by 1 face, but its number of faces is '2'"),
    "WIDER FACE: a line more": ("WIDER FACE", "0--Parade/img1.jpg\n2\n", "0--Parade/img1.jpg\n1\n", r"is followed by 2 faces, .* is '1'"),
    "WIDER FACE: no number": ("WIDER FACE", "0--Parade/img1.jpg\n2\n", "0--Parade/img1.jpg\n", r"is followed by 1 face, but"),
    "WIDER FACE: a huge number": ("WIDER FACE", "0--Parade/img1.jpg\n2\n", "0--Parade/img1.jpg\n" + "9" * 5000 + "\n", r"its number of faces is '999"),
    "WIDER FACE: a name spoilt": ("WIDER FACE", "0--Parade/img1.jpg", "0--Parade/img1.jp", r"is followed by 6 faces, .* is '2'"),
    "WIDER FACE: two names": ("WIDER FACE", "img1.jpg", "img0.jpg", r"two entries describe img0.jpg; remove one"),
    "WIDER FACE: outside": ("WIDER FACE", "0--Parade/img1.jpg", "../../../etc/passwd.jpg", r"outside"),
    "VisDrone: no image": ("VisDrone", "", "", r"image missing|matches both"),
    "MOT: frame": ("MOT Challenge", "1,1,21,31,", "x,1,21,31,", r"line 1: 'x' instead of a frame number"),
    "MOT: a huge frame": ("MOT Challenge", "1,1,21,31,", "9" * 5000 + ",1,21,31,", r"line 1: '999.* instead of a frame number"),
    "MOT: a missing frame": ("MOT Challenge", "1,1,21,31,", "99,1,21,31,", r"000099.jpg"),
    "MOT: a folder outside": ("MOT Challenge", "1,1,21,31,", "99,1,21,31,", r"image missing"),
    "MOT: names": ("CVAT MOT 1.1", "cat\ndog", "cat\ncat", r"a repeated class name"),
    "BDD100K: no name": ("BDD100K", '"name": "img0.jpg"', '"name": null', r"a frame has the name None"),
    "BDD100K: labels": ("BDD100K", '"labels": [{', '"labels": {}, "x": [{', r"the labels of 'img0.jpg' are not a list"),
    "SuperAnnotate: list": ("SuperAnnotate", '"instances": [', '"instances": {}, "x": [', r"`instances` is not a list|no annotation"),
    "SuperAnnotate: cut": ("SuperAnnotate", '"tags": [], "comments": []}', "", r"not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_an_invalid_file_is_refused_by_name(case: str, tmp_path: Path) -> None:
    layout, old, new, said = BROKEN[case]
    source = tmp_path / "source"
    changed(layout, source, old, new)
    if not old:
        next(source.rglob("img0.jpg")).unlink()
    assert_refused(source, Run(tmp_path / "runs" / "x"), said)


@pytest.mark.parametrize(
    ("layout", "old", "new", "why"),
    [
        ("VisDrone", "20,30,80,60,1,4", "20,30,80,60,0,0", "category 0: a region to be ignored"),
        ("VisDrone", "20,30,80,60,1,4", "20,30,80,60,0,11", "score 0: an object that does not count"),
        ("WIDER FACE", "150 60 140 160 0 0 0 0", "150 60 140 160 0 0 0 1", "invalid 1: a face that does not count"),
        ("MOT Challenge", ",80,60,1,1,0.86", ",80,60,0,8,0.86", "flag 0: it does not count"),
        ("BDD100K", '"occluded": false', '"crowd": true', "crowd: one box around many objects"),
        ("BDD100K", '"box2d": {', '"poly2d": [], "box": {', "a poly2d, not a box"),
        ("SuperAnnotate", '"type": "bbox"', '"type": "point"', "a point, not a box"),
    ],
)
def test_excluded_objects_are_ignored_and_listed(layout: str, old: str, new: str, why: str, tmp_path: Path) -> None:
    changed(layout, tmp_path / "source", old, new)
    unlabelled = "background" if LAYOUTS[layout][4] else "error"
    receipt = do(tmp_path / "source", Run(tmp_path / "runs" / "x"), split=RATIOS, unlabelled=unlabelled)
    assert receipt["boxes"] == {"read": 6, "kept": 5, "clipped": 0, "dropped": 0, "ignored": 1}
    assert [problem["reason"] for problem in receipt["problems"]] == [why]


def test_an_empty_visdrone_file_is_background(tmp_path: Path) -> None:
    visdrone(tmp_path)
    [item] = [item for item in formats.read(tmp_path)[1].images if item.image.stem == "img3"]
    assert item.annotation and not item.boxes


def test_older_mot_sets_have_one_class_and_no_visibility(tmp_path: Path) -> None:
    mot_challenge(tmp_path)
    [path] = tmp_path.rglob("gt.txt")
    path.write_text("1,1,21.0,31.0,80.0,60.0,1,-1,-1,-1\n")
    [box] = [box for item in formats.read(tmp_path)[1].images for box in item.boxes]
    assert (box.label, *box[1:5]) == ("pedestrian", 20, 30, 100, 90)


def test_mot_frames_may_have_another_folder_and_other_names(tmp_path: Path) -> None:
    mot_challenge(tmp_path)
    [video] = (tmp_path / "train").iterdir()
    (video / "img1").rename(video / "frames")
    for path in list((video / "frames").iterdir()):
        path.rename(path.with_name(f"cam-{int(path.stem):08}.jpg"))
    about = video / "seqinfo.ini"
    about.write_text(about.read_text().replace("imDir=img1", "imDir=frames"))
    assert {item.image.name: len(item.boxes) for item in formats.read(tmp_path)[1].images} == {
        "cam-00000001.jpg": 2,
        "cam-00000002.jpg": 2,
        "cam-00000003.jpg": 2,
        "cam-00000004.jpg": 0,
    }


def test_frames_of_two_videos_stay_apart(tmp_path: Path) -> None:
    mot_challenge(tmp_path / "a")
    mot_challenge(tmp_path / "b")
    for path in tmp_path.glob("b/**/gt.txt"):
        path.write_text(path.read_text().replace("1,1,21,31,80,60", "4,1,21,31,80,60"))
    found = {item.image.relative_to(tmp_path).parts[0] + item.image.stem[-1]: len(item.boxes) for item in formats.read(tmp_path)[1].images}  # fmt: skip
    assert found == {"a1": 2, "a2": 2, "a3": 2, "a4": 0, "b1": 1, "b2": 2, "b3": 2, "b4": 1}


def test_bdd_frames_without_a_label_list_are_unlabelled(tmp_path: Path) -> None:
    bdd(tmp_path)
    path = tmp_path / "labels" / "det_20" / "det_train.json"
    frames = json.loads(path.read_text())
    del frames[0]["labels"]
    path.write_text(json.dumps({"config": {}, "frames": frames}))
    assert {item.image.stem: item.annotation is None for item in formats.read(tmp_path)[1].images} == {
        "img0": True,
        "img1": False,
        "img2": False,
        "img3": False,
    }


@pytest.mark.parametrize(
    ("shape", "frame"),
    [
        ({"type": "rbbox", "points": {"x1": 50, "y1": 20, "x2": 90, "y2": 60, "x3": 50, "y3": 100, "x4": 10, "y4": 60}}, (10, 20, 90, 100)),
        ({"type": "ellipse", "cx": 100, "cy": 100, "rx": 30, "ry": 10, "angle": 90}, (90, 70, 110, 130)),
        ({"type": "polygon", "points": [5, 6, 50, 8, 30, 70]}, (5, 6, 50, 70)),
    ],
)  # fmt: skip
def test_superannotate_shapes_are_framed(shape: dict[str, object], frame: Corners, tmp_path: Path) -> None:
    super_annotate(tmp_path)
    path = tmp_path / "img0.jpg___objects.json"
    path.write_text(json.dumps({"metadata": {"name": "img0.jpg"}, "instances": [{**shape, "className": "cat"}]}))
    [item] = [item for item in formats.read(tmp_path)[1].images if item.image.stem == "img0"]
    [box] = item.boxes
    np.testing.assert_allclose(box[1:5], frame, atol=1e-9)


@pytest.mark.parametrize("status", ["NotStarted", "Skipped"])
def test_an_image_that_nobody_labelled_is_unlabelled(status: str, tmp_path: Path) -> None:
    super_annotate(tmp_path)
    path = tmp_path / "img3.jpg___objects.json"
    path.write_text(path.read_text().replace("Completed", status))
    assert [item.image.stem for item in formats.read(tmp_path)[1].images if item.annotation is None] == ["img3"]


@pytest.mark.parametrize(
    ("folders", "split"),
    [
        ("WIDER_val/images/0--Parade", "val"),
        ("VisDrone2019-DET-test-dev/images", "test"),
        ("VisDrone2018-DET-val/images", "val"),
        ("VisDrone-notes/train track", None),
        ("my_train/images", None),
    ],
)
def test_folders_of_public_sets_give_the_split(folders: str, split: str | None) -> None:
    assert split_of_folders(folders) == split

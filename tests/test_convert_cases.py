"""What happens to real-world exports, by kind of trouble, each in several forms."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import pipeline_process
from PIL import Image, ImageOps
from test_formats_tools import (
    BOXES,
    HEIGHT,
    NAMES,
    RATIOS,
    STEMS,
    WIDTH,
    coco,
    do,
    image,
    images,
    sides,
    write,
    yolo_lines,
)

from pipeline import pixels
from pipeline.boxes import image_size
from pipeline.config.loading import load
from pipeline.errors import ConfigError, DataError
from pipeline.formats.nearest import in_words
from pipeline.formats.splits import split_of_folders
from pipeline.formats.tree import STEPS, Tree
from pipeline.run import Run
from pipeline.upstream import environment


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "runs" / "mine")


def refused(source: Path, run: Run, said: str, **settings: Any) -> str:
    with pytest.raises(DataError, match=said) as error:
        do(source, run, **{"split": RATIOS, **settings})
    line = str(error.value)
    line.encode()
    assert "\n" not in line and len(line) < 900 and not run.dataset.exists()
    return line


def written(run: Run) -> dict[str, int]:
    """The number of boxes per image in the dataset, by stem."""
    return {path.stem: len(path.read_text().splitlines()) for path in sorted((run.dataset / "labels").rglob("*.txt"))}


TRUTH = {stem: len(boxes) for stem, boxes in BOXES.items()}

# --- A. Names that do not quite match the file -------------------------------------------------------------


def by_coco(folder: Path, name: Callable[[str], str]) -> None:
    write(folder / "a.json", coco(name))


def by_cvat(folder: Path, name: Callable[[str], str]) -> None:
    found = "".join(
        f'<image id="{n}" name="{name(stem)}" width="{WIDTH}" height="{HEIGHT}">'
        + "".join(f'<box label="{la}" xtl="{c[0]}" ytl="{c[1]}" xbr="{c[2]}" ybr="{c[3]}"/>' for la, c in BOXES[stem])
        + "</image>"
        for n, stem in enumerate(STEMS)
    )
    write(folder / "a.xml", f"<annotations><version>1.1</version>{found}</annotations>")


def by_csv(folder: Path, name: Callable[[str], str]) -> None:
    rows = [f"{name(stem)},{la},{','.join(map(str, c))}\n" for stem in STEMS for la, c in BOXES[stem]]
    write(folder / "a.csv", "".join(["filename,class,xmin,ymin,xmax,ymax\n", *rows, f"{name('img3')},,,,,\n"]))


def by_createml(folder: Path, name: Callable[[str], str]) -> None:
    def centred(c: Any) -> dict[str, float]:
        return {**sides(c), "x": (c[0] + c[2]) / 2, "y": (c[1] + c[3]) / 2}

    data = [
        {"image": name(stem), "annotations": [{"label": la, "coordinates": centred(c)} for la, c in BOXES[stem]]}
        for stem in STEMS
    ]
    write(folder / "a.json", data)


def by_via(folder: Path, name: Callable[[str], str]) -> None:
    data = {
        stem: {
            "filename": name(stem),
            "regions": [
                {"shape_attributes": {"name": "rect", **sides(c)}, "region_attributes": {"class": la}}
                for la, c in BOXES[stem]
            ],
        }
        for stem in STEMS
    }
    write(folder / "a.json", data)


BY_NAME = {"coco": by_coco, "cvat": by_cvat, "csv": by_csv, "createml": by_createml, "via": by_via}


def decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


# Name in the annotation -> the file's own name, and the step at which they match.
NOT_QUITE: dict[str, tuple[str, str, str]] = {
    "its name": ("{}.jpg", "images/{}.jpg", "exact"),
    "folders of the source": ("images/{}.jpg", "images/{}.jpg", "exact"),
    "macOS": ("café {}.jpg", decomposed("images/café {}.jpg"), "unicode"),
    "macOS, reversed": (decomposed("größe/{}.jpg"), "größe/{}.jpg", "unicode"),
    "suffix": ("{}.jpg", "images/{}.png", "spelling"),
    "case of the suffix": ("{}.JPG", "images/{}.jpg", "spelling"),
    "case": ("IMAGES/{}.jpg", "images/{}.jpg", "spelling"),
    "no suffix": ("{}", "images/{}.png", "spelling"),
    "per cent": ("my%20shots/{}.jpg", "my shots/{}.jpg", "spelling"),
    "an upload": ("0a1b2c3d-{}.jpg", "images/{}.jpg", "spelling"),
    "an upload on the disk": ("{}.jpg", "images/0a1b2c3d-{}.jpg", "spelling"),
    "a local file": ("/data/local-files/?d=shots/{}.jpg", "shots/{}.jpg", "spelling"),
    "a folder of the server": ("..\\..\\label-studio\\media\\upload\\4\\{}.jpg", "images/{}.jpg", "path"),
    "a number of the server": ("images\\1/{}.jpg", "images/{}.jpg", "path"),
    "a download": ("samples/CAM_FRONT/{}.jpg", "images/{}.jpg", "path"),
    "an absolute path": ("/home/ann/set/{}.jpg", "images/{}.jpg", "path"),
    "a drive": ("C:\\Users\\ann\\{}.jpg", "images/{}.jpg", "path"),
    "an address": ("https://bucket.example/a/{}.jpg?X-Goog=1", "images/{}.jpg", "path"),
    "all at once": ("C:\\Users\\ann\\My%20Shots\\0a1b2c3d-{}.JPEG", "my shots/{}.jpg", "path"),
}  # fmt: skip


@pytest.mark.parametrize("form", NOT_QUITE)
@pytest.mark.parametrize("format_name", BY_NAME)
def test_names_match_as_a_human_would_match_them(format_name: str, form: str, source: Path, run: Run) -> None:
    said, there, step = NOT_QUITE[form]
    if format_name == "cvat" and "&" in said:
        pytest.skip("would be escaped")
    images(source, there.format)
    BY_NAME[format_name](source, said.format)
    receipt = do(source, run, split=RATIOS, format=format_name)
    assert sorted(written(run).values()) == sorted(TRUTH.values())
    assert receipt["names_matched"] == {**dict.fromkeys(STEPS, 0), step: 4}


def with_labels(folder: Path, home: str, name: Callable[[str], str]) -> None:
    for stem in STEMS:
        write(folder / home / f"{name(stem)}.txt", yolo_lines(stem))
    write(folder / "classes.txt", "\n".join(NAMES))


def with_xml(folder: Path, home: str, name: Callable[[str], str]) -> None:
    for stem in STEMS:
        objects = "".join(
            f"<object><name>{la}</name><bndbox><xmin>{c[0]}</xmin><ymin>{c[1]}</ymin><xmax>{c[2]}</xmax><ymax>{c[3]}</ymax>"
            "</bndbox></object>"
            for la, c in BOXES[stem]
        )
        write(folder / home / f"{name(stem)}.xml", f"<annotation>{objects}</annotation>")


STEM_FORMS: dict[str, tuple[str, str, str]] = {
    "macOS": ("labels/é {}", decomposed("images/é {}.jpg"), "unicode"),
    "case": ("labels/{}", "images/I{}.JPG", "any"),
    "the image's suffix": ("labels/{}.jpg", "images/{}.jpg", "any"),
    "an upload": ("labels/0a1b2c3d-{}", "images/{}.jpg", "spelling"),
    "capital folders": ("Labels/{}", "Images/{}.jpg", "exact"),
    "Darknet's folders": ("labels/{}", "JPEGImages/{}.jpg", "exact"),
}


@pytest.mark.parametrize("form", STEM_FORMS)
@pytest.mark.parametrize("lay", [with_labels, with_xml], ids=["yolo", "voc"])
def test_stems_match_the_same_way(form: str, lay: Any, source: Path, run: Run) -> None:
    label, there, step = STEM_FORMS[form]
    images(source, lambda stem: there.format(stem if form != "case" else stem[1:]))
    home, _, name = label.rpartition("/")
    lay(source, home, name.format)
    receipt = do(source, run, split=RATIOS)
    assert sorted(written(run).values()) == sorted(TRUTH.values())
    assert sum(receipt["names_matched"].values()) == 4
    assert step == "any" or receipt["names_matched"][step] == 4


@pytest.mark.parametrize("format_name", BY_NAME)
def test_both_images_an_ambiguous_name_could_mean_are_named(format_name: str, source: Path, run: Run) -> None:
    images(source / "images", lambda stem: f"{stem}.png")
    shutil.copy(source / "images" / "img0.png", source / "images" / "IMG0.PNG")
    BY_NAME[format_name](source, "{}.jpg".format)
    line = refused(source, run, r"a\.\w+: 'img0\.jpg' matches both images/", format=format_name)
    assert "images/IMG0.PNG" in line and "images/img0.png" in line


def test_two_names_for_one_image_are_refused(source: Path, run: Run) -> None:
    images(source / "images")
    data = coco("{}.JPG".format)
    data["images"][1]["file_name"] = "other/img0.JPEG"
    write(source / "a.json", data)
    (source / "images" / "img1.jpg").unlink()
    refused(source, run, r"/source/other/img0\.JPEG: image missing; restore it", unlabelled="background")
    data["images"][1]["file_name"] = "img0.JPEG"
    write(source / "a.json", data)
    refused(source, run, r"'img0\.JPG' and 'img0\.JPEG' could both be images/img0\.jpg")


def test_an_image_already_matched_by_another_name_is_not_taken(source: Path, run: Run) -> None:
    images(source / "images")
    data = coco("{}.jpg".format)
    data["images"][1]["file_name"] = "img0.png"  # does not exist, and img0.jpg belongs to another record
    write(source / "a.json", data)
    refused(
        source, run, r"img0\.png: image missing; .*img1\.jpg has no annotation: if it is the missing image, give both"
    )


def test_a_missing_image_is_not_replaced_from_another_folder(source: Path, run: Run) -> None:
    """A frame of another video must not stand in for it."""
    for film in ("film0", "film1"):
        images(source / film)
    (source / "film0" / "img0.jpg").unlink()
    write(source / "a.json", coco("film0/{}.jpg".format))
    refused(source, run, r"film0/img0\.jpg: image missing", unlabelled="background")


def labelme_files(folder: Path, place: str, image_path: str) -> None:
    shape = {"label": "cat", "points": [[1, 2], [30, 40]], "shape_type": "rectangle"}
    for stem in STEMS:
        data = {"shapes": [shape], "imagePath": image_path.format(stem), "imageWidth": WIDTH, "imageHeight": HEIGHT}
        write(folder / place.format(stem), data)


@pytest.mark.parametrize("said", ["..\\jpg\\{}.jpg", "../jpg/{}.JPG", "./../jpg/{}.jpg"])
def test_a_path_that_leads_to_a_folder_of_the_source_means_that_folder(said: str, source: Path, run: Run) -> None:
    for site in ("siteA", "siteB"):
        images(source / site / "jpg")
    labelme_files(source, "siteA/json/{}.json", said)
    labelme_files(source, "siteB/json/{}.json", said)
    assert len(do(source, run, split=RATIOS, near_duplicates=False)["sources"]) == 8


def test_a_path_that_leads_to_a_folder_of_the_source_is_not_searched_elsewhere(source: Path, run: Run) -> None:
    for site in ("siteA", "siteB"):
        images(source / site / "jpg")
    labelme_files(source, "siteA/json/{}.json", "..\\jpg\\{}.jpg")
    (source / "siteA" / "jpg" / "img1.jpg").unlink()
    refused(source, run, r"siteA/jpg/img1\.jpg: image missing", unlabelled="background")


def test_images_in_folders_parallel_to_those_of_the_annotations_are_found(source: Path, run: Run) -> None:
    for site in ("siteA", "siteB"):
        images(source / "pictures" / site)
        labelme_files(source, f"labels/{site}/{{}}.json", "{}.jpg" if site == "siteA" else "old/{}.jpg")
    assert len(do(source, run, split=RATIOS, near_duplicates=False)["sources"]) == 8


def test_a_folder_that_other_names_mean_does_not_stand_in_for_a_missing_one(source: Path, run: Run) -> None:
    images(source / "siteB")
    data = coco("siteA/{}.jpg".format)
    other = coco("siteB/{}.jpg".format)
    data["images"] += [{**record, "id": record["id"] + 10} for record in other["images"][:2]]
    data["annotations"] += [
        {**a, "id": a["id"] + 10, "image_id": a["image_id"] + 10} for a in other["annotations"] if a["image_id"] < 2
    ]
    write(source / "a.json", data)
    receipt = do(source, run, split=RATIOS, **DANGEROUS)
    assert sorted(receipt["sources"].values()) == ["siteB/img0.jpg", "siteB/img1.jpg"]
    assert receipt["names_matched"] == {"exact": 2, "unicode": 0, "spelling": 0, "path": 0}


@pytest.mark.parametrize("lost", [1, 3])
def test_a_renamed_folder_is_found_although_images_of_it_are_missing(lost: int, source: Path, run: Run) -> None:
    images(source / "renamed")
    (source / "renamed" / f"img{lost}.jpg").unlink()
    write(source / "a.json", coco("photos/{}.jpg".format))
    assert do(source, run, split=RATIOS, on_problem="drop")["names_matched"]["path"] == 3


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("name", ["coco", "csv", "yolo", "voc"])
def test_a_mask_does_not_stand_in_for_a_missing_image(name: str, suffix: str, source: Path, run: Run) -> None:
    images(source / "images")
    images(source / "masks", lambda stem: f"{stem}.{suffix}")
    LAYOUTS[name](source)
    (source / "images" / "img1.jpg").unlink()
    refused(source, run, r"img1\.jpg: image missing")


def test_images_may_be_in_a_folder_called_masks(source: Path, run: Run) -> None:
    images(source / "masks")
    write(source / "more" / "a.json", coco("{}.jpg".format))
    assert len(do(source, run, split=RATIOS)["sources"]) == 4


def test_an_image_found_away_from_most_others_of_its_file_is_noted(source: Path, run: Run) -> None:
    images(source / "train")
    (source / "old session").mkdir()
    (source / "train" / "img1.jpg").rename(source / "old session" / "img1.jpg")
    write(source / "train" / "_annotations.coco.json", coco("{}.jpg".format))
    said = "old session/img1.jpg is in another folder than most of its images: check that it is the right one"
    assert do(source, run, split=RATIOS)["notes"] == [f"train/_annotations.coco.json: {said}"]
    for stem in ("img2", "img3"):
        (source / "train" / f"{stem}.jpg").rename(source / "old session" / f"{stem}.jpg")
    assert do(source, run, split=RATIOS)["notes"] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../../img0.jpg", r"'\.\./\.\./img0\.jpg', outside .*; images/img0\.jpg exists: correct the name"),
        ("/etc/img9.jpg", r"'/etc/img9\.jpg', outside .*; move the image into the source, or link it there"),
        ("../other/img9.jpg", r"'\.\./other/img9\.jpg', outside .*; move the image into the source"),
        ("..\\..\\img0.jpg", r"'\.\./\.\./img0\.jpg', outside .*; images/img0\.jpg exists: correct the name"),
        ("C:\\..\\..\\..\\img9.jpg", r"'\.\./\.\./img9\.jpg', outside .*; move the image into the source"),
    ],
)
def test_a_name_that_leads_outside_the_source_matches_no_image(name: str, said: str, source: Path, run: Run) -> None:
    images(source / "images")
    data = coco("{}.jpg".format)
    data["images"][0]["file_name"] = name
    write(source / "a.json", data)
    refused(source, run, rf"a\.json: names {said}")


# --- B. A labelled image never becomes background ------------------------------------------------------------

DANGEROUS = {"unlabelled": "background", "on_problem": "drop"}
LAYOUTS: dict[str, Callable[[Path], None]] = {
    **{name: (lambda folder, by=by: by(folder, "{}.jpg".format)) for name, by in BY_NAME.items()},
    "yolo": lambda folder: with_labels(folder, "labels", "{}".format),
    "voc": lambda folder: with_xml(folder, "Annotations", "{}".format),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_image_annotated_under_another_name_is_not_background(name: str, source: Path, run: Run) -> None:
    """Its annotation has no image and it has no annotation; neither suggested setting may make it background."""
    images(source / "images")
    LAYOUTS[name](source)
    (source / "images" / "img0.jpg").rename(source / "images" / "holiday.jpg")
    said = r"img0\.\w+: image missing; .*holiday\.jpg has no annotation: if it is the missing image, give both"
    refused(source, run, said, unlabelled="error")
    line = refused(source, run, said, unlabelled="background")
    assert "on_problem" not in line
    receipt = do(source, run, split=RATIOS, **DANGEROUS)
    assert "holiday" not in written(run) and "img3" in written(run)
    why = receipt["images"]["dropped"]["images/holiday.jpg"]
    assert why.startswith("no annotation mentions it, and there are boxes for 1 missing image, such as ")
    assert receipt["background_by_setting"] == []


UNREAD: dict[str, tuple[str, str]] = {
    "a list": ("val/_annotations.coco.json", "[]"),
    "null": ("val/_annotations.coco.json", "null"),
    "an object": ("val/_annotations.coco.json", "{}"),
    "a number": ("val/_annotations.coco.json", "17"),
    "a table": ("val/boxes.csv", "a,b\n1,2\n"),
    "white space": ("val/boxes.csv", " \n"),
    "XML": ("val/img3.xml", "<annotation/>"),
    "text beside the image": ("val/img3.txt", ""),
    "labels elsewhere": ("val/labels/x.txt", "0 0.5 0.5 0.1 0.1\n"),
}


@pytest.mark.parametrize("form", UNREAD)
def test_a_file_that_could_hold_an_images_annotation_is_named(form: str, source: Path, run: Run) -> None:
    name, text = UNREAD[form]
    images(source, lambda stem: f"{'val' if stem == 'img3' else 'train'}/{stem}.jpg")
    data = coco("{}.jpg".format)
    data["images"] = data["images"][:3]
    write(source / "train" / "_annotations.coco.json", data)
    write(source / name, text)
    said = rf"{name.rpartition('/')[2]}: was not read, but may hold annotations of img3\.jpg"
    for policy in ("fix", "drop"):
        line = refused(source, run, said, format="coco", unlabelled="background", on_problem=policy)
        assert "convert." not in line
    line = refused(
        source, run, r"img3\.jpg: no annotation; label it, or correct .*, which may hold its annotation", format="coco"
    )
    assert "background" not in line


def test_a_file_that_could_hold_an_annotation_is_named_even_if_macos_decomposed_it(source: Path, run: Run) -> None:
    images(source, lambda stem: "caf\u00e9.jpg" if stem == "img3" else f"{stem}.jpg")
    data = coco("{}.jpg".format)
    data["images"] = data["images"][:3]
    write(source / "a.json", data)
    write(source / "cafe\u0301.txt", "")
    said = "cafe\u0301\\.txt: was not read, but may hold annotations of caf\u00e9\\.jpg"
    refused(source, run, said, format="coco", unlabelled="background")


def one_without_annotation(source: Path) -> None:
    images(source / "images")
    data = coco("{}.jpg".format)
    data["images"] = data["images"][:3]
    write(source / "a.json", data)


@pytest.mark.parametrize("name", ["README.txt", "LICENSE.json", "notes.json", "classes.txt", "notes.txt"])
def test_files_without_annotations_are_ignored(name: str, source: Path, run: Run) -> None:
    one_without_annotation(source)
    write(source / name, "cat\ndog\n" if name.endswith("txt") else "{}")
    receipt = do(source, run, split=RATIOS, unlabelled="background")
    assert receipt["background_by_setting"] == ["images/img3.jpg"] and written(run) == TRUTH


def test_the_last_line_counts_images_declared_background(source: Path, tmp_path: Path) -> None:
    one_without_annotation(source)
    write(
        tmp_path / "two.yaml",
        json.dumps(
            {"convert": {"source": str(source), "split": RATIOS, "unlabelled": "background", "near_duplicates": False}}
        ),
    )
    done = pipeline_process("convert", "--config", "two.yaml", "--workers", "1", cwd=tmp_path)
    assert "(1 image counted as background only by convert.unlabelled: see receipt.json)" in done.stdout


@pytest.mark.parametrize("where", ["labels/img0.txt", "Annotations/img0.xml", "images/img0.txt"])
def test_an_empty_folder_in_place_of_a_label_file_is_refused(where: str, source: Path, run: Run) -> None:
    images(source / "images")
    LAYOUTS["voc" if where.endswith("xml") else "yolo"](source)
    (source / where).unlink(missing_ok=True)
    (source / where).mkdir()
    refused(source, run, rf"{where}: is an empty folder in place of a file", **DANGEROUS)


@pytest.mark.parametrize("where", ["labels/img0.txt", "Annotations/img0.xml"])
def test_a_non_empty_folder_in_place_of_a_label_file_is_refused(where: str, source: Path, run: Run) -> None:
    images(source / "images")
    LAYOUTS["voc" if where.endswith("xml") else "yolo"](source)
    (source / where).unlink()
    write(source / where / "about.md", "x")
    refused(source, run, r"img0\.\w+: was not read", **DANGEROUS)


NO_BOX_LEFT: dict[str, tuple[Any, bool]] = {
    "not finite": ([float("nan"), 1, 2, 3], False),
    "outside": ([900, 10, 20, 20], False),
    "far beyond": ([10, 10, 5000, 20], False),
    "three numbers": ([1, 2, 3], False),
    "beyond the edge": ([300, 10, 60, 30], False),
    "no area": ([10, 10, 0, 20], True),
}


@pytest.mark.parametrize("form", NO_BOX_LEFT)
def test_an_image_that_lost_all_its_boxes_is_not_background(form: str, source: Path, run: Run) -> None:
    bbox, stays = NO_BOX_LEFT[form]
    images(source / "images")
    data = coco("{}.jpg".format)
    data["annotations"] = [one for one in data["annotations"] if one["image_id"] != 0]
    data["annotations"].append({"id": 90, "image_id": 0, "category_id": 0, "bbox": bbox})
    write(source / "a.json", data)
    receipt = do(source, run, split=RATIOS, on_problem="drop")
    assert ("img0" in written(run)) == stays
    assert receipt["boxes"]["dropped"] == 1 and [one["id"] for one in receipt["problems"]] == ["90"]
    if not stays:
        assert receipt["images"]["dropped"]["images/img0.jpg"].startswith("all its boxes were dropped: 90: ")


# --- C. Training sees what convert counted ----------------------------------------------------------------------


def image_writers() -> dict[str, tuple[Callable[[Image.Image, Path], object], float]]:
    """File name -> how it is written, and its tolerance in grey levels, which lossy formats need."""

    def deep(image: Image.Image, path: Path) -> None:
        pixels = np.asarray(image, np.uint16) * 257
        assert cv2.imwrite(str(path), pixels[:, :, ::-1])

    def planar(bits: int, order: str, **options: Any) -> Callable[[Image.Image, Path], object]:
        import tifffile

        def save(image: Image.Image, path: Path) -> None:
            pixels = np.asarray(image).astype(np.uint16 if bits == 16 else np.uint8) * (257 if bits == 16 else 1)
            tifffile.imwrite(
                path, pixels.transpose(2, 0, 1), planarconfig="separate", photometric="rgb", byteorder=order, **options
            )

        return save

    def pages(image: Image.Image, path: Path) -> None:
        image.save(path, save_all=True, append_images=[Image.new("RGB", image.size)])

    def as_mode(mode: str, kind: str | None = None, **options: Any) -> Callable[[Image.Image, Path], object]:
        return lambda image, path: image.convert(mode).save(path, kind, **options)

    return {
        "a.jpg": (as_mode("RGB", quality=95), 6),
        "b.jfif": (as_mode("RGB", "JPEG", quality=95), 6),
        "c.jpe": (as_mode("RGB", "JPEG", quality=95), 6),
        "d.gif": (as_mode("P", "GIF"), 30),
        "e.ppm": (as_mode("RGB"), 0),
        "f.mpo": (as_mode("RGB", "MPO", quality=95), 6),
        "g.jp2": (as_mode("RGB", irreversible=False), 1),
        "h.avif": (as_mode("RGB", quality=95), 10),
        "i.webp": (as_mode("RGB", lossless=True), 0),
        "j.tga": (as_mode("RGB"), 0),
        "k.bmp": (as_mode("RGB"), 0),
        "without_suffix": (as_mode("RGB", "PNG"), 0),
        "l.png.jpg": (as_mode("RGB", "PNG"), 0),
        "m_gif_inside.jpg": (as_mode("P", "GIF"), 30),
        "n_tiff_inside.png": (as_mode("RGB", "TIFF"), 0),
        "o_ppm_inside.png": (as_mode("RGB", "PPM"), 0),
        "p_palette.png": (as_mode("P"), 30),
        "q_alpha.png": (as_mode("RGBA"), 0),
        "r_cmyk.jpg": (as_mode("CMYK", quality=95), 8),
        "s_cmyk.tif": (as_mode("CMYK"), 2),
        "t_palette.tif": (as_mode("P"), 30),
        "u_alpha.tif": (as_mode("RGBA"), 0),
        "v_pages.tif": (pages, 0),
        "v_fax3.tif": (as_mode("1", compression="group3"), 128),
        "v_fax4.tif": (as_mode("1", compression="group4"), 128),
        "v_jpeg.tif": (as_mode("YCbCr", compression="jpeg", quality=95), 6),
        "w_16.png": (deep, 1),
        "x_16.tif": (deep, 1),
        "y_planes16.tif": (planar(16, "<"), 1),
        "y_planes16_big.tif": (planar(16, ">"), 1),
        "y_planes16_packed.tif": (planar(16, "<", compression="zlib", predictor=True), 1),
        "y_planes16_tiles.tif": (planar(16, "<", tile=(32, 32)), 1),
        "y_planes8.tif": (planar(8, "<"), 0),
    }


def drawing(number: int) -> Image.Image:
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 255, (6, 8, 3)).astype(np.uint8)).resize(
        (160, 120), Image.Resampling.BICUBIC
    )


def test_ultralytics_loads_what_convert_counted(source: Path, run: Run) -> None:
    """All suffixes and contents in one source; Ultralytics' own dataset is the oracle for what training sees."""
    environment.prepare()
    from ultralytics.cfg import DEFAULT_CFG
    from ultralytics.data.dataset import YOLODataset

    source.mkdir()
    shown = {}
    for number, (name, (save, tolerance)) in enumerate(image_writers().items()):
        save(drawing(number), source / name)
        shown[name] = (np.asarray(drawing(number), float), tolerance)
    records = [{"id": n, "file_name": name, "width": 160, "height": 120} for n, name in enumerate(shown)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [10, 10, 30 + n, 40]} for n in range(len(records))]
    write(source / "a.json", {"images": records, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]})
    receipt = do(source, run, split=RATIOS)
    assert receipt["images"]["used"] == len(shown)
    seen = 0
    for split in ("train", "val"):
        data = {"names": {0: "cat"}, "nc": 1, "channels": 3}
        folder = str(run.dataset / "images" / split)
        theirs = YOLODataset(img_path=folder, data=data, task="detect", imgsz=160, augment=False, hyp=DEFAULT_CFG)
        assert len(theirs) == receipt["splits"][split]["images"]
        for index, file in enumerate(theirs.im_files):
            name = receipt["sources"][f"{split}/{Path(file).name}"]
            image, tolerance = shown[name]
            read, *_ = theirs.load_image(index)
            assert read.shape == image.shape and len(theirs.labels[index]["cls"]) == 1, name
            assert np.abs(read[:, :, ::-1] - image).mean() <= tolerance, name
            seen += 1
    assert seen == len(shown)


@pytest.mark.parametrize(("mode", "compression"), [("1", "group3"), ("1", "group4"), ("CMYK", "jpeg"), ("RGB", "jpeg")])
def test_compressed_tiffs_are_rewritten_without_loss(source: Path, run: Run, mode: str, compression: str) -> None:
    """Also turned upright: a copy with the compression of the source would lose quality, or could not be written."""
    source.mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    expected = []
    for number in range(2):
        path = source / f"{number}.tif"
        drawing(number).convert(mode).save(path, compression=compression, exif=turned)
        with Image.open(path) as image:
            expected.append(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
    records = [{"id": n, "file_name": f"{n}.tif", "width": 120, "height": 160} for n in range(2)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [10, 10, 30, 40]} for n in range(2)]
    write(source / "a.json", {"images": records, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]})
    do(source, run, split={"train": 0.5, "val": 0.5})
    written = sorted(run.dataset.glob("images/*/*.tif"), key=lambda path: path.name)
    assert [np.array_equal(pixels.read(path)[..., ::-1], one) for path, one in zip(written, expected, strict=True)] == [
        True,
        True,
    ]


def test_postscript_is_never_run(source: Path, run: Run) -> None:
    """Pillow would start Ghostscript for an EPS file, whatever its name."""
    source.mkdir()
    drawing(0).save(source / "0.jpg")
    drawing(1).save(source / "1.jpg", "EPS")
    records = [{"id": n, "file_name": f"{n}.jpg", "width": 160, "height": 120} for n in range(2)]
    write(source / "a.json", {"images": records, "annotations": [], "categories": [{"id": 1, "name": "cat"}]})
    with pytest.raises(DataError, match=r"1\.jpg.*EPS, a program that Pillow would run"):
        do(source, run, split=RATIOS)


def test_high_bit_depth_values_keep_their_order(source: Path, run: Run) -> None:
    """32-bit and signed 16-bit values; negative ones are refused."""
    source.mkdir()
    ramp = np.linspace(0, 4000, 160).astype(np.int32)[None].repeat(120, 0)
    Image.fromarray(ramp).save(source / "img0.tif")
    import tifffile

    tifffile.imwrite(source / "img1.tif", ramp.astype(np.int16))
    for name in ("img2", "img3"):
        drawing(1).save(source / f"{name}.png")
    records = [{"id": n, "file_name": f"img{n}.{'tif' if n < 2 else 'png'}"} for n in range(4)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [10, 10, 30, 40]} for n in range(4)]
    write(source / "a.json", {"images": records, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]})
    do(source, run, split=RATIOS)
    for name in ("img0.tif", "img1.tif"):
        [path] = run.dataset.rglob(name)
        pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert pixels is not None
        np.testing.assert_array_equal(pixels, (ramp >> 4).astype(np.uint8))
    tifffile.imwrite(source / "img1.tif", (ramp - 10).astype(np.int16))
    refused(source, Run(run.root.with_name("two")), r"img1\.tif: not an image that can be read \(its pixels are neg")


WHAT: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty"),
    "zeros": (b"\0" * 500, "nothing but zeros"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"x" * 50, "HEIC, a format of phones: save it as JPEG"),
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "run `git lfs pull`"),
    "a page": (b"<!DOCTYPE html><html>404</html>", "a web page"),
    "a video": (b"\0\0\0\x18ftypisom" + b"x" * 50, "a video"),
    "noise": (bytes(range(1, 200)), "no known image format"),
    "cut short": (image("img0")[:-20], "truncated"),
}


def test_unreadable_images_are_described_and_listed_in_one_run(source: Path, run: Run, tmp_path: Path) -> None:
    """The receipt for the same data is byte-identical in every run."""
    images(source)
    data = coco("{}.jpg".format)
    for number, (name, (content, _)) in enumerate(WHAT.items(), start=10):
        (source / f"{name}.jpg").write_bytes(content)
        data["images"].append({"id": number, "file_name": f"{name}.jpg"})
        data["annotations"].append({"id": number, "image_id": number, "category_id": 0, "bbox": [1, 2, 30, 40]})
    write(source / "a.json", data)
    line = refused(source, run, r"not an image that can be read .*and 7 more such")
    assert "`convert.on_problem: drop` leaves them out" in line
    receipt = do(source, run, split=RATIOS, on_problem="drop")
    for name, (_, said) in WHAT.items():
        assert said in receipt["images"]["dropped"][f"{name}.jpg"]
    again = Run(tmp_path / "again" / "runs" / "mine")
    do(source, again, split=RATIOS, on_problem="drop")
    texts = [
        one.receipt.read_text().replace(str(one.root.parents[1]), "").replace(str(tmp_path), "") for one in (run, again)
    ]
    assert texts[0] == texts[1] and "0x" not in texts[0]


@pytest.mark.parametrize("target", ["../../annex/img0.xml", "./x/img0.xml\n", "/mnt/annex/img0.xml"])
def test_a_link_stored_as_text_is_reported(target: str, source: Path, run: Run) -> None:
    with_xml(source, "Annotations", "{}".format)
    images(source)
    write(source / "Annotations" / "img0.xml", target)
    refused(source, run, "img0.xml: is a symbolic link to .*img0.xml' that Git checked out")
    write(source / "Annotations" / "img0.xml", "<annotation/>")
    write(source / "img0.jpg", target.replace("xml", "jpg"))
    refused(source, run, "img0.jpg: not an image .*a symbolic link to .*img0.jpg' that Git checked out")


@pytest.mark.parametrize("target", ["../store", "./parts/images\n", "/mnt/annex/images"])
@pytest.mark.parametrize("form", ["{}.jpg", "images/{}.jpg", "images/deeper/{}.jpg"])
def test_a_folder_link_stored_as_text_is_reported(form: str, target: str, source: Path, run: Run) -> None:
    write(source / "a.json", coco(form.format))
    write(source / "images", target)
    refused(source, run, r"img0.jpg: image missing; images is a symbolic link to '.*' that Git checked out")


def test_an_unrelated_file_is_not_taken_for_a_link(source: Path, run: Run) -> None:
    write(source / "a.json", coco("{}.jpg".format))
    write(source / "images", "see /mnt/annex/images")
    refused(source, run, r"img0.jpg: image missing; restore it")


@pytest.mark.parametrize("spoil", ["gone", "empty", "cut"])
def test_a_source_that_loses_all_its_images_reports_why(spoil: str, source: Path, run: Run) -> None:
    write(source / "a.json", coco("{}.jpg".format))
    images(source)
    for path in source.glob("*.jpg"):
        path.write_bytes(b"" if spoil == "empty" else path.read_bytes()[:100])
        if spoil == "gone":
            path.unlink()
    refused(source, run, r"no usable image; of 4 images, 4 are not used, such as img0.jpg: \w+", on_problem="drop")


def test_too_few_images_for_the_splits_after_drops_names_the_drops(source: Path, run: Run) -> None:
    write(source / "a.json", coco("{}.jpg".format))
    images(source)
    for path in sorted(source.glob("*.jpg"))[1:]:
        path.write_bytes(b"")
    line = refused(source, run, "too few images", on_problem="drop")
    assert re.search(r"; of 4 images, 3 are not used, such as img1.jpg: \w+", line)


def test_dropping_is_suggested_for_a_truncated_image(source: Path, run: Run) -> None:
    images(source)
    write(source / "a.json", coco("{}.jpg".format))
    (source / "img1.jpg").write_bytes(image("img1")[:-30])
    refused(source, run, r"img1\.jpg: .*truncated.*\(`convert\.on_problem: drop` leaves it out and lists it\)$")


# --- D. File names ------------------------------------------------------------------------------------------------

ODD_NAMES = [
    "x" * 251,
    "é" * 125,
    ".hidden",
    "..two dots",
    " spaces ",
    "quo'te\"s",
    "#1 [a] (b)",
    "50% off",
    "emoji 🦊",
    "a.b.c",
    "-dash",
]


def test_odd_file_names_are_converted_to_short_visible_ones(source: Path, run: Run) -> None:
    for name in ODD_NAMES:
        source.mkdir(exist_ok=True)
        (source / f"{name}.jpg").write_bytes(image(name))
    records = [{"id": n, "file_name": f"{name}.jpg"} for n, name in enumerate(ODD_NAMES)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [10, 10, 30, 40]} for n in range(len(records))]
    write(source / "a.json", {"images": records, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]})
    receipt = do(source, run, split=RATIOS)
    assert receipt["images"]["used"] == len(ODD_NAMES) and set(written(run).values()) == {1}
    for path in run.dataset.rglob("*.jpg"):
        assert len(os.fsencode(path.stem)) <= 200 and path.name[0] != "."
        assert (source / receipt["sources"][f"{path.parent.name}/{path.name}"]).is_file()


@pytest.mark.parametrize("name", ["bell\x07.jpg", "escape\x1b[31m.jpg", "line\nbreak.jpg", "tab\t.jpg", "c1\x9b.jpg"])
def test_control_characters_are_refused_in_a_printable_line(name: str, source: Path, run: Run) -> None:
    images(source)
    write(source / "a.json", coco("{}.jpg".format))
    (source / name).write_bytes(image("img0"))
    line = refused(source, run, r"source: the file name b'.*' (holds control characters|is not one line of UTF-8)")
    assert line.isprintable()
    data = coco("{}.jpg".format)
    data["images"][0]["file_name"] = name
    (source / name).unlink()
    write(source / "a.json", data)
    assert refused(source, run, r"a\.json: names an impossible path").isprintable()


def test_a_config_whose_name_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.yaml"))
    path.write_text("convert: {source: x}\n")
    with pytest.raises(ConfigError, match=r"caf\\xe9\.yaml': the name of a config file must be UTF-8; rename it"):
        load(path)
    for command in ("params", "convert"):
        done = pipeline_process(command, "--config", str(path), cwd=tmp_path)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


# --- E. Layouts ----------------------------------------------------------------------------------------------------


def yolo_set(folder: Path, description: str, *folders: str) -> None:
    write(folder / "data.yaml", description)
    for stem, split in zip(STEMS, folders, strict=True):
        (folder / split / "images").mkdir(parents=True, exist_ok=True)
        (folder / split / "images" / f"{stem}.jpg").write_bytes(image(stem))
        write(folder / split / "labels" / f"{stem}.txt", yolo_lines(stem))


HALVES = ("train", "train", "valid", "valid")


@pytest.mark.parametrize("absent", ["../test/images", "test/images", "/content/set/test/images", "test.txt"])
def test_a_split_whose_folder_is_missing_is_left_out(absent: str, source: Path, run: Run) -> None:
    text = f"names: [cat, dog]\ntrain: ../train/images\nval: ../valid/images\ntest: {absent}\n"
    yolo_set(source, text, "train", "train", "valid", "valid")
    receipt = do(source, run)
    assert {split: one["images"] for split, one in receipt["splits"].items()} == {"train": 2, "val": 2}
    assert receipt["notes"] == [f"data.yaml: {absent!r} is missing, so there is no test split"]


def test_a_path_whose_end_is_in_the_source_is_accepted_and_noted(source: Path, run: Run) -> None:
    yolo_set(source, "names: [cat, dog]\ntrain: train/images\nval: board-3/valid/images\n", *HALVES)
    receipt = do(source, run)
    assert {split: one["images"] for split, one in receipt["splits"].items()} == {"train": 2, "val": 2}
    assert receipt["notes"] == ["data.yaml: 'board-3/valid/images' was read as valid/images"]


@pytest.mark.parametrize(
    "text",
    [
        "train: train\\images\nval: valid\\images",
        "path: E:\\sets\\boards\ntrain: train\\images\nval: .\\valid\\images",
        "train: E:\\sets\\boards\\train\\images\nval: E:\\sets\\boards\\valid\\images",
    ],
)
def test_paths_of_windows_are_understood(text: str, source: Path, run: Run) -> None:
    yolo_set(source, f"names: [cat, dog]\n{text}\n", *HALVES)
    receipt = do(source, run)
    assert {split: one["images"] for split, one in receipt["splits"].items()} == {"train": 2, "val": 2}


def test_images_that_data_yaml_does_not_name_are_listed(source: Path, run: Run) -> None:
    yolo_set(source, "names: [cat, dog]\ntrain: train/images\nval: valid/images\n", *HALVES)
    images(source / "others")
    for name, split in (("drawn", RATIOS), ("given", "given")):
        receipt = do(source, Run(run.root.with_name(name)), split=split)
        assert receipt["images"]["used"] == 4
        assert receipt["images"]["set_aside"] == {
            f"others/{stem}.jpg": "no label file, and data.yaml names it in no split" for stem in STEMS
        }


def test_a_wrong_path_is_not_taken_for_an_absent_split(source: Path, run: Run) -> None:
    text = "names: [cat, dog]\ntrain: train/images\nval: {}\n"
    yolo_set(source, text.format("board-3/valid/pictures"), *HALVES)
    said = (
        r"data\.yaml: '{}': no such folder or list file in .*; write it relative to data\.yaml, for example val/images"
    )
    refused(source, run, said.format("board-3/valid/pictures"), split="given")
    write(source / "data.yaml", text.format("board-3/train/images"))  # of another split
    refused(source, run, said.format("board-3/train/images"), split="given")
    write(source / "data.yaml", text.format("x/other/images"))
    images(source / "a" / "other" / "images")
    images(source / "b" / "other" / "images")  # which one?
    refused(source, run, said.format("x/other/images"), split="given")


@pytest.mark.parametrize(
    "text", ["train: images/train2017\nval: images/train2017", "train: images\nval: images", "train: .\nval: ."]
)
def test_one_folder_for_train_and_val_is_refused_as_given_splits(text: str, source: Path, run: Run) -> None:
    write(source / "coco128.yaml", f"path: ../datasets/coco128\n{text}\nnames: {{0: cat, 1: dog}}\n")
    images(source / "images" / "train2017")
    for stem in STEMS:
        write(source / "labels" / "train2017" / f"{stem}.txt", yolo_lines(stem))
    assert do(source, run, split=RATIOS)["images"]["used"] == 4
    other = Run(run.root.with_name("given"))
    refused(
        source, other, r"coco128\.yaml: img0\.jpg is in train and in val; .*ratios in convert\.split", split="given"
    )


@pytest.mark.parametrize("test", ["val/images", "lists/test.txt"])
def test_a_test_split_that_repeats_val_is_left_out(test: str, source: Path, run: Run) -> None:
    for split, stems in (("train", STEMS[:2]), ("val", STEMS[2:])):
        for stem in stems:
            write(source / split / "labels" / f"{stem}.txt", yolo_lines(stem))
            (source / split / "images").mkdir(exist_ok=True)
            (source / split / "images" / f"{stem}.jpg").write_bytes(image(stem))
    write(source / "lists" / "test.txt", "".join(f"val/images/{stem}.jpg\n" for stem in STEMS[2:]))
    text = f"train: train/images\nval: val/images\ntest: {test}\nnames: [cat, dog]\n"
    write(source / "data.yaml", text)
    receipt = do(source, run, split="given")
    assert {split: summary["images"] for split, summary in receipt["splits"].items()} == {"train": 2, "val": 2}
    assert receipt["notes"] == ["data.yaml: test has the same images as val, so it is no split of its own"]
    write(source / "lists" / "test.txt", "val/images/img2.jpg\n")  # a part of val
    write(source / "data.yaml", text.replace(f"test: {test}", "test: lists/test.txt"))
    refused(source, Run(run.root / "x"), r"img2\.jpg is in val and in test; keep it in one", split="given")


def test_coco_images_of_equal_names_in_folders_of_their_splits(source: Path, run: Run) -> None:
    for split in ("train", "val"):
        for number in range(2):
            (source / f"{split}_images").mkdir(parents=True, exist_ok=True)
            (source / f"{split}_images" / f"{number}.jpg").write_bytes(image(f"{split}{number}"))
        data = coco("{}.jpg".format)
        records = [{"id": n, "file_name": f"{n}.jpg"} for n in range(2)]
        boxes = [box for box in data["annotations"] if box["image_id"] < 2]
        write(source / f"{split}.json", {**data, "images": records, "annotations": boxes})
    receipt = do(source, run, split="given")
    assert sorted(receipt["sources"].values()) == [f"{s}_images/{n}.jpg" for s in ("train", "val") for n in range(2)]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.mp4"], "a.mp4 is a video: take images from it, and label them"),
        (["a.mp4", "b.mp4", "c.mp4"], "a.mp4 and 2 more are videos: take images from them, and label them"),
        (["a.zip"], "a.zip is still packed: unpack it here"),
        (["a.zip", "b.zip"], "a.zip and 1 more are still packed: unpack them here"),
        (["a.jpg"], "there is a.jpg and no annotation file"),
        (["a.jpg", "b.jpg"], "there are 2 images, such as a.jpg, and no annotation file"),
    ],
)
def test_what_lies_in_a_folder_without_annotations_is_counted(names: list[str], said: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert in_words(Tree(tmp_path)) == f"; {said}"


@pytest.mark.parametrize("home", ["labels", "images", "my set/labels"])
def test_labels_without_class_names_are_refused_with_what_to_write(home: str, source: Path, run: Run) -> None:
    images(source / home.replace("labels", "images"))
    for stem in STEMS:
        write(source / home / f"{stem}.txt", yolo_lines(stem))
    refused(
        source,
        run,
        rf"look like YOLO labels, such as {home}/img0\.txt, and no names for the classes 0 to 1: write classes\.txt",
    )


@pytest.mark.parametrize(
    "name", ["classes.txt", "obj.names", "voc.names", "labels.txt", "predefined_classes.txt", "_darknet.labels"]
)
def test_class_names_are_found_under_every_common_file_name(name: str, source: Path, run: Run) -> None:
    images(source / "images")
    for stem in STEMS:
        write(source / "labels" / f"{stem}.txt", yolo_lines(stem))
    write(source / name, "cat\ndog\n")
    receipt = do(source, run, split=RATIOS)
    assert receipt["classes"] == ["cat", "dog"] and written(run) == TRUTH


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz", "deep/er/set.7z"])
def test_a_packed_archive_is_reported(name: str, source: Path, run: Run) -> None:
    write(source / name, "PK")
    refused(source, run, rf"no annotations in a supported format; .*; {name} is still packed: unpack it here")
    refused(source, run, rf"{name} is still packed", format="coco")


def test_an_unknown_source_is_described_with_the_closest_format(source: Path, run: Run) -> None:
    images(source)
    refused(source, run, r"there are 4 images, such as img0\.jpg, and no annotation file")
    write(source / "boxes.csv", "photo,thing\nimg0.jpg,cat\n")
    refused(source, run, r"boxes\.csv begins with 'photo, thing', but needs a line of column names: filename, class")
    write(source / "more.parquet", "x")
    (source / "boxes.csv").unlink()
    refused(source, run, r"more\.parquet is in no supported layout")


@pytest.mark.parametrize("lay", [lambda s: LAYOUTS["coco"](s), lambda s: LAYOUTS["voc"](s)], ids=["coco", "voc"])
def test_a_data_set_one_folder_down_is_found(lay: Callable[[Path], None], source: Path, run: Run) -> None:
    images(source / "my set v1" / "images")
    lay(source / "my set v1")
    assert do(source, run, split=RATIOS)["images"]["used"] == 4


def test_a_yolo_data_set_one_folder_down_is_found(source: Path, run: Run) -> None:
    text = "names: [cat, dog]\ntrain: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
    yolo_set(source / "my set v1", text, "train", "train", "valid", "valid")
    assert do(source, run)["splits"]["val"]["images"] == 2


def test_the_official_coco_layout_converts(source: Path, run: Run) -> None:
    every = coco("{}.jpg".format)
    for split, numbers in (("train2017", (0, 1)), ("val2017", (2, 3))):
        records = [one for one in every["images"] if one["id"] in numbers]
        boxes = [one for one in every["annotations"] if one["image_id"] in numbers]
        home = source / "annotations"
        write(home / f"instances_{split}.json", {**every, "images": records, "annotations": boxes})
        points = [{**one, "keypoints": [1, 2, 2], "num_keypoints": 1} for one in boxes[:1] or []]
        captions = [{"id": 1, "image_id": numbers[0], "caption": "a cat"}]
        write(home / f"captions_{split}.json", {"images": records, "annotations": captions})
        write(
            home / f"person_keypoints_{split}.json",
            {
                **every,
                "images": records,
                "annotations": points
                or [{"id": 1, "image_id": numbers[0], "category_id": 0, "bbox": [1, 1, 5, 5], "keypoints": []}],
            },
        )
        for number in numbers:
            (source / split).mkdir(exist_ok=True)
            (source / split / f"img{number}.jpg").write_bytes(image(f"img{number}"))
    write(source / "annotations" / "image_info_test2017.json", {"images": [], "categories": every["categories"]})
    receipt = do(source, run)
    assert receipt["boxes"]["kept"] == 6 and written(run) == TRUTH
    assert len(receipt["notes"]) == 5
    assert (
        "annotations/person_keypoints_val2017.json: skipped, instances_val2017.json describes the same images"
        in receipt["notes"]
    )


@pytest.mark.parametrize("sizes", [(320, 320), (320, None)])
def test_one_image_under_two_ids_gets_the_boxes_of_both(sizes: tuple[Any, Any], source: Path, run: Run) -> None:
    images(source)
    data = coco("{}.jpg".format)
    data["images"].append({"id": 50, "file_name": "img0.jpg", "width": sizes[1], "height": HEIGHT})
    data["annotations"] += [
        {"id": 60, "image_id": 50, "category_id": 1, "bbox": [1, 1, 20, 20]},
        {"id": 61, "image_id": 50, "category_id": 0, "bbox": [20, 30, 80, 60]},  # the same box as on the other id
    ]
    write(source / "a.json", data)
    receipt = do(source, run, split=RATIOS)
    assert written(run)["img0"] == 3
    assert [one["reason"] for one in receipt["problems"]] == ["the same box as 0"]
    data["images"][-1]["width"] = 999
    write(source / "a.json", data)
    refused(
        source,
        Run(run.root.with_name("two")),
        r"a\.json: 'img0\.jpg' appears twice, with different sizes; keep one \(id 50\)",
    )


@pytest.mark.parametrize("ids", [[70], [70, 71, None, "x"], list(range(70, 100))])
def test_annotations_of_unlisted_images_are_refused_or_dropped(ids: list[Any], source: Path, run: Run) -> None:
    images(source)
    data = coco("{}.jpg".format)
    data["annotations"] += [
        {"id": 500 + n, "image_id": of, "category_id": 0, "bbox": [1, 1, 9, 9]} for n, of in enumerate(ids)
    ]
    write(source / "a.json", data)
    more = rf"\(and {len(ids) - 1} more such; `convert\.on_problem: drop`" if len(ids) > 1 else "remove it$"
    refused(
        source,
        run,
        rf"annotation 500 belongs to image 70, which is not in `images`; remove it.*{more}"
        if len(ids) > 1
        else r"which is not in `images`; remove it$",
    )
    receipt = do(source, run, split=RATIOS, on_problem="drop")
    assert receipt["boxes"] == {"read": 6 + len(ids), "kept": 6, "clipped": 0, "dropped": len(ids), "ignored": 0}
    assert all("which is not in `images`" in one["reason"] for one in receipt["problems"])


SPLIT_FOLDERS = {
    "train/test track": "train",
    "train/val": "train",
    "training": "train",
    "train2017": "train",
    "Validation": "val",
    "train_images": "train",
    "val_set": "val",
    "testset": "test",
    "Test Images 2": "test",
    "valid-labels": "val",
    "training_data2017": "train",
    "data": None,
    "images": None,
    "train_images_old": None,
    "my test set": None,
    "latest": None,
    "train_of_thought": None,
}


@pytest.mark.parametrize("name", SPLIT_FOLDERS)
def test_a_folder_names_a_split_only_by_its_whole_name(name: str) -> None:
    assert split_of_folders(name) == SPLIT_FOLDERS[name]


@pytest.mark.parametrize("pattern", [r"^(board\d+)_", r"^(.+)_frame", r"board\d+", r"(board\d+)_frame\d"])
def test_group_by_matches_the_file_name(pattern: str, source: Path, run: Run) -> None:
    for number, split in enumerate(("train", "valid", "valid", "train")):
        for frame in range(2):
            name = f"board0{(number + frame) % 3}_frame{number}{frame}.jpg"
            (source / split).mkdir(parents=True, exist_ok=True)
            (source / split / name).write_bytes(image(name))
            write(source / split / f"{Path(name).stem}.txt", yolo_lines("img0"))
    write(source / "classes.txt", "cat\ndog\n")
    leaks = do(source, run, group_by=pattern)["leaks"]["group"]
    assert [{one.rpartition("/")[2][:7] for one in group} for group in leaks] == [{"board00"}, {"board01"}]


def test_a_group_stays_together_although_one_file_name_matches_too(source: Path, run: Run) -> None:
    names = [f"patient{patient}/img_{number}.jpg" for patient in range(6) for number in range(4)]
    for name in [*names, "patient2/patient2_overview.jpg", "loose.jpg"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(image(name))
        write((source / name).with_suffix(".txt"), yolo_lines("img0"))
    write(source / "classes.txt", "cat\ndog\n")
    receipt = do(source, run, split={"train": 0.5, "val": 0.25, "test": 0.25}, group_by=r"(patient\d+)")
    splits_of: dict[str, set[str]] = {}
    for place, name in receipt["sources"].items():
        splits_of.setdefault(name.partition("/")[0], set()).add(place.partition("/")[0])
    assert len(splits_of) == 7 and all(len(splits) == 1 for splits in splits_of.values())
    assert receipt["notes"] == ["1 of 26 images matches no convert.group_by and is a group of its own"]


SERIES = {
    "frames": ("cam{}_{:03}", True),
    "tiles": ("scene{}_0_{}", True),
    "Roboflow": ("photo-{}_jpg.rf.{:032x}", True),
    "frames of videos": ("film-{}-frame{:04}", True),
    "one long series": ("IMG_{}{:04}", False),
    "classes": ("apple_{}{}", False),
}


@pytest.mark.parametrize("form", SERIES)
def test_names_of_videos_and_tiles_suggest_group_by(form: str, source: Path, run: Run) -> None:
    pattern, is_series = SERIES[form]
    for film in range(3):
        for frame in range(6):
            name = pattern.format(film, frame * 80)
            source.mkdir(exist_ok=True)
            (source / f"{name}.jpg").write_bytes(image(name))
            write(source / f"{name}.txt", yolo_lines("img0"))
    write(source / "classes.txt", "cat\ndog\n")
    notes = do(source, run, split=RATIOS)["notes"]
    assert bool(notes) == is_series
    if is_series:
        group_by = notes[0].partition("group_by: '")[2].partition("'")[0]
        again = do(source, Run(run.root.with_name("two")), split=RATIOS, group_by=group_by)
        films = [
            {path.partition("/")[0] for path in again["sources"] if f"/{pattern.format(film, 0)[:7]}" in path}
            for film in range(3)
        ]
        assert again["notes"] == [] and all(len(splits) == 1 for splits in films)


# --- F. Numbers that cannot be labels ---------------------------------------------------------------------------------

WRONG: dict[str, tuple[Callable[[Any], list[float]], str]] = {
    "corners for sides": (lambda c: [c[0], c[1], c[2], c[3]], "they fit as x1, y1, x2, y2 instead of x, y, width, height"),
    "shares": (lambda c: [c[0] / 320, c[1] / 240, (c[2] - c[0]) / 320, (c[3] - c[1]) / 240], "look relative to the image size"),
    "the centre": (lambda c: [(c[0] + c[2]) / 2 + 60, (c[1] + c[3]) / 2 + 60, c[2] - c[0], c[3] - c[1]], "too many for drawing errors"),
    "another image's": (lambda c: [c[0] * 2, c[1] * 2, (c[2] - c[0]) * 2, (c[3] - c[1]) * 2], "check the order and unit|too many for drawing errors"),
}  # fmt: skip


@pytest.mark.parametrize("form", WRONG)
@pytest.mark.parametrize("policy", ["fix", "drop", "error"])
def test_implausible_boxes_are_refused_with_a_likely_cause(form: str, policy: str, source: Path, run: Run) -> None:
    change, said = WRONG[form]
    images(source)
    data = coco("{}.jpg".format)
    for one in data["annotations"]:
        x, y, w, h = one["bbox"]
        one["bbox"] = change((x, y, x + w, y + h))
    write(source / "a.json", data)
    refused(source, run, rf"a\.json: .*({said})", on_problem=policy)


def test_yolo_rows_with_the_corner_for_the_centre_are_refused(source: Path, run: Run) -> None:
    images(source / "images")
    for stem in STEMS:
        rows = [
            f"{NAMES.index(la)} {c[0] / 320} {c[1] / 240} {(c[2] - c[0]) / 320} {(c[3] - c[1]) / 240}"
            for la, c in BOXES[stem]
        ]
        write(source / "labels" / f"{stem}.txt", "\n".join(rows))
    write(source / "classes.txt", "cat\ndog\n")
    refused(source, run, r"they fit as the upper left corner instead of the centre")


def test_width_and_height_in_corner_columns_are_refused(source: Path, run: Run) -> None:
    images(source)
    rows = [f"{stem}.jpg,{la},{c[0]},{c[1]},{c[2] - c[0]},{c[3] - c[1]}\n" for stem in STEMS for la, c in BOXES[stem]]
    rows += [f"img3.jpg,cat,{x},180,40,30\n" for x in (200, 210, 220)]
    write(source / "a.csv", "".join(["filename,class,xmin,ymin,xmax,ymax\n", *rows]))
    refused(source, run, r"have swapped corners, .* they fit as x, y, width, height instead of x1, y1, x2, y2")


OVER: dict[str, list[tuple[int, int, int, int]]] = {
    "on several sides": [(240, 100, 328, 150), (-8, 20, 50, 70), (100, 190, 150, 247), (20, 20, 50, 50)],
    "on the left": [(-5, 100, 40, 150), (-8, 20, 50, 70), (-6, 180, 50, 220), (120, 20, 150, 50)],
    "on the right": [(260, 100, 325, 150), (250, 20, 328, 70), (240, 180, 326, 220), (120, 20, 150, 50)],
}


@pytest.mark.parametrize("form", OVER)
def test_one_image_with_boxes_beyond_its_edge_does_not_refuse_the_source(form: str, source: Path, run: Run) -> None:
    images(source)
    for stem in STEMS:
        found = "".join(
            f"<object><name>{la}</name><bndbox>"
            + "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), c, strict=True))
            + "</bndbox></object>"
            for la, c in BOXES[stem] * 2 + [("cat", c) for c in OVER[form] if stem == "img3"]
        )
        write(source / f"{stem}.xml", f"<annotation><filename>{stem}.jpg</filename>{found}</annotation>")
    assert do(source, run, split=RATIOS)["boxes"]["clipped"] == 3
    assert do(source, Run(run.root.with_name("two")), split=RATIOS, on_problem="drop")["boxes"]["kept"] == 7


def test_a_single_box_beyond_the_edge_is_clipped(source: Path, run: Run) -> None:
    images(source)
    data = coco("{}.jpg".format)
    data["annotations"][0]["bbox"] = [250, 100, 90, 40]
    write(source / "a.json", data)
    assert do(source, run, split=RATIOS)["boxes"]["clipped"] == 1


@pytest.mark.parametrize("row", ["No finding,,,,", "No finding,-9999,-9999,-9999,-9999", "No finding,10,10,5,5"])
@pytest.mark.parametrize("policy", ["fix", "drop", "error"])
def test_rows_of_a_class_that_is_left_out_need_no_box(row: str, policy: str, source: Path, run: Run) -> None:
    images(source)
    rows = [f"{stem}.jpg,{la},{','.join(map(str, c))}\n" for stem in STEMS for la, c in BOXES[stem]]
    nothing = [f"img3.jpg,{row}\n"] * (3 * len(rows))
    write(source / "a.csv", "".join(["filename,class,xmin,ymin,xmax,ymax\n", *rows, *nothing]))
    classes = {"cat": "cat", "dog": "dog", "No finding": None}
    receipt = do(source, run, split=RATIOS, classes=classes, on_problem=policy)
    assert written(run) == TRUTH and receipt["boxes"]["ignored"] == len(nothing)
    assert {case["reason"] for case in receipt["problems"]} == {"convert.classes leaves this class out"}


DAMAGED: dict[str, list[float]] = {
    "1e308": [124, 1e308, 75, 82],
    "as a width": [124, 65, 1e308, 82],
    "minus 1e308": [124, 65, -1e308, 82],
    "minus 5000": [124, 65, -5000, 82],
    "a width of ten images": [10, 10, 3200, 20],
}


@pytest.mark.parametrize("form", DAMAGED)
def test_damaged_boxes_are_not_repaired_into_boxes(form: str, source: Path, run: Run) -> None:
    images(source)
    data = coco("{}.jpg".format)
    data["annotations"][0]["bbox"] = DAMAGED[form]
    write(source / "a.json", data)
    line = refused(source, run, r"a\.json: 0 \(cat\): ")
    assert len(line) < 300
    assert do(source, run, split=RATIOS, on_problem="drop")["boxes"]["dropped"] == 1


@pytest.mark.parametrize("beyond", [1e-9, 0.002, 0.4])
def test_rounding_below_half_a_pixel_is_not_a_problem(beyond: float, source: Path, run: Run) -> None:
    """Roboflow writes five decimals, which put a box 0.002 px beyond the edge."""
    images(source)
    data = coco("{}.jpg".format)
    data["annotations"][0]["bbox"] = [WIDTH - 20, HEIGHT - 30, 20 + beyond, 30 + beyond]
    data["annotations"][1]["bbox"] = [-beyond, -beyond, 30, 40]
    write(source / "a.json", data)
    receipt = do(source, run, split=RATIOS, on_problem="error")
    assert receipt["boxes"]["kept"] == 6 and receipt["problems"] == []


ROW = "Car 0.00 0 1.57 140 50 200 120 -1 -1 -1 -1000 -1000 -1000 -10"
KITTI_ROWS = {
    "two words": f"traffic {ROW}",
    "commented": f"# {ROW}",
    "no alpha": ROW.replace(" 1.57", "") + " 0.9",
    "swapped columns": "Car 140 50 200 120 0.00 0 1.57 -1 -1 -1 -1000 -1000 -1000 -10",
}


@pytest.mark.parametrize("form", KITTI_ROWS)
def test_kitti_rows_with_shifted_columns_are_refused(form: str, source: Path, run: Run) -> None:
    images(source / "image_2", lambda stem: f"{stem}.png")
    for stem in STEMS:
        write(source / "label_2" / f"{stem}.txt", ROW + "\n")
    write(source / "label_2" / "img0.txt", f"{ROW}\n{KITTI_ROWS[form]}\n")
    refused(source, run, r"img0\.txt: line 2 ")
    receipt = do(source, run, split=RATIOS, on_problem="drop")
    assert receipt["boxes"]["dropped"] == 1 and receipt["classes"] == ["Car"]


@pytest.mark.parametrize("cut", [2, 3])
def test_a_table_truncated_in_its_last_number_is_refused(cut: int, source: Path, run: Run) -> None:
    images(source)
    by_csv(source, "{}.jpg".format)
    text = (source / "a.csv").read_text() + "img3.jpg,cat,124,65,199,147\n"
    write(source / "a.csv", text.replace("img3.jpg,,,,,\n", "")[:-cut])
    refused(source, run, r"a\.csv: line 8 \(cat\): corners are swapped in the last line, which seems to be cut off")


@pytest.mark.parametrize("key", ["annotations", "images", "bbox", "id"])
def test_a_repeated_key_is_refused(key: str, source: Path, run: Run) -> None:
    images(source)
    text = json.dumps(coco("{}.jpg".format))
    write(source / "a.json", text.replace(f'"{key}": ', f'"{key}": [], "{key}": ', 1))
    refused(source, run, rf"a\.json: the key '{key}' appears twice in one object; keep one")


def test_an_image_beyond_the_limit_of_opencv_is_refused(source: Path, run: Run) -> None:
    """The header promises 1,100 million pixels, which nobody has to decode."""
    images(source)
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 55_000, 20_000, 1, 0, 0, 0, 0), b"IDAT": zlib.compress(bytes(100))}
    png = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks.items():
        png += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    (source / "img0.jpg").write_bytes(png)
    data = coco("{}.jpg".format)
    data["images"][0] |= {"width": 55_000, "height": 20_000}
    write(source / "a.json", data)
    refused(source, run, r"img0\.jpg: more than 1,074 million pixels; cut it into pieces")


def test_an_image_of_200_million_pixels_is_read(source: Path, run: Run) -> None:
    """Pillow alone would refuse it."""
    images(source)
    Image.new("1", (20_000, 10_000)).save(source / "img0.jpg", "PNG")
    data = coco("{}.jpg".format)
    data["images"][0] |= {"width": 20_000, "height": 10_000}
    write(source / "a.json", data)
    do(source, run, split=RATIOS)
    assert (20_000, 10_000) in [image_size(path) for path in run.dataset.glob("images/*/img0.*")]


# --- Images that nobody has labelled -------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["SegmentationClass", "masks", "annotations/panoptic_val2017", "my_mask"])
def test_masks_do_not_become_background(folder: str, source: Path, run: Run) -> None:
    images(source / "images")
    images(source / folder, lambda stem: f"{stem}.png")
    write(source / "a.json", coco("{}.jpg".format))
    receipt = do(source, run, split=RATIOS)
    assert receipt["images"]["used"] == 4
    assert receipt["images"]["set_aside"] == {
        f"{folder}/{stem}.png": f"a mask of {stem}.jpg, by its name and folder" for stem in STEMS
    }


@pytest.mark.parametrize(("folder", "name"), [("extra", "{}.png"), ("masks", "new-{}.png"), ("unmasked", "{}.png")])
def test_other_unlabelled_images_are_not_taken_for_masks(folder: str, name: str, source: Path, run: Run) -> None:
    images(source / "images")
    images(source / folder, name.format)
    write(source / "a.json", coco("{}.jpg".format))
    refused(
        source,
        run,
        r"img0\.png: no annotation; label it, leave it out .* or set `convert\.unlabelled: background` if no image",
    )


@pytest.mark.parametrize("name", ["test.json", "a_test.json", "image_info_test2017.json"])
@pytest.mark.parametrize("empty", [False, True])
def test_a_coco_file_without_annotations_is_listed(name: str, empty: bool, source: Path, run: Run) -> None:
    images(source / "images")
    images(source / "images", "test-{}.jpg".format)
    write(source / "train.json", coco("{}.jpg".format))
    listed = coco("test-{}.jpg".format)
    del listed["annotations"]
    write(source / name, listed | ({"annotations": []} if empty else {}))
    receipt = do(source, run, split=RATIOS)
    assert receipt["images"]["used"] == 4
    assert receipt["notes"][:1] == [f"{name}: skipped, it lists images without annotations"]
    assert receipt["images"]["set_aside"] == {
        f"images/test-{stem}.jpg": f"{name} lists images without annotations" for stem in STEMS
    }
    (source / "train.json").unlink()
    said = (
        "no usable box, because no annotation holds any" if empty else f"{name}: needs a list `annotations` of objects"
    )
    refused(source, Run(run.root / "x"), said, unlabelled="background")

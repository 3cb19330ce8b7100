"""What a device reads from a file as received: the pixels that training saw or a one-line error, never other pixels."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin
from test_convert_cases import drawing, image_writers
from test_formats_tools import RATIOS

from pipeline import convert, pixels
from pipeline.boxes import YoloDataset, image_size
from pipeline.config.data import Convert
from pipeline.device.runner import RunnerError, images, read_image
from pipeline.files import read_json
from pipeline.orientation import EXIF_ORIENTATION
from pipeline.run import Run

READERS = {"OpenCV": cv2, "Pillow": None}
PLANES = "16 bits in separate planes, which decoders mix up"
REFUSED = {
    "OpenCV": {
        "j.tga": "not an image that OpenCV can read",
        "multiplied.tif": "a TIFF of colours multiplied by their transparency; save it without transparency",
        "turned.avif": "an AVIF that has to be turned, which OpenCV does not do",
    },
    "Pillow": {
        "w_16.png": "16 bits in colour, which Pillow cannot read",
        **dict.fromkeys(
            ("x_16.tif", "through_16.tif", "multiplied_16.tif"),
            "more than 8 bits in a form that Pillow cannot read; save it with 8",
        ),
    },
}
# OpenCV converts these two to RGB with other rounding than Pillow, which convert uses; mean grey levels.
ROUNDED = {"r_cmyk.jpg": 1.5, "ycc.tif": 1.0}


def turned(kind: str, turn: int, **options: Any) -> Callable[[Image.Image, Path], object]:
    own = Image.Exif()
    own[EXIF_ORIENTATION] = turn
    return lambda image, path: image.save(path, kind, exif=own, **options)


def trailing(image: Image.Image, path: Path) -> None:
    image.save(path, quality=95)
    path.write_bytes(path.read_bytes() + b"SEFH trailer of a telephone")


def segments(*contents: bytes) -> Callable[[Image.Image, Path], object]:
    """A JPEG with these APP1 segments."""

    def save(image: Image.Image, path: Path) -> None:
        image.save(path, "JPEG", quality=95)
        data = path.read_bytes()
        app1 = b"".join(b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content for content in contents)
        path.write_bytes(data[:2] + app1 + data[2:])

    return save


def exif(order: str, form: str, turn: int = 6) -> bytes:
    """EXIF with only the orientation, as a number of this form: `H` is correct, `I` is not."""
    kind = {"H": 3, "I": 4}[form]
    value = struct.pack(order + form, turn).ljust(4, b"\0")
    head = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8)
    return b"Exif\0\0" + head + struct.pack(f"{order}HHHI", 1, EXIF_ORIENTATION, kind, 1) + value + b"\0" * 4


def xmp_png(image: Image.Image, path: Path) -> None:
    """The orientation as text, as old tools write it; only Pillow obeys it."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", "\nexif\n      32\n" + exif("<", "H").hex())
    info.add_itxt("XML:com.adobe.xmp", XMP.decode().partition("\0")[2])
    image.save(path, pnginfo=info)


XMP = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="6"/>'


def as_mode(mode: str, **options: Any) -> Callable[[Image.Image, Path], object]:
    return lambda image, path: image.convert(mode).save(path, **options)


def see_through(image: Image.Image) -> Image.Image:
    """The image with transparency from left to right. No pixel is wholly clear: WebP may drop the colours of those."""
    image = image.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").rotate(90).resize(image.size).point(lambda value: max(value, 1)))
    return image


def clear(kind: str, turn: int = 1, **options: Any) -> Callable[[Image.Image, Path], object]:
    save = turned(kind, turn, **options)
    return lambda image, path: save(see_through(image), path)


def clear_tiff(extra: str, bits: int = 8, **options: Any) -> Callable[[Image.Image, Path], object]:
    def save(image: Image.Image, path: Path) -> None:
        values = np.asarray(see_through(image)).astype(f"uint{bits}") * (257 if bits == 16 else 1)
        if options.get("planarconfig") == "separate":
            values = values.transpose(2, 0, 1)
        tifffile.imwrite(path, values, photometric="rgb", extrasamples=[extra], **options)

    return save


RECEIVED: dict[str, Callable[[Image.Image, Path], object]] = {
    **{name: save for name, (save, _) in image_writers().items()},
    **{f"turned{turn}.jpg": turned("JPEG", turn, quality=90) for turn in range(2, 9)},
    "turned.mpo": turned("MPO", 8, quality=90),
    "turned.png": turned("PNG", 5),
    "turned.webp": turned("WEBP", 6, quality=80),
    "turned.tif": turned("TIFF", 7),
    "turned.avif": turned("AVIF", 6, quality=80),
    "xmp.jpg": segments(XMP),
    "xmp_first.jpg": segments(XMP, exif("<", "H", 8)),
    "twice.jpg": segments(exif("<", "H", 6), exif("<", "H", 3)),
    **{f"form{number}.jpg": segments(exif(order, form)) for number, (order, form) in enumerate(product("<>", "HI"))},
    "text.png": xmp_png,
    "trailing.jpg": trailing,
    "grey.jpg": as_mode("L", quality=90),
    "black.png": as_mode("1"),
    "black.tif": as_mode("1"),
    "alpha.png": as_mode("LA"),
    "clear.png": as_mode("P", transparency=0),
    "ycc.tif": as_mode("YCbCr"),
    "through.png": clear("PNG"),
    "through.webp": clear("WEBP", lossless=True),
    "through.jp2": clear("JPEG2000"),
    "through.bmp": clear("BMP"),
    "through.tif": clear("TIFF"),
    "through_packed.tif": clear("TIFF", compression="tiff_lzw"),
    "through_turned.tif": clear("TIFF", 6),
    "through_big.tif": clear("TIFF", big_tiff=True),
    "through_planes.tif": clear_tiff("unassalpha", planarconfig="separate"),
    "through_16.tif": clear_tiff("unassalpha", 16, byteorder=">"),
    "through_tiles.tif": clear_tiff("unassalpha", tile=(64, 64), byteorder=">"),
    "fourth.tif": clear_tiff("unspecified"),
    "multiplied.tif": clear_tiff("assocalpha"),
    "multiplied_16.tif": clear_tiff("assocalpha", 16),
}


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[Path, Path], int]:
    """The copy in the dataset for each file as received, and the bit depth of the 16-bit ones."""
    source = tmp_path_factory.mktemp("received")
    for number, (name, save) in enumerate(RECEIVED.items()):
        # In its own folder, so that stems may be equal.
        path = source / str(number) / name
        path.parent.mkdir()
        save(drawing(number), path)
    records = [{"id": n, "file_name": f"{n}/{name}"} for n, name in enumerate(RECEIVED)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [10, 10, 30, 40]} for n in range(len(records))]
    coco = {"images": records, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (source / "a.json").write_text(json.dumps(coco))
    run = Run(tmp_path_factory.mktemp("runs") / "received")
    convert.main(Convert.model_validate({"source": source, "split": RATIOS, "near_duplicates": False}), run, 0)
    receipt = read_json(run.receipt)
    dataset = YoloDataset.read(run.dataset / "data.yaml")
    named = {f"{split}/{path.name}": path for split in dataset.images for path in dataset.files(split)}
    assert len(named) == len(RECEIVED)
    return {source / name: named[copy] for copy, name in receipt["sources"].items()}, receipt["bits"]


@pytest.mark.parametrize("reader", READERS)
def test_a_device_sees_what_training_saw(
    copies: tuple[dict[Path, Path], int], reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "cv2", READERS[reader])
    pairs, bits = copies
    seen = {}
    for received, copy in pairs.items():
        try:
            image = read_image(received, bits)
        except RunnerError as error:
            assert str(error).startswith(f"{received}: ")
            seen[received.name] = str(error)
            continue
        trained_on = pixels.read(copy)
        assert image.shape == trained_on.shape, received
        assert image_size(copy) == image.shape[1::-1], received
        distance = np.abs(image.astype(int) - trained_on).mean()
        assert distance <= (ROUNDED.get(received.name, 0) if reader == "OpenCV" else 0), received
    lines = REFUSED[reader] | {name: PLANES for name in RECEIVED if name.startswith("y_planes16")}
    assert set(seen) == set(lines)
    for name, line in lines.items():
        assert line in seen[name]

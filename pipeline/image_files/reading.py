"""Decode whole images to check them, and re-encode those that training cannot read as they are."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline import orientation as exif
from pipeline.device.runner.headers import END_OF_IMAGE as END_OF_IMAGE
from pipeline.device.runner.headers import HEIC, PLANES, SEPARATE
from pipeline.image_files.deep import eight_bits, is_deep, significant_bits, values_of
from pipeline.image_files.duplicates import Fingerprint, fingerprint
from pipeline.walk import broken_link, folder_as_text, link_as_text

MIN_SIDE = 10  # pixels; Ultralytics silently leaves out smaller images
LARGE = 1 << 26  # pixels
FINGERPRINT_SIDE = 128  # a JPEG is decoded at 1/2, 1/4 or 1/8 while both of its sides stay above this
# Formats that stay as they are, by Pillow's names, with their suffixes. All others become PNG.
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
# Pillow's options. Without one, a TIFF keeps the compression of its source, which may be JPEG or only for 1 bit.
LOSSLESS: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "TIFF": {"compression": "tiff_adobe_deflate"}}
OUT_OF_JSON = "taken out of its JSON"
# Phones may write data after the marker. Ultralytics would re-encode such a file.
NO_JPEG_END = "JPEG without its end marker at the end: the marker added, the pixels as they were"
WIDTH, HEIGHT = 256, 257  # tags of TIFF 6.0
PHOTOMETRIC, BLACK_IS_ZERO, RGB = 262, 1, 2  # a tag of TIFF 6.0, and the kinds that OpenCV reads as Pillow does
# The first bytes of other files that have the name of an image, and what to do about them.
_OTHERS = {
    b"version https://git-lfs": "a Git LFS pointer, not an image: run `git lfs pull`",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive",
    b"\x1aE\xdf\xa3": "a video",
    b"<": "a web page or XML, perhaps of a download that failed",
    b"{": "JSON, perhaps of a download that failed",
    b"II*\0": "a TIFF with unsupported bands or compression: save it as 8- or 16-bit RGB",
    b"MM\0*": "a TIFF with unsupported bands or compression: save it as 8- or 16-bit RGB",
}
_EPS = (b"%!PS", b"\xc5\xd0\xd3\xc6")
_VIDEO = re.compile(rb"....ftyp|RIFF....AVI", re.DOTALL)
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")


class Checked(NamedTuple):
    """The result of a check. `size` is (width, height) of the upright image, `stored` that in the file, before EXIF.

    `problem` says why the image cannot be used, and `missing` that it does not exist; then nothing else is known.
    `rewrite` says why it has to be re-encoded; None if a link will do. `suffix` is that of the image in the dataset,
    by its content. `peak` is the highest value of an image with more than 8 bits, else 0.
    """

    problem: str | None = None
    size: tuple[int, int] = (0, 0)
    stored: tuple[int, int] = (0, 0)
    orientation: int = 1
    sha256: str = ""
    fingerprint: Fingerprint | None = None
    rewrite: str | None = None
    peak: int = 0
    missing: bool = False
    suffix: str = ""


def check(path: Path) -> Checked:
    """Read and decode a file to its end, because the header of a truncated image is intact.

    A JPEG is decoded at reduced scale, which still reads its compressed data to the end, where damage shows.
    """
    try:
        data = read(path)
    except (FileNotFoundError, NotADirectoryError):
        behind = folder_as_text(path.parent)
        return Checked(broken_link(path) or f"image missing; {behind or 'restore it'}", missing=True)
    except OSError as error:
        return Checked(broken_link(path) or f"cannot be read ({error.strerror}); make it readable, or remove it")
    if data.startswith(_EPS):
        return Checked("not an image that can be read (EPS, a program that Pillow would run); save it as PNG")
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore")  # Pillow warns about large images, but decodes them
            stored = _stored(image)
            if math.prod(stored) > exif.MOST_PIXELS:
                raise Image.DecompressionBombError
            orientation = exif.of(image)
            kind, mode, deep = str(image.format), image.mode, is_deep(image, data)
            oddity = _odd(image)
            if kind == "JPEG":
                image.draft("L" if mode in ("L", "RGB") else None, (FINGERPRINT_SIDE, FINGERPRINT_SIDE))
            image.load()
            peak = 0
            shown: Image.Image = image
            if deep:
                values = values_of(image, data)
                peak = int(values.max())
                shown = eight_bits(values, significant_bits(peak), orientation)
            grey = _grey(shown)
    except Image.DecompressionBombError:
        return Checked(f"more than {exif.MOST_PIXELS / 1e6:,.0f} million pixels; cut it into pieces")
    except Exception as error:  # Pillow's decoders raise a dozen types on damaged files
        return Checked(f"not an image that can be read ({_what(data, error)}); replace it")
    if min(stored) < MIN_SIDE:
        return Checked(f"{stored[0]}x{stored[1]} pixels, too small to train on; remove it")
    if mode == "F":
        return Checked("pixels are floating-point numbers; write it as an 8- or 16-bit image")
    size = stored if orientation < 5 else stored[::-1]
    rewrite = None
    if orientation != 1 and kind not in exif.JPEGS:  # JPEGs would lose quality, and OpenCV applies their EXIF
        rewrite = f"EXIF orientation {orientation}: turned upright"
    elif deep:
        rewrite = "16 bits: brought to 8" if peak < 1 << 16 else "32 bits: brought to 8"
    elif mode == "CMYK":
        rewrite = "CMYK: turned to RGB"
    elif kind not in SUFFIXES:
        rewrite = f"{kind}: written as PNG"
    elif oddity:
        rewrite = f"{oddity}: re-encoded"
    elif kind == "JPEG" and not data.endswith(END_OF_IMAGE):
        rewrite = NO_JPEG_END
    elif path.suffix.lower() == ".json":
        rewrite = OUT_OF_JSON
    digest = hashlib.sha256(data).hexdigest()
    known = SUFFIXES.get("PNG" if mode == "CMYK" and kind in exif.JPEGS else kind, (".png",))
    suffix = path.suffix if path.suffix.lower() in known else known[0]
    return Checked(None, size, stored, orientation, digest, fingerprint(grey), rewrite, peak, suffix=suffix)


def _grey(image: Image.Image) -> NDArray[np.uint8]:
    """Return the upright image in grey, for the fingerprint.

    A large one is shrunk first, because copies take memory. It is not turned; a fingerprint matches in any orientation.
    """
    if image.width * image.height > LARGE:
        image = (image if image.mode in ("L", "RGB") else image.convert("L")).reduce(8)
    return np.asarray(ImageOps.exif_transpose(image).convert("L"))


def read(path: Path) -> bytes:
    """Return the bytes of an image file, or of the image inside a LabelMe file. Raises OSError."""
    data = path.read_bytes()
    if path.suffix.lower() != ".json":
        return data
    try:
        # Like the reader, Python's parser accepts a byte-order mark and NaN.
        return base64.b64decode(json.loads(data)["imageData"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return b""


def _stored(image: Image.Image) -> tuple[int, int]:
    """Return width and height as stored; for a TIFF, Pillow itself gives those of the upright image."""
    tags: Any = image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]
    return (int(tags[WIDTH]), int(tags[HEIGHT])) if tags else image.size


def _odd(image: Image.Image) -> str:
    """Return why OpenCV may read a TIFF differently from Pillow: colours, planes or pages; empty if it does not."""
    if image.format != "TIFF":
        return ""
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    if image.mode not in ("L", "RGB") or tags.get(PHOTOMETRIC) not in (BLACK_IS_ZERO, RGB):
        return f"TIFF of {image.mode} colours"
    if tags.get(PLANES) == SEPARATE:
        return "TIFF of separate planes"
    return "TIFF of several pages, of which the first is used" if getattr(image, "n_frames", 1) > 1 else ""


def _what(data: bytes, error: Exception) -> str:
    """Describe a file that is not an image; the same file always gives the same text."""
    if not data.strip(b"\0 \r\n"):
        return "the file is empty" if not data else "the file holds nothing but zeros or white space"
    if data[4:12] in HEIC:
        return "HEIC, a format of phones: save it as JPEG"
    if _VIDEO.match(data) and b"avif" not in data[:32]:
        return "a video"
    text = " ".join(_ADDRESS.sub("the file", str(error)).split()) or type(error).__name__
    if "cannot identify" in text or isinstance(error, ImportError):  # ImportError: a missing plugin of Pillow
        if link := link_as_text(data):
            return f"{link}: put the image itself there"
        return next(
            (description for start, description in _OTHERS.items() if data.startswith(start)), "no known image format"
        )
    return text


def upright(path: Path, orientation: int, bits: int | None) -> bytes:
    """Return the image encoded without loss, in its own format or as PNG: 8 bits per channel, RGB or grey, upright.

    `bits` is the number of bits in use in the 16-bit images of the whole source, so that one factor scales them all and
    brightness stays comparable; None for an image with 8 bits. The image is encoded in memory, because Pillow does not
    notice a full disk.
    """
    encoded = io.BytesIO()
    data = read(path)
    with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
        warnings.simplefilter("ignore")
        exif.of(image)
        kind = image.format if image.format in SUFFIXES and image.format not in exif.JPEGS else "PNG"
        if bits is not None:
            eight = eight_bits(values_of(image, data), bits, orientation)
        else:
            plain = image.mode in ("L", "RGB") or image.format == "PNG"
            eight = image.copy() if plain else image.convert("RGB")
        upright_image = ImageOps.exif_transpose(eight)
        upright_image.save(encoded, kind, **LOSSLESS.get(kind, {}))
    return encoded.getvalue()

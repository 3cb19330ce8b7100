"""What a whole decode of an image tells, and the images whose pixels have to be written anew for training."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from PIL import Image, ImageOps

from pipeline import orientation as exif
from pipeline.device.runner.headers import PLANES, SEPARATE
from pipeline.image_files.deep import eight_bits, is_deep, significant_bits, values_of
from pipeline.image_files.duplicates import Fingerprint, fingerprint
from pipeline.walk import broken_link, folder_as_text, link_as_text

MIN_SIDE = 10  # pixels; Ultralytics leaves out smaller images without counting them as lost
FINGERPRINT_SIDE = 128  # a JPEG is decoded at 1/2, 1/4 or 1/8 while both of its sides stay above this
# Formats that stay as they are, by Pillow's names, with their suffixes. Whatever else decodes becomes PNG.
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
OUT_OF_JSON = "taken out of its JSON"
JPEG_END = b"\xff\xd9"
# Telephones write data behind the marker, too. Ultralytics would encode such a file anew.
NO_JPEG_END = "JPEG without its end marker at the end: the marker added, the pixels as they were"
WIDTH, HEIGHT = 256, 257  # tags of TIFF 6.0
PHOTOMETRIC, BLACK_IS_ZERO, RGB = 262, 1, 2  # a tag of TIFF 6.0, and the kinds that OpenCV reads as Pillow does
# The first bytes of what people have under an image's name, and what to do about it.
_OTHERS = {
    b"version https://git-lfs": "a pointer of Git LFS, the image itself is not here: run `git lfs pull`",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a zip archive",
    b"\x1aE\xdf\xa3": "a video",
    b"<": "a web page or XML, perhaps of a download that failed",
    b"{": "JSON, perhaps of a download that failed",
    b"II*\0": "a TIFF of bands or a compression that cannot be decoded: save it as RGB of 8 or 16 bits",
    b"MM\0*": "a TIFF of bands or a compression that cannot be decoded: save it as RGB of 8 or 16 bits",
}
_HEIF = re.compile(rb"....ftyp(hei[cxms]|hev[cx]|mif1|msf1)", re.DOTALL)
_VIDEO = re.compile(rb"....ftyp|RIFF....AVI", re.DOTALL)
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")


class Checked(NamedTuple):
    """`size` is (width, height) of the upright image, `stored` as the file has it: EXIF may turn it.

    `problem` says why the image cannot be used, `missing` that it is not there; then nothing else is known. `rewrite`
    says why its pixels have to be written anew, None where a link will do; `suffix` is what the image is called by in
    the data set, as its content wants it. `peak` is the highest value of an image of more than 8 bits, else 0.
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
    """Read and decode a file to its end, as the header of a truncated image is whole.

    A JPEG is decoded at reduced scale: its compressed data are read to the end all the same, and that
    is where damage shows.
    """
    try:
        data = read(path)
    except (FileNotFoundError, NotADirectoryError):
        behind = folder_as_text(path.parent)
        return Checked(broken_link(path) or f"image missing; {behind or 'restore it'}", missing=True)
    except OSError as error:
        return Checked(broken_link(path) or f"cannot be read ({error.strerror}); make it readable, or remove it")
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore")  # Pillow's of large images, which it decodes all the same
            stored, orientation = _stored(image), exif.of(image)
            kind, mode, deep = str(image.format), image.mode, is_deep(image, data)
            odd = _odd(image)
            if kind == "JPEG":
                image.draft("L" if mode in ("L", "RGB") else None, (FINGERPRINT_SIDE, FINGERPRINT_SIDE))
            image.load()
            peak = 0
            shown: Image.Image = image
            if deep:
                values = values_of(image, data)
                peak = int(values.max())
                shown = eight_bits(values, significant_bits(peak), orientation)
            grey = np.asarray(ImageOps.exif_transpose(shown).convert("L"))
    except Image.DecompressionBombError:
        return Checked("more than 178 million pixels, too large to train on in one piece; cut it into tiles")
    except Exception as error:  # damage reaches Pillow's decoders in a dozen ways, struct.error to zlib.error
        return Checked(f"not an image that can be read ({_what(data, error)}); replace it")
    if min(stored) < MIN_SIDE:
        return Checked(f"{stored[0]}x{stored[1]} pixels, too small to train on; remove it")
    if mode == "F":
        return Checked("pixels are floating-point numbers; write it as an 8- or 16-bit image")
    size = stored if orientation < 5 else stored[::-1]
    rewrite = None
    if orientation != 1 and kind not in exif.JPEGS:  # those would lose by it, and OpenCV turns them as EXIF says
        rewrite = f"EXIF orientation {orientation}: turned upright"
    elif deep:
        rewrite = "16 bits: brought to 8" if peak < 1 << 16 else "32 bits: brought to 8"
    elif mode == "CMYK":
        rewrite = "CMYK: turned to RGB"
    elif kind not in SUFFIXES:
        rewrite = f"{kind}: written as PNG"
    elif odd:
        rewrite = f"{odd}: written anew"
    elif kind == "JPEG" and not data.endswith(JPEG_END):
        rewrite = NO_JPEG_END
    elif path.suffix == ".json":
        rewrite = OUT_OF_JSON
    digest = hashlib.sha256(data).hexdigest()
    known = SUFFIXES.get("PNG" if mode == "CMYK" and kind in exif.JPEGS else kind, (".png",))
    suffix = path.suffix if path.suffix.lower() in known else known[0]
    return Checked(None, size, stored, orientation, digest, fingerprint(grey), rewrite, peak, suffix=suffix)


def read(path: Path) -> bytes:
    """Return the bytes of an image file, or of the image inside a LabelMe file. Raises OSError."""
    data = path.read_bytes()
    if path.suffix != ".json":
        return data
    try:
        return base64.b64decode(orjson.loads(data)["imageData"])
    except (KeyError, TypeError, ValueError):
        return b""


def _stored(image: Image.Image) -> tuple[int, int]:
    """Return width and height as stored; Pillow gives those of a TIFF as EXIF turns it."""
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
    if _HEIF.match(data):
        return "HEIC, a format of telephones: save it as JPEG"
    if _VIDEO.match(data) and b"avif" not in data[:32]:
        return "a video"
    text = " ".join(_ADDRESS.sub("the file", str(error)).split()) or type(error).__name__
    if "cannot identify" in text or isinstance(error, ImportError):  # of a plugin that some package promises
        if link := link_as_text(data):
            return f"{link}: put the image itself there"
        return next(
            (what for start, what in _OTHERS.items() if data.startswith(start)), "no image format that is known"
        )
    return text


def upright(path: Path, orientation: int, bits: int | None) -> bytes:
    """Return the image encoded without loss, in its own format or as PNG: 8 bits per channel, RGB or grey, upright.

    `bits` is the number of bits in use in the 16-bit images of the whole source, so that one factor serves them all and
    brightness stays comparable; None for an image of 8 bits. It encodes in memory, because Pillow does not notice a
    full disk.
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
        turned = ImageOps.exif_transpose(eight)
        turned.save(encoded, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return encoded.getvalue()

"""What a whole decode of an image tells, and the few images whose pixels have to be written anew."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.convert.duplicates import Fingerprint, fingerprint
from pipeline.walk import broken_link

EXIF_ORIENTATION = 0x0112
TIFF_BITS_PER_SAMPLE = 258
PNG_BIT_DEPTH_BYTE = 24  # of the file: 8 bytes of signature, 8 of the chunk's head, 4 each of width and height
MIN_SIDE = 10  # pixels; Ultralytics leaves out smaller images without counting them as lost
FINGERPRINT_SIDE = 128  # a JPEG is decoded at 1/2, 1/4 or 1/8 while both of its sides stay above this
JPEG_QUALITY = 95


class Checked(NamedTuple):
    """`size` is (width, height) of the upright image, `stored` as the file has it: EXIF may turn it.

    `problem` says why the image cannot be used, `missing` that it is not there; then nothing else is known. `rewrite`
    says why its pixels have to be written anew, None where a link will do. `peak` is the highest value of an image of
    more than 8 bits, else 0.
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


def check(path: Path) -> Checked:
    """Read and decode a file to its end, as the header of a truncated image is whole.

    A JPEG is decoded at reduced scale: its compressed data are read to the end all the same, and that
    is where damage shows.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Checked(broken_link(path) or "image missing; restore it", missing=True)
    except OSError as error:
        return Checked(broken_link(path) or f"cannot be read ({error.strerror}); make it readable, or remove it")
    try:
        with Image.open(io.BytesIO(data)) as image:
            stored, orientation = image.size, image.getexif().get(EXIF_ORIENTATION, 1)
            if orientation not in range(2, 9):  # 1 is upright, all else is nonsense that viewers take for it
                orientation = 1
            kind, mode, deep = image.format, image.mode, _is_16_bit(image, data)
            if kind == "JPEG":
                image.draft("L" if mode in ("L", "RGB") else None, (FINGERPRINT_SIDE, FINGERPRINT_SIDE))
            image.load()
            peak = 0
            shown: Image.Image = image
            if deep:
                values = _all_bits(data)
                peak = int(values.max())
                shown = _eight_bits(values, significant_bits(peak), orientation)
            grey = np.asarray(ImageOps.exif_transpose(shown).convert("L"))
    except Exception as error:  # damage reaches Pillow's decoders in a dozen ways, struct.error to zlib.error
        return Checked(f"not an image that can be read ({' '.join(str(error).split())}); replace it")
    if min(stored) < MIN_SIDE:
        return Checked(f"{stored[0]}x{stored[1]} pixels, too small to train on; remove it")
    if mode == "F":
        return Checked("pixels are floating-point numbers; write it as an 8- or 16-bit image")
    size = stored if orientation < 5 else stored[::-1]
    rewrite = None
    if orientation != 1:
        rewrite = f"EXIF orientation {orientation}: turned upright"
    elif deep:
        rewrite = "16 bits: brought to 8"
    elif mode == "CMYK":
        rewrite = "CMYK: turned to RGB"
    elif kind == "JPEG" and not data.rstrip(b"\x00").endswith(b"\xff\xd9"):
        # Ultralytics mends such a file in place, and through a link that would be the source itself.
        rewrite = "JPEG without an end marker: written anew"
    digest = hashlib.sha256(data).hexdigest()
    return Checked(None, size, stored, orientation, digest, fingerprint(grey), rewrite, peak)


def _is_16_bit(image: Image.Image, data: bytes) -> bool:
    # Not by Pillow's mode: it opens 16-bit colour as 8-bit and says nothing.
    if image.format == "PNG":
        return data[PNG_BIT_DEPTH_BYTE] == 16
    if image.format == "TIFF":
        bits: Any = image.tag_v2.get(TIFF_BITS_PER_SAMPLE, (8,))  # type: ignore[attr-defined]
        return image.mode != "F" and max(np.atleast_1d(bits)) > 8
    return image.mode.startswith("I")


def _all_bits(data: bytes) -> NDArray[Any]:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None or picture.dtype != np.uint16:
        raise ValueError("its pixels are neither 8 nor 16 bits")
    return picture


def _eight_bits(values: NDArray[Any], bits: int, orientation: int) -> Image.Image:
    """A 16-bit picture as OpenCV has it, BGR or grey, as 8-bit Pillow image that remembers how it lies."""
    values = (values >> (bits - 8)).astype(np.uint8)
    image = Image.fromarray(values if values.ndim == 2 else np.ascontiguousarray(values[:, :, 2::-1]))
    image.getexif()[EXIF_ORIENTATION] = orientation
    return image


def significant_bits(peak: int) -> int:
    """How many bits the 16-bit images of a source really use: cameras put 10, 12 or 14 into 16."""
    return max(8, peak.bit_length())


def upright(path: Path, orientation: int, bits: int | None) -> bytes:
    """The image in its own format with 8 bits a channel, RGB or grey, turned as EXIF says.

    `bits` is what the 16-bit images of the whole source use, so that one factor serves them all and
    brightness stays comparable; None for an image of 8. In memory: Pillow does not notice a full disk.
    """
    encoded = io.BytesIO()
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        kind = image.format
        if bits is not None:
            eight = _eight_bits(_all_bits(data), bits, orientation)
        else:
            eight = image.convert("RGB") if image.mode == "CMYK" else image.copy()
        turned = ImageOps.exif_transpose(eight)
        options: dict[str, Any] = {"quality": JPEG_QUALITY, "subsampling": 0} if kind == "JPEG" else {}
        turned.save(encoded, kind, **options)
    return encoded.getvalue()

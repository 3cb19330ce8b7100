"""Read the EXIF orientation as OpenCV, which reads images in training and on the device, and browsers do.

Pillow also applies an orientation in XMP, in the text chunk of old PNGs, and of the wrong EXIF type. Pillow's limit
on the number of pixels becomes that of OpenCV, so that both read the same images.
"""

from __future__ import annotations

from typing import Any

from PIL import Image

from pipeline.device.runner.headers import EXIF_ORIENTATION as EXIF_ORIENTATION
from pipeline.device.runner.headers import MOST_PIXELS as MOST_PIXELS
from pipeline.device.runner.headers import exif_orientation

Image.MAX_IMAGE_PIXELS = MOST_PIXELS  # Pillow warns above, and refuses twice as many

JPEGS = ("JPEG", "MPO")  # Pillow's names of formats
SIDES_SWAPPED = range(5, 9)
_IGNORED = ("xmp", "XML:com.adobe.xmp", "Raw profile type exif")  # keys of Pillow's `info`


def of(image: Image.Image) -> int:
    """Return the orientation of an open image, 1 to 8, and make Pillow's `exif_transpose` use the same."""
    if image.format == "PNG":
        image.load()  # chunks after the pixels count too
    for key in _IGNORED:
        image.info.pop(key, None)
    if image.format in JPEGS:
        turn: Any = exif_orientation(image.info.get("exif", b""))
    else:
        turn = image.getexif().get(EXIF_ORIENTATION, 1)
    turn = turn if turn in range(1, 9) else 1
    image.getexif()[EXIF_ORIENTATION] = turn
    return int(turn)


def in_dataset(image: Image.Image) -> int:
    """Return the orientation of an open dataset image; 1 for all but JPEGs, because `convert` turns others upright.

    Looking for EXIF in a PNG would take as long as decoding it.
    """
    return of(image) if image.format in JPEGS else 1


def size(image: Image.Image) -> tuple[int, int]:
    """Return the upright (width, height) of an open image."""
    if image.format == "TIFF":  # Pillow's size is upright already
        return image.size
    return image.size[::-1] if of(image) in SIDES_SWAPPED else image.size

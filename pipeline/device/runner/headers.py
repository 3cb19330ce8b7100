# SPDX-License-Identifier: AGPL-3.0-only
"""Read those properties of an image file that versions of OpenCV and Pillow decode differently."""

from __future__ import annotations

import struct
from typing import Iterator

MOST_PIXELS = 1 << 30  # that OpenCV decodes, unless OPENCV_IO_MAX_IMAGE_PIXELS says otherwise
EXIF_ORIENTATION = 0x0112
BITS, PLANES, SEPARATE = 258, 284, 2  # TIFF 6.0: two tags, and the value of the second for separate planes
EXTRA, MULTIPLIED, TRANSPARENCY = 338, 1, (2, 999)  # the same for more than three channels; Corel writes 999
PNG, PNG_BIT_DEPTH = b"\x89PNG\r\n\x1a\n", 24  # signature, and the offset of a byte in the first chunk
# Bytes 4 to 12 of HEIC, by its kinds.
HEIC = (b"ftypheic", b"ftypheix", b"ftypheim", b"ftypheis", b"ftyphevc", b"ftyphevx", b"ftypmif1", b"ftypmsf1")
# JPEG markers: start of scan, the segment that holds EXIF or XMP, end of image.
START_OF_SCAN, APP1, END_OF_IMAGE = 0xDA, 0xE1, b"\xff\xd9"


def is_jpeg(data: bytes) -> bool:
    return data[:3] == b"\xff\xd8\xff"


def is_cut_short(data: bytes) -> bool:
    """Return whether the end of a JPEG is missing. Older OpenCV fills the rest with grey, without an error."""
    if not is_jpeg(data):
        return False
    # Search only from the scan on: a preview in an earlier segment has an end marker too.
    return all(marker != START_OF_SCAN or END_OF_IMAGE not in data[at:] for marker, at in _segments(data))


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the marker and the offset of each segment of a JPEG, up to the first scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] != 0xFF:  # otherwise it is a fill byte
            yield data[at + 1], at
            if data[at + 1] == START_OF_SCAN:
                return
            at += 1 + int.from_bytes(data[at + 2 : at + 4], "big")
        at += 1


def _jpeg_exif(data: bytes) -> bytes:
    for marker, at in _segments(data):
        if marker == APP1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return data[at + 4 : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
    return b""


def is_16_bit_png(data: bytes) -> bool:
    return data[:8] == PNG and data[PNG_BIT_DEPTH : PNG_BIT_DEPTH + 1] == b"\x10"


def orientation(data: bytes) -> int:
    """Return the EXIF orientation of a JPEG, PNG or WebP; 1 for none. Older OpenCV ignores those of PNG and WebP."""
    if is_jpeg(data):
        exif = _jpeg_exif(data)
    elif data[:8] == PNG:
        exif = _png_chunk(data, b"eXIf")
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        exif = _riff_chunk(data, b"EXIF")
    else:
        return 1
    return exif_orientation(exif)


def exif_orientation(exif: bytes) -> int:
    """Return the orientation in an EXIF block; 1 if it has none."""
    turn = _tag(exif[6:] if exif[:6] == b"Exif\0\0" else exif, EXIF_ORIENTATION)
    return turn if 1 <= turn <= 8 else 1


def is_turned_avif(data: bytes) -> bool:
    """Return whether an AVIF must be turned or mirrored (HEIF's `irot` and `imir`), which OpenCV does not do."""
    head = data[: 1 << 12]
    return data[4:12] in (b"ftypavif", b"ftypavis") and (b"irot" in head or b"imir" in head)


def is_deep_in_planes(data: bytes) -> bool:
    """Return whether a TIFF has 16 bits in separate planes, which OpenCV and Pillow decode to noise."""
    return _tag(data, PLANES) == SEPARATE and _tag(data, BITS) == 16


def is_multiplied(data: bytes) -> bool:
    """Return whether a TIFF of 8 bits holds colours multiplied by their transparency. Training saw them divided."""
    return _tag(data, EXTRA) == MULTIPLIED and _tag(data, BITS) == 8


def opaque(data: bytes) -> bytes:
    """Return a TIFF without the mark of its transparency, by which OpenCV would multiply the colours."""
    value, where = _find(data, EXTRA)
    return data[:where] + bytes(2) + data[where + 2 :] if value in TRANSPARENCY else data


def _tag(data: bytes, wanted: int) -> int:
    """Return the first value of a TIFF tag; 0 if it is missing. EXIF uses TIFF's format."""
    return _find(data, wanted)[0]


def _find(data: bytes, wanted: int) -> tuple[int, int]:
    """Return the first value of a TIFF tag, and its offset; twice 0 if it is missing."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return 0, 0
    try:
        [version] = struct.unpack_from(f"{order}H", data, 2)
        # The numbers of BigTIFF have 64 bits.
        long, start, number, fitting = ("Q", 8, "Q", 4) if version == 43 else ("I", 4, "H", 2)
        entry = struct.Struct(f"{order}HH{long}{long}")
        [directory] = struct.unpack_from(f"{order}{long}", data, start)
        [entries] = struct.unpack_from(f"{order}{number}", data, directory)
        first = directory + struct.calcsize(f"{order}{number}")
        for at in range(first, first + min(entries, 1 << 16) * entry.size, entry.size):
            tag, _, count, offset = entry.unpack_from(data, at)
            if tag == wanted:  # few 16-bit values fit into the entry; more are at an offset
                where = at + entry.size - struct.calcsize(long) if count <= fitting else offset
                return int(struct.unpack_from(f"{order}H", data, where)[0]), where
    except struct.error:  # cut short
        pass
    return 0, 0


def _png_chunk(data: bytes, wanted: bytes) -> bytes:
    """Return the content of the first chunk of this name; empty if there is none."""
    at = 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == wanted:
            return data[at + 8 : at + 8 + length]
        at += 12 + length  # a checksum follows
    return b""


def _riff_chunk(data: bytes, wanted: bytes) -> bytes:
    """Return the content of the first chunk of this name; empty if there is none."""
    at = 12
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        if name == wanted:
            return data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    return b""

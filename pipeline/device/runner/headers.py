# SPDX-License-Identifier: AGPL-3.0-only
"""What the bytes of an image file say before they are decoded: where versions of OpenCV and Pillow differ."""

from __future__ import annotations

import struct

EXIF_ORIENTATION = 0x0112
PNG, PNG_BIT_DEPTH = b"\x89PNG\r\n\x1a\n", 24  # the latter a byte in the first chunk
# JPEG markers: start of scan, end of image.
START_OF_SCAN, END_OF_IMAGE = 0xDA, b"\xff\xd9"


def is_cut_short(data: bytes) -> bool:
    """Whether a JPEG ends before its image does. Older OpenCV makes the rest grey and says nothing."""
    if data[:3] != b"\xff\xd8\xff":
        return False
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:  # over segments: a preview in one of them has an end of its own
        if data[at + 1] == START_OF_SCAN:
            return END_OF_IMAGE not in data[at:]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big") if data[at + 1] != 0xFF else 1
    return True


def is_16_bit_png(data: bytes) -> bool:
    return data[:8] == PNG and data[PNG_BIT_DEPTH : PNG_BIT_DEPTH + 1] == b"\x10"


def orientation(data: bytes) -> int:
    """The EXIF orientation of a PNG or WebP, which older OpenCV does not obey; 1 if it has none."""
    if data[:8] == PNG:
        exif = _png_chunk(data, b"eXIf")
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        exif = _riff_chunk(data, b"EXIF")
    else:
        return 1
    if exif[:6] == b"Exif\0\0":
        exif = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        [directory] = struct.unpack_from(f"{order}I", exif, 4)
        [entries] = struct.unpack_from(f"{order}H", exif, directory)
        for number in range(entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, directory + 2 + 12 * number)
            if tag == EXIF_ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:  # shorter than it says
        pass
    return 1


def _png_chunk(data: bytes, wanted: bytes) -> bytes:
    """The content of the first chunk of this name; nothing if there is none."""
    at = 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == wanted:
            return data[at + 8 : at + 8 + length]
        at += 12 + length  # a checksum follows
    return b""


def _riff_chunk(data: bytes, wanted: bytes) -> bytes:
    """The content of the first chunk of this name; nothing if there is none."""
    at = 12
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        if name == wanted:
            return data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    return b""

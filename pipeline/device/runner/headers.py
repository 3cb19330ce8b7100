# SPDX-License-Identifier: AGPL-3.0-only
"""Read from the bytes of an image file what versions of OpenCV and Pillow decode differently."""

from __future__ import annotations

import struct

EXIF_ORIENTATION = 0x0112
BITS, PLANES, SEPARATE = 258, 284, 2  # tags of TIFF 6.0, and the kind of planes that decoders mix up with 16 bits
PNG, PNG_BIT_DEPTH = b"\x89PNG\r\n\x1a\n", 24  # the latter a byte in the first chunk
# JPEG markers: start of scan, end of image.
START_OF_SCAN, END_OF_IMAGE = 0xDA, b"\xff\xd9"


def is_cut_short(data: bytes) -> bool:
    """Return whether the end of a JPEG is missing. Older OpenCV fills the rest with grey, without an error."""
    if data[:3] != b"\xff\xd8\xff":
        return False
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:  # skip segments: a preview in one of them has an end marker too
        if data[at + 1] == START_OF_SCAN:
            return END_OF_IMAGE not in data[at:]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big") if data[at + 1] != 0xFF else 1
    return True


def is_16_bit_png(data: bytes) -> bool:
    return data[:8] == PNG and data[PNG_BIT_DEPTH : PNG_BIT_DEPTH + 1] == b"\x10"


def orientation(data: bytes) -> int:
    """Return the EXIF orientation of a PNG or WebP, which older OpenCV ignores; 1 if there is none."""
    if data[:8] == PNG:
        exif = _png_chunk(data, b"eXIf")
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        exif = _riff_chunk(data, b"EXIF")
    else:
        return 1
    turn = _tag(exif[6:] if exif[:6] == b"Exif\0\0" else exif, EXIF_ORIENTATION)
    return turn if 1 <= turn <= 8 else 1


def is_turned_avif(data: bytes) -> bool:
    """Return whether an AVIF must be turned or mirrored (`irot` and `imir` of HEIF), which OpenCV does not do."""
    head = data[: 1 << 12]
    return data[4:12] in (b"ftypavif", b"ftypavis") and (b"irot" in head or b"imir" in head)


def is_deep_in_planes(data: bytes) -> bool:
    """Return whether a TIFF has 16 bits in separate planes, which OpenCV and Pillow decode to noise."""
    return _tag(data, PLANES) == SEPARATE and _tag(data, BITS) == 16


def _tag(data: bytes, wanted: int) -> int:
    """Return the first number of a TIFF tag, 0 if there is none. EXIF has the form of TIFF."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return 0
    try:
        [directory] = struct.unpack_from(f"{order}I", data, 4)
        [entries] = struct.unpack_from(f"{order}H", data, directory)
        for number in range(entries):
            at = directory + 2 + 12 * number
            tag, _, count = struct.unpack_from(f"{order}HHI", data, at)
            if tag == wanted:  # numbers of 16 bits: two fit here, more are at an offset
                where = at + 8 if count <= 2 else struct.unpack_from(f"{order}I", data, at + 8)[0]
                return int(struct.unpack_from(f"{order}H", data, where)[0])
    except struct.error:  # cut short
        pass
    return 0


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

# SPDX-License-Identifier: AGPL-3.0-only
"""Image files: read, drawn on, written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .base import Found, Trouble, cv2

IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
COLOURS = ((60, 60, 235), (90, 200, 90), (255, 140, 0), (0, 200, 230), (200, 80, 200), (200, 200, 60))  # BGR


def read_image(path: str | Path) -> Any:
    """(height, width, 3), uint8, BGR, upright."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise Trouble(f"{path}: {error.strerror}") from None
    if cv2 is not None:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        if picture is None:
            raise Trouble(f"{path}: not an image that OpenCV can read")
        return picture
    import io

    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))[:, :, ::-1]
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        raise Trouble(f"{path}: not an image that Pillow can read") from None


def draw(picture: Any, found: Found, classes: list[str]) -> Any:
    """A copy of the picture with boxes, names and scores."""
    texts = [f"{classes[index]} {score:.2f}" for index, score in zip(found.classes, found.scores)]
    corners = [tuple(round(float(side)) for side in box) for box in found.corners]
    colours = [COLOURS[index % len(COLOURS)] for index in found.classes]
    if cv2 is not None:
        drawn = picture.copy()
        for (x1, y1, x2, y2), text, colour in zip(corners, texts, colours):
            cv2.rectangle(drawn, (x1, y1), (x2, y2), colour, 2)
            cv2.putText(drawn, text, (x1, max(y1 - 4, 12)), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
        return drawn
    from PIL import Image, ImageDraw

    image = Image.fromarray(np.ascontiguousarray(picture[:, :, ::-1]))
    pencil = ImageDraw.Draw(image)
    for (x1, y1, x2, y2), text, colour in zip(corners, texts, colours):
        pencil.rectangle((x1, y1, x2, y2), outline=colour[::-1], width=2)
        pencil.text((x1, max(y1 - 12, 0)), text, fill=colour[::-1])
    return np.asarray(image)[:, :, ::-1]


def write_jpeg(path: Path, picture: Any) -> None:
    if cv2 is not None:
        path.write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    else:
        from PIL import Image

        Image.fromarray(np.ascontiguousarray(picture[:, :, ::-1])).save(path, quality=95)

"""The section `tiles`: large images are trained on and looked at piece by piece."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from pipeline.config.section import Section


def _kind(value: Any) -> str:
    return "word" if isinstance(value, str) else "float"


AUTO = Annotated[Literal["auto"], Tag("word")]
Size = Annotated[Annotated[int, Field(ge=32), Tag("float")] | AUTO, Discriminator(_kind)]
Overlap = Annotated[Annotated[float, Field(ge=0, lt=1), Tag("float")] | AUTO, Discriminator(_kind)]


class Tiles(Section):
    """Pieces of large images, so that small objects stay large. [tiles.md](tiles.md) explains it."""

    size: Size = "auto"
    """Side of the square tiles, in pixels of the image; each is fitted into `train.imgsz`. `auto` derives it from the
    sizes of the training images and their objects."""
    overlap: Overlap = 0.2
    """Share of the side that neighbours have in common. A box no longer than that is whole in at least one of them.
    `auto` takes what most objects need."""
    whole: bool = True
    """Look at the whole image, too, for objects that are larger than a tile."""
    empty: float = Field(default=0.1, ge=0, le=1)
    """Share of the tiles without objects that training keeps."""

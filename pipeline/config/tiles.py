"""The section `tiles`: cut large images into pieces, for training and detection."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from pipeline.config.section import Section


def _kind(value: Any) -> str:
    return "word" if isinstance(value, str) else "float"


AUTO = Annotated[Literal["auto"], Tag("word")]
Size = Annotated[Annotated[int, Field(ge=32), Tag("float")] | AUTO, Discriminator(_kind)]
Overlap = Annotated[Annotated[float, Field(gt=0, lt=1), Tag("float")] | AUTO, Discriminator(_kind)]


class Tiles(Section):
    """Pieces of large images, so that small objects stay large. [tiles.md](tiles.md) explains it."""

    size: Size = "auto"
    """Side of the square tiles, in pixels of the image; each is fitted into `train.imgsz`. `auto` derives it from the
    sizes of the training images and their objects."""
    overlap: Overlap = 0.2
    """Share of the side by which neighbouring tiles overlap. A box no longer than that is whole in at least one tile.
    `auto` takes what most objects need."""
    whole: bool = True
    """Also use the whole image, for objects that are longer than the overlap."""
    empty: float = Field(default=0.1, ge=0, le=1)
    """Share of the tiles without objects that training keeps."""

    @model_validator(mode="before")
    @classmethod
    def _overlapping(cls, section: Any) -> Any:
        overlap, size = (section.get("overlap"), section.get("size")) if isinstance(section, dict) else (None, None)
        if isinstance(overlap, (int, float)) and round(overlap * (size if isinstance(size, int) else 1000)) == 0:
            raise ValueError(
                f"with `overlap: {overlap:g}`, an object on the edge of two tiles would be found several times; "
                "write 0.1 or more"
            )
        return section

"""The account of what became of the boxes in the copies: `augmented/augment.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

# A box that a copy lacks, with its visible share; None if a transform removed it because it hides the object.
Lost = TypedDict("Lost", {"box": str, "class": str, "visible": float | None})


class Copy(TypedDict):
    file: str
    boxes: dict[str, int]
    """Number by class, as in `Original`."""
    lost: list[Lost]


class Original(TypedDict):
    file: str
    boxes: dict[str, int]
    copies: list[Copy]


class BoxCounts(TypedDict):
    """Of all copies: written = read - lost + added.

    Added boxes are mirror images (border_mode) and pieces (RandomGridShuffle) of one object.
    """

    read: int
    lost: int
    added: int
    written: int


class Account(TypedDict):
    albumentations: str
    originals: int
    copies: int
    boxes: BoxCounts
    classes: dict[str, dict[str, float]]
    images: list[Original]


def make(images: list[Original], names: Sequence[str], factors: Mapping[str, float]) -> Account:
    originals: Counter[str] = Counter()
    copied: Counter[str] = Counter()
    holding: Counter[str] = Counter()
    copies = read = lost = 0
    for image in images:
        originals.update(image["boxes"])
        holding.update(image["boxes"].keys())
        copies += len(image["copies"])
        read += sum(image["boxes"].values()) * len(image["copies"])
        for copy in image["copies"]:
            copied.update(copy["boxes"])
            lost += len(copy["lost"])
    written = copied.total()
    return {
        "albumentations": version("albumentations"),
        "originals": len(images),
        "copies": copies,
        "boxes": {"read": read, "lost": lost, "added": written - (read - lost), "written": written},
        "classes": {
            name: {
                "images": holding[name],
                "repeat": round(factors.get(name, 1.0), 3),
                "boxes_of_originals": originals[name],
                "boxes_of_copies": copied[name],
            }
            for name in names
        },
        "images": images,
    }


def last_line(account: Account, target: Path) -> str:
    lost, read = account["boxes"]["lost"], account["boxes"]["read"]
    dropped = f" ({lost} of {read} boxes left the image or became too small; augment.json lists them)" if lost else ""
    return f"{account['originals']} training images + {account['copies']} copies -> {target}{dropped}"

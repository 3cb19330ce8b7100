"""The sections `convert` and `augment`: the images and boxes that a model is trained on."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from pipeline.config.section import Argument, Section
from pipeline.errors import did_you_mean


class Ratios(Section):
    """Shares of the images, drawn with the seed. They add up to 1."""

    train: float = Field(gt=0, lt=1)
    """Share of the images for training."""
    val: float = Field(gt=0, lt=1)
    """Share of the images for validation."""
    test: float = Field(default=0.0, ge=0, lt=1)
    """Share of the images; 0 makes no test split."""

    @model_validator(mode="after")
    def _add_up(self) -> Ratios:
        total = self.train + self.val + self.test
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(f"train, val and test add up to {total:g}, not 1; correct the ratios")
        return self


def _kind_of_split(value: Any) -> str:
    return "shares" if isinstance(value, (dict, Ratios)) else "word"


# Tagged, so that an error refers to what was written: the word or the shares.
Split = Annotated[
    Annotated[Literal["given"], Tag("word")] | Annotated[Ratios, Tag("shares")], Discriminator(_kind_of_split)
]

FORMATS = (
    *("auto", "coco", "voc", "yolo", "labelme", "cvat", "kitti", "openimages", "csv", "createml", "labelstudio", "via"),
    *("supervisely", "vott", "datumaro", "labelbox", "ultralytics", "dota", "huggingface"),
    *("visdrone", "widerface", "mot", "bdd", "superannotate"),
)
FIFTYONE = "fiftyone:"  # `fiftyone:TYPE` reads whatever FiftyOne can import


class Convert(Section):
    """What to read, and what to do with doubtful labels."""

    source: Path
    """Folder with the dataset as you received it. Read only."""
    format: str = "auto"
    """Annotation format. `auto` detects it from the files; `fiftyone:TYPE` reads any type that FiftyOne can
    import. The table in [data/README.md](../data/README.md) describes each one."""
    classes: tuple[str, ...] | dict[str, str | None] = ()
    """Names in the order of their ids; an empty list takes those of the source. `{theirs: ours, other: null}` renames,
    merges and drops."""
    split: Split = "given"
    """`given` takes the splits of the source. Ratios such as `{train: 0.7, val: 0.15, test: 0.15}` split at random with
    the seed."""
    group_by: str | None = None
    """Regular expression, searched first in the file name, then in the folders. Images with the same match (or the same
    group, if the expression has one) stay in one split: for example, all images of a video, a board or a patient."""
    near_duplicates: bool = True
    """Search for resized, recompressed, flipped and turned copies, and keep them in one split."""
    leaks: Literal["report", "move", "error"] = "report"
    """What to do with copies of an image in different splits: report them, move them into the split with most of them,
    or stop. Random splits have such copies only after `data/splits/NAME.json` was merged or edited, or an image
    replaced."""
    on_problem: Literal["fix", "drop", "error"] = "fix"
    """`fix` repairs labels that can be repaired in only one way and refuses the rest. `drop` leaves out all doubtful
    labels. `error` refuses them."""
    min_side: float = Field(default=1.0, ge=0)
    """Boxes with a side of at most this many pixels of the original image are dropped."""
    new_images: Literal["train", "drawn"] = "train"
    """Splits for images labelled with `make label`, from `data/labels/`. With `train`, val and test do not change, so
    the figures stay comparable. `drawn` draws them into the splits like all others, which needs shares in `split`."""
    unlabelled: Literal["error", "background"] = "error"
    """Images without an annotation: an error, or background images, which show no object. With `background`, an image
    whose annotation could be in one of the files is still refused."""

    @model_validator(mode="after")
    def _drawn_needs_shares(self) -> Convert:
        if self.new_images == "drawn" and self.split == "given":
            raise ValueError("new_images: drawn needs shares in split, such as {train: 0.7, val: 0.15, test: 0.15}")
        return self

    @field_validator("format")
    @classmethod
    def _format_known(cls, name: str) -> str:
        if name not in FORMATS and not (name.startswith(FIFTYONE) and name.removeprefix(FIFTYONE).isidentifier()):
            known = [*FORMATS, f"{FIFTYONE}TYPE"]
            raise ValueError(f"{name!r} is not one of {', '.join(known)}{did_you_mean(name, known)}")
        return name

    @field_validator("classes", mode="before")
    @classmethod
    def _classes_are_text(cls, classes: Any) -> Any:
        if not isinstance(classes, (list, tuple, dict)):
            raise ValueError(f"write a list of names, or {{name: our name, other: null}}, not {classes!r}")
        # YAML reads a bare `no:` as False and `1:` as a number, so a class of that name would be lost.
        words = [*classes.keys(), *classes.values()] if isinstance(classes, dict) else classes
        for word in words:
            if isinstance(word, (bool, int, float)):
                raise ValueError(f"YAML reads a class as {word!r}, not as text; put it in quotes")
        return classes

    @field_validator("classes")
    @classmethod
    def _classes_usable(
        cls, classes: tuple[str, ...] | dict[str, str | None]
    ) -> tuple[str, ...] | dict[str, str | None]:
        names = classes.values() if isinstance(classes, dict) else classes
        if any(name is not None and not name.strip() for name in names):
            raise ValueError("a class has an empty name; write a name, or null to drop the class")
        if isinstance(classes, dict):
            if classes and not any(classes.values()):
                raise ValueError("this drops every class; keep at least one")
            return classes
        twice = {name for name in classes if classes.count(name) > 1}
        if twice:
            raise ValueError(f"{', '.join(sorted(twice))} appears twice; keep one")
        return classes

    @field_validator("group_by")
    @classmethod
    def _group_by_compiles(cls, pattern: str | None) -> str | None:
        try:
            compiled = re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}; correct it") from None
        if compiled.groups > 1:
            raise ValueError(
                f"{pattern!r} has {compiled.groups} groups; keep one, which names the video, patient or board"
            )
        return pattern


class Augment(Section):
    """Copies of training images. Val and test images are never copied."""

    copies: int = Field(default=0, ge=0, le=100)
    """Transformed copies of each training image. Each copy lengthens every epoch by one training set."""
    balance: bool = False
    """Make more copies of images with rare classes (repeat-factor sampling)."""
    transforms: tuple[dict[str, dict[str, Argument]], ...] = ()
    """Albumentations' names and arguments, applied in this order: `- HorizontalFlip: {p: 0.5}`."""
    min_visibility: float = Field(default=0.3, ge=0, le=1)
    """Share of a box's area. A box with less than this in the image is dropped from that copy."""

    @model_validator(mode="after")
    def _one_name_each(self) -> Augment:
        if (self.copies or self.balance) and not self.transforms:
            raise ValueError("copies without transforms would only repeat the images; add transforms")
        for number, transform in enumerate(self.transforms):
            if len(transform) != 1:
                raise ValueError(
                    f"transforms.{number}: {len(transform)} names; write one `- Name: {{argument: value}}` per line"
                )
        return self

"""The section `train`: phases, recipe, rates."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config.section import Argument, Section
from pipeline.errors import did_you_mean


class LrGroups(Section):
    """Factors of a phase's rate, by part of the model."""

    backbone: float = Field(default=1.0, gt=0)
    """Factor for the layers in the backbone section of the model's YAML."""
    neck: float = Field(default=1.0, gt=0)
    """Factor for the layers between backbone and head."""
    head: float = Field(default=1.0, gt=0)
    """Factor for the last layer."""


class BatchNorm(Section):
    """Mode of BatchNorm layers: `train` updates mean and variance with the new images, `eval` keeps them."""

    frozen: Literal["eval", "train"] = "eval"
    """Layers that the phase freezes."""
    trainable: Literal["eval", "train"] = "train"
    """All other layers."""


FREEZE_WORDS = ("backbone", "all-but-head", "none")


def _freeze(value: Any) -> Any:
    """Check the form of `freeze`; the names in a list are checked against the model when training begins."""
    if isinstance(value, str) and value not in FREEZE_WORDS:
        if value.isdecimal():
            raise ValueError(f"{value!r} is text; write the number without quotes")
        hint = did_you_mean(value, FREEZE_WORDS) or f"; a part of a layer goes into a list: [{value!r}]"
        raise ValueError(f"{value!r} is not one of {', '.join(FREEZE_WORDS)}, a number of layers or a list{hint}")
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError("the list is empty; name layers, or write none")
        for item in value:
            if isinstance(item, bool) or not isinstance(item, (int, str)):
                raise ValueError(f"{item!r} in the list is neither the number nor the name of a layer")
        return tuple(value)
    if isinstance(value, bool) or not isinstance(value, (int, str)) or (isinstance(value, int) and value < 0):
        raise ValueError(f"write {', '.join(FREEZE_WORDS)}, a number of layers or a list, not {value!r}")
    return value


class Phase(Section):
    """A part of the training with one set of frozen layers. `lr` multiplies the base rate, and `lr0` replaces it."""

    epochs: int = Field(ge=1)
    """Passes over the training images."""
    freeze: Annotated[str | int | tuple[int | str, ...], BeforeValidator(_freeze)] = "none"
    """`backbone`, `all-but-head`, `none`, a number of first layers, or a list of these words, layer numbers and names
    such as `"23.cv3"`."""
    lr: float = Field(default=1.0, gt=0)
    """Factor of the base rate. Set `lr` or `lr0`, not both."""
    lr0: float | None = Field(default=None, gt=0)
    """Learning rate of this phase, instead of the base rate."""
    lr_groups: LrGroups = LrGroups()
    """Factors of the phase's rate, by part of the model."""
    batchnorm: BatchNorm = BatchNorm()
    """Whether BatchNorm layers update their mean and variance."""
    patience: int | None = Field(default=None, ge=1)
    """Number of epochs without a better val mAP50-95 after which the phase ends; null never ends it early, or with
    `recipe: ultralytics` after Ultralytics' 100. A phase with `patience` is validated after each epoch."""

    @model_validator(mode="after")
    def _one_rate(self) -> Phase:
        if self.lr0 is not None and "lr" in self.model_fields_set:
            raise ValueError("`lr` multiplies the base rate and `lr0` replaces it; keep one of them")
        return self


LENGTHS = ("quick", "thorough")  # recipes that only set the phases


class Train(Section):
    """How the model is trained. [training.md](training.md) explains it."""

    weights: str = Field(default="yolo26n.pt", min_length=1)
    """A path, a name in `data/weights`, or one that Ultralytics offers. `yolo26n.yaml` starts from random weights."""
    fallback: str | None = Field(default=None, min_length=1)
    """Weights to use if `weights` are missing and cannot be downloaded. With null, the stage fails instead."""
    imgsz: int = Field(default=640, ge=32, multiple_of=32)
    """Side in pixels of the square that images are fitted into. Half the side is four times faster."""
    recipe: Literal["auto", "quick", "thorough", "ultralytics"] = "auto"
    """`auto` chooses phases and batch by the number of images and a look at them, and writes each choice with its
    reason into `train.json`. `quick` trains at least three epochs and 150 steps at twice the rate, with the first five
    layers frozen and without augmentation. `thorough` adds up to four phases to `auto`, while val improves. Neither of
    these two goes together with `phases`. `ultralytics` uses Ultralytics' defaults for everything;
    [training.md](training.md#phases) lists the exceptions."""
    minutes: float | None = Field(default=None, gt=0)
    """Minutes to train on this machine, instead of the recipe's number of epochs. Timed passes show how many epochs
    fit; fewer than six are trained like `quick`. Not together with `phases` or another `recipe`."""
    batch: int | None = Field(default=None, ge=1)
    """Images per optimizer step. Null is 4 below 1,500 images, because few images need many steps, 8 below 5,000, and
    otherwise 16."""
    lr0: float | None = Field(default=None, gt=0)
    """Base learning rate. Null is `0.001`, or `0.01` for SGD and MuSGD. With `recipe: ultralytics`, Ultralytics'
    automatic optimizer chooses its own."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision that a CPU computes in. `auto` takes bfloat16 if the CPU has it and two timed forward and backward
    passes show that it is faster. Weights, average and losses stay in 32 bits. On a GPU, `args: {amp: ...}` decides."""
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)] | None = None
    """Phases in order; each continues from the end of the previous one. Null leaves them to the recipe."""
    cache_features: Literal["auto", True, False] = "auto"
    """If at least the first five layers are frozen, compute their outputs once per image, not in every epoch.
    Augmentation is off in such a phase. `auto` does it in phases of 2 epochs or more if the disk has room, `true`
    always, `false` never."""
    ema: float | None = Field(default=None, gt=0)
    """Span in epochs of the EMA, the moving average of the weights, which becomes the model. Null is a twelfth of a
    phase of eight epochs or more and of a last phase of three or fewer, and Ultralytics' own EMA in other phases."""
    l2_sp: float = Field(default=0.0, ge=0)
    """Strength of the pull towards the source weights, except in the head (L2-SP). 0 turns it off; try 1 to 100."""
    args: dict[str, Argument] = Field(default={})
    """Other training arguments of Ultralytics, by their own names: `{fliplr: 0, cos_lr: true}`. Those that another key
    sets, that would hide data or that have no use here are refused."""

    @model_validator(mode="after")
    def _one_length(self) -> Train:
        if self.minutes and (self.phases or self.recipe != "auto"):
            other = "phases" if self.phases else f"recipe: {self.recipe}"
            raise ValueError(f"`minutes` and `{other}` both say how long to train; keep one of them")
        if self.phases and self.recipe in LENGTHS:
            raise ValueError(f"`phases` and `recipe: {self.recipe}` both say how long to train; keep one of them")
        return self

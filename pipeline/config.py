"""The YAML: one frozen section per stage, all errors of a file told at once.

What changes the result is here. What changes only where or how fast (device, workers) is not: it is
an option of the command line, so that it never makes a stage run again.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from pipeline.errors import ConfigError, did_you_mean


class Section(BaseModel):
    # Not strict: PyYAML reads 1e-3 as text, and a person means a number.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def _without_nan(value: Any) -> Any:
    """Refuse NaN and infinity in arguments that another library checks."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be a finite number, got {value}")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _without_nan(part)
    return value


Argument = Annotated[Any, AfterValidator(_without_nan)]


class Ratios(Section):
    """Shares of the images, drawn with the seed. They add up to 1."""

    train: float = Field(gt=0, lt=1)
    """Share of the images."""
    val: float = Field(gt=0, lt=1)
    """Share of the images."""
    test: float = Field(default=0.0, ge=0, lt=1)
    """Share of the images; 0 makes no test split."""

    @model_validator(mode="after")
    def _add_up(self) -> Ratios:
        total = self.train + self.val + self.test
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(f"train, val and test add up to {total:g}, not 1")
        return self


def _kind_of_split(value: Any) -> str:
    return "shares" if isinstance(value, (dict, Ratios)) else "word"


# Tagged, so that an error is about the one that was written: the word or the shares.
Split = Annotated[
    Annotated[Literal["given"], Tag("word")] | Annotated[Ratios, Tag("shares")], Discriminator(_kind_of_split)
]

FORMATS = (
    *("auto", "coco", "voc", "yolo", "labelme", "cvat", "kitti", "openimages", "csv", "createml", "labelstudio", "via"),
    *("supervisely", "vott", "datumaro", "labelbox", "ultralytics", "dota", "huggingface"),
)
FIFTYONE = "fiftyone:"  # `fiftyone:TYPE` reads whatever FiftyOne can import


class Convert(Section):
    """What to read, and what to do with what is doubtful in it."""

    source: Path
    """Folder with the data set as you received it. It is read and never written."""
    format: str = "auto"
    """Annotation format. `auto` tells the formats apart by the files that are there; `fiftyone:TYPE` reads whatever
    FiftyOne can import. The table in [data/README.md](../data/README.md) describes each one."""
    # A list keeps and orders; a mapping `source name: our name` also renames, merges, and drops with null.
    classes: tuple[str, ...] | dict[str, str | None] = ()
    """Names in the order of their ids; an empty list takes those of the source. `{theirs: ours, other: null}` renames,
    merges and drops."""
    split: Split = "given"
    """`given` takes the splits of the source. Shares such as `{train: 0.7, val: 0.15, test: 0.15}` draw them with the
    seed."""
    group_by: str | None = None
    """Regular expression, searched in the file name, and only then in the folders. Images with the same match (or the
    same group, if the expression has one) stay in one split: those of a video, a board, a patient."""
    near_duplicates: bool = True
    """Look for resized, recompressed, flipped and turned copies, and keep them in one split."""
    leaks: Literal["report", "move", "error"] = "report"
    """What to do with copies that a given split has on both sides: report them, move them to where most of them are, or
    stop."""
    on_problem: Literal["fix", "drop", "error"] = "fix"
    """`fix` repairs what has one right answer and refuses the rest. `drop` leaves out all that is in doubt. `error`
    refuses it."""
    min_side: float = Field(default=1.0, ge=0)
    """Side in pixels of the original image. A box with a side of that or less is dropped: it shows nothing."""
    unlabelled: Literal["error", "background"] = "error"
    """What an image without annotation is: a mistake, or a background image that shows no object.
    With `background`, an image whose annotation could be in one of the files is still refused."""

    @field_validator("format")
    @classmethod
    def _format_known(cls, name: str) -> str:
        if name not in FORMATS and not (name.startswith(FIFTYONE) and name.removeprefix(FIFTYONE).isidentifier()):
            known = [*FORMATS, f"{FIFTYONE}TYPE"]
            raise ValueError(f"{name!r} is none of {', '.join(known)}{did_you_mean(name, known)}")
        return name

    @field_validator("classes", mode="before")
    @classmethod
    def _classes_are_text(cls, classes: Any) -> Any:
        if not isinstance(classes, (list, tuple, dict)):
            raise ValueError(f"write a list of names, or {{name: our name, other: null}}, not {classes!r}")
        # YAML reads a bare `no:` as False and `1:` as a number, and a class of that name would be lost.
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
        if isinstance(classes, dict):
            if classes and not any(classes.values()):
                raise ValueError("every class is dropped; keep one")
            return classes
        twice = {name for name in classes if classes.count(name) > 1}
        if twice:
            raise ValueError(f"{', '.join(sorted(twice))} is there twice")
        return classes

    @field_validator("group_by")
    @classmethod
    def _group_by_compiles(cls, pattern: str | None) -> str | None:
        try:
            compiled = re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        if compiled.groups > 1:
            raise ValueError(
                f"{pattern!r} has {compiled.groups} groups; keep one, which names the video, patient or board"
            )
        return pattern


class Augment(Section):
    """Copies of training images. The validation and test splits are never touched."""

    copies: int = Field(default=0, ge=0, le=100)
    """Transformed copies of each training image. Each copy makes every epoch longer by one training set."""
    balance: bool = False
    """Make more copies of images with rare classes (repeat-factor sampling)."""
    transforms: tuple[dict[str, dict[str, Argument]], ...] = ()
    """Albumentations' names and arguments, in the order of their work: `- HorizontalFlip: {p: 0.5}`."""
    min_visibility: float = Field(default=0.3, ge=0, le=1)
    """Share of a box's area. A box of which less stays in the image is dropped from that copy."""

    @model_validator(mode="after")
    def _one_name_each(self) -> Augment:
        if (self.copies or self.balance) and not self.transforms:
            raise ValueError("copies without transforms would be the same images again; name some transforms")
        for number, transform in enumerate(self.transforms):
            if len(transform) != 1:
                raise ValueError(
                    f"transforms.{number}: {len(transform)} names; write one `- Name: {{argument: value}}` a line"
                )
        return self


class LrGroups(Section):
    """Factors of a phase's rate, by part of the model."""

    backbone: float = Field(default=1.0, gt=0)
    """Factor for the layers of the model's own backbone section."""
    neck: float = Field(default=1.0, gt=0)
    """Factor for the layers between backbone and head."""
    head: float = Field(default=1.0, gt=0)
    """Factor for the last layer."""


class BatchNorm(Section):
    """Layers in `train` measure the new images, those in `eval` keep the mean and variance they have."""

    frozen: Literal["eval", "train"] = "eval"
    """Layers that the phase freezes."""
    trainable: Literal["eval", "train"] = "train"
    """All other layers."""


FREEZE_WORDS = ("backbone", "all-but-head", "none")


def _freeze(value: Any) -> Any:
    """Check what `freeze` may be; the names in a list are checked against the model when training begins."""
    if isinstance(value, str) and value not in FREEZE_WORDS:
        if value.isdecimal():
            raise ValueError(f"{value!r} is text; write the number without quotes")
        hint = did_you_mean(value, FREEZE_WORDS) or f"; a part of a layer goes into a list: [{value!r}]"
        raise ValueError(f"{value!r} is none of {', '.join(FREEZE_WORDS)}, a number of layers or a list{hint}")
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError("the list is empty; name layers, or write none")
        for item in value:
            if isinstance(item, bool) or not isinstance(item, (int, str)):
                raise ValueError(f"{item!r} in the list is neither a layer's number nor a name")
        return tuple(value)
    if isinstance(value, bool) or not isinstance(value, (int, str)) or (isinstance(value, int) and value < 0):
        raise ValueError(f"write {', '.join(FREEZE_WORDS)}, a number of layers or a list, not {value!r}")
    return value


class Phase(Section):
    """A stretch of training with one set of frozen layers. `lr` multiplies the base rate, `lr0` replaces it."""

    epochs: int = Field(ge=1)
    """Passes over the training images."""
    freeze: Annotated[str | int | tuple[int | str, ...], BeforeValidator(_freeze)] = "none"
    """`backbone`, `all-but-head`, `none`, a number of first layers, or a list of these words, layer numbers and names
    such as `"23.cv3"`."""
    lr: float = Field(default=1.0, gt=0)
    """Factor of the base rate. Name `lr` or `lr0`, not both."""
    lr0: float | None = Field(default=None, gt=0)
    """Learning rate of this phase, instead of the base rate."""
    lr_groups: LrGroups = LrGroups()
    """Factors of the phase's rate, by part of the model."""
    batchnorm: BatchNorm = BatchNorm()
    """What BatchNorm layers do with their mean and variance."""
    patience: int | None = Field(default=None, ge=1)
    """Epochs without a better val mAP50-95 after which the phase ends; null never ends it early. A phase with it is
    validated after each epoch."""

    @model_validator(mode="after")
    def _one_rate(self) -> Phase:
        if self.lr0 is not None and "lr" in self.model_fields_set:
            raise ValueError("`lr` multiplies the base rate and `lr0` replaces it; keep one of them")
        return self


class Train(Section):
    """How the model is trained. [training.md](training.md) explains it."""

    weights: str = Field(default="yolo26n.pt", min_length=1)
    """A path, a name in `data/weights`, or one that Ultralytics offers. `yolo26n.yaml` starts from random weights."""
    fallback: str | None = Field(default=None, min_length=1)
    """Weights to use where `weights` are neither here nor can be downloaded. With null the stage stops instead."""
    imgsz: int = Field(default=640, ge=32, multiple_of=32)
    """Side in pixels of the square that images are fitted into. Half of it is four times faster."""
    recipe: Literal["auto", "ultralytics"] = "auto"
    """`auto` takes what is not named here from the number of images and classes, and notes each choice with its reason
    in `train.json`. `ultralytics` leaves it to Ultralytics' defaults."""
    batch: int | None = Field(default=None, ge=1)
    """Images per optimizer step. With `recipe: auto`, null is 4 below 1,500 images: few images need many steps."""
    lr0: float | None = Field(default=None, gt=0)
    """Base learning rate. With `recipe: auto`, null is Ultralytics' rule for AdamW,
    `0.002 * 5 / (4 + number of classes)`."""
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)] | None = None
    """Phases, one after the other. Each goes on where the one before ended. Null is two, frozen and then free, as long
    as so many images need."""
    cache_features: Literal["auto", True, False] = "auto"
    """Compute the outputs of frozen first layers once per image, not in every epoch. Such a phase sees each image
    unchanged. `auto` does it in phases of 2 epochs or more while the disk has room, `true` insists, `false` never
    does."""
    ema: float | None = Field(default=None, gt=0)
    """Epochs that the average of the weights, which is what is kept, looks back over. Null is a twelfth of a phase of
    ten epochs or more, and of a last phase of three or fewer."""
    l2_sp: float = Field(default=0.0, ge=0)
    """Strength of the pull of the weights towards those of the start, head excluded. 0 is none; try 1 to 100."""
    args: dict[str, Argument] = {}
    """Any other training argument of Ultralytics, by its own name: `{mosaic: 0.5, cos_lr: true}`."""


class Wanted(Section):
    """What the thresholds are chosen for, in place of the best F1."""

    precision: float | None = Field(default=None, gt=0, le=1)
    """Precision on val that each class's threshold reaches, where it can."""
    recall: float | None = Field(default=None, gt=0, le=1)
    """Recall on val that each class's threshold reaches, where it can."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Wanted:
        if (self.precision is None) == (self.recall is None):
            raise ValueError("name one, precision or recall; a threshold cannot promise both")
        return self


class Validate(Section):
    """How predictions are made and judged. [validation.md](validation.md) explains it."""

    conf: float = Field(default=0.001, ge=0, lt=1)
    """Score from which a prediction counts for average precision. Higher is faster, and gives lower figures."""
    iou: float = Field(default=0.7, gt=0, le=1)
    """IoU from which non-maximum suppression takes two boxes for one object."""
    max_det: int = Field(default=300, ge=1)
    """Predictions per image, at most."""
    wanted: Wanted | None = None
    """What each class's threshold is chosen for on val. Null is the best F1."""
    retention: Path | None = None
    """`data.yaml` of a labelled set of the source model's classes, to see what the model still knows of them."""
    reconcile: tuple[str, ...] = ()
    """Tools that evaluate the same predictions, with each difference explained: `ultralytics`, which
    is fast, and `fiftyone`, which is slow."""

    @model_validator(mode="before")
    @classmethod
    def _fiftyone_is_reconcile_now(cls, section: Any) -> Any:
        if isinstance(section, dict) and "fiftyone" in section:
            raise ValueError("`fiftyone` is a tool of `reconcile` now; write `reconcile: [ultralytics, fiftyone]`")
        return section

    @field_validator("reconcile", mode="before")
    @classmethod
    def _tools_known(cls, tools: Any) -> Any:
        known = ("ultralytics", "fiftyone")
        if not isinstance(tools, (list, tuple)):
            raise ValueError(f"write a list of tools, [{', '.join(known)}], got {tools!r}")
        for tool in tools:
            if tool not in known:
                raise ValueError(f"{tool!r} is none of {', '.join(known)}{did_you_mean(str(tool), known)}")
        return tools


class Inspect(Section):
    """What FiftyOne shows. [fiftyone.md](fiftyone.md) explains it."""

    confident: float = Field(default=0.6, gt=0, le=1)
    """Score from which a false positive is a confident one, and perhaps a label that is missing."""
    similarity: float = Field(default=0.95, gt=0, le=1)
    """Cosine of the backbone's features, 1 at most, from which two images count as similar."""


class Report(Section):
    """The page that shows a run."""

    worst: int = Field(default=24, ge=0, le=200)
    """Images shown, those with most errors first."""


Precision = Literal["fp32", "fp16", "int8"]
# What `quantize` may be: None for 32 bits, or Ultralytics' 16 and 8.
QUANTIZE: dict[str, tuple[int | None, ...]] = {
    "onnx": (None, 16, 8),
    "openvino": (None, 16, 8),
    "ncnn": (None, 16),
    "torchscript": (None,),
    "litert": (None, 8),
    "engine": (None, 16, 8),
}
FORMATS_WITH = {"dynamic": ("onnx", "engine"), "opset": ("onnx", "engine"), "nms": ("onnx", "openvino", "torchscript")}


class Target(Section):
    """One artefact, in Ultralytics' words."""

    format: Literal["onnx", "openvino", "ncnn", "torchscript", "litert", "engine"]
    """Format of the artefact; `litert` after `make litert`, `engine` is TensorRT."""
    quantize: int | None = None
    """Bits of the artefact's numbers, 16 or 8; null is 32. [export.md](export.md) says which format has which."""
    nms: bool | None = None
    """Null: the runner sorts boxes out. `false`: the NMS-free head. `true`: the graph sorts them out itself."""
    imgsz: int | None = Field(default=None, ge=32, multiple_of=32)
    """Side of the input in pixels; null is that of the training."""
    dynamic: bool = False
    """Let the height, the width and the number of images vary."""
    opset: int | None = Field(default=None, ge=13, le=20)
    """Version of ONNX's operators; null is the exporter's choice."""
    simplify: bool = True
    """Simplify the graph."""
    recipe: Literal["auto", "naive"] = "auto"
    """For 8 bits of onnx and openvino. `naive` puts every layer into 8 bits, to see what that loses."""

    @model_validator(mode="after")
    def _possible(self) -> Target:
        if self.quantize not in QUANTIZE[self.format]:
            known = ", ".join("none" if bits is None else str(bits) for bits in QUANTIZE[self.format])
            raise ValueError(f"{self.format} has no `quantize: {self.quantize}`; it takes {known}")
        for key, formats in FORMATS_WITH.items():
            if getattr(self, key) not in (None, False) and self.format not in formats:
                raise ValueError(f"{self.format} takes no `{key}`; {', '.join(formats)} do")
        if self.nms is False and self.format in ("ncnn", "litert", "engine"):
            raise ValueError(f"{self.format} takes no `nms`; {', '.join(FORMATS_WITH['nms'])} do")
        if self.recipe == "naive" and (self.quantize != 8 or self.format not in ("onnx", "openvino")):
            raise ValueError("`recipe` is for onnx and openvino with `quantize: 8`")
        return self

    @property
    def precision(self) -> Precision:
        return "int8" if self.quantize == 8 else "fp16" if self.quantize == 16 else "fp32"

    @property
    def variant(self) -> str:
        """What tells this artefact from a plain one of its format and precision; for its name."""
        head = {None: "", False: "-nmsfree", True: "-nms"}[self.nms]
        opset = f"-opset{self.opset}" if self.opset else ""
        size = f"-{self.imgsz}" if self.imgsz else ""
        plain = "" if self.simplify else "-unsimplified"
        return f"{head}{size}{'-dynamic' * self.dynamic}{opset}{plain}{'-naive' * (self.recipe == 'naive')}"


class Limits(Section):
    """How far an artefact may be from its model; None is not judged."""

    max_box_px: float | None = Field(default=None, gt=0)
    """Largest difference of one coordinate of a box's corners, in pixels of the original image."""
    max_score: float | None = Field(default=None, gt=0)
    """Largest difference of two scores of one box."""
    max_changed: float | None = Field(default=None, ge=0, le=1)
    """Share of boxes that are lost, invented or of another class."""
    max_score_shift: float | None = Field(default=None, gt=0, le=1)
    """Largest average difference of scores, in either direction."""
    max_ap_drop: float | None = Field(default=None, ge=0, le=100)
    """Loss of mAP50-95, in points (hundredths)."""


class Limits32(Limits):
    """Of artefacts in 32 bits."""

    max_box_px: float | None = Field(default=0.5, gt=0)
    max_score: float | None = Field(default=1e-3, gt=0)
    max_changed: float | None = Field(default=0.0, ge=0, le=1)
    max_ap_drop: float | None = Field(default=0.1, ge=0, le=100)


class Limits16(Limits):
    """Of artefacts in 16 bits."""

    max_changed: float | None = Field(default=0.05, ge=0, le=1)
    max_score_shift: float | None = Field(default=0.01, gt=0, le=1)
    max_ap_drop: float | None = Field(default=0.2, ge=0, le=100)


class Limits8(Limits):
    """Of artefacts in 8 bits."""

    max_score_shift: float | None = Field(default=0.1, gt=0, le=1)
    max_ap_drop: float | None = Field(default=1.5, ge=0, le=100)


class LimitsByPrecision(Section):
    """How far an artefact may be from its model, by its precision."""

    fp32: Limits32 = Limits32()
    """Equal."""
    fp16: Limits16 = Limits16()
    """Nearly equal."""
    int8: Limits8 = Limits8()
    """As good."""


class Calibration(Section):
    """The training images that the ranges of 8-bit numbers are measured on."""

    images: int = Field(default=128, ge=1)
    """Training images to measure on, never val or test. Each class in turn gives one that shows it."""
    per_class: int = Field(default=5, ge=1)
    """Training images of each class, at least. With fewer, 8 bits are refused."""
    draws: int = Field(default=3, ge=1, le=10)
    """Choices of images to compare, so that the manifest tells how much the choice matters."""


class Export(Section):
    """What is made for the device, and how it is judged. [export.md](export.md) explains it."""

    targets: tuple[Target, ...] = Field(default=(Target(format="onnx"),), min_length=1)
    """The artefacts to make."""
    images: int = Field(default=300, ge=1)
    """Validation images, at most, on which each artefact is compared with the model."""
    conf: float = Field(default=0.25, gt=0, lt=1)
    """Score from which a box has to be there on both sides. Where no box reaches it, half of the model's best score on
    these images counts, and the manifest says so."""
    limits: LimitsByPrecision = LimitsByPrecision()
    """An artefact that is further from its model than this fails the stage. Null is not judged."""
    calibration: Calibration = Calibration()
    """On what 8 bits are calibrated."""

    @model_validator(mode="after")
    def _targets_once(self) -> Export:
        kinds = [(target.format, target.quantize, target.variant) for target in self.targets]
        if len(set(kinds)) < len(kinds):
            raise ValueError("targets: the same format and precision twice; keep one")
        return self


class Config(Section):
    """One experiment."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of everything random: another one gives another split, other copies, other weights."""
    convert: Convert
    """Annotations to an Ultralytics data set."""
    augment: Augment = Augment()
    """More training images."""
    train: Train = Train()
    """Training in phases."""
    # BaseModel.validate exists; the word stays `validate` wherever people see it.
    validate_: Validate = Field(default=Validate(), alias="validate")
    """Figures, errors and thresholds."""
    inspect: Inspect = Inspect()
    """The run in FiftyOne."""
    report: Report = Report()
    """The run on one page."""
    export: Export = Export()
    """Bundles for the device."""

    def section(self, stage: str) -> Section:
        section = getattr(self, "validate_" if stage == "validate" else stage)
        assert isinstance(section, Section)
        return section

    def slice(self, stage: str) -> dict[str, Any]:
        """All that the stage can read of this file: its section and the seed."""
        return {"seed": self.seed, stage: self.section(stage).model_dump(mode="json")}


def load(path: Path) -> Config:
    """Read a config file. Raises ConfigError with one line for every error in it."""
    if str(path).encode(errors="replace") != os.fsencode(path):  # the run is called so, in every file that it makes
        raise ConfigError(f"{os.fsencode(path)!r}: the name of a config file has to be UTF-8; rename it")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        others = [str(other) for other in sorted(path.parent.glob("*.yaml"))]
        raise ConfigError(f"{path}: no such file{did_you_mean(str(path), others)}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name a YAML file of yours") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read ({error}); write it as UTF-8 text") from None
    try:
        data = yaml.load(text, Loader=NoDuplicates)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML: {_one_line(error)}") from None
    except ValueError as error:  # 2026-13-45 looks like a date
        raise ConfigError(f"{path}: {error}; quote it") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: no keys in it; configs/sample.yaml shows what a config holds")
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        # Pydantic calls a list too short when its items are bad; those are told anyway.
        details = [detail for detail in error.errors() if not (detail["type"] == "too_short" and detail["input"])]
        lines = dict.fromkeys(f"{path}: {_in_words(detail)}" for detail in details)
        raise ConfigError("\n".join(lines)) from None


class NoDuplicates(yaml.SafeLoader):
    """YAML takes the last of two equal keys and says nothing; a person wrote the first one too."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key_node.tag != "tag:yaml.org,2002:merge" and isinstance(key, str):
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key!r} is there twice", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


def _one_line(error: BaseException) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return " ".join(str(error).split()) or type(error).__name__


def _in_words(detail: ErrorDetails) -> str:
    """One line of pydantic's findings, as a person would put it."""
    # Branches of a union are named in the location, in capitals or with brackets; nobody wrote those.
    place = [str(part) for part in detail["loc"] if str(part) not in _UNION_BRANCHES and "[" not in str(part)]
    where = ".".join(place)
    match detail["type"]:
        case "extra_forbidden":
            if place[:-1] == ["train"] and place[-1] in Phase.model_fields:
                return f"{where}: unknown key; it belongs to each of train.phases"
            hint = did_you_mean(place[-1], _keys_of(place[:-1]))
            if not hint and place[0] == "train":
                hint = "; arguments of Ultralytics go into train.args"
            return f"{where}: unknown key{hint}"
        case "missing":
            return f"{where}: missing"
        case "value_error":
            return f"{where}: {detail['msg'].removeprefix('Value error, ')}" if where else detail["msg"]
        case "literal_error" if place == ["convert", "split"] and isinstance(detail["input"], (int, float)):
            return f"{where}: input should be 'given', got {detail['input']!r}; or shares: {_shares(detail['input'])}"
        case "literal_error":
            expected = str(detail["ctx"]["expected"])
            hint = did_you_mean(str(detail["input"]), re.findall(r"'([^']+)'", expected))
            return f"{where}: input should be {expected}, got {detail['input']!r}{hint}"
        case "tuple_type":
            return f"{where}: write a list, one item per line beginning with `- `, not {detail['input']!r}"
        case "model_type" | "dict_type":
            keys = ", ".join(_keys_of(place)[:3])
            known = f" (keys are {keys}, ...)" if keys else ""
            return f"{where}: write {{key: value}} here{known}, not {detail['input']!r}"
        case "too_short":
            return f"{where}: the list is empty; write at least one item, or remove the key"
        case "string_type" if isinstance(detail["input"], (bool, int, float)):
            return f"{where}: YAML reads this as {detail['input']!r}, not as text; put it in quotes"
    return f"{where}: {detail['msg'][0].lower()}{detail['msg'][1:]}, got {detail['input']!r}"


def _shares(share: float) -> str:
    """Shares as they have to be written, with that of train as somebody gave it."""
    if not 0 < share < 1:
        return "{train: 0.7, val: 0.15, test: 0.15}"
    return f"{{train: {share:g}, val: {1 - share:g}}}"


_UNION_BRANCHES = frozenset({"word", "shares", "int", "str", "float", "bool"})


def _keys_of(place: list[str]) -> list[str]:
    """Return the keys that the section at `place` knows; none where there is no section."""
    section: type[BaseModel] | None = Config
    for part in place:
        if section is None or part.isdigit():  # the number of a list's item
            continue
        fields = {field.alias or name: field for name, field in section.model_fields.items()}
        section = section_in(fields[part].annotation) if part in fields else None
    return [field.alias or name for name, field in section.model_fields.items()] if section else []


def section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field's type holds, be it in a union or a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_in, get_args(annotation))), None)

"""The section `export`: targets for devices and how far each may be from the model."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.config.section import Section

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
    """One exported model; the keys are those of Ultralytics' exporter."""

    format: Literal["onnx", "openvino", "ncnn", "torchscript", "litert", "engine"]
    """Format of the exported model; `litert` after `make litert`, `engine` is TensorRT."""
    quantize: int | None = None
    """Bits per value: 16 or 8; null is 32. [export.md](export.md) lists them by format."""
    nms: bool | None = None
    """Null: the runner does non-maximum suppression. `true`: the graph does it. `false`: the NMS-free head."""
    imgsz: int | None = Field(default=None, ge=32, multiple_of=32)
    """Side of the input in pixels; null is the side used in training."""
    dynamic: bool = False
    """Allow a variable height, width and number of images."""
    opset: int | None = Field(default=None, ge=13, le=20)
    """Version of ONNX's operators; null is the exporter's choice."""
    simplify: bool = True
    """Simplify the graph."""
    recipe: Literal["auto", "naive"] = "auto"
    """For 8 bits with onnx and openvino. `naive` quantises every layer; it shows the loss and is normally rejected."""

    @model_validator(mode="after")
    def _possible(self) -> Target:
        if self.quantize not in QUANTIZE[self.format]:
            known = ", ".join("null" if bits is None else str(bits) for bits in QUANTIZE[self.format])
            raise ValueError(f"{self.format} does not support `quantize: {self.quantize}`; use {known}")
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
        """The part of the file name that distinguishes this model from a plain one of its format and precision."""
        head = {None: "", False: "-nmsfree", True: "-nms"}[self.nms]
        opset = f"-opset{self.opset}" if self.opset else ""
        size = f"-{self.imgsz}" if self.imgsz else ""
        plain = "" if self.simplify else "-unsimplified"
        return f"{head}{size}{'-dynamic' * self.dynamic}{opset}{plain}{'-naive' * (self.recipe == 'naive')}"


class Limits(Section):
    """Largest differences allowed between an exported model and the original; null is not checked."""

    precision: ClassVar[str]
    max_box_px: float | None = Field(default=None, gt=0)
    """Largest difference in one coordinate of a box's corners, in pixels of the original image."""
    max_score: float | None = Field(default=None, gt=0)
    """Largest difference between the two scores of a box."""
    max_changed: float | None = Field(default=None, ge=0, le=1)
    """Share of boxes that are lost, invented or of another class."""
    max_score_shift: float | None = Field(default=None, gt=0, le=1)
    """Largest mean difference of scores, in either direction."""
    max_ap_drop: float | None = Field(default=None, ge=0, le=100)
    """Loss of mAP50-95, in points (hundredths). It counts if its interval is above 0; otherwise it may be chance."""


class Limits32(Limits):
    """Limits for exported models in 32 bits."""

    precision: ClassVar[str] = "fp32"
    max_box_px: float | None = Field(default=0.5, gt=0)
    max_score: float | None = Field(default=1e-3, gt=0)
    max_changed: float | None = Field(default=0.0, ge=0, le=1)
    max_ap_drop: float | None = Field(default=0.1, ge=0, le=100)


class Limits16(Limits):
    """Limits for exported models in 16 bits."""

    precision: ClassVar[str] = "fp16"
    max_changed: float | None = Field(default=0.05, ge=0, le=1)
    max_score_shift: float | None = Field(default=0.01, gt=0, le=1)
    max_ap_drop: float | None = Field(default=0.2, ge=0, le=100)


class Limits8(Limits):
    """Limits for exported models in 8 bits."""

    precision: ClassVar[str] = "int8"
    max_changed: float | None = Field(default=0.5, ge=0, le=1)
    max_score_shift: float | None = Field(default=0.1, gt=0, le=1)
    max_ap_drop: float | None = Field(default=1.5, ge=0, le=100)


class LimitsByPrecision(Section):
    """Largest differences allowed between an exported model and the original, by precision."""

    fp32: Limits32 = Limits32()
    """Limits for 32 bits: the same boxes."""
    fp16: Limits16 = Limits16()
    """Limits for 16 bits: nearly the same boxes."""
    int8: Limits8 = Limits8()
    """Limits for 8 bits: nearly the same mAP."""


class Calibration(Section):
    """Training images on which the ranges of 8-bit numbers are measured."""

    images: int = Field(default=128, ge=1)
    """Number of training images. Classes take turns, so that rare classes are included; val and test are never used."""
    per_class: int = Field(default=5, ge=1)
    """Minimum number of training images with each class. With fewer, 8-bit targets are refused.

    A class that no training image shows is left out."""
    draws: int = Field(default=3, ge=1, le=10)
    """Number of choices of images to compare, so that the manifest shows how much the choice matters."""


class Export(Section):
    """Models for the device, and how each is compared with the original. [export.md](export.md) explains it."""

    targets: tuple[Target, ...] = Field(default=(Target(format="onnx"),), min_length=1)
    """The models to export."""
    images: int = Field(default=300, ge=1)
    """Maximum number of validation images on which each exported model is compared with the original."""
    conf: float = Field(default=0.25, gt=0, lt=1)
    """Score from which both models must find the same boxes. If no box reaches it, half of the model's best
    score on these images is used, and the manifest says so."""
    limits: LimitsByPrecision = LimitsByPrecision()
    """The stage fails if an exported model differs more than this from the original. Null is not checked."""
    calibration: Calibration = Calibration()
    """Training images for the calibration of 8 bits."""

    @model_validator(mode="after")
    def _targets_once(self) -> Export:
        kinds = [(target.format, target.quantize, target.variant) for target in self.targets]
        if len(set(kinds)) < len(kinds):
            raise ValueError("targets: the same target appears twice; keep one")
        return self

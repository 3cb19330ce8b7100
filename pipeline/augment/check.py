"""Check the transforms of a config before work starts, and report all errors at once."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from pipeline.augment import transforms
from pipeline.augment.transforms import COMPOSITIONS
from pipeline.boxes import Box
from pipeline.errors import ConfigError, did_you_mean
from pipeline.pixels import Image

ALTERNATIVES = ("OneOf", "OneOrOther")
# tests/test_augment.py checks with painted objects what every transform does to boxes; two move them wrongly.
REFUSED = {
    "Compose": "the list of transforms is a Compose already; list its transforms instead",
    "ReplayCompose": "the list of transforms is a Compose already; list its transforms instead",
    "Lambda": "is Python code, which a YAML cannot hold; leave it out",
    "Morphological": "puts boxes far from their objects; leave it out",
    "ThinPlateSpline": "misses some objects by tens of pixels; ElasticTransform bends without that",
    "ToTensorV2": "makes tensors, but copies are images; leave it out",
    "ToTensor3D": "makes tensors, but copies are images; leave it out",
}


def check(entries: Sequence[Any], names: Sequence[str], image: Image, boxes: Sequence[Box]) -> None:
    """Build every transform and apply it, in order and with probability 1, to an image (BGR) and its boxes.

    Raises ConfigError with one line per error: unknown names and arguments, wrong values, transforms that need more
    than an image with boxes, and those whose result is not an 8-bit colour image with boxes.
    """
    if not boxes:
        height, width = image.shape[:2]
        boxes = [Box(names[0], width / 4, height / 4, width * 3 / 4, height * 3 / 4)]
    trial = _Trial(names, image, boxes)
    trial.all(entries, "augment.transforms")
    if trial.errors:
        raise ConfigError("\n".join(trial.errors))


class _CompositionArguments(BaseModel):
    """The arguments of compositions, which Albumentations does not check as it checks those of transforms."""

    transforms: list[Any] = Field(min_length=1)
    p: float = Field(default=1, ge=0, le=1)
    n: int = Field(default=1, ge=1)
    replace: bool = False


@dataclass(slots=True)
class _Trial:
    """A trial of transforms in sequence, each on the result of the one before."""

    names: Sequence[str]
    image: Image
    boxes: Sequence[Box]
    errors: list[str] = field(default_factory=list)

    def all(self, entries: Sequence[Any], where: str, alternatives: bool = False) -> None:
        image, boxes = self.image, self.boxes
        for number, entry in enumerate(entries):
            if alternatives:  # each starts from the same image; the next transform gets the last one's result
                self.image, self.boxes = image, boxes
            self._one(entry, f"{where}.{number}")

    def _one(self, entry: Any, where: str) -> None:
        if not isinstance(entry, dict) or len(entry) != 1 or not isinstance(next(iter(entry.values())), dict):
            self.errors.append(f"{where}: not a transform; write one `- Name: {{argument: value}}` per line")
            return
        [(name, arguments)] = entry.items()
        self.errors += [f"{where}: {name}{message}" for message in self._errors_of(name, arguments, where)]

    def _errors_of(self, name: str, arguments: dict[str, Any], where: str) -> list[str]:
        known = transforms.known()
        if name in REFUSED:
            return [f": {REFUSED[name]}"]
        if name not in known and name not in COMPOSITIONS:
            return [f" is not an Albumentations transform{did_you_mean(str(name), [*known, *COMPOSITIONS])}"]
        if unknown := _unknown_arguments(name, arguments):
            return unknown
        return self._composition(name, arguments, where) if name in COMPOSITIONS else self._transform(name, arguments)

    def _composition(self, name: str, arguments: dict[str, Any], where: str) -> list[str]:
        try:
            _CompositionArguments(**arguments)
        except ValidationError as error:
            return _findings(error)
        before = len(self.errors)
        self.all(arguments["transforms"], f"{where}.{name}.transforms", name in ALTERNATIVES)
        try:
            if len(self.errors) == before:
                transforms.make(name, arguments)
        except Exception as error:  # for example weights of OneOf that add up to 0
            return [f": {transforms.words(error)}"]
        return []

    def _transform(self, name: str, arguments: dict[str, Any]) -> list[str]:
        try:
            transform = transforms.make(name, arguments)
        except Exception as error:  # Albumentations' validators raise many types for unexpected values
            cause = error.__cause__
            return _findings(cause) if isinstance(cause, ValidationError) else [f": {transforms.words(error)}"]
        if needs := transform.targets_as_params:
            return [f": needs {', '.join(needs)} with every image, which a YAML cannot hold; leave it out"]
        if not transforms.handles_boxes(transform):
            return [": does not move boxes with their pixels; leave it out"]
        certain = copy.deepcopy(transform)
        certain.p = 1.0
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # a transform warns if it does nothing
                with_boxes = transforms.with_boxes([certain], self.names, min_visibility=0)
                done = transforms.apply(with_boxes, self.image, self.boxes, seed=0)
        except transforms.UnwritableError as error:
            return [f": {error}; leave it out"]
        except Exception as error:  # Albumentations, OpenCV and NumPy raise many types
            height, width = self.image.shape[:2]
            return [f": {transforms.words(error)} (tried on an image of {width}x{height})"]
        self.image, self.boxes = done.image, done.boxes
        return []


def _unknown_arguments(name: str, arguments: dict[str, Any]) -> list[str]:
    accepted = transforms.arguments_of(name)
    return [
        f": no argument {key!r}{did_you_mean(str(key), accepted)}; it takes {', '.join(accepted)}"
        for key in arguments
        if key not in accepted
    ]


def _findings(error: ValidationError) -> list[str]:
    """Return one line per argument that pydantic rejects; the branches of a union share a line."""
    messages: dict[str, list[str]] = {}
    for detail in error.errors():
        place = f" {detail['loc'][0]}:" if detail["loc"] else ""
        messages.setdefault(place, []).append(detail["msg"].removeprefix("Value error, "))
    return [f":{place} {' or '.join(dict.fromkeys(texts))}" for place, texts in messages.items()]

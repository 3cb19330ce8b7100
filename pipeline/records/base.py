"""Describe, write and read records."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from pipeline import files
from pipeline.errors import DataError

Number = FiniteFloat  # JSON has no NaN
Interval = Annotated[list[Number], Field(min_length=2, max_length=2)]
Point = Annotated[list[Number], Field(min_length=2, max_length=2)]
Bbox = Annotated[list[Number], Field(min_length=4, max_length=4)]
T = TypeVar("T")


if TYPE_CHECKING:

    class Record(TypedDict):
        """A JSON object. Its fields are documented by the strings below them."""

else:  # mypy would take the settings for a key

    class Record(TypedDict):
        __pydantic_config__ = ConfigDict(strict=True, use_attribute_docstrings=True)  # strict: "3" is not a number


adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def read_record(path: Path, shape: type[T], again: str, wrong: str = "") -> T:
    """Read a record. Errors end with `again`, how to write the file again; `wrong` says what another shape means.

    Raises DataError if the file is missing, damaged, or of another shape, perhaps from an older version.
    """
    data = files.read_json(path)
    try:
        adapter(shape).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        fault = "should be an object" if first["type"] == "dict_type" else first["msg"].lower()
        reason = f"({place}{': ' if place else ''}{fault})"
        if wrong or first["type"] != "missing":
            raise DataError(f"{path}: {wrong or 'damaged'} {reason}; {again}") from None
        raise DataError(f"{path}: written by an older version; {again} {reason}") from None
    checked: T = data
    return checked


def write_record(path: Path, shape: type[T], record: T) -> None:
    """Write a record. A ValidationError here is our own bug: the stage could not read what it wrote."""
    text = files.to_json(record)
    adapter(shape).validate_json(text)  # as it will be read, because JSON turns a tuple into a list
    files.write_text(path, text)

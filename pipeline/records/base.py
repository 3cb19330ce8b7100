"""How records are described, written and read."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from pipeline import files
from pipeline.errors import DataError

Number = FiniteFloat  # JSON has no NaN
Interval = Annotated[list[Number], Field(min_length=2, max_length=2)]
Bbox = Annotated[list[Number], Field(min_length=4, max_length=4)]
T = TypeVar("T")


class Record(TypedDict):
    """A JSON object. Its fields are documented by the strings below them."""

    __pydantic_config__ = ConfigDict(strict=True, use_attribute_docstrings=True)  # type: ignore[misc]  # "3" is no number


@cache
def adapter(shape: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(shape)


def read(path: Path, shape: type[T], again: str) -> T:
    """Read a record. `again` names the command that writes the file.

    Raises DataError where the file is missing, damaged, or was written by an older version in another shape.
    """
    data = files.read_json(path)
    check(path, shape, data, again)
    known: T = data
    return known


def check(path: Path, shape: type[T], data: Any, again: str, wrong: str = "") -> None:
    """Raise DataError where the data does not have the shape."""
    try:
        adapter(shape).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        kind = "should be an object" if first["type"] in ("dict_type", "model_type") else first["msg"].lower()
        raise DataError(
            f"{path}: {wrong or f'not as this version of `{again}` writes it'} "
            f"({place}{': ' if place else ''}{kind}); delete it and `make {again}` again"
        ) from None


def write(path: Path, shape: type[T], record: T) -> None:
    """Write a record. A ValidationError here is a bug of ours: the stage made something that it could not read."""
    adapter(shape).validate_python(record)
    files.write_json(path, record)

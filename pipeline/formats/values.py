"""Values from JSON that anybody may have written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from pipeline.errors import DataError
from pipeline.formats.text import read_text

NUMBERS = frozenset({int, float})


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises DataError where it is not JSON, or nested or numbered beyond reason."""
    try:
        return orjson.loads(path.read_bytes())  # three times as fast
    except orjson.JSONDecodeError:
        pass  # NaN and byte-order marks, which Python takes, and all that is to be refused in words of its own
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON ({error}); write it again") from None
    except (RecursionError, ValueError):  # nesting or a number beyond all reason
        raise DataError(f"{path}: nested or numbered beyond reason; write it again") from None


def numbers(values: Sequence[Any]) -> list[float] | None:
    """JSON values as coordinates; None unless all are finite numbers or NaN, which is `convert`'s to judge."""
    if not NUMBERS.issuperset(map(type, values)):  # `type`, as true is an int to isinstance
        return None
    try:
        found = list(map(float, values))
    except OverflowError:  # 1 with 400 zeros
        return None
    # The sum tells at once for nearly all.
    return None if not math.isfinite(sum(found)) and any(map(math.isinf, found)) else found


def declared_size(width: Any, height: Any) -> tuple[int, int] | None:
    """The size of an image as an annotation declares it, None unless both sides are whole numbers of pixels."""
    sides = numbers((width, height))
    if not sides or not all(1 <= side < 2**31 and side.is_integer() for side in sides):
        return None
    return int(sides[0]), int(sides[1])


def class_name(value: Any) -> str:
    """The name of a class without space around it; "" for what is none: no text, or text that no file can hold."""
    if not isinstance(value, str):
        return ""
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return ""
    return value.strip()

"""Read values from JSON files that are not trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from pipeline.errors import DataError
from pipeline.formats.text import read_text, show

NUMBERS = frozenset({int, float})


def read_json(path: Path) -> Any:
    """Return the value in a JSON file.

    Raises DataError if it is not JSON, if nesting or numbers are beyond reason, or if a key appears twice.
    """
    data = path.read_bytes()
    try:
        value = orjson.loads(data)  # three times as fast
        keys = data.count(b'":')
        if keys == _outer_keys(value) or keys == _keys(value):
            return value
    except orjson.JSONDecodeError:
        pass  # Python's parser accepts NaN and byte-order marks, and says what is wrong with everything else
    try:
        return json.loads(read_text(path), object_pairs_hook=lambda pairs: _once(path, pairs))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON ({error}); export it again") from None
    except (RecursionError, ValueError):  # absurd nesting or a number of absurd length
        raise DataError(f"{path}: nested too deeply, or with a number that is too long; correct it") from None


def _outer_keys(value: Any) -> int:
    """Count keys as `_keys` does, but only two objects deep, which is enough for most large files; -1 for no object."""
    if type(value) is not dict:
        return -1
    count = len(value)
    for part in value.values():
        if type(part) is dict:
            count += len(part)
        elif type(part) is list and all(type(item) is dict for item in part[:1]):
            count += sum(len(item) for item in part if type(item) is dict)
    return count


def _keys(value: Any) -> int:
    """Count the keys in all objects of a JSON value; they are fewer than in its text if one appears twice."""
    count = 0
    pending: list[Any] = [value] if isinstance(value, (dict, list)) else []
    while pending:
        part = pending.pop()
        if type(part) is dict:
            count += len(part)
            part = part.values()
        # Only lists of objects: outlines are lists of millions of numbers, without keys.
        pending += [e for e in part if type(e) is dict or (type(e) is list and e and type(e[0]) is dict)]
    return count


def _once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise DataError(f"{path}: the key {show(twice)} appears twice in one object; keep one")
    return result


def mapping(value: Any) -> Mapping[str, Any]:
    """Return the value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def numbers(values: Sequence[Any]) -> list[float] | None:
    """Return JSON values as floats; None unless all are finite or NaN, which `convert` judges."""
    if not NUMBERS.issuperset(map(type, values)):  # not isinstance, for which True is an int
        return None
    try:
        floats = list(map(float, values))
    except OverflowError:  # 1 with 400 zeros
        return None
    # A finite sum settles nearly all cases at once.
    return None if not math.isfinite(sum(floats)) and any(map(math.isinf, floats)) else floats


def declared_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return the declared size of an image; None unless both sides are whole numbers of pixels."""
    sides = numbers((width, height))
    if not sides or not all(1 <= side < 2**31 and side.is_integer() for side in sides):
        return None
    return int(sides[0]), int(sides[1])


def class_name(value: Any) -> str:
    """Return a class name without surrounding space; "" for a value that is not text or that no file can hold."""
    if not isinstance(value, str):
        return ""
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return ""
    return value.strip()

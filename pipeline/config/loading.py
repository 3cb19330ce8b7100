"""Read a config file, and report all its errors at once, in plain words."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.config.experiment import Config
from pipeline.config.training import Phase
from pipeline.errors import ConfigError, did_you_mean, in_a_line

Root = TypeVar("Root", bound=BaseModel)


def load(path: Path) -> Config:
    """Read a config file. Raises ConfigError with one line for every error in it."""
    return checked(str(path), read(path), Config)


def read(path: Path) -> dict[str, Any]:
    """Read the keys of a YAML file. Raises ConfigError in one line."""
    if str(path).encode(errors="replace") != os.fsencode(path):  # every file of the run contains the name
        raise ConfigError(f"{os.fsencode(path)!r}: the name of a config file must be UTF-8; rename it")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        others = [str(other) for other in sorted(path.parent.glob("*.yaml"))]
        raise ConfigError(f"{path}: no such file{did_you_mean(str(path), others)}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name a readable YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read ({error}); write it as UTF-8 text") from None
    try:
        data = yaml.load(text, Loader=NoDuplicates)
    except (yaml.YAMLError, RecursionError) as error:
        way_out = "correct that line" if isinstance(error, yaml.MarkedYAMLError) else "correct it"
        raise ConfigError(f"{path}: not YAML: {_one_line(error)}; {way_out}") from None
    except ValueError as error:  # 2026-13-45 looks like a date
        raise ConfigError(f"{path}: {error}; quote it") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: has no keys; configs/sample.yaml shows all of them")
    return data


def checked(where: str, data: dict[str, Any], root: type[Root]) -> Root:
    """Return the sections that `data` holds. Raises ConfigError with one line for every error in it."""
    try:
        return root.model_validate(data)
    except ValidationError as error:
        # Pydantic calls a list too short if its items are invalid, but those are reported anyway.
        details = [detail for detail in error.errors() if not (detail["type"] == "too_short" and detail["input"])]
        lines = dict.fromkeys(f"{where}: {_in_words(detail, root)}" for detail in details)
        raise ConfigError("\n".join(lines)) from None


class NoDuplicates(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys, of which PyYAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key_node.tag != "tag:yaml.org,2002:merge" and isinstance(key, str):
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key!r} appears twice", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    """A YAML dumper for text that NoDuplicates reads: it quotes text that would be a number there."""


# PyYAML takes 1e-4 for text, because YAML 1.1 wants a point before the exponent and a sign after it.
EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$")
for _kind in (NoDuplicates, Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+0123456789"))


def flow(value: Any) -> str:
    """Return `value` as YAML on one line, without the `...` that PyYAML appends to a bare word."""
    style: dict[str, Any] = {"default_flow_style": True, "sort_keys": False, "allow_unicode": True, "width": math.inf}
    text: str = yaml.dump(value, Dumper=Dumper, **style)
    return text.removesuffix("\n").removesuffix("\n...")


def _one_line(error: BaseException) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return in_a_line(error, longest=1000)


def _in_words(detail: ErrorDetails, root: type[BaseModel]) -> str:
    """Return one of pydantic's errors as one line in plain words."""
    # The location also names branches of unions, which are not in the file.
    place = [str(part) for part in detail["loc"] if str(part) not in _UNION_BRANCHES and "[" not in str(part)]
    where = ".".join(place)
    match detail["type"]:
        case "extra_forbidden":
            if place[:-1] == ["train"] and place[-1] in Phase.model_fields:
                return f"{where}: unknown key; it belongs to each of train.phases"
            hint = did_you_mean(place[-1], _keys_of(place[:-1], root))
            if not hint and place[0] == "train":
                hint = "; arguments of Ultralytics go into train.args"
            elif not hint and len(place) == 1:
                owners = [section for section in _keys_of([], root) if place[0] in _keys_of([section], root)]
                hint = f"; it belongs under `{owners[0]}`" if len(owners) == 1 else ""
            return f"{where}: unknown key{hint}"
        case "missing":
            return f"{where}: required key is missing; add it"
        case "value_error":
            message = detail["msg"].removeprefix("Value error, ")
            return f"{where}: {message}" if where else message
        case "literal_error" if place == ["convert", "split"] and isinstance(detail["input"], (int, float)):
            return f"{where}: input should be 'given', got {detail['input']!r}; or shares: {_shares(detail['input'])}"
        case "literal_error":
            expected = str(detail["ctx"]["expected"])
            hint = did_you_mean(str(detail["input"]), re.findall(r"'([^']+)'", expected))
            return f"{where}: input should be {expected}, got {detail['input']!r}{hint}"
        case "path_type":
            return f"{where}: write one path, not {detail['input']!r}"
        case "tuple_type":
            return f"{where}: write a list, one item per line beginning with `- `, not {detail['input']!r}"
        case "model_type" | "dict_type":
            keys = ", ".join(_keys_of(place, root)[:3])
            known = f" (keys are {keys}, ...)" if keys else ""
            given = detail["input"]
            glued = isinstance(given, str) and re.match(r"\w+:\S", given)
            hint = "; a space is missing after the colon" if glued else ""
            return f"{where}: write {{key: value}} here{known}, not {given!r}{hint}"
        case "too_short":
            return f"{where}: the list is empty; write at least one item, or remove the key"
        case "string_type" if isinstance(detail["input"], (bool, int, float)):
            return f"{where}: YAML reads this as {detail['input']!r}, not as text; put it in quotes"
    return f"{where}: {detail['msg'][0].lower()}{detail['msg'][1:]}, got {detail['input']!r}"


def _shares(share: float) -> str:
    """Return shares as they have to be written, with the given share for train."""
    if not 0 < share < 1:
        return "{train: 0.7, val: 0.15, test: 0.15}"
    return f"{{train: {share:g}, val: {1 - share:g}}}"


_UNION_BRANCHES = frozenset({"word", "shares", "int", "str", "float", "bool", "Steps", "Minutes"})


def _keys_of(place: list[str], root: type[BaseModel]) -> list[str]:
    """Return the keys of the section at `place`; empty if there is no section."""
    section: type[BaseModel] | None = root
    for part in place:
        if section is None or part.isdigit():  # the number of a list's item
            continue
        fields = {field.alias or name: field for name, field in section.model_fields.items()}
        section = section_in(fields[part].annotation) if part in fields else None
    return [field.alias or name for name, field in section.model_fields.items()] if section else []


def section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section in a field's type, even within a union or a tuple; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_in, get_args(annotation))), None)

"""Describe every key of a config in Markdown: `python -m pipeline.config_reference > docs/config.md`."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, TypeAdapter

from pipeline.config.experiment import Config
from pipeline.config.loading import section_in
from pipeline.records.documentation import kind, meaning

HEAD = """\
# The keys of a config

This page lists every key of a config with its unit and default. [`configs/sample.yaml`](../configs/sample.yaml) has all
of them in one file, with comments, to copy from.

One config is one experiment. Only `convert.source` is required. An unknown key is refused, and the error names the
nearest known one. Pixels are of the original image unless the text says otherwise; shares and scores are from
0 to 1.

<!-- Made by `python -m pipeline.config_reference > docs/config.md`. -->
"""


def page() -> str:
    return "\n".join([HEAD, *(line for path, model in sections() for line in _section(path, model))])


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield each section with its path, such as `train.phases[].lr_groups`, parents first; for `Config` it is empty."""
    waiting: list[tuple[str, type[BaseModel]]] = [("", Config)]
    while waiting:
        path, model = waiting.pop(0)
        yield path, model
        inner = []
        for name, field in model.model_fields.items():
            if section := section_in(field.annotation):
                item = "[]" if "tuple" in str(field.annotation) else ""
                inner.append((f"{path}.{field.alias or name}{item}".lstrip("."), section))
        waiting[:0] = inner


def rows(model: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    """Return key, value, default and meaning of each field of a section, in Markdown."""
    schema = model.model_json_schema()
    defaults = {field.alias or name: field.default for name, field in model.model_fields.items()}
    needed = set(schema.get("required", ()))
    return [
        (key, _value(field), "needed" if key in needed else _default(defaults[key]), _meaning(model, key, field))
        for key, field in schema["properties"].items()
    ]


def _section(path: str, model: type[BaseModel]) -> list[str]:
    title = [f"{'##' if '.' not in path else '###'} `{path}`", "", inspect.getdoc(model) or "", ""] if path else []
    table = [f"| `{key}` | {' | '.join(rest)} |" for key, *rest in rows(model)]
    return [*title, "| key | value | default | meaning |", "|---|---|---|---|", *table, ""]


def _value(field: dict[str, Any]) -> str:
    names = "|".join(model.__name__ for _, model in sections())
    return re.sub(rf"\b({names})\b", "section", kind(field))


def _default(default: Any) -> str:
    if isinstance(default, BaseModel):  # its own table has its defaults
        return ""
    written = TypeAdapter(Any).dump_python(default, mode="json", exclude_unset=True)
    return f"`{json.dumps(written, ensure_ascii=False)}`"


def _meaning(model: type[BaseModel], key: str, field: dict[str, Any]) -> str:
    """Return the meaning of a key. A section that only changes defaults inherits it from its base."""
    for base in model.__mro__:
        if not meaning(field) and issubclass(base, BaseModel) and key in base.model_fields:
            field = base.model_json_schema()["properties"][key]
    return meaning(field)


if __name__ == "__main__":
    print(page(), end="")

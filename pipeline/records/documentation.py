"""Describe the files of a run in Markdown: `python -m pipeline.records.documentation > docs/files.md`."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any, get_args

from typing_extensions import get_type_hints, is_typeddict

from pipeline.records import (
    coco,
    comparison,
    errors,
    label,
    label_corrected,
    label_rounds,
    manifest,
    metrics,
    ranking,
    receipt,
    tile_account,
    tiles,
    training,
)
from pipeline.records.base import adapter
from pipeline.records.other_files import OTHERS

HEAD = """\
# The files of a run

This page describes the files in `runs/NAME/`, for people who want to read them with their own scripts.

All JSON files are UTF-8 with sorted keys. A stage writes its result last, so a result that exists belongs to a stage
that finished: `dataset/`, `augmented/`, `model.pt`, `rank.json`, `metrics.json`, `export/manifest.json`, `report/`.
Each record is checked against its description below when it is written and when a stage reads it; lists of predictions
are checked only when they are read. A file from an older version is refused, with what to do about it.

<!-- Made by `python -m pipeline.records.documentation > docs/files.md`. -->

## Files without a description below

| file | written by | content |
|---|---|---|
"""
RECORDS: tuple[tuple[ModuleType, type], ...] = (
    (receipt, receipt.Receipt),
    (tiles, tiles.Tiling),
    (tile_account, tile_account.TileAccount),
    (training, training.Training),
    (ranking, ranking.Ranking),
    (metrics, metrics.Metrics),
    (comparison, comparison.Comparison),
    (coco, coco.GroundTruth),
    (errors, errors.ErrorFile),
    (manifest, manifest.Manifest),
    (label, label.Next),
    (label_corrected, label_corrected.Corrected),
    (label_rounds, label_rounds.Rounds),
)
BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "multiple of {}",
}


def page() -> str:
    others = [f"| {file} | {command} | {content} |" for file, command, content in OTHERS]
    return "\n".join([HEAD + "\n".join(others), "", *(_record(module, shape) for module, shape in RECORDS)])


def _record(module: ModuleType, shape: type) -> str:
    title, _, rest = inspect.getdoc(module).partition("\n")  # type: ignore[union-attr]  # a test checks that each has one
    schema, shapes = adapter(shape).json_schema(), _records_in(shape, {})
    parts = [f"## {title.rstrip('.')}", "", *([rest.strip(), ""] if rest else []), *_table(schema, shape)]
    for name, part in schema.get("$defs", {}).items():
        parts += [f"### {name}", "", *([part["description"], ""] if "description" in part else [])]
        parts += _table(part, shapes[name])
    return "\n".join(parts)


def _table(schema: dict[str, Any], shape: Any) -> list[str]:
    needed, meanings = set(schema.get("required", ())), _meanings(shape)
    rows = [
        f"| `{name}` | {kind(field)}{'' if name in needed else ', may be missing'} | {meanings.get(name, '')} |"
        for name, field in schema["properties"].items()
    ]
    return ["| key | value | meaning |", "|---|---|---|", *rows, ""]


def _records_in(shape: Any, found: dict[str, Any]) -> dict[str, Any]:
    """Add all records that a type consists of to `found`, by name, and return it."""
    if is_typeddict(shape) and shape.__name__ not in found:
        found[shape.__name__] = shape
        for part in get_type_hints(shape).values():
            _records_in(part, found)
    for part in get_args(shape):
        _records_in(part, found)
    return found


def _meanings(shape: Any) -> dict[str, str]:
    """Return the descriptions of a record's keys, with those of inherited keys, which pydantic leaves out."""
    own = adapter(shape).json_schema().get("properties", {})
    inherited = [_meanings(base) for base in getattr(shape, "__orig_bases__", ()) if is_typeddict(base)]
    found = {name: text for base in inherited for name, text in base.items()}
    return found | {name: text for name, field in own.items() if (text := meaning(field))}


def meaning(field: dict[str, Any]) -> str:
    """Return the description of a property of a JSON schema as one line of Markdown."""
    return " ".join(field.get("description", "").split())


def kind(field: dict[str, Any]) -> str:
    """Return the type of a property of a JSON schema in words, such as `list of string`."""
    if "$ref" in field:
        return str(field["$ref"]).rpartition("/")[2]
    if options := field.get("anyOf", field.get("oneOf")):
        return " or ".join(kind(option) for option in options)
    if "enum" in field or "const" in field:
        return ", ".join(
            f"`{str(word).lower() if isinstance(word, bool) else word}`"
            for word in field.get("enum", [field.get("const")])
        )
    match field.get("type"):
        case "array":
            if "minItems" in field and field["minItems"] == field.get("maxItems"):
                return f"{field['minItems']} {kind(field['items'])}s"
            return f"list of {kind(field['items'])}" if field["items"] else "list"
        case "object":
            values = field.get("additionalProperties")
            return f"name: {kind(values)}" if isinstance(values, dict) and values else "object"
        case None:
            return "anything"
        case word:
            bounds = [text.format(field[key]) for key, text in BOUNDS.items() if key in field]
            return f"{word} {', '.join(bounds)}".strip()


if __name__ == "__main__":
    print(page(), end="")

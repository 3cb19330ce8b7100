"""Describe the files of a run in Markdown: `python -m pipeline.records.documentation > docs/files.md`."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

from pipeline.records import (
    coco,
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

HEAD = """\
# The files of a run

This page describes the files in `runs/NAME/`, for people who want to read them with their own scripts.

All JSON files are UTF-8 with sorted keys. A stage writes its record last, so a record that exists belongs to a
stage that finished. Each record is checked against the description below when it is written and when it is read. A file
from an older version is refused, with the command that writes it again.

`logs/STAGE.log` holds what libraries wrote when the stage last ran, and errors name it. Without output
there is no log.

`params/made_by.json` names the config file that made the run, so that another one of the same name does not overwrite
it; the other files in `params/` are the parts of the config that each stage used.

<!-- Made by `python -m pipeline.records.documentation > docs/files.md`. -->
"""
RECORDS: tuple[tuple[ModuleType, type], ...] = (
    (receipt, receipt.Receipt),
    (tiles, tiles.Tiling),
    (tile_account, tile_account.TileAccount),
    (training, training.Training),
    (ranking, ranking.Ranking),
    (metrics, metrics.Metrics),
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
    return "\n".join([HEAD, *(_record(module, shape) for module, shape in RECORDS)])


def _record(module: ModuleType, shape: type) -> str:
    title, _, rest = inspect.getdoc(module).partition("\n")  # type: ignore[union-attr]  # a test checks that each has one
    schema = adapter(shape).json_schema()
    parts = [f"## {title.rstrip('.')}", "", *([rest.strip(), ""] if rest else []), *_table(schema)]
    for name, part in schema.get("$defs", {}).items():
        parts += [f"### {name}", "", *([part["description"], ""] if "description" in part else []), *_table(part)]
    return "\n".join(parts)


def _table(schema: dict[str, Any]) -> list[str]:
    needed = set(schema.get("required", ()))
    rows = [
        f"| `{name}` | {kind(field)}{'' if name in needed else ', may be missing'} | {meaning(field)} |"
        for name, field in schema["properties"].items()
    ]
    return ["| key | value | meaning |", "|---|---|---|", *rows, ""]


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

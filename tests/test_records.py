"""The schemas of a run's files hold: stages write what they describe, and other shapes are refused in one line."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Trained

from pipeline.errors import DataError
from pipeline.records import base, documentation, metrics, receipt, training
from pipeline.run import Run


def test_the_page_is_generated_from_the_schemas() -> None:
    page = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    assert page == documentation.page(), "python -m pipeline.records.documentation > docs/files.md"


def test_every_record_has_a_description() -> None:
    assert all(inspect.getdoc(module) for module, _ in documentation.RECORDS)


def test_inherited_keys_keep_their_descriptions() -> None:
    page = documentation.page()
    assert page.count("| `ar100` | number or null | Average recall of the predictions that count") == 1
    assert page.count("| `tp` | integer | Number of predictions that found an object") == 2


def keys(shape: Any, data: Any, place: str = "") -> list[str]:
    """Keys in the data that the schema lacks."""
    schema = base.adapter(shape).json_schema()
    return list(_surplus(schema, schema, data, place))


def _surplus(schema: dict[str, Any], root: dict[str, Any], data: Any, place: str) -> Any:
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    for option in schema.get("anyOf", []):
        if "$ref" in option and isinstance(data, dict):
            schema = root["$defs"][option["$ref"].rpartition("/")[2]]
    if "properties" in schema and isinstance(data, dict):
        for key, value in data.items():
            if key not in schema["properties"]:
                yield f"{place}.{key}"
            else:
                yield from _surplus(schema["properties"][key], root, value, f"{place}.{key}")
    elif isinstance(schema.get("additionalProperties"), dict) and isinstance(data, dict):
        for key, value in data.items():
            yield from _surplus(schema["additionalProperties"], root, value, f"{place}.{key}")
    elif isinstance(schema.get("items"), dict) and isinstance(data, list):
        for number, value in enumerate(data):
            yield from _surplus(schema["items"], root, value, f"{place}.{number}")


def test_stages_write_only_what_is_described(trained: Trained) -> None:
    for path, shape in (
        (trained.run.receipt, receipt.Receipt),
        (trained.run.train_record, training.Training),
        (trained.run.metrics, metrics.Metrics),
    ):
        data = json.loads(path.read_text())
        base.adapter(shape).validate_python(data)
        assert keys(shape, data) == []


def leave_out(data: dict[str, Any]) -> None:
    del data["weights"]


def text_for_number(data: dict[str, Any]) -> None:
    data["imgsz"] = "640"


def not_a_number(data: dict[str, Any]) -> None:
    data["cost"]["latency"]["p95_ms"] = None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            leave_out,
            r"written by an older version; delete it and run `make validate` again \(weights: field required\)",
        ),
        (
            text_for_number,
            r"damaged \(imgsz: input should be a valid integer\); delete it and run `make validate` again",
        ),
        (not_a_number, r"damaged \(cost\.latency\.p95_ms: input should be a valid number\); delete it"),
    ],
)
def test_a_record_of_another_shape_is_refused(trained: Trained, tmp_path: Path, change: Any, said: str) -> None:
    run = Run(tmp_path)
    data = json.loads(trained.run.metrics.read_text())
    change(data)
    run.metrics.write_text(json.dumps(data))
    with pytest.raises(DataError, match=said) as error:
        metrics.read(run)
    assert "\n" not in str(error.value) and str(run.metrics) in str(error.value)


def test_a_receipt_without_val_has_no_objects_there(trained: Trained, tmp_path: Path) -> None:
    data = json.loads(trained.run.receipt.read_text())
    val = data["splits"].pop("val")
    assert receipt.val_has_objects(trained.run) == (val["boxes"] > 0)
    run = Run(tmp_path)
    run.receipt.parent.mkdir()
    run.receipt.write_text(json.dumps(data))
    assert not receipt.val_has_objects(run)


def test_an_invalid_record_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weights"):
        base.write_record(tmp_path / "metrics.json", metrics.Metrics, {})  # type: ignore[typeddict-item]
    assert not (tmp_path / "metrics.json").exists()


def test_no_untyped_record_is_read() -> None:
    """Records are read through their schemas: `files.read_json` is only for files used by one stage."""
    described = {"metrics", "train_record", "receipt", "manifest", "errors", "ground_truth", "comparison"}
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("read_json"):
                names = {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
                assert not names & described, f"{path.name}: {ast.unparse(node)}"

"""Who may import whom. Stages meet only on disk."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "pipeline"
STAGES = {"convert", "augment", "train", "validate", "inspect", "export", "report", "rank", "label"}
GROUND = {"errors", "run", "logs"}  # import nothing of ours
SHARED = GROUND | {"files", "config", "boxes", "pixels", "formats"}
MAY_IMPORT = {
    "errors": set(),
    "run": {"files"},
    "logs": set(),
    "options": {"errors"},
    "files": {"errors"},
    "config": {"errors", "config"},
    "config_reference": {"config", "records"},
    "boxes": {"errors", "orientation"},
    "orientation": {"device"},
    "pixels": {"errors"},
    "image_files": {"device", "orientation", "walk"},
    "database": {"errors", "files", "logs"},
    "walk": set(),
    "device": set(),
    "formats": {"errors", "run", "boxes", "database", "formats", "orientation", "walk"},
    "parallel": {"device", "errors", "logs"},
    "params": {"errors", "files", "config", "lock", "run", "inputs", "upstream", "walk"},
    "inputs": {"files", "fixes", "labels", "config", "errors", "run"},
    "metrics": {"records"},
    "sample": {"files", "logs", "pixels", "sample"},
    "upstream": {"device", "errors", "files", "logs", "parallel"},
    "records": {"errors", "files", "run"},
    "history": {"records", "run"},
    "object_sizes": {"boxes"},
    "cosine": set(),
    "lock": {"errors", "files", "run"},
    **dict.fromkeys(STAGES, SHARED),
    "fixes": {"files", "boxes", "config", "errors", "metrics", "run"},
    "labels": {"files", "boxes", "errors", "run", "walk"},
    "app": {"errors", "logs"},
    "inspect": SHARED | {"app", "cosine", "database", "fixes", "image_files", "parallel", "records", "upstream"},
    "convert": SHARED | {"image_files", "parallel", "fixes", "inputs", "labels", "records", "walk"},
    "tiling": SHARED | {"parallel", "records"},
    "augment": SHARED | {"parallel", "tiling"},
    "train": SHARED | {"upstream", "history", "metrics", "probing", "records", "object_sizes"},
    "probing": {"boxes", "errors", "logs", "metrics", "pixels"},
    "rank": SHARED | {"probing", "records", "upstream"},
    # Leaves out images by convert's rules, and looks at the others through the device's views.
    "label": SHARED
    | {
        "app",
        "convert",
        "cosine",
        "database",
        "device",
        "image_files",
        "labels",
        "lock",
        "metrics",
        "parallel",
        "probing",
    }
    | {"records", "upstream", "walk"},
    "report": SHARED | {"history", "metrics", "records"},
    "starter": {"boxes", "files", "parallel", "pixels", "sample", "train", "upstream"},
    "validate": SHARED | {"device", "metrics", "records", "object_sizes", "upstream"},
    "export": SHARED | {"device", "orientation", "metrics", "parallel", "records", "object_sizes", "upstream"},
    "new": SHARED
    | {"convert", "image_files", "parallel", "records", "tiling", "walk"},  # inspects folders by convert's own rules
    # Splits and reads images by convert's rules, gets the phases from train's recipe, and plots in the report's style.
    "study": SHARED
    | {"convert", "history", "image_files", "lock", "metrics", "parallel", "records", "report", "train", "upstream"},
    "__main__": {"config", "errors", "lock", "logs", "new", "options", "params", "run", "sample", "starter", "study"}
    | STAGES,
}
USES_ULTRALYTICS = {"train", "starter", "upstream", "validate", "export", "label"}


def subpackage(path: Path) -> str:
    return named(path.relative_to(PACKAGE).parts).removesuffix(".py")


def named(parts: Sequence[str]) -> str:
    """The subpackage of a path or module; `extras` counts as two, beside the stages."""
    return parts[1] if parts[0] == "extras" and len(parts) > 1 else parts[0]


def imports(path: Path) -> set[str]:
    """Full names of everything a file imports, at the top or lazily."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


EMPTY = (PACKAGE / "__init__.py", PACKAGE / "extras" / "__init__.py")
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path not in EMPTY]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_import_only_what_the_rules_allow(path: Path) -> None:
    ours = {named(name.split(".")[1:]) for name in imports(path) if name.startswith("pipeline.")}
    assert ours <= MAY_IMPORT[subpackage(path)] | {subpackage(path)}
    if any(name.split(".")[0] == "ultralytics" for name in imports(path)):
        assert subpackage(path) in USES_ULTRALYTICS


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_init_files_hold_no_code(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    statements = tree.body[1:] if ast.get_docstring(tree) else tree.body
    assert all(isinstance(statement, ast.ImportFrom) for statement in statements) and len(statements) < 5


def test_no_file_has_more_than_249_lines() -> None:
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: count for name, count in lines.items() if count > 249} == {}


SLOW = ("torch", "ultralytics", "fiftyone")


@pytest.mark.parametrize(
    ("module", "slow"),
    [("__main__", SLOW), ("params", (*SLOW, "numpy", "cv2")), ("convert", SLOW), ("report", SLOW)],
)
def test_quick_commands_load_no_slow_library(module: str, slow: tuple[str, ...]) -> None:
    """Every `make` calls `params`."""
    code = f"import sys, pipeline.{module}; print([m for m in {slow} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_package_has_tests() -> None:
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    # The glue is tested through the command line; files, pixels and params through everything that uses them.
    covered_elsewhere = {
        "__main__": "cli",
        "config_reference": "config",
        "formats": "convert",
        "history": "report",
        "records": "report",
        "run": "cli",
        "options": "cli",
        "errors": "cli",
        "app": "inspect",
        "database": "inspect",
        "fixes": "convert_truth",
        "image_files": "duplicates",
        "orientation": "device_received",
    }
    found = {subpackage(path) for path in FILES} - {"files", "pixels", "params", "inputs"}
    assert {covered_elsewhere.get(name, name) for name in found} <= tests

"""The code that goes to the device: what it imports, and which Pythons it runs on."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import handmade
import pytest
from conftest import ROOT
from test_architecture import imports

DEVICE = ROOT / "pipeline" / "device"
CODE = [DEVICE / "run.py", DEVICE / "build.py", *sorted((DEVICE / "runner").glob("*.py"))]
OLDEST = (3, 8)
# Runtimes are imported lazily; a bundle needs only one.
MAY_COME_FROM_ELSEWHERE = {
    "numpy",
    "cv2",
    "PIL",
    "onnxruntime",
    "openvino",
    "ncnn",
    "torch",
    "torchvision",
    "ai_edge_litert",
    "tensorrt",
}
OLDEST_PYTHON = ROOT / ".venv-device" / "bin" / "python"
oldest = pytest.mark.skipif(
    not OLDEST_PYTHON.is_file(), reason="no Python 3.8 with a runtime here; `make device-python` sets one up"
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade.bundled(tmp_path_factory.mktemp("handmade"))


def older_pythons() -> list[str]:
    """Interpreters on this machine that are too old for a bundle."""
    found = [shutil.which(f"python{version}") for version in ("2.7", "3.5", "3.6", "3.7")]
    found += [str(path) for path in Path.home().glob(".pyenv/versions/*/bin/python")]
    code = f"import sys; sys.exit(sys.version_info >= {OLDEST})"
    return [path for path in found if path and subprocess.run([path, "-c", code], capture_output=True).returncode == 0]


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(DEVICE)))
def test_device_code_imports_nothing_of_ours_and_parses_on_the_oldest_python(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=OLDEST)
    assert "# SPDX-License-Identifier: AGPL-3.0-only" in path.read_text(encoding="utf-8").splitlines()[:2]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and (DEVICE / "runner" / f"{node.module}.py").is_file()
    elsewhere = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names - {"pipeline"}
    assert elsewhere - {"runner"} <= MAY_COME_FROM_ELSEWHERE
    assert "runner" not in elsewhere or path.parent == DEVICE
    assert not any(
        name.startswith("pipeline.") and not name.startswith("pipeline.device.runner.") for name in imports(path)
    )


def run_py(folder: Path, *arguments: str, python: str | Path = sys.executable) -> subprocess.CompletedProcess[str]:
    command = [str(python), str(folder / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("python", [sys.executable, pytest.param(OLDEST_PYTHON, marks=oldest)], ids=["this", "oldest"])
def test_a_bundle_runs(bundle: Path, tmp_path: Path, python: Path) -> None:
    done = run_py(bundle, "--selftest", python=python)
    assert (done.stdout[:16], done.stderr, done.returncode) == ("selftest passed:", "", 0)
    done = run_py(bundle, "--bench", "1", str(bundle / "golden"), python=python)
    assert json.loads(done.stdout)["boxes"] == 3
    done = run_py(bundle, str(bundle / "golden"), "--draw", str(tmp_path / "drawn"), python=python)
    found = [[one["class"], *one["bbox"]] for one in json.loads(done.stdout)["objects"]]
    assert sorted(found) == [["disc", 0, 0, 16, 16], ["ring", 16, 48, 16, 16], ["square", 32, 16, 16, 16]]
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["000000_1.jpg"]
    assert not list(bundle.rglob("*.pyc"))


@pytest.mark.parametrize("script", ["run.py", "build.py"])
def test_an_older_python_gets_a_one_line_error(bundle: Path, script: str) -> None:
    pythons = older_pythons()
    if not pythons:
        pytest.skip("no Python older than 3.8 here")
    shutil.copy(DEVICE / "build.py", bundle)
    for python in pythons:
        done = subprocess.run([python, str(bundle / script), "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.startswith(f"error: {script} needs Python 3.8 or newer, but this is ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("script", ["run.py", "build.py"])
@pytest.mark.parametrize("without", ["numpy", "runner"])
def test_a_missing_package_or_folder_is_a_one_line_error(
    bundle: Path, tmp_path: Path, script: str, without: str
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    shutil.copy(DEVICE / "build.py", copy)
    if without == "runner":
        shutil.rmtree(copy / "runner")
    # -S: nothing but the standard library
    done = subprocess.run([sys.executable, "-S", str(copy / script)], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert f"No module named '{without}'" in done.stderr and "unpack the whole bundle again" in done.stderr


def test_the_help_names_the_versions(bundle: Path) -> None:
    assert "Python 3.8 or newer" in run_py(bundle, "--help").stdout
    assert "Python 3.8 or newer" in (bundle / "README.txt").read_text(encoding="utf-8")


def test_a_user_program_can_import_the_parts(bundle: Path) -> None:
    code = "import json; from runner import Model, read_image; model = Model('.', json.load(open('model.json')))\n"
    code += "print(len(model.detect(read_image('golden/1.png'))))"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False, env=environment)
    assert (done.stdout, done.stderr) == ("3\n", "")

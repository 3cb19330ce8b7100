"""The code that goes to the device: what it imports, and which Pythons it runs on."""

from __future__ import annotations

import ast
import ctypes
import ctypes.util
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import handmade
import numpy as np
import pytest
from conftest import ROOT
from test_architecture import imports

from pipeline.device.runner import RunnerError, read_spec, runtimes

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


def test_a_broken_opencv_is_named(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    why = "installed, but: libGL.so.1: cannot open shared object file"
    (copy / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')\n")
    (tmp_path / "film.mp4").touch()
    with_pillow = f"images are read with Pillow, not OpenCV ({why})"
    done = run_py(copy, str(copy / "golden" / "1.png"))
    assert (done.stderr, done.returncode) == (f"{with_pillow}\n", 0) and len(json.loads(done.stdout)["objects"]) == 3
    for arguments, said in (
        ([tmp_path / "film.mp4"], f"{tmp_path}/film.mp4: videos and cameras need OpenCV ({why}); pip install opencv-"),
        ([copy / "golden" / "1.png", "--show"], f"--show: a window needs OpenCV ({why}); pip install opencv-"),
    ):
        done = run_py(copy, *map(str, arguments))
        assert done.stderr.startswith(f"{with_pillow}\nerror: {said}") and done.returncode == 1


def test_the_help_names_the_versions(bundle: Path) -> None:
    assert "Python 3.8 or newer" in run_py(bundle, "--help").stdout
    assert "Python 3.8 or newer" in (bundle / "README.txt").read_text(encoding="utf-8")


def test_a_user_program_can_import_the_parts(bundle: Path) -> None:
    code = "from runner import Model, read_image, read_spec; model = Model('.', read_spec('.'))\n"
    code += "print(len(model.detect(read_image('golden/1.png'))))"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False, env=environment)
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_everybody_can_read_an_unzipped_bundle(bundle: Path, tmp_path: Path) -> None:
    archive = bundle.parents[1] / "cells-onnx-fp32.zip"
    with zipfile.ZipFile(archive) as opened:
        modes = {Path(entry.filename).name: entry.external_attr >> 16 for entry in opened.infolist()}
    assert modes.pop("run.py") == 0o100755 and set(modes.values()) == {0o100644}
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-q", archive, "-d", tmp_path], check=True, umask=0o022)
        allowed = {path.name: path.stat().st_mode & 0o555 for path in tmp_path.rglob("*") if path.is_file()}
        assert allowed.pop("run.py") == 0o555 and set(allowed.values()) == {0o444}


DAMAGED: list[Callable[[Any], Any]] = [
    lambda spec: [],
    lambda spec: {},
    lambda spec: {**spec, "output": None},
    lambda spec: {key: value for key, value in spec.items() if key != "tiles"},
    lambda spec: {**spec, "thresholds": {"disc": 0.5}},
    lambda spec: {**spec, "format": "engine"},
]


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_description_is_named(bundle: Path, tmp_path: Path, damage: Callable[[Any], Any]) -> None:
    spec = read_spec(bundle)
    (tmp_path / "model.json").write_text(json.dumps(damage(spec)))
    with pytest.raises(RunnerError, match=r"model\.json: damaged; unpack the whole bundle again"):
        read_spec(tmp_path)


@pytest.mark.parametrize("script", ["run.py", "build.py"])
def test_both_programs_report_an_unreadable_description(bundle: Path, tmp_path: Path, script: str) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    shutil.copy(DEVICE / "build.py", copy)
    for text, said in (("{", "damaged; unpack the whole bundle again"), (None, "Is a directory; make it readable")):
        (copy / "model.json").unlink()
        if text:
            (copy / "model.json").write_text(text)
        else:
            (copy / "model.json").mkdir()
        command = [sys.executable, str(copy / script), *(["x.jpg"] if script == "run.py" else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.stderr, done.returncode) == (f"error: {copy}/model.json: {said}\n", 1)


def test_an_old_tensorrt_is_refused(bundle: Path, tmp_path: Path) -> None:
    """Version 8.5, as on JetPack 5, would fail in ways that say nothing."""
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    shutil.copy(DEVICE / "build.py", copy)
    digest = hashlib.sha256((copy / "cells.onnx").read_bytes()).hexdigest()
    engine = {"onnx": "cells.onnx", "onnx_sha256": digest, "profile": None}
    spec = {**json.loads((copy / "model.json").read_text()), "format": "engine", "engine": engine}
    (copy / "model.json").write_text(json.dumps(spec))
    (copy / "tensorrt.py").write_text("__version__ = '8.5.2.2'\n")
    done = subprocess.run([sys.executable, str(copy / "build.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    said = "error: an engine needs TensorRT 10 or later (JetPack 6.1 or later), but this is 8.5.2.2; update it, or "
    assert done.stderr.startswith(said)


def test_the_cuda_library_of_pip_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install tensorrt` brings it, in a folder that the system does not search."""
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    folder = tmp_path / "nvidia" / "cuda_runtime" / "lib"
    folder.mkdir(parents=True)
    (folder / "libcudart.so.12").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert runtimes._cudart() == str(folder / "libcudart.so.12")
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    assert runtimes._cudart() == "libcudart.so"
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: "libcudart.so.13")
    assert runtimes._cudart() == "libcudart.so.13"


def test_an_engine_serves_one_thread_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for TensorRT and CUDA: a context that fills its output with the first number of its input."""
    held: list[float] = []

    def copy(target: Any, source: Any, size: Any, kind: int) -> int:
        if kind == 1:
            held.append(ctypes.c_float.from_address(source.value).value)
            # Lets the other threads run, as the real one does. Nothing waits for it: with a lock the result is the same
            # for any delay, and without one no event says that a thread might have come in.
            time.sleep(0.005)
        else:
            count = size.value // 4
            (ctypes.c_float * count).from_address(target.value)[:] = [held[-1]] * count
        return 0

    context = SimpleNamespace(
        set_input_shape=lambda *_: None,
        get_tensor_shape=lambda name: (1, 7, 16),
        set_tensor_address=lambda *_: None,
        execute_async_v3=lambda stream: True,
    )
    engine = SimpleNamespace(
        create_execution_context=lambda: context,
        num_io_tensors=2,
        get_tensor_name=lambda index: ("images", "output0")[index],
        get_tensor_mode=lambda name: name,
    )
    fake: Any = ModuleType("tensorrt")
    fake.Logger = type("Logger", (), {"ERROR": 0, "__init__": lambda self, level: None})
    fake.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda data: engine)
    fake.TensorIOMode = SimpleNamespace(INPUT="images")
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(cudaMalloc=lambda *_: 0, cudaMemcpy=copy))
    (tmp_path / "a.engine").touch()
    forward = runtimes.load(tmp_path / "a.engine", {"format": "engine", "input": {"size": 64}}, 1, 1)  # type: ignore[typeddict-item]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda value: forward(np.full((1, 3, 64, 64), value, np.float32)), range(20)))
    assert [set(result.ravel().tolist()) for result in results] == [{value} for value in range(20)]

"""`make setup` with a script in the place of uv that records how it was called: nothing is downloaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import checkout, make_environment

UV = f"""#!/bin/sh
echo "$*" >> calls.txt
case "$*" in
  venv*) mkdir -p .venv/bin && printf '#!/bin/sh\\nexec {sys.executable} "$@"\\n' > .venv/bin/python && chmod +x .venv/bin/python ;;
  *--torch-backend=auto*) exit $WITHOUT_INDEX ;;
  *) exit $WITHOUT_REGISTRY ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    checkout(tmp_path)
    (tmp_path / ".venv" / "installed.txt").unlink()
    (tmp_path / "configs" / "sample.yaml").touch()
    script = tmp_path / "uv"
    script.write_text(UV)
    script.chmod(0o755)
    return tmp_path


def setup(project: Path, index: bool, registry: bool = True) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run `make setup` where PyTorch's own index, or any registry, can be reached or not; also return uv's calls."""
    environment = make_environment(WITHOUT_INDEX=str(int(not index)), WITHOUT_REGISTRY=str(int(not registry)))
    command = ["make", "setup", f"UV={project / 'uv'}"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, env=environment)
    calls = (project / "calls.txt").read_text().splitlines()
    return done, [call for call in calls if call.startswith("pip install")]


def test_uv_chooses_pytorch_for_the_machine(project: Path) -> None:
    done, installs = setup(project, index=True)
    assert done.returncode == 0, done.stderr
    assert (
        len(installs) == 1 and "--torch-backend=auto" in installs[0] and "--constraint constraints.txt" in installs[0]
    )
    assert (project / ".venv" / "installed.txt").stat().st_size > 0


def test_the_standard_pytorch_is_installed_where_its_own_index_cannot_be_reached(project: Path) -> None:
    done, installs = setup(project, index=False)
    assert done.returncode == 0, done.stderr
    first, second = installs
    assert first.replace(" --torch-backend=auto", "") == second
    assert "an error says so and does no harm" in done.stdout
    assert "installing PyTorch's standard wheel instead, which includes CUDA" in done.stdout


def test_a_failed_installation_fails_and_counts_as_not_installed(project: Path) -> None:
    done, installs = setup(project, index=False, registry=False)
    assert done.returncode == 2 and len(installs) == 2
    assert not (project / ".venv" / "installed.txt").exists()

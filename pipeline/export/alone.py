"""Run a bundle's self-test as a device would: in a separate process, with only what its requirements install.

In the export's own process, libraries that other code has imported may hide what the bundle lacks.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from pipeline import parallel
from pipeline.device.runner import Spec
from pipeline.export import bundle

CHILD = '''
import json, runpy, sys
absent = set(json.load(sys.stdin))
class Present:
    """Hide absent modules from the import system, as if they were not installed."""
    def __init__(self, finders):
        self.finders = finders
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in absent:
            return next(filter(None, (finder.find_spec(name, path, target) for finder in self.finders)), None)
    def find_distributions(self, *context):
        for finder in self.finders:
            yield from getattr(finder, "find_distributions", lambda *context: ())(*context)
sys.meta_path[:] = [Present(list(sys.meta_path))]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
'''
CV2 = "cv2"  # several distributions provide it


def selftest(archive: Path, spec: Spec) -> str:
    """Return why the bundle's self-test fails; empty if it passes."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        unpacked = bundle.unpack(archive, Path(folder))
        threads = str(parallel.half_of_the_cores())
        completed = subprocess.run(
            [sys.executable, "-I", "-c", CHILD, str(unpacked / "run.py"), "--selftest", "--threads", threads],
            input=json.dumps(absent(["numpy", *bundle.packages_of(spec)])),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    if completed.returncode == 0:
        return ""
    lines = completed.stderr.replace(f"{unpacked}/", "").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else f"it ended with status {completed.returncode}"


def absent(packages: Iterable[str]) -> list[str]:
    """Return the modules installed here that an environment with only these packages and their dependencies lacks."""
    needed, queue = set(), [_canonical(name) for name in packages]
    while queue:
        name = queue.pop()
        if name in needed:
            continue
        needed.add(name)
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        # Markers need no evaluation: requirements for other platforms are not installed here anyway.
        dependencies = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requirements if "extra ==" not in line]
        queue += map(_canonical, dependencies)
    owners = metadata.packages_distributions()
    foreign = [module for module, names in owners.items() if not needed & {_canonical(name) for name in names}]
    return sorted({*foreign, "pipeline"} - {CV2})


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

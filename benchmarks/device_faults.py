"""Test run.py under seeded faults: signals at random moments, damaged files, full disks, odd names and sources.

python benchmarks/device_faults.py --faults 200 > benchmarks/device_faults.md      (minutes; --python takes others)

The model is handmade (tests/handmade.py) and finds what was drawn, so every line that run.py leaves is checked against
its image: no detection is lost, no line is torn, and there is no traceback. The faults are in tests/faults.py.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import faults
import handmade

VERSIONS = """
import sys, numpy, cv2, onnxruntime
packages = [f"{module.__name__} {module.__version__}" for module in (numpy, cv2, onnxruntime)]
print("Python " + sys.version.split()[0], *packages, sep=", ")
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="seed of the first fault")
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="they take turns")
    options = parser.parse_args()
    said: dict[str, list[str]] = defaultdict(list)
    failed = []
    with tempfile.TemporaryDirectory() as place:
        bundle = handmade.bundled(Path(place) / "bundle", faults.SIZE, faults.NAMES)
        for seed in range(options.first, options.first + options.faults):
            fault = faults.FAULTS[seed % len(faults.FAULTS)]
            python = options.python[seed // len(faults.FAULTS) % len(options.python)]
            device = faults.Device(python, bundle, Path(place) / str(seed))
            device.place.mkdir()
            try:
                said[fault.__name__].append(fault(device, random.Random(seed)))
            except (AssertionError, subprocess.TimeoutExpired) as error:
                line = traceback.extract_tb(error.__traceback__)[-1].line
                failed.append(f"{fault.__name__}, seed {seed}: {line}: {' '.join(str(error).split())[:300]}")
                print(failed[-1], file=sys.stderr)
            shutil.rmtree(device.place)
    versions = [subprocess.check_output([python, "-c", VERSIONS], text=True).strip() for python in options.python]
    print("# run.py under faults\n")
    print(f"Written by `python benchmarks/device_faults.py --faults {options.faults}`, with {'; '.join(versions)}.\n")
    print(f"{options.faults} faults, {len(failed)} of them with something lost, incomplete or not reported.\n")
    print("| fault | times | among them |\n|---|---|---|")
    for name, outcomes in said.items():
        print(f"| {name.replace('_', ' ')} | {len(outcomes)} | {'; '.join(list(dict.fromkeys(outcomes))[:4])} |")
    for line in failed:
        print(f"\nFailed: {line}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

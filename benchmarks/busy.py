"""Measure the time of a training run beside other work: alone, and beside one, two and three busy processes.

python benchmarks/busy.py configs/NAME.yaml > benchmarks/busy.md      (minutes; after `make augment` of that config)

Each training run is a separate process, and they take turns. `spin` is how often a waiting OpenMP thread polls for work
before it sleeps (GOMP_SPINCOUNT): `libgomp` is its own default, 300,000.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from evaluate import machine

from pipeline.config.loading import load
from pipeline.run import Run

SPINS = ("libgomp", "0", "1000", "5000")
BUSY = (0, 1, 2, 3)
OUT = Path("runs/bench-busy")
TRAIN = """
import sys
from pathlib import Path
from pipeline import train
from pipeline.config.loading import load
from pipeline.run import Run
given = load(Path(sys.argv[1]))
print(train.main(given.train, Run(Path(sys.argv[2])), given.seed, "cpu", 0))
"""


def seconds(config: Path, spin: str, busy: int) -> float:
    """Return the seconds of one training run beside `busy` endless loops."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    for folder in ("dataset", "augmented"):
        (OUT / folder).symlink_to((Run.of(config).root / folder).resolve())
    environment = dict(os.environ)
    environment["GOMP_SPINCOUNT"] = "300000" if spin == "libgomp" else spin
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", TRAIN, config, OUT], env=environment, check=True, capture_output=True)
        return time.perf_counter() - start
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--repeats", type=int, default=1, help="the fastest of so many")
    parser.add_argument("--spins", nargs="+", default=SPINS, help="values of GOMP_SPINCOUNT")
    parser.add_argument("--busy", nargs="+", type=int, default=BUSY, help="numbers of busy processes")
    arguments = parser.parse_args()
    load(arguments.config)
    print(f"{machine()}\n\n| spin | {' | '.join(f'beside {busy}' if busy else 'alone' for busy in arguments.busy)} |")
    print(f"|---|{'---|' * len(arguments.busy)}", flush=True)
    for spin in arguments.spins:
        row = [min(seconds(arguments.config, spin, busy) for _ in range(arguments.repeats)) for busy in arguments.busy]
        print(f"| {spin} | {' | '.join(f'{value:.0f} s' for value in row)} |", flush=True)


if __name__ == "__main__":
    main()

"""Pass random layouts through tiles: count how many objects are lost or found twice, on seams and elsewhere.

python benchmarks/seams.py 2000        (two minutes; the table is in benchmarks/tiles.md)

A layout is an image of random size, tiles of random size and overlap, with or without the whole view, and up to 100
objects, some on top of others. Its model is ideal: in each view it finds every object that is at least a tenth visible,
with edges that are off by a share of the object's sides. So only the tiles can lose an object or find it twice.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from test_device_tiles import survey


def main(layouts: int) -> None:
    columns = ("objects", "on seams", "lost", "lost on seams", "found twice")
    print(f"| edges off by | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for jitter in (0.0, 0.03):
        counts = survey(layouts, jitter)
        print(f"| {jitter:.0%} | {' | '.join(f'{counts[column]:,}' for column in columns)} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))

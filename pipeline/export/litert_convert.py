"""Convert to LiteRT: `litert_convert.py CHECKPOINT SETTINGS-AS-JSON`, run by the Python of `.venv-litert`.

That environment has LiteRT's converter, but not this package.
"""

from __future__ import annotations

import json
import sys


def main() -> None:
    from ultralytics import YOLO

    YOLO(sys.argv[1], task="detect").export(**json.loads(sys.argv[2]))


if __name__ == "__main__":
    main()

"""Run by `.venv-litert`'s Python, which has LiteRT's converter and nothing of ours: CHECKPOINT SETTINGS-AS-JSON."""

from __future__ import annotations

import json
import sys


def main() -> None:
    from ultralytics import YOLO

    YOLO(sys.argv[1], task="detect").export(**json.loads(sys.argv[2]))


if __name__ == "__main__":
    main()

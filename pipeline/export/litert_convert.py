"""Convert to LiteRT: `litert_convert.py CHECKPOINT SETTINGS-AS-JSON`, run by the Python of `.venv-litert`.

That environment has LiteRT's converter, but not this package.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def main() -> None:
    from ultralytics import YOLO

    model = YOLO(sys.argv[1], task="detect")
    model.add_callback("on_export_start", forget)
    model.export(**json.loads(sys.argv[2]))


def forget(exporter: Any) -> None:
    """Leave out where the model was trained and when it was exported: equal models give equal files."""
    for key in ("description", "date"):
        exporter.metadata.pop(key, None)
    exporter.metadata["args"].pop("data", None)  # the calibration images


if __name__ == "__main__":
    main()

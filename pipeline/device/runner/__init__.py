# SPDX-License-Identifier: AGPL-3.0-only
"""The modules of run.py, for your own programs: `from runner import Model, read_image, read_spec`.

`Model(folder, read_spec(folder)).detect(read_image(path))` detects objects; `folder` holds model.json.
Needs Python 3.8, numpy, OpenCV or Pillow, and the runtime that model.json names; no torch, no Ultralytics.
"""

from .api import *  # noqa: F403

#!/usr/bin/env python3
# SPDX-License-Identifier: AGPL-3.0-only
"""Build the TensorRT engine on the device that will run it. Needs TensorRT 10 or later (JetPack 6.1 or later).

python build.py                     the engine named in model.json, beside this file
python build.py --workspace 2048    with less memory for the builder (MB)
"""

# Every Python must be able to parse this file, as run.py explains.
import os
import sys

if sys.version_info < (3, 8):
    sys.exit("error: build.py needs Python 3.8 or newer, but this is " + sys.version.split()[0])

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
try:
    from runner.engine import main
except ImportError as error:
    sys.exit("error: " + str(error) + "; pip install -r requirements.txt, or unpack the whole bundle again")

if __name__ == "__main__":
    sys.exit(main(__doc__))

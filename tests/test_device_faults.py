"""run.py where things go wrong: each kind of fault a few times. `benchmarks/faults.py` has hundreds."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import faults
import handmade
import pytest


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return handmade.bundled(tmp_path_factory.mktemp("handmade"), faults.SIZE, faults.NAMES)


@pytest.mark.skipif(sys.platform != "linux", reason="signals, limits and names of files as on Linux")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fault", faults.FAULTS, ids=lambda fault: fault.__name__)
def test_nothing_that_was_found_is_lost(bundle: Path, tmp_path: Path, fault: faults.Fault, seed: int) -> None:
    fault(faults.Device(sys.executable, bundle, tmp_path), random.Random(seed))

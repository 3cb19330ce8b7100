"""Standardised vectors, compared with SciPy's z-scores and cosine distance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import zmap

from pipeline.cosine import standardised


@pytest.mark.parametrize("own", [True, False], ids=["own mean", "mean of others"])
def test_dot_products_are_cosines_of_z_scores(own: bool) -> None:
    vectors, others = (np.random.default_rng(seed).normal(3, 2, (9, 5)).astype(np.float32) for seed in (0, 1))
    ours = standardised(vectors) if own else standardised(vectors, like=others)
    expected = 1 - cdist(*[zmap(vectors, vectors if own else others, axis=0)] * 2, "cosine")
    np.testing.assert_allclose(ours @ ours.T, expected, atol=1e-5)  # 32 bits have seven digits


def test_no_vectors_and_constant_columns_give_no_nan() -> None:
    assert standardised(np.empty((0, 0), np.float32)).shape == (0, 0)
    assert not standardised(np.ones((3, 2), np.float32)).any()

"""Spearman's correlation against SciPy, and how often its interval has the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, spearmanr

from rightbatch.errors import InputError
from rightbatch.fit.rank_correlation import rank_correlation


def test_it_is_spearmans_with_ties() -> None:
    left, right = [1, 2, 2, 5, 9, 3, 3], [4, 1, 2, 8, 8, 0, 3]
    found = rank_correlation(left, right)
    assert found is not None
    assert found.correlation == pytest.approx(spearmanr(left, right).statistic)
    assert found.freedom == 4
    interval = found.interval()
    assert interval.low is not None
    assert interval.high is not None
    assert -1 <= interval.low < found.correlation < interval.high <= 1


@pytest.mark.parametrize("correlation", [0.0, 0.6, -0.8])
def test_its_interval_has_the_truth_about_as_often_as_it_says(correlation: float) -> None:
    draw = np.random.default_rng(1)
    truth = 6 / np.pi * np.arcsin(correlation / 2)  # Spearman's of a bivariate normal
    inside = 0
    for _ in range(300):
        left = draw.standard_normal(15)
        right = correlation * left + np.sqrt(1 - correlation**2) * draw.standard_normal(15)
        found = rank_correlation(left.tolist(), right.tolist())
        assert found is not None
        inside += truth in found.interval()
    assert inside / 300 > 0.92
    assert binomtest(inside, 300, 0.95, alternative="less").pvalue > 0.01


def test_the_same_order_has_an_interval_too_and_equal_values_none() -> None:
    same = rank_correlation(range(8), range(8))
    assert same is not None
    assert same.correlation == pytest.approx(0.999)
    assert rank_correlation([1.0] * 8, range(8)) is None
    with pytest.raises(InputError, match="at least 6 pairs, got 5"):
        rank_correlation(range(5), range(5))

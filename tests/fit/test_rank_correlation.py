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


def test_pairs_of_one_group_count_as_one() -> None:
    """Five batch sizes with five seeds each, sharpness and quality independent of each other from size to size."""
    draw, missed = np.random.default_rng(3), []
    for _ in range(400):
        left, right = (np.repeat(draw.standard_normal(5), 5) + 0.1 * draw.standard_normal(25) for _ in range(2))
        found = rank_correlation(left.tolist(), right.tolist(), groups=5)
        assert found is not None
        assert (found.pairs, found.groups, found.freedom) == (25, 5, 2)
        missed.append(0.0 not in found.interval())
    assert np.mean(missed) < 0.07
    few = rank_correlation(range(9), range(9), groups=3)
    assert few is not None
    assert few.correlation == pytest.approx(0.999)
    assert not few.interval().known

"""Quantiles against scipy.stats, and against tables that are exact."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from rightbatch.fit.quantiles import f_quantile, t_quantile

FREEDOMS = [*range(1, 40), 100, 1000, 10**5]
PROBABILITIES = [0.01, 0.5, 0.6, 0.8, 0.9, 0.95, 0.975, 0.99, 0.995, 0.9999]


@pytest.mark.parametrize("probability", PROBABILITIES)
def test_both_agree_with_scipy_stats(probability: float) -> None:
    for freedom in FREEDOMS:
        of_t, of_f = stats.t.ppf(probability, freedom), stats.f.ppf(probability, 1, freedom)
        assert t_quantile(probability, freedom) == pytest.approx(of_t, rel=1e-10, abs=1e-10)
        assert f_quantile(probability, freedom) == pytest.approx(of_f, rel=1e-10)


@pytest.mark.parametrize("probability", PROBABILITIES)
def test_with_one_and_two_degrees_of_freedom_t_has_a_closed_form(probability: float) -> None:
    cauchy = math.tan(math.pi * (probability - 0.5))
    assert t_quantile(probability, 1) == pytest.approx(cauchy, rel=1e-9, abs=1e-12)
    two = (2 * probability - 1) / math.sqrt(2 * probability * (1 - probability))
    assert t_quantile(probability, 2) == pytest.approx(two, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_the_square_of_a_t_variable_is_an_f_variable(level: float) -> None:
    for freedom in FREEDOMS:
        assert f_quantile(level, freedom) == pytest.approx(t_quantile(0.5 + level / 2, freedom) ** 2, rel=1e-9)
